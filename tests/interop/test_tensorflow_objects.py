"""TensorFlow's own objects and tf_keras's: the file is stock TensorFlow's to the last node, and each restores the other's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import UnsupportedError
from openckpt.formats.spec import TensorSpec
from openckpt.training import Checkpoint

pytestmark = pytest.mark.interop

Pair = namedtuple("Pair", "p q")


def module(tf: Any) -> Any:
    """Every kind of container, a shared variable, odd types and shapes, a random generator."""
    root = tf.Module()
    root.a = tf.Variable([1.0, 2.0], name="a")
    root.items = [tf.Variable(1), {"k": tf.Variable("text")}]
    root.named = {"x/y": tf.Variable(2.0), "z.": tf.Variable(3.0)}
    root.fixed = (tf.Variable(3),)
    root.pair = Pair(tf.Variable(4), tf.Variable(5))
    root.again = root.a
    root.empty = []
    root.generator = tf.random.Generator.from_seed(3)
    root.brain = tf.Variable(tf.constant([1, 2], tf.bfloat16))
    root.open = tf.Variable([1.0], shape=[None])
    root.function = tf.function(lambda x: x)
    return root


def tables(tf: Any) -> Any:
    """Objects that serialize themselves."""

    class Text(tf.train.experimental.PythonState):
        def __init__(self) -> None:
            self.text = "first"

        def serialize(self) -> str:
            return self.text

        def deserialize(self, text: bytes) -> None:
            self.text = text.decode()

    root = tf.Module()
    root.words = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    root.words.insert(["a", "b"], [1, 2])
    root.dense = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, 0.0, -1, -2)
    root.dense.insert([1, 5], [0.5, 0.25])
    root.text = Text()
    root.static = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["q"], [1]), -1)
    return root


def keras_optimizer(tf_keras: Any, name: str, rate: float, **options: Any) -> Any:
    """Return the optimizer that ``name`` says, ``scaled`` with loss scaling around it."""
    kind = tf_keras.optimizers
    for word in name.removeprefix("scaled ").split("."):
        kind = getattr(kind, word)
    optimizer = kind(rate, **options)
    return tf_keras.mixed_precision.LossScaleOptimizer(optimizer) if name.startswith("scaled") else optimizer


def keras_model(tf_keras: Any, optimizer: Any) -> Any:
    """A model after one step."""
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Dense(3, input_shape=(4,)), layers.BatchNormalization(), layers.Dense(2)])
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    return model


def _is_number(spec: TensorSpec) -> bool:
    return spec.dtype not in ("string", "variant")


def check_same(tf: Any, make: Callable[[Any], Any], tmp_path: Path) -> str:
    """Check that a file of ours is TensorFlow's, and that each side restores the other's; return ours."""
    theirs = make(tf.train.Checkpoint).write(str(tmp_path / "theirs"))
    ours = make(Checkpoint).write(tmp_path / "ours")
    with openckpt.open(theirs) as stock, openckpt.open(ours) as own:
        assert own.graph == stock.graph
        assert list(own.specs) == list(stock.specs)
        for key, spec in stock.specs.items():
            assert own.specs[key].dtype == spec.dtype
            if _is_number(spec) and "table" not in key:  # a table has no order
                np.testing.assert_array_equal(own[key], stock[key])
    make(tf.train.Checkpoint).read(str(ours)).assert_consumed()
    status = make(Checkpoint).read(theirs).assert_consumed()
    assert status.report.bound == status.report.variables > 0
    return ours


@pytest.mark.parametrize("kind", [module, tables])
def test_modules_tables_and_states(tf: Any, tmp_path: Path, kind: Callable[[Any], Any]) -> None:
    """As root and as child."""
    root = kind(tf)
    check_same(tf, lambda checkpoint: checkpoint(root), tmp_path)
    check_same(tf, lambda checkpoint: checkpoint(thing=root), tmp_path)


@pytest.mark.parametrize(
    "name", ["Adam", "legacy.Adam", "legacy.SGD", "experimental.AdamW", "scaled Adam", "scaled legacy.Adam"]
)
def test_tf_keras_models_and_optimizers(tf: Any, tf_keras: Any, tmp_path: Path, name: str) -> None:
    """New optimizers keep their state in lists, old ones in slots; loss scaling is put around one."""
    optimizer = keras_optimizer(tf_keras, name, 0.1, **({"momentum": 0.9} if name.endswith("SGD") else {}))
    model = keras_model(tf_keras, optimizer)
    check_same(tf, lambda checkpoint: checkpoint(model=model, optimizer=model.optimizer), tmp_path)


def test_values_come_back(tf: Any, tmp_path: Path) -> None:
    """Text, tables, a variable of open shape, one that two names share."""
    first, second = module(tf), module(tf)
    first.items[1]["k"].assign("other")
    first.open.assign([1.0, 2.0, 3.0])
    first.a.assign([5.0, 6.0])
    Checkpoint(second).read(Checkpoint(first).write(tmp_path / "module")).assert_consumed()
    assert second.items[1]["k"].numpy() == b"other"
    np.testing.assert_array_equal(second.open, [1, 2, 3])
    np.testing.assert_array_equal(second.again, [5, 6])

    first, second = tables(tf), tables(tf)
    first.text.text = "second"
    second.words.insert(["z"], [9])
    Checkpoint(second).read(Checkpoint(first).write(tmp_path / "tables")).assert_consumed()
    assert second.text.text == "second"
    assert sorted(second.words.export()[0].numpy()) == [b"a", b"b"]
    np.testing.assert_array_equal(second.dense.lookup(tf.constant([1, 5], tf.int64)), [0.5, 0.25])


def test_dataset_iterators_go_on_where_they_were(tf: Any, tmp_path: Path) -> None:
    """From our file and from TensorFlow's, in ours and in TensorFlow's."""

    def numbers() -> Any:
        return iter(tf.data.Dataset.range(40).shuffle(7, seed=1).batch(2))

    def rest(iterator: Any) -> list[Any]:
        return [batch.numpy().tolist() for batch in iterator]

    first = numbers()
    for _ in range(3):
        next(first)
    ours = Checkpoint(data=first).write(tmp_path / "ours")
    theirs = tf.train.Checkpoint(data=first).write(str(tmp_path / "theirs"))
    with openckpt.open(theirs) as stock, openckpt.open(ours) as own:
        assert own.graph == stock.graph
        assert own.specs.keys() == stock.specs.keys()
    expected = rest(first)
    for kind, path in ((Checkpoint, theirs), (Checkpoint, ours), (tf.train.Checkpoint, str(ours))):
        fresh = numbers()
        kind(data=fresh).read(path).assert_consumed()
        assert rest(fresh) == expected


def test_what_only_tensorflow_can_read_is_refused_by_name(tf: Any, tmp_path: Path) -> None:
    """A list that was changed behind its back, and a saver of the program's own."""
    root = tf.Module()
    root.items = [tf.Variable(1.0), tf.Variable(2.0)]
    del root.items[0]
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(root=None, thing=root).write(tmp_path / "ckpt")
    assert caught.value.code == "training.not-trackable"
    assert "(root).thing.items" in str(caught.value)


def test_a_variable_made_in_a_traced_function_gets_its_value(tf: Any, tmp_path: Path) -> None:
    """At once, not when the function runs."""

    class Lazy(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = None

        @tf.function
        def __call__(self, x: Any) -> Any:
            if self.w is None:
                self.w = tf.Variable(tf.zeros([2]))
            return x + self.w

    first, second = Lazy(), Lazy()
    first(1.0)
    first.w.assign([3.0, 4.0])
    path = tf.train.Checkpoint(lazy=first).write(str(tmp_path / "ckpt"))
    status = Checkpoint(lazy=second).read(path, partial=True)
    np.testing.assert_array_equal(second(0.0), [3, 4])
    np.testing.assert_array_equal(second.w, [3, 4])
    assert "_track_trackable" not in vars(second)
    status.assert_consumed()


@pytest.mark.parametrize("is_resource", [True, False])
def test_variables_of_a_graph_are_refused(tf: Any, tmp_path: Path, is_resource: bool) -> None:
    """By name, and with the way to save them: their values are in a session."""
    with tf.Graph().as_default():
        variable = tf.compat.v1.get_variable("w", initializer=[1.0, 2.0], use_resource=is_resource)
        with pytest.raises(UnsupportedError, match="Saver") as caught:
            Checkpoint(v=variable).write(tmp_path / "ckpt")
    assert caught.value.code == "training.not-trackable"


def test_mixed_precision_of_keras_2_built_in_predict(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """Inside of a layer its variables say that they are float16."""
    policy = tf_keras.mixed_precision.Policy("mixed_float16")

    def make() -> Any:
        layers = tf_keras.layers
        return tf_keras.Sequential([layers.Dense(3, dtype=policy), layers.BatchNormalization(dtype=policy)])

    model, later = make(), make()
    x = np.ones((2, 4), np.float32)
    expected = model.predict(x, verbose=0)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "theirs"))
    status = Checkpoint(model=later).read(path, partial=True)
    np.testing.assert_array_equal(later.predict(x, verbose=0), expected)
    status.assert_consumed()


def test_what_a_strategy_makes_after_a_restore_has_its_value_on_every_device(tmp_path: Path) -> None:
    """Also where a device's own thread makes it; a sum is shared out, as TensorFlow does it."""
    child = Path(__file__).resolve().parents[1] / "tensorflow_replicas.py"
    command = [sys.executable, "-W", "ignore", str(child), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"copies": [[3.0, 4.0], [3.0, 4.0], 3.0, 3.0], "seen": [[3.0, 4.0], [3.0, 4.0]]}


def names_of_optimizer(stored: Any) -> set[str]:
    """Return the edges that a `tf_keras` optimizer has in a file; asked too early, it knows only the first of them for ever."""
    root = stored.graph.nodes[0]
    optimizer = next(child.node_id for child in root.children if child.local_name == "optimizer")
    return {child.local_name for child in stored.graph.nodes[optimizer].children}


@pytest.mark.parametrize("name", ["Adam", "legacy.Adam", "scaled Adam"])
def test_tf_keras_models_built_after_a_restore(tf: Any, tf_keras: Any, tmp_path: Path, name: str) -> None:
    """Their weights and the optimizer's state, slots too."""
    model = keras_model(tf_keras, keras_optimizer(tf_keras, name, 0.1))
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "theirs"))
    with openckpt.open(path) as stored:
        expected = {key: stored[key] for key, spec in stored.specs.items() if _is_number(spec)}
    layers = tf_keras.layers
    later = tf_keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])
    optimizer = keras_optimizer(tf_keras, name, 0.5)
    checkpoint = Checkpoint(model=later, optimizer=optimizer)
    status = checkpoint.read(path, partial=True)
    later.compile(optimizer, "mse")

    later(np.ones((4, 4), np.float32))
    if "legacy" in name:  # the first step does this
        assert optimizer.iterations.numpy() == 1
        optimizer._create_hypers()
    else:
        optimizer.build(later.trainable_variables)

    status.assert_consumed()
    assert status.report.waiting == 0
    with openckpt.open(checkpoint.write(tmp_path / "ours")) as own, openckpt.open(path) as stored:
        assert expected.keys() <= own.specs.keys()
        assert names_of_optimizer(own) == names_of_optimizer(stored)
        for key, value in expected.items():
            np.testing.assert_array_equal(own[key], value)
