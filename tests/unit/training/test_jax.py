"""JAX programs: pytrees, Flax nnx and optax. Arrays are new after a restore; what holds them is given them."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import openckpt
from openckpt.errors import MismatchError, UnsupportedError
from openckpt.training import Checkpoint

pytestmark = [pytest.mark.jax, pytest.mark.filterwarnings("ignore::DeprecationWarning:(?!openckpt)")]

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def jax() -> Any:
    return pytest.importorskip("jax")


@pytest.fixture(scope="module")
def jnp(jax: Any) -> Any:
    return jax.numpy


@pytest.fixture(scope="module")
def nnx(jax: Any) -> Any:
    return pytest.importorskip("flax.nnx")


@pytest.fixture(scope="module")
def optax(jax: Any) -> Any:
    return pytest.importorskip("optax")


def keys_of(path: str) -> set[str]:
    with openckpt.open(path) as ckpt:
        return {key.removesuffix(SUFFIX) for key in ckpt if not key.startswith("_")}


class Moments(NamedTuple):
    mean: Any
    count: Any


@dataclasses.dataclass(frozen=True)
class State:
    params: Any
    moments: Moments
    step: int


def make_state(jnp: Any, seed: float) -> State:
    return State(
        {"dense": {"kernel": jnp.full((2, 3), seed), "bias": jnp.full(3, seed, jnp.bfloat16)}, "layers": [jnp.full(2, seed)]},
        Moments((jnp.full(2, seed),), jnp.asarray(int(seed), jnp.int32)),
        int(seed),
    )  # fmt: skip


# -- pytrees --------------------------------------------------------------------------------------------------------------


def test_a_pytree_is_stored_by_key_path_and_comes_back(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """Dicts, lists, tuples, namedtuples and frozen dataclasses; `ckpt.state` is the new value, the old one is as it was."""
    saved, live = make_state(jnp, 2.0), make_state(jnp, 7.0)
    path = Checkpoint(state=saved).write(tmp_path / "ckpt")
    ckpt = Checkpoint(state=live)

    status = ckpt.read(path)

    assert keys_of(path) == {
        "state/params/dense/kernel", "state/params/dense/bias", "state/params/layers/0", "state/moments/mean/0",
        "state/moments/count", "state/step",
    }  # fmt: skip
    status.assert_consumed()
    assert type(ckpt.state) is State and type(ckpt.state.moments) is Moments and ckpt.state.step == 2
    assert jax.tree.structure(vars(ckpt.state)) == jax.tree.structure(vars(saved))
    for ours, theirs in zip(jax.tree.leaves(vars(ckpt.state)), jax.tree.leaves(vars(saved)), strict=True):
        assert np.array_equal(ours, theirs) and getattr(ours, "dtype", int) == getattr(theirs, "dtype", int)
    assert live.moments.count == 7 and live.step == 7


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_type_comes_back_bit_for_bit(jax: Any, jnp: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Also bfloat16, float8 and int4."""
    names = """bool int4 uint4 int8 int16 int32 uint8 uint16 uint32 float16 bfloat16 float32 float8_e4m3fn float8_e5m2
    float8_e4m3fnuz float8_e5m2fnuz float8_e4m3b11fnuz float4_e2m1fn complex64""".split()
    generator = np.random.default_rng(0)
    saved, live = {}, {}
    for name in names:
        dtype = np.dtype(getattr(jnp, name))
        count = int(np.prod(shape))
        if name in ("bool", "int4", "uint4", "float4_e2m1fn"):
            values = generator.integers(0, 2 if name == "bool" else 7, count).astype(dtype).reshape(shape)
        else:
            values = np.frombuffer(generator.bytes(count * dtype.itemsize), dtype).reshape(shape)
        saved[name], live[name] = jnp.array(values), jnp.array(np.zeros(shape, dtype))
    path = Checkpoint(state=saved).write(tmp_path / "ckpt")

    ckpt = Checkpoint(state=live)
    ckpt.read(path).assert_consumed()

    for name in names:
        ours, theirs = np.asarray(ckpt.state[name]), np.asarray(saved[name])
        assert ours.dtype == theirs.dtype and ours.shape == shape and ours.tobytes() == theirs.tobytes(), name


def test_one_array_in_two_places_is_two_values(jnp: Any, tmp_path: Path) -> None:
    """A program that starts with target = params gets back both, where they had drifted apart."""
    path = Checkpoint(params=jnp.ones(2), target=jnp.zeros(2)).write(tmp_path / "ckpt")
    same = jnp.full(2, 5.0)
    ckpt = Checkpoint(params=same, target=same)

    ckpt.read(path).assert_consumed()

    assert ckpt.params.tolist() == [1, 1] and ckpt.target.tolist() == [0, 0]


def test_one_tree_in_two_places_is_two_values(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """As optax's LBFGS and averages of the weights begin: nothing in it can change, so its places count, in both directions."""

    def make(first: float, second: float, *, shared: bool) -> dict[str, Any]:
        params = {"w": jnp.full(2, first), "in": ({"b": jnp.full(1, first)}, 3)}
        average = params if shared else jax.tree.map(lambda x: x + second - first, params)
        return {"params": params, "pair": Moments(average, average), "average": average}

    def numbers(tree: Any) -> Any:
        return [float(np.asarray(x).flat[0]) for x in jax.tree.leaves(tree)]

    two = Checkpoint(state=make(1, 2, shared=False)).write(tmp_path / "two")
    one = Checkpoint(state=make(5, 5, shared=True)).write(tmp_path / "one")
    expected = numbers(make(1, 2, shared=False))

    program = make(0, 0, shared=True)
    ckpt = Checkpoint(state=program)
    ckpt.read(two).assert_consumed()
    assert numbers(ckpt.state) == expected and ckpt.state is program
    for target in (make(0, 9, shared=False), jax.eval_shape(lambda: make(0, 0, shared=True))):
        ckpt = Checkpoint(state=target)
        ckpt.read(one).assert_consumed()
        assert set(numbers(ckpt.state)) == {5, 3}
    assert numbers(openckpt.restore(two, like=make(0, 0, shared=True), select="state")) == expected


def test_a_dict_of_arrays_beside_a_module_stays_one(jnp: Any, tmp_path: Path) -> None:
    """What holds a NumPy array as well is an object of the program; so is a dict that holds itself."""
    shared = {"jax": jnp.ones(1), "numpy": np.ones(1)}
    ring: dict[str, Any] = {"jax": jnp.ones(1)}
    ring["ring"] = ring
    path = Checkpoint(a=shared, b=shared, c=ring, d=[ring]).write(tmp_path / "ckpt")
    assert keys_of(path) == {"a/jax", "a/numpy", "c/jax"}
    ckpt = Checkpoint(a=shared, b=shared, c=ring, d=[ring])
    ckpt.read(path).assert_consumed()
    assert ckpt.a is ckpt.b is shared and ckpt.c is ckpt.d[0] is ring


def test_keys_are_their_data_and_their_implementation(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """Typed keys of any shape come back as keys; raw ones are arrays. Another implementation is refused."""
    saved = {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4), 5), "rbg": jax.random.key(5, impl="rbg"),
             "raw": jax.random.PRNGKey(6)}  # fmt: skip
    live = {"one": jax.random.key(0), "many": jax.random.split(jax.random.key(0), 5), "rbg": jax.random.key(0, impl="rbg"),
            "raw": jax.random.PRNGKey(0)}  # fmt: skip
    path = Checkpoint(keys=saved).write(tmp_path / "ckpt")
    ckpt = Checkpoint(keys=live)
    ckpt.read(path).assert_consumed()

    for name, key in saved.items():
        assert ckpt.keys[name].dtype == key.dtype and ckpt.keys[name].shape == key.shape
        assert jnp.array_equal(jax.random.key_data(ckpt.keys[name]), jax.random.key_data(key))
    for other in ({"one": jax.random.key(0, impl="rbg")}, {"many": jax.random.split(jax.random.key(0), 4)}):
        with pytest.raises(MismatchError) as caught:
            Checkpoint(keys=other).read(path, partial=True)
        assert caught.value.code == "training.mismatch"


def test_keys_in_a_state_dict_come_back_as_keys(jax: Any, tmp_path: Path) -> None:
    """A data loader that draws with JAX."""

    class Loader:
        def __init__(self, seed: int) -> None:
            self.keys = jax.random.split(jax.random.key(seed, impl="rbg"), 2)

        def state_dict(self) -> dict[str, Any]:
            return {"keys": self.keys}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.keys = state["keys"]

    saved, loader = Loader(1), Loader(2)
    path = Checkpoint(loader=saved).write(tmp_path / "ckpt")
    Checkpoint(loader=loader).read(path).assert_consumed()
    assert loader.keys.dtype == saved.keys.dtype
    assert jax.random.key_data(loader.keys).tolist() == jax.random.key_data(saved.keys).tolist()


def test_abstract_targets_take_values_and_have_none_to_save(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """`jax.eval_shape` gives the target: no memory before the restore; keys too."""

    def make() -> dict[str, Any]:
        return {"w": jnp.ones((2, 3), jnp.bfloat16), "opt": (jnp.zeros(3), None), "key": jax.random.key(1)}

    path = Checkpoint(state=make()).write(tmp_path / "ckpt")
    target = jax.eval_shape(make)
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(state=target).write(tmp_path / "abstract")
    assert caught.value.code == "training.no-value"
    assert caught.value.where.key and caught.value.where.key.startswith("state/")
    ckpt = Checkpoint(state=target)
    ckpt.read(path).assert_consumed()

    assert isinstance(ckpt.state["w"], jax.Array) and ckpt.state["w"].dtype == jnp.bfloat16
    assert ckpt.state["opt"][1] is None and jnp.array_equal(ckpt.state["opt"][0], jnp.zeros(3))
    assert jnp.array_equal(jax.random.key_data(ckpt.state["key"]), jax.random.key_data(jax.random.key(1)))


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, openckpt
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
both, rows, everywhere = (NamedSharding(mesh, P(*names)) for names in (("x", "y"), ("x",), ()))
value = np.arange(16, dtype=np.float32).reshape(4, 4)


def make(value, key):
    put = jax.device_put
    return {"w": put(value, both), "half": put(value.astype(jnp.bfloat16), rows), "four": put(value.astype(jnp.int4), rows),
            "all": put(value, everywhere), "keys": put(jax.random.split(jax.random.key(key), 2), rows), "here": jnp.array(value)}


def data(state):
    return {name: jax.random.key_data(item) if name == "keys" else item for name, item in state.items()}


def check(found, saved):
    for name, item in data(saved).items():
        assert found[name].sharding == saved[name].sharding, name
        assert np.array_equal(np.asarray(data(found)[name]), np.asarray(item)), name


saved = make(value, 1)
path = openckpt.Checkpoint(state=saved).write(sys.argv[1])
assert np.array_equal(openckpt.load(path)["state/w/.ATTRIBUTES/VARIABLE_VALUE"], value)

live = openckpt.Checkpoint(state=make(np.zeros_like(value), 2))
live.read(path).assert_consumed()
check(live.state, saved)

abstract = {name: jax.ShapeDtypeStruct(item.shape, item.dtype, sharding=item.sharding) for name, item in saved.items()}
del abstract["here"], saved["here"]
check(openckpt.restore(path, like=abstract, select="state"), saved)

other = openckpt.restore(path, like=jax.ShapeDtypeStruct((4, 4), np.float32, sharding=rows), select="state/w")
assert other.sharding == rows and np.array_equal(other, value)

handle = live.write(sys.argv[1] + "-behind", blocking=False)
live.state["w"] = jax.jit(lambda w: w * 0, donate_argnums=0)(live.state["w"])
assert np.array_equal(openckpt.load(handle.result(60))["state/w/.ATTRIBUTES/VARIABLE_VALUE"], value)
print("all", len(jax.devices()))
"""


def test_sharded_arrays_are_gathered_and_spread_again(tmp_path: Path) -> None:
    """One whole tensor in the file; each target's own sharding afterwards, abstract ones too; donated in the middle of a save.

    In a process of its own: JAX looks for devices once.
    """
    pytest.importorskip("jax")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path / "ckpt")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "all 4\n"), done.stderr


def test_a_restored_array_is_placed_and_typed_as_before(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """Uncommitted stays uncommitted and weak stays weak, so that nothing is compiled again; donation works."""
    path = Checkpoint(state=(jnp.ones(3), jnp.asarray(2.0), jnp.asarray(3))).write(tmp_path / "ckpt")
    live = (jnp.zeros(3), jnp.asarray(0.0), jnp.asarray(0))
    calls = []

    @jax.jit
    def step(state: Any) -> Any:
        calls.append(1)
        return state[0] * state[1] + state[2]

    step(live)
    ckpt = Checkpoint(state=live)
    ckpt.read(path).assert_consumed()

    assert step(ckpt.state).tolist() == [5, 5, 5]
    assert len(calls) == 1
    donated = jax.jit(lambda x: x + 1, donate_argnums=0)(ckpt.state[0])
    assert ckpt.state[0].is_deleted() and donated.tolist() == [2, 2, 2]


def test_what_has_no_value_is_refused_by_name(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """A donated array, and a value inside of a traced function."""
    gone = jnp.ones(2)
    gone.delete()
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(state={"w": [gone]}).write(tmp_path / "ckpt")
    assert (caught.value.code, caught.value.where.key) == ("training.no-value", f"state/w/0{SUFFIX}")

    def traced(x: Any) -> Any:
        Checkpoint(x=x).write(tmp_path / "ckpt")
        return x

    with pytest.raises(UnsupportedError) as caught:
        jax.jit(traced)(jnp.ones(2))
    assert caught.value.code == "training.not-trackable"
    assert not list(tmp_path.iterdir())


def test_a_donated_state_is_restored(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """After a step that failed in the middle; keys too. What was asked of a status before is answered still."""
    live = {"w": jnp.ones(3), "key": jax.random.key(3)}
    ckpt = Checkpoint(state=live)
    path = ckpt.write(tmp_path / "ckpt")
    status = ckpt.read(path)
    for array in ckpt.state.values():
        array.delete()
    status.assert_consumed()
    with pytest.raises(UnsupportedError) as caught:
        ckpt.write(tmp_path / "other")
    assert caught.value.code == "training.no-value"

    ckpt.read(path).assert_consumed()

    assert ckpt.state["w"].tolist() == [1, 1, 1] and not ckpt.state["w"].committed
    assert jax.random.key_data(ckpt.state["key"]).tolist() == jax.random.key_data(jax.random.key(3)).tolist()


@pytest.mark.parametrize("number", [7, 2.5, 1j])
def test_a_number_comes_back_as_what_jax_makes_of_it(jax: Any, jnp: Any, tmp_path: Path, number: Any) -> None:
    """A step counter is a Python number before the first step and in many a checkpoint, and a weak array in `jax.eval_shape`."""
    path = Checkpoint(state={"step": number}).write(tmp_path / "ckpt")
    for target in (jax.eval_shape(lambda: number), jnp.asarray(type(number)(0))):
        ckpt = Checkpoint(state={"step": target})
        ckpt.read(path).assert_consumed()
        assert ckpt.state["step"].item() == number and ckpt.state["step"].weak_type
        path = ckpt.write(tmp_path / "again")
    with pytest.raises(MismatchError):
        Checkpoint(state={"step": jnp.zeros(1, jnp.int8)[0]}).read(path)


def test_a_wide_target_without_x64_is_refused(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """JAX would make float32 of it without a word."""
    path = Checkpoint(state={"w": np.ones(2)}).write(tmp_path / "ckpt")

    with pytest.raises(MismatchError, match="jax_enable_x64") as caught:
        Checkpoint(state={"w": jax.ShapeDtypeStruct((2,), np.float64)}).read(path)

    assert caught.value.code == "training.mismatch"


def test_registered_classes_go_by_key_path(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """Classes of the program, static fields left out; a new object takes the place of the old."""

    class Pair:
        def __init__(self, left: Any, right: Any, label: str) -> None:
            self.left, self.right, self.label = left, right, label

    jax.tree_util.register_dataclass(
        dataclass := dataclasses.make_dataclass("Point", ["x", "fn"], frozen=True), data_fields=["x"], meta_fields=["fn"]
    )  # fmt: skip
    jax.tree_util.register_pytree_with_keys(
        Pair,
        lambda pair: (
            ((jax.tree_util.GetAttrKey("left"), pair.left), (jax.tree_util.GetAttrKey("right"), pair.right)), pair.label
        ),
        lambda label, children: Pair(*children, label),
    )  # fmt: skip
    path = Checkpoint(p=Pair(jnp.ones(2), dataclass(jnp.zeros(1), len), "saved")).write(tmp_path / "ckpt")
    live = Pair(jnp.zeros(2), dataclass(jnp.ones(1), max), "live")
    ckpt = Checkpoint(p=live)
    ckpt.read(path).assert_consumed()

    assert keys_of(path) == {"p/left", "p/right/x"}
    assert ckpt.p.left.tolist() == [1, 1] and ckpt.p.right.x.tolist() == [0]
    assert ckpt.p.label == "live" and ckpt.p.right.fn is max and live.left.tolist() == [0, 0]


# -- Flax nnx and optax ---------------------------------------------------------------------------------------------------


@functools.cache
def network_kind() -> Any:
    from flax import nnx

    class Network(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.more = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs)])
            self._scale = nnx.Param(rngs.params.uniform((4,)))
            self.tied = self.more[2]
            self.name = "not state"

        def __call__(self, x: Any) -> Any:
            x = self.drop(self.norm(self.first(x))) * self._scale[...]
            for layer in self.more:
                x = layer(x)
            return x

    return Network


@functools.cache
def train_step() -> Any:
    from flax import nnx

    def loss(network: Any, data: Any) -> Any:
        return (network(data) ** 2).sum()

    return nnx.jit(lambda network, optimizer, data: optimizer.update(network, nnx.grad(loss)(network, data)))


def make_network(nnx: Any, seed: int) -> Any:
    return network_kind()(nnx.Rngs(seed, dropout=seed + 1))


def leaves_of(jax: Any, nnx: Any, value: Any) -> list[Any]:
    """Return the values of all Variables, keys as their data."""
    found = jax.tree.leaves(nnx.pure(nnx.state(value)))
    return [
        np.asarray(jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for leaf in found
    ]


def take_steps(jnp: Any, network: Any, optimizer: Any, steps: int = 2) -> None:
    for _ in range(steps):
        train_step()(network, optimizer, jnp.array(np.arange(12, dtype=np.float32).reshape(4, 3) / 12))


def test_an_nnx_module_and_its_optimizer_are_restored_in_place(
    jax: Any, jnp: Any, nnx: Any, optax: Any, tmp_path: Path
) -> None:
    """Params, batch statistics, streams of random numbers and optax's state; the next step is the same."""
    network, other = make_network(nnx, 0), make_network(nnx, 5)
    optimizer, restored = (nnx.Optimizer(part, optax.adam(0.01), wrt=nnx.Param) for part in (network, other))
    take_steps(jnp, network, optimizer)
    path = Checkpoint(model=network, optimizer=optimizer).write(tmp_path / "ckpt")
    kernel = other.first.kernel

    Checkpoint(model=other, optimizer=restored).read(path).assert_consumed()

    assert {"model/first/kernel", "model/norm/mean", "model/_scale", "model/more/0/bias", "model/drop/rngs/count",
            "model/drop/rngs/key/.ATTRIBUTES/py_state", "optimizer/step", "optimizer/opt_state/0/mu/first/kernel",
            "optimizer/opt_state/0/count"} <= keys_of(path)  # fmt: skip
    assert other.first.kernel is kernel and other.tied is other.more[2]
    take_steps(jnp, network, optimizer)
    take_steps(jnp, other, restored)
    for one, two in ((network, other), (optimizer, restored)):
        assert all(map(np.array_equal, leaves_of(jax, nnx, one), leaves_of(jax, nnx, two)))


def test_an_abstract_nnx_module_is_filled(jax: Any, jnp: Any, nnx: Any, tmp_path: Path) -> None:
    """`nnx.eval_shape` makes a module without values; the restore gives it all of them, keys too."""
    network = make_network(nnx, 0)
    path = Checkpoint(model=network).write(tmp_path / "ckpt")
    abstract = nnx.eval_shape(lambda: make_network(nnx, 1))

    Checkpoint(model=abstract).read(path).assert_consumed()

    assert all(map(np.array_equal, leaves_of(jax, nnx, network), leaves_of(jax, nnx, abstract)))


def test_optax_states_and_a_linen_train_state(jax: Any, jnp: Any, optax: Any, tmp_path: Path) -> None:
    """Chains, masks, schedules, several transforms and injected hyperparameters; functions are left out."""
    from flax.core import freeze
    from flax.training.train_state import TrainState

    params = {"a": jnp.ones(2), "b": {"c": jnp.full(3, 2.0)}}
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adamw)(learning_rate=optax.cosine_decay_schedule(0.1, 10)),
        optax.masked(optax.trace(0.9), {"a": True, "b": False}),
        optax.partition({"x": optax.sgd(0.1), "y": optax.adam(0.1)}, {"a": "x", "b": {"c": "y"}}),
        optax.ema(0.9),
    )
    saved = TrainState.create(apply_fn=len, params=params, tx=tx)
    live = TrainState.create(apply_fn=max, params=jax.tree.map(jnp.zeros_like, params), tx=tx)
    saved = saved.apply_gradients(grads=jax.tree.map(jnp.ones_like, params))
    path = Checkpoint(state=saved, frozen=freeze(params)).write(tmp_path / "ckpt")
    ckpt = Checkpoint(state=live, frozen=freeze(jax.tree.map(jnp.zeros_like, params)))

    ckpt.read(path).assert_consumed()

    assert type(ckpt.state) is TrainState and ckpt.state.apply_fn is max
    for ours, theirs in ((ckpt.state, saved), (ckpt.frozen, freeze(params))):
        assert jax.tree.structure(jax.tree.leaves(ours)) == jax.tree.structure(jax.tree.leaves(theirs))
        assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


def test_nnx_metrics_come_back(jnp: Any, nnx: Any, tmp_path: Path) -> None:
    """They are state as any other."""
    metrics, other = (nnx.MultiMetric(loss=nnx.metrics.Average("loss")) for _ in range(2))
    metrics.update(loss=jnp.array([1.0, 2.0]))
    path = Checkpoint(metrics=metrics).write(tmp_path / "ckpt")
    Checkpoint(metrics=other).read(path).assert_consumed()

    assert other.compute()["loss"] == 1.5


def test_a_module_that_is_no_pytree_keeps_its_state(jnp: Any, nnx: Any, tmp_path: Path) -> None:
    """nnx does not say then what is state; Variables and modules are, in lists too, and sizes are not."""

    class Plain(nnx.Module, pytree=False):  # type: ignore[misc,name-defined]
        def __init__(self, seed: int) -> None:
            rngs = nnx.Rngs(seed)
            self.first, self.more, self.size = nnx.Linear(2, 2, rngs=rngs), [nnx.Linear(2, 2, rngs=rngs)], 3

    saved, live = Plain(0), Plain(1)
    path = Checkpoint(model=saved).write(tmp_path / "ckpt")
    Checkpoint(model=live).read(path).assert_consumed()

    assert keys_of(path) == {f"model/{part}/{name}" for part in ("first", "more/0") for name in ("kernel", "bias")}
    assert jnp.array_equal(live.more[0].kernel[...], saved.more[0].kernel[...])


def test_a_ref_is_restored_in_place(jax: Any, jnp: Any, tmp_path: Path) -> None:
    """The one array of JAX that can be changed."""
    if not hasattr(jax, "new_ref"):
        pytest.skip("this JAX has no Ref")
    path = Checkpoint(r=jax.new_ref(jnp.array(np.float32([1, 2])))).write(tmp_path / "ckpt")
    ref = jax.new_ref(jnp.array(np.zeros(2, np.float32)))

    Checkpoint(r=ref).read(path).assert_consumed()

    assert ref[...].tolist() == [1, 2]


def test_an_array_that_the_program_makes_later_stays(jax: Any, tmp_path: Path) -> None:
    """A save gives it no value of a thousand steps ago: it cannot be changed, so it is newer than the file's, as a number is."""

    def array(value: float) -> Any:
        return jax.numpy.float32(value)

    path = Checkpoint(losses=[array(1), array(2)], state={"loss": array(3)}, w=np.ones(1), loss=array(4)).write(
        tmp_path / "ckpt"
    )
    losses: list[Any] = []
    state: dict[str, Any] = {}
    checkpoint = Checkpoint(losses=losses, state=state, w=np.zeros(1))
    status = checkpoint.read(path, partial=True)

    losses.append(array(9))
    state["loss"] = array(9)
    checkpoint.loss = array(0)
    checkpoint.write(tmp_path / "next")

    assert (losses, state, checkpoint.loss) == ([9], {"loss": 9}, 4)
    assert status.report.unresolved == ("(root).losses.0", "(root).losses.1", "(root).state.loss")
