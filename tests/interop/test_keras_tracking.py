"""Keras 3 on the TensorFlow backend: the graph that openckpt derives by its rule is the one that stock TensorFlow tracks.

The graphs are compared without nodes that hold no values, of which TensorFlow keeps some for its own books.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from keras_graphs import ARCHITECTURES, shape_of
from openckpt.errors import CheckpointWarning, UnsupportedError
from openckpt.training import Checkpoint

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def models(keras_module: Callable[[str], Any]) -> Any:
    return keras_module("keras_models")


def test_every_architecture_is_listed(models: Any) -> None:
    """The names above are those of the module, which cannot be imported before the backend is chosen."""
    assert list(models.BUILDERS) == ARCHITECTURES


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_is_stock_tensorflows_and_each_restores_the_others(
    tf: Any, models: Any, tmp_path: Path, name: str
) -> None:
    """Same edges, keys, values, `assert_consumed` both ways, also where the model is the root. Full names are Keras paths."""
    model = models.make(name)
    models.fill(model)
    before = models.values_of(model)
    forms = [lambda kind: kind(model), lambda kind: kind(model=model, optimizer=model.optimizer)]

    for form in forms:
        theirs = form(tf.train.Checkpoint).write(str(tmp_path / "theirs"))
        ours = form(Checkpoint).write(tmp_path / "ours")

        with openckpt.open(theirs) as stock, openckpt.open(ours) as own:
            assert shape_of(own.graph) == shape_of(stock.graph)
            keys = [key for key in stock.specs if not key.startswith("_CHECKPOINTABLE")]
            assert keys == [key for key in own.specs if not key.startswith(("_CHECKPOINTABLE", "_OPENCKPT"))]
            for key in keys:
                assert stock.specs[key] == own.specs[key]
                np.testing.assert_array_equal(stock[key], own[key])
    models.fill(model, 1)
    forms[1](tf.train.Checkpoint).read(str(ours)).assert_consumed()
    models.fill(model, 2)
    status = forms[1](Checkpoint).read(ours).assert_consumed()
    assert status.report.bound == status.report.variables == len(before)
    for expected, actual in zip(before, models.values_of(model), strict=True):
        np.testing.assert_array_equal(expected, actual)


def quantized(keras: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(8)])
    model.quantize("int8")
    return model


def adapted(keras: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(8)])
    model.layers[0].enable_lora(2)
    return model


def scaled(keras: Any) -> Any:
    """A loss-scaling optimizer that compile itself puts around the one it is given."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(8)])
        model.compile("adam", "mse")
    finally:
        keras.mixed_precision.set_global_policy(policy)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("kind", [quantized, adapted, scaled])
def test_what_keras_makes_of_a_model_later(tf: Any, keras: Any, tmp_path: Path, kind: Any) -> None:
    """int8 weights, low-rank adapters, loss scaling: the same graph as stock TensorFlow's, and all values back."""
    model, other = kind(keras), kind(keras)
    expected = [np.array(variable.value) for variable in model.variables]
    theirs = tf.train.Checkpoint(model).write(str(tmp_path / "theirs"))
    ours = Checkpoint(model).write(tmp_path / "ours")
    with openckpt.open(theirs) as stock, openckpt.open(ours) as own:
        assert shape_of(own.graph) == shape_of(stock.graph)
    Checkpoint(other).read(ours).assert_consumed()
    for one, two in zip(expected, other.variables, strict=True):
        np.testing.assert_array_equal(one, np.array(two.value))
    tf.train.Checkpoint(other).read(str(ours)).assert_consumed()


def test_learned_vocabularies_come_back(tf: Any, keras: Any, tmp_path: Path) -> None:
    """Of layers that the program did not adapt again; stock TensorFlow keeps none, and misses none in its own files."""
    layers = keras.layers

    def make() -> dict[str, Any]:
        return {
            "text": layers.TextVectorization(),
            "words": layers.StringLookup(),
            "numbers": layers.IntegerLookup(num_oov_indices=2),
            "weighted": layers.TextVectorization(output_mode="tf_idf"),
            "empty": layers.StringLookup(),
        }

    learned, fresh = make(), make()
    texts = ["b a a", "c c c b"]
    for name in ("text", "weighted"):
        learned[name].adapt(texts)
    learned["words"].adapt(["x", "y", "y"])
    learned["numbers"].adapt([7, 7, 3])
    path = Checkpoint(**learned).write(tmp_path / "ours")

    Checkpoint(**fresh).read(path).assert_consumed()

    for name, layer in learned.items():
        assert fresh[name].get_vocabulary() == layer.get_vocabulary()
    np.testing.assert_array_equal(fresh["text"](texts), learned["text"](texts))
    np.testing.assert_allclose(fresh["weighted"](texts), learned["weighted"](texts))
    tf.train.Checkpoint(**fresh).read(str(path)).assert_consumed()
    theirs = tf.train.Checkpoint(**learned).write(str(tmp_path / "theirs"))
    Checkpoint(**fresh).read(theirs).assert_consumed()


def test_keys_of_the_same_name_are_refused(keras: Any, tmp_path: Path) -> None:
    """The layers of 0 and of "0" would share their keys, and one of them would be lost."""
    model = keras.Model()
    model.heads = {0: keras.layers.Dense(2), "0": keras.layers.Dense(2)}
    for layer in model.heads.values():
        layer.build((None, 3))
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(model=model).write(tmp_path / "ckpt")
    assert caught.value.code == "training.same-name"


def test_an_unknown_version_works_and_says_so_once(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule may not hold for it."""
    from openckpt.training.adapters import keras as adapter

    monkeypatch.setattr(keras, "__version__", "3.99.0")
    monkeypatch.setattr(adapter, "_said", set())
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    checkpoint = Checkpoint(model=model)
    with pytest.warns(CheckpointWarning, match=r"3\.99\.0"):
        path = checkpoint.write(tmp_path / "ckpt")
    checkpoint.read(path).assert_consumed()


def test_metrics_and_seeds_of_tensorflows_files_are_no_loss(tf: Any, models: Any, tmp_path: Path) -> None:
    """It never stores them: no warning, and its assertions hold as in TensorFlow."""
    model = models.make("seeds_and_metrics_of_its_own")
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "theirs"))
    status = Checkpoint(model=model).read(path)
    status.assert_consumed()
    assert status.report.bound == status.report.variables == 8
