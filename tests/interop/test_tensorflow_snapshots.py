"""What is read of a TensorFlow variable is its own memory, and stays as it was read, whatever updates the variable then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.training.adapters.tensorflow_values import read_variable, write_variable

pytestmark = [pytest.mark.interop]
SHAPE = (200, 10)


def update_with_xla(tf: Any, variable: Any) -> None:
    tf.function(lambda: variable.assign(variable * 2 + 1), jit_compile=True)()


UPDATES: dict[str, Callable[[Any, Any], Any]] = {
    "assign": lambda tf, v: v.assign(tf.ones(SHAPE) * 3),
    "assign_add": lambda tf, v: v.assign_add(tf.ones(SHAPE)),
    "assign_sub": lambda tf, v: v.assign_sub(tf.ones(SHAPE)),
    "scatter_add": lambda tf, v: v.scatter_add(tf.IndexedSlices(tf.ones((2, 10)), tf.constant([0, 5]))),
    "scatter_update": lambda tf, v: v.scatter_update(tf.IndexedSlices(tf.ones((2, 10)), tf.constant([0, 5]))),
    "scatter_nd_update": lambda tf, v: v.scatter_nd_update([[0], [3]], -tf.ones((2, 10))),
    "a slice": lambda tf, v: v[0:3].assign(-tf.ones((3, 10))),
    "in a function": lambda tf, v: tf.function(lambda: v.assign_add(tf.ones(SHAPE)))(),
    "in a function of XLA": update_with_xla,
    "a step of an optimizer": lambda tf, v: tf.raw_ops.ResourceApplyGradientDescent(
        var=v.handle, alpha=tf.constant(0.1), delta=tf.ones(SHAPE)
    ),
    "a restore": lambda tf, v: tf.train.Checkpoint(v=v).restore(RESTORED[0]).assert_consumed(),
}
RESTORED: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def other_values(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("other") / "ckpt"
    RESTORED[:] = [tf.train.Checkpoint(v=tf.Variable(tf.ones(SHAPE))).save(str(path))]


@pytest.mark.parametrize("name", UPDATES)
def test_no_update_changes_what_was_read(tf: Any, name: str) -> None:
    """TensorFlow writes into the memory of a variable only where nobody else holds it."""
    variable = tf.Variable(np.arange(2000, dtype=np.float32).reshape(SHAPE))
    read = read_variable(variable)
    before = read.copy()
    for _ in range(2):
        UPDATES[name](tf, variable)
    assert not np.array_equal(variable.numpy(), before)
    assert np.array_equal(read, before)


def test_a_value_is_read_without_a_copy(tf: Any) -> None:
    """Two reads are one memory."""
    variable = tf.Variable(np.ones(SHAPE, np.float32))
    assert np.shares_memory(read_variable(variable), read_variable(variable))


@pytest.mark.parametrize(
    "value",
    [np.array(3), np.zeros((0, 4)), np.array([True]), np.array([1 + 2j]), np.array([b"a", b"bc"], object)],
    ids=["scalar", "empty", "bool", "complex", "text"],
)
def test_values_of_every_kind_are_read(tf: Any, value: Any) -> None:
    """Text has no memory that could be shown, and is copied."""
    found = read_variable(tf.Variable(value))
    assert found.tolist() == value.tolist()
    assert found.shape == value.shape


def test_types_that_numpy_lacks_are_read(tf: Any) -> None:
    """bfloat16 and float8, as ml_dtypes."""
    for name in ("bfloat16", "float16"):
        found = read_variable(tf.Variable(tf.cast([1, 2], name)))
        assert (found.dtype.name, found.astype("f4").tolist()) == (name, [1.0, 2.0])


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2", "int4", "uint16", "int64", "bool", "complex64"])
def test_a_written_variable_has_memory_of_its_own(tf: Any, name: str) -> None:
    """TensorFlow would take over an aligned array; what was read is used again for the next value."""
    dtype = tf.as_dtype(name).as_numpy_dtype
    raw = np.zeros(64 + 1024 * 16, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + 1024 * np.dtype(dtype).itemsize].view(dtype)
    array[:] = np.ones(1024).astype(dtype)
    variable = tf.Variable(np.zeros(1024).astype(dtype))
    write_variable(variable, array)
    array[:] = np.zeros(1024).astype(dtype)
    assert (read_variable(variable) == np.ones(1024).astype(dtype)).all()


def test_variables_of_any_shape_and_of_text_are_written(tf: Any) -> None:
    """As ``assign`` does."""
    grown = tf.Variable(np.zeros(2), shape=tf.TensorShape(None))
    write_variable(grown, np.ones((3, 3)))
    text = tf.Variable(["a", "b"])
    write_variable(text, np.array([b"x", b"yz"], object))
    assert (grown.numpy().tolist(), text.numpy().tolist()) == (np.ones((3, 3)).tolist(), [b"x", b"yz"])


@pytest.mark.parametrize("jit", [True, False])
def test_a_save_in_the_background_has_the_values_of_its_call(tf: Any, keras: Any, tmp_path: Path, jit: bool) -> None:
    """A Keras model goes on training at once; the file is as the model was."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit)
    data = np.ones((4, 8), np.float32), np.ones((4, 1), np.float32)
    model.fit(*data, verbose=0)
    values = [variable.numpy() for variable in model.variables + model.optimizer.variables]

    handle = openckpt.Checkpoint(model=model).write(tmp_path / "ckpt", blocking=False)
    model.fit(*data, epochs=3, verbose=0)
    path = handle.result()

    openckpt.Checkpoint(model=model).read(path).expect_partial()
    for variable, before in zip(model.variables + model.optimizer.variables, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), before)
