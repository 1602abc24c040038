"""PyTorch programs: what is in the checkpoint, and that all of it comes back, in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CorruptionError, MismatchError, UnsupportedError
from openckpt.training import Checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:::torch.*")]


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def keys_of(path: str) -> set[str]:
    with openckpt.open(path) as ckpt:
        return {key.removesuffix(SUFFIX) for key in ckpt if not key.startswith("_")}


def small_model(torch: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2)
    )


def take_steps(torch: Any, model: Any, optimizer: Any, steps: int = 3) -> None:
    data = torch.arange(24, dtype=torch.float32).reshape(8, 3) / 24

    def loss() -> Any:
        optimizer.zero_grad()
        value = model(data).square().sum()
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(loss)


def equal_state(torch: Any, ours: Any, theirs: Any) -> bool:
    """Compare two state_dicts bit for bit, types and nesting too."""
    if isinstance(ours, torch.Tensor):
        return isinstance(theirs, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal_state(torch, ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(
            equal_state(torch, one, other) for one, other in zip(ours, theirs, strict=True)
        )
    return type(ours) is type(theirs) and ours == theirs


# -- modules --------------------------------------------------------------------------------------------------------------


def test_a_module_is_stored_by_its_attribute_names(torch: Any, tmp_path: Path) -> None:
    """Parameters, persistent buffers and modules; a buffer that is not persistent stays out."""
    model = small_model(torch, 0)
    model[0].register_buffer("mask", torch.ones(2))
    model[0].register_buffer("scratch", torch.ones(2), persistent=False)

    path = Checkpoint(model=model).write(tmp_path / "ckpt")

    assert keys_of(path) == {f"model/{name.replace('.', '/')}" for name in model.state_dict()}
    with openckpt.open(path) as ckpt:
        assert np.array_equal(ckpt["model/0/weight" + SUFFIX], model[0].weight.detach().numpy())
        assert ckpt.specs["model/1/num_batches_tracked" + SUFFIX].dtype == "int64"


def test_a_module_is_restored_in_place(torch: Any, tmp_path: Path) -> None:
    """Every tensor is the same object with the same memory, and a graph that saved the old values notices."""
    path = Checkpoint(model=small_model(torch, 0)).write(tmp_path / "ckpt")
    model = small_model(torch, 1)
    places = {name: (id(tensor), tensor.data_ptr()) for name, tensor in model.state_dict(keep_vars=True).items()}
    output = model[3](model[0](torch.ones(1, 3))).sum()

    status = Checkpoint(model=model).read(path)

    status.assert_existing_objects_matched()
    assert equal_state(torch, model.state_dict(), small_model(torch, 0).state_dict())
    now = {name: (id(tensor), tensor.data_ptr()) for name, tensor in model.state_dict(keep_vars=True).items()}
    assert now == places
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_tied_weights_are_one_node_and_stay_tied(torch: Any, tmp_path: Path) -> None:
    """One tensor in the file, and after the restore one in the program."""

    def tied() -> Any:
        embedding = torch.nn.Embedding(5, 3)
        head = torch.nn.Linear(3, 5, bias=False)
        head.weight = embedding.weight
        return torch.nn.ModuleDict({"embedding": embedding, "head": head, "again": head})

    saved, model = tied(), tied()
    path = Checkpoint(model=saved).write(tmp_path / "ckpt")
    Checkpoint(model=model).read(path).assert_existing_objects_matched()

    assert keys_of(path) == {"model/embedding/weight"}
    assert model["head"].weight is model["embedding"].weight
    assert torch.equal(model["head"].weight, saved["head"].weight)


def test_wrappers_are_seen_through(torch: Any, tmp_path: Path) -> None:
    """torch.compile and DataParallel change no name, at the top and inside."""
    plain = small_model(torch, 0)
    wrapped = small_model(torch, 1)
    wrapped[3] = torch.compile(wrapped[3])
    outer = torch.nn.DataParallel(torch.compile(wrapped))

    path = Checkpoint(model=plain).write(tmp_path / "plain")
    Checkpoint(model=outer).read(path).assert_existing_objects_matched()
    again = Checkpoint(model=outer).write(tmp_path / "wrapped")

    assert keys_of(path) == keys_of(again)
    assert torch.equal(wrapped[3].weight, plain[3].weight)


def test_a_scripted_module_has_the_names_of_the_original(torch: Any, tmp_path: Path) -> None:
    """torch.jit.script keeps parameters and buffers."""
    path = Checkpoint(model=small_model(torch, 0)).write(tmp_path / "ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(small_model(torch, 1))

    Checkpoint(model=scripted).read(path).assert_consumed()

    assert equal_state(torch, dict(scripted.state_dict()), dict(small_model(torch, 0).state_dict()))


def test_extra_state_of_a_module_is_stored(torch: Any, tmp_path: Path) -> None:
    """What get_extra_state gives goes back through set_extra_state, tensors as tensors."""

    class Counting(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, calls: int) -> None:
            super().__init__()
            self.calls = {"n": calls, "last": torch.tensor([calls], dtype=torch.bfloat16)}

        def get_extra_state(self) -> object:
            return self.calls

        def set_extra_state(self, state: Any) -> None:
            self.calls = state

    path = Checkpoint(model=Counting(3)).write(tmp_path / "ckpt")
    model = Counting(0)
    Checkpoint(model=model).read(path).assert_consumed()

    assert equal_state(torch, model.calls, Counting(3).calls)


def test_a_lazy_module_gets_its_shape_from_the_file(torch: Any, tmp_path: Path) -> None:
    """What has no shape yet takes the stored one, and the first call changes nothing."""
    saved = torch.nn.Sequential(torch.nn.Linear(3, 4))
    path = Checkpoint(model=saved).write(tmp_path / "ckpt")
    model = torch.nn.Sequential(torch.nn.LazyLinear(4))
    optimizer = torch.optim.SGD(model.parameters())

    Checkpoint(model=model).read(path).assert_existing_objects_matched()

    data = torch.ones(2, 3)
    assert torch.equal(model(data), saved(data))
    assert optimizer.param_groups[0]["params"][0] is model[0].weight


@pytest.mark.parametrize("kind", ["lstm", "attention", "weight_norm", "spectral_norm", "average"])
def test_modules_of_every_kind_come_back(torch: Any, tmp_path: Path, kind: str) -> None:
    """Also those with parametrizations, flat weights and counters; into memory and into meta models."""
    nn = torch.nn
    makers: dict[str, Callable[[], Any]] = {
        "lstm": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
        "attention": lambda: nn.TransformerEncoderLayer(8, 2),
        "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
        "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
        "average": lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)),
    }
    saved, live = makers[kind](), makers[kind]()
    path = Checkpoint(model=saved).write(tmp_path / "ckpt")
    Checkpoint(model=live).read(path).assert_consumed()
    assert equal_state(torch, dict(live.state_dict()), dict(saved.state_dict()))

    if kind in ("lstm", "attention"):
        with torch.device("meta"):
            meta = makers[kind]()
        Checkpoint(model=meta).read(path).assert_consumed()
        data = torch.ones(2, 1, 3 if kind == "lstm" else 8)
        ours, theirs = meta.eval()(data), saved.eval()(data)
        assert torch.equal(ours[0], theirs[0])


# -- tensors --------------------------------------------------------------------------------------------------------------

DTYPES = """float16 float32 float64 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz int8 int16 int32 int64
uint8 uint16 uint32 uint64 bool complex64 complex128""".split()


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_type_comes_back_bit_for_bit(torch: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Also those that NumPy does not know, also of rank 0 and without elements."""
    generator = np.random.default_rng(3)

    def tensors(fill: Callable[[int], bytes]) -> dict[str, Any]:
        made = {}
        for name in DTYPES:
            dtype = getattr(torch, name)
            count = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
            data = bytes(byte & 1 for byte in fill(count)) if name == "bool" else fill(count)
            flat = torch.tensor(list(data), dtype=torch.uint8)
            made[name] = flat.view(dtype).reshape(shape)
        return made

    saved, live = tensors(generator.bytes), tensors(lambda count: b"\1" * count)
    before = {name: tensor.data_ptr() for name, tensor in live.items()}
    path = Checkpoint(t=saved).write(tmp_path / "ckpt")
    Checkpoint(t=live).read(path).assert_existing_objects_matched()

    for name in DTYPES:
        ours, theirs = (tensor.reshape(-1).view(torch.uint8) for tensor in (live[name], saved[name]))
        assert torch.equal(ours, theirs), name
        assert live[name].shape == shape
        assert live[name].data_ptr() == before[name]


def test_tensors_that_do_not_lie_in_order_are_restored_too(torch: Any, tmp_path: Path) -> None:
    """Transposed, strided, channels last, conjugated, negated: in place; expanded: it gets memory of its own."""
    value = torch.arange(24.0).reshape(1, 2, 3, 4)
    path = Checkpoint(
        a=value[0, 0].T, b=value.reshape(-1)[::2], c=value, d=torch.tensor([1 + 2j]).conj(), e=torch.ones(2, 3)
    ).write(tmp_path / "ckpt")
    a, b = torch.zeros(3, 4).T, torch.zeros(24)[::2]
    c = torch.zeros(1, 2, 3, 4).to(memory_format=torch.channels_last)
    d, e = torch.zeros(1, dtype=torch.complex64).conj(), torch.zeros(3).expand(2, 3)
    ckpt = Checkpoint(a=a, b=b, c=c, d=d, e=e)

    ckpt.read(path).assert_existing_objects_matched()

    assert torch.equal(a, value[0, 0].T) and torch.equal(b, value.reshape(-1)[::2]) and torch.equal(c, value)
    assert c.is_contiguous(memory_format=torch.channels_last)
    assert d.is_conj() and torch.equal(d, torch.tensor([1 - 2j]))
    assert ckpt.e is e and torch.equal(e, torch.ones(2, 3)) and e.is_contiguous()


def test_tensors_made_in_inference_mode_are_restored(torch: Any, tmp_path: Path) -> None:
    """They have no version to count, and may not be changed outside of that mode."""
    path = Checkpoint(a=torch.ones(2, 2), b=torch.ones(2, 2)).write(tmp_path / "ckpt")
    with torch.inference_mode():
        a, b = torch.zeros(2, 2), torch.zeros(2, 2).T

    Checkpoint(a=a, b=b).read(path).assert_existing_objects_matched()

    assert a.sum() == b.sum() == 4


@pytest.mark.parametrize("how", ["sparse", "quantised", "complex32", "wrapper"])
def test_what_no_checkpoint_holds_is_refused_by_name(torch: Any, tmp_path: Path, how: str) -> None:
    """With its place and what it is; nothing is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {
            "sparse": lambda: torch.eye(3).to_sparse(),
            "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "complex32": lambda: torch.zeros(2, dtype=torch.complex32),
            "wrapper": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        }[how]()

    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(model={"part": [made]}).write(tmp_path / "ckpt")

    assert caught.value.code == "training.not-trackable"
    assert caught.value.where.key == "(root).model.part.0"
    assert not list(tmp_path.iterdir())


def test_a_meta_model_is_a_target_and_not_a_source(torch: Any, tmp_path: Path) -> None:
    """Restoring gives it memory; the optimizer made before has the same parameters, ties hold, requires_grad stays."""
    with torch.device("meta"):
        model = small_model(torch, 1)
        model[3].bias.requires_grad_(False)
        model.append(model[3])
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(model=model).write(tmp_path / "meta")
    assert caught.value.code == "training.no-value"
    assert caught.value.where.key and "model/0/weight" in caught.value.where.key
    saved = small_model(torch, 0)
    path = Checkpoint(model=saved).write(tmp_path / "ckpt")

    Checkpoint(model=model).read(path).assert_existing_objects_matched()

    assert all(torch.equal(model.state_dict()[name], value) for name, value in saved.state_dict().items())
    assert optimizer.param_groups[0]["params"][0] is model[0].weight
    assert model[4].weight is model[3].weight
    assert [parameter.requires_grad for parameter in model.parameters()] == [True] * 5 + [False]
    model.pop(4)
    take_steps(torch, model, optimizer)


def test_a_wrong_shape_or_type_is_refused_before_anything_changes(torch: Any, tmp_path: Path) -> None:
    """Every tensor that does not fit is named."""
    path = Checkpoint(a=torch.ones(2), b=torch.ones(3), c=torch.ones(2)).write(tmp_path / "ckpt")
    a, b, c = torch.zeros(2), torch.zeros(4), torch.zeros(2, dtype=torch.bfloat16)

    with pytest.raises(MismatchError) as caught:
        Checkpoint(a=a, b=b, c=c).read(path)

    assert caught.value.code == "training.mismatch"
    assert "(root).b" in caught.value.message and "(root).c" in caught.value.message
    assert not a.any()


# -- optimizers -----------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "adam": lambda torch, parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "sgd": lambda torch, parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "rmsprop": lambda torch, parameters: torch.optim.RMSprop(parameters, centered=True, momentum=0.5),
    "adafactor": lambda torch, parameters: torch.optim.Adafactor(parameters),
    "asgd": lambda torch, parameters: torch.optim.ASGD(parameters),
    "lbfgs": lambda torch, parameters: torch.optim.LBFGS(parameters, lr=0.01, max_iter=3),
    "tensor lr": lambda torch, parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01), foreach=False),
}


@pytest.mark.parametrize("stepped", [False, True], ids=["fresh", "stepped"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimizer_comes_back_whole(torch: Any, tmp_path: Path, name: str, stepped: bool) -> None:
    """Before its first step, when torch has made no state yet, and after; the next steps are the same bit for bit."""
    model, other = small_model(torch, 0).eval(), small_model(torch, 1).eval()
    optimizer, restored = (OPTIMIZERS[name](torch, part.parameters()) for part in (model, other))
    take_steps(torch, model, optimizer)
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    if stepped:
        take_steps(torch, other, restored)
    restored.param_groups[0]["lr"] *= 2

    Checkpoint(model=other, optimizer=restored).read(path).assert_consumed()

    assert equal_state(torch, restored.state_dict(), optimizer.state_dict())
    take_steps(torch, model, optimizer)
    take_steps(torch, other, restored)
    assert equal_state(torch, other.state_dict(), model.state_dict())


def test_state_before_the_first_step_leaves_none_behind(torch: Any, tmp_path: Path) -> None:
    """Back to the start after steps that went wrong: what LBFGS counts and remembers is gone."""
    model = small_model(torch, 0).eval()
    optimizer = OPTIMIZERS["lbfgs"](torch, model.parameters())
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    take_steps(torch, model, optimizer)
    Checkpoint(model=model, optimizer=optimizer).read(path, partial=True)
    assert not [name for name, value in optimizer.state[next(model.parameters())].items() if not torch.is_tensor(value)]


def test_an_optimizer_that_comes_after_the_restore_has_its_state_before_its_first_step(
    torch: Any, tmp_path: Path
) -> None:
    """And no save puts the stored one back over what it has become."""
    model = small_model(torch, 0).eval()
    optimizer = OPTIMIZERS["adam"](torch, model.parameters())
    take_steps(torch, model, optimizer)
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    other = small_model(torch, 1).eval()
    checkpoint = Checkpoint(model=other)
    checkpoint.read(path).expect_partial()
    checkpoint.optimizer = late = OPTIMIZERS["adam"](torch, other.parameters())
    for part, its in ((model, optimizer), (other, late)):
        take_steps(torch, part, its)
    assert equal_state(torch, other.state_dict(), model.state_dict())
    checkpoint.write(tmp_path / "later")
    assert equal_state(torch, late.state_dict(), optimizer.state_dict())


def test_a_group_that_comes_after_the_restore_has_its_state_at_once(torch: Any, tmp_path: Path) -> None:
    """Layers that are trained from some epoch on; the settings are those with which the program adds the group."""

    def make(seed: int) -> tuple[Any, Any]:
        model = small_model(torch, seed).eval()
        first, *rest = model.parameters()
        return model, (OPTIMIZERS["adam"](torch, [first]), {"params": rest, "lr": 0.5})

    model, (optimizer, group) = make(0)
    optimizer.add_param_group(group)
    take_steps(torch, model, optimizer)
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    other, (late, group) = make(1)
    checkpoint = Checkpoint(model=other, optimizer=late)
    checkpoint.read(path).expect_partial()
    late.add_param_group(group)
    assert equal_state(torch, late.state_dict(), optimizer.state_dict())
    assert "add_param_group" not in vars(late)
    for part, its in ((model, optimizer), (other, late)):
        take_steps(torch, part, its)
    checkpoint.write(tmp_path / "later")
    assert equal_state(torch, other.state_dict(), model.state_dict())
    assert equal_state(torch, late.state_dict(), optimizer.state_dict())


def test_state_of_no_parameter_comes_back(torch: Any, tmp_path: Path) -> None:
    """Optimizers of one's own keep what they like in ``state``, as torch's ``state_dict`` does."""
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    optimizer, restored = (torch.optim.SGD(part.parameters()) for part in (model, other))
    optimizer.state["round"], optimizer.state[7] = 2, {"mean": torch.ones(3)}
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    Checkpoint(model=other, optimizer=restored).read(path).assert_consumed()
    assert equal_state(torch, restored.state_dict(), optimizer.state_dict())


def test_slots_have_torchs_own_names(torch: Any, tmp_path: Path) -> None:
    """As slots of their variables, and the groups as JSON by the parameters' paths."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")

    slots = {f"model/{variable}/.OPTIMIZER_SLOT/optimizer/{slot}" for variable in ("weight", "bias")
             for slot in ("step", "exp_avg", "exp_avg_sq")}  # fmt: skip
    assert keys_of(path) == {"model/weight", "model/bias", "optimizer/.ATTRIBUTES/py_state", *slots}
    with openckpt.open(path) as ckpt:
        state = __import__("json").loads(ckpt["optimizer/.ATTRIBUTES/py_state"].item())
        assert ckpt.graph is not None
        assert len(ckpt.graph.nodes[2].slot_variables) == 6
    assert state["params"] == [["model/weight"], ["model/bias"]]
    assert [group["lr"] for group in state["param_groups"]] == [0.5, 0.001]


def test_groups_are_found_by_their_parameters(torch: Any, tmp_path: Path) -> None:
    """A model with a layer more and groups in another order gets each parameter's own state and settings."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    optimizer = torch.optim.Adam([
        {"params": model["a"].parameters(), "lr": 0.1}, {"params": model["b"].parameters(), "lr": 0.2}
    ])  # fmt: skip
    (model["a"](torch.ones(1, 2)) + 2 * model["b"](torch.ones(1, 2))).sum().backward()
    optimizer.step()
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")

    more = torch.nn.ModuleDict({"new": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2), "a": torch.nn.Linear(2, 2)})
    other = torch.optim.Adam([
        {"params": more["new"].parameters(), "lr": 0.3}, {"params": more["b"].parameters()},
        {"params": more["a"].parameters()},
    ])  # fmt: skip
    Checkpoint(model=more, optimizer=other).read(path, partial=True)

    assert [group["lr"] for group in other.param_groups] == [0.3, 0.2, 0.1]
    for name in "ab":
        assert torch.equal(other.state[more[name].weight]["exp_avg"], optimizer.state[model[name].weight]["exp_avg"])
    assert not other.state.get(more["new"].weight)


def test_groups_that_were_two_and_differ_cannot_become_one(torch: Any, tmp_path: Path) -> None:
    """Nobody could say which learning rate is meant; nothing is restored."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}])
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    other = torch.nn.Linear(2, 2)
    before = other.weight.detach().clone()

    with pytest.raises(MismatchError) as caught:
        Checkpoint(model=other, optimizer=torch.optim.SGD(other.parameters())).read(path)

    assert caught.value.code == "training.mismatch" and "lr" in caught.value.message
    assert torch.equal(other.weight, before)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"params":[[5]],"param_groups":[{}],"state":{}}', '{"params":[["model/weight"]],"param_groups":[],"state":{}}',
     '{"params":[["model/weight"]],"param_groups":["lr"],"state":{}}', '{"params":"ab","param_groups":[{},{}],"state":{}}',
     '{"params":[["model/weight"]],"param_groups":[{"lr":1}],"state":{"7":{}}}',
     '{"params":[["model/weight"]],"param_groups":[{"lr":1}],"state":{"0":[1]}}',
     '{"params":[["model/weight"]],"param_groups":[{"lr":{"!array":"none"}}],"state":{}}', "[" * 5000, "not json",
     '{"params":[["model/weight"]],"param_groups":[{"lr":1}],"state":{},"own":[1]}',
     '{"params":[["model/weight"]],"param_groups":[{"lr":1}],"state":{},"own":{"!bytes":""}}'],
    ids=range(13),
)  # fmt: skip
def test_a_strange_state_is_refused_before_anything_changes(torch: Any, tmp_path: Path, text: str) -> None:
    """Whatever the file says, the model keeps its weights."""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")
    tensors = openckpt.load(path)
    tensors["optimizer/.ATTRIBUTES/py_state"] = text.encode()
    openckpt.save(path, tensors, overwrite=True)
    with torch.no_grad():
        model.weight.fill_(7)

    with pytest.raises((MismatchError, CorruptionError)) as caught:
        Checkpoint(model=model, optimizer=optimizer).read(path)

    assert caught.value.code in ("training.mismatch", "training.bad-state")
    assert model.weight.item() == 7 and optimizer.param_groups[0]["lr"] == 0.1


def test_an_optimizer_without_its_model_is_refused(torch: Any, tmp_path: Path) -> None:
    """Saved alone nothing would say whose state it is."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())

    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(optimizer=optimizer).write(tmp_path / "ckpt")

    assert caught.value.code == "training.parameter-elsewhere"


def test_the_memory_of_new_slots_has_the_parameters_order(torch: Any, tmp_path: Path) -> None:
    """As torch makes them: a channels-last kernel has channels-last moments."""

    def convolution() -> Any:
        return torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    model, other = convolution(), convolution()
    optimizer, restored = (torch.optim.Adam(part.parameters()) for part in (model, other))
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    path = Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")

    Checkpoint(model=other, optimizer=restored).read(path).assert_consumed()

    moment = restored.state[other.weight]["exp_avg"]
    assert moment.stride() == optimizer.state[model.weight]["exp_avg"].stride() == other.weight.stride()
    assert torch.equal(moment, optimizer.state[model.weight]["exp_avg"])


# -- schedulers, scalers, generators --------------------------------------------------------------------------------------

SCHEDULERS: dict[str, Callable[[Any, Any], Any]] = {
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 4]),
    "cosine": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3),
    "onecycle": lambda s, o: s.OneCycleLR(o, 0.1, total_steps=20),
    "lambda": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
    "cyclic": lambda s, o: s.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
    "sequential": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o), s.ExponentialLR(o, 0.9)], milestones=[2]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_goes_on_where_it_was(torch: Any, tmp_path: Path, name: str) -> None:
    """The learning rates of the next ten steps are the same."""

    def program() -> tuple[Any, Any, Any]:
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, SCHEDULERS[name](torch.optim.lr_scheduler, optimizer)

    def rates(optimizer: Any, scheduler: Any, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    model, optimizer, scheduler = program()
    rates(optimizer, scheduler, 3)
    path = Checkpoint(model=model, optimizer=optimizer, scheduler=scheduler).write(tmp_path / "ckpt")
    other, restored, resumed = program()
    Checkpoint(model=other, optimizer=restored, scheduler=resumed).read(path).assert_consumed()

    assert type(resumed.state_dict().get("milestones")) is type(scheduler.state_dict().get("milestones"))
    assert rates(restored, resumed, 10) == rates(optimizer, scheduler, 10)


def test_a_plateau_a_scaler_and_generators_come_back(torch: Any, tmp_path: Path) -> None:
    """ReduceLROnPlateau with a NumPy metric, GradScaler, torch.Generator and the one that dropout uses."""

    def program(seed: int) -> dict[str, Any]:
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**seed)
        own = torch.Generator().manual_seed(seed)
        return {"model": model, "optimizer": optimizer, "plateau": plateau, "scaler": scaler, "own": own}

    saved = program(7)
    saved["plateau"].step(np.float64(3.0))
    torch.manual_seed(5)
    path = Checkpoint(rng=torch.default_generator, **saved).write(tmp_path / "ckpt")
    expected = torch.rand(3), torch.rand(3, generator=saved["own"])
    live = program(1)
    torch.manual_seed(6)
    Checkpoint(rng=torch.default_generator, **live).read(path).assert_consumed()

    assert torch.equal(torch.rand(3), expected[0]) and torch.equal(torch.rand(3, generator=live["own"]), expected[1])
    assert live["scaler"].get_scale() == 128
    assert live["plateau"].best == 3.0 and type(live["plateau"].best) is type(saved["plateau"].best)
    for loss in (4.0, 4.0, 4.0):
        saved["plateau"].step(loss)
        live["plateau"].step(loss)
    assert live["optimizer"].param_groups[0]["lr"] == saved["optimizer"].param_groups[0]["lr"] < 0.1


def test_devices_and_types_are_no_state(torch: Any, tmp_path: Path) -> None:
    """A program of its own keeps them beside its model."""

    class Trainer:
        def __init__(self) -> None:
            self.model, self.device, self.dtype = torch.nn.Linear(1, 1), torch.device("cpu"), torch.float32

    assert keys_of(Checkpoint(Trainer()).write(tmp_path / "ckpt")) == {"model/weight", "model/bias"}


def test_data_is_no_state(torch: Any, tmp_path: Path) -> None:
    """A DataLoader, a Dataset and a Sampler are refused by name; one with a state_dict of its own is saved."""
    data = torch.utils.data

    class Stateful(data.DataLoader):  # type: ignore[misc,name-defined]
        def state_dict(self) -> dict[str, int]:
            return {"position": 3}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.position = state["position"]

    for value in (data.DataLoader([1, 2]), data.TensorDataset(torch.ones(2)), data.SequentialSampler([1])):
        with pytest.raises(UnsupportedError) as caught:
            Checkpoint(data=value).write(tmp_path / "ckpt")
        assert caught.value.code == "training.not-trackable" and type(value).__name__ in caught.value.message
    path = Checkpoint(data=Stateful([1, 2])).write(tmp_path / "ckpt")
    loader = Stateful([1, 2])
    Checkpoint(data=loader).read(path).assert_consumed()

    assert loader.position == 3


def test_names_with_points_as_pytorch_programs_write_them_are_found(torch: Any, tmp_path: Path) -> None:
    """A safetensors file of a state_dict restores into the module, by name."""
    safetensors = pytest.importorskip("safetensors.torch")
    model, other = small_model(torch, 0), small_model(torch, 1)
    path = str(tmp_path / "model.safetensors")
    safetensors.save_file(model.state_dict(), path)

    status = Checkpoint(other).read(path)

    status.assert_consumed()
    assert equal_state(torch, other.state_dict(), model.state_dict())
    assert repr(status) == f"<NameBasedStatus {path}: bound 9 of 9 variables by their names>"
