"""Every data type, rank and odd value that TensorFlow's SaveV2 writes reads back equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interop.written import assert_reads_as_tensorflow, assert_reads_equal, assert_sound, save_v2
from openckpt.formats.dtypes import BY_NAME

pytestmark = pytest.mark.interop

NUMERIC = [name for name, dtype in BY_NAME.items() if dtype.is_numeric]
SHAPES = [(), (1,), (7,), (2, 3), (2, 1, 3), (1, 2, 3, 2), (2, 1, 2, 1, 3), (0,), (3, 0, 2), (0, 0)]


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Every bit pattern that fits: random bytes for whole types, all values of the small ones."""
    dtype = BY_NAME[name].numpy()
    count = int(np.prod(shape))
    rng = np.random.default_rng(count)
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if name in ("int4", "int2"):
        low = -8 if name == "int4" else -2
        return np.resize(np.arange(low, -low), count).astype(np.int8).reshape(shape).astype(dtype)
    if name in ("uint4", "uint2"):
        return np.resize(np.arange(16 if name == "uint4" else 4), count).astype(np.uint8).reshape(shape).astype(dtype)
    if name == "float4_e2m1fn":
        return np.resize(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -6]), count).reshape(shape).astype(dtype)
    return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(shape)


def _tensor(tf: Any, name: str, value: np.ndarray) -> Any:
    """A constant of the very type; quantised ones exist only as a bit cast of their integers."""
    target = tf.dtypes.as_dtype(name)
    return tf.bitcast(tf.constant(value), target) if name.startswith("q") else tf.constant(value, dtype=target)


@pytest.mark.parametrize("name", NUMERIC)
def test_dtype_reads_equal_in_every_shape(tf: Any, tmp_path: Path, name: str) -> None:
    """Ranks 0 to 5 and empty tensors of one data type, as SaveV2 wrote them."""
    values = {f"rank{len(shape)}/{'x'.join(map(str, shape))}": _values(name, shape) for shape in SHAPES}
    prefix = save_v2(tf, tmp_path / "ckpt", {key: _tensor(tf, name, value) for key, value in values.items()})

    assert_reads_equal(prefix, values)
    assert_sound(prefix)


@pytest.mark.parametrize("name", NUMERIC)
def test_dtype_is_listed_as_tensorflow_lists_it(tf: Any, tmp_path: Path, name: str) -> None:
    """TensorFlow's own reader names the same dtype and shape and, where it can, returns the same value."""
    prefix = save_v2(tf, tmp_path / "ckpt", {"a": _tensor(tf, name, _values(name, (2, 3)))})

    assert_reads_as_tensorflow(tf, prefix)


@pytest.mark.parametrize(
    "values",
    [
        b"",
        b"one",
        [b"a", b"bc", b""],
        [[b"\x00", b"\xff\xfe"], ["größer".encode(), "日本語 🎉".encode()]],
        [b"x" * 127, b"y" * 128, b"z" * 16383, b"w" * 16384],
        [b"longer than 64 KiB " * 4096, b"short"],
        [b"%d" % n for n in range(5000)],
    ],
    ids=["empty", "scalar", "vector", "unicode", "varint-edges", "long", "many"],
)
def test_strings_read_equal(tf: Any, tmp_path: Path, values: Any) -> None:
    """Strings come back as the bytes that were saved, whatever is in them."""
    prefix = save_v2(tf, tmp_path / "ckpt", {"s": tf.constant(values)})

    assert_reads_equal(prefix, {"s": np.array(values, object)})
    assert_reads_as_tensorflow(tf, prefix)
    assert_sound(prefix)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_empty_string_tensors_read_equal(tf: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A string tensor without elements has a shape and nothing else."""
    prefix = save_v2(tf, tmp_path / "ckpt", {"s": tf.zeros(shape, tf.string)})

    assert_reads_equal(prefix, {"s": np.empty(shape, object)})
    assert_sound(prefix)


def test_a_long_string_reads_equal(tf: Any, tmp_path: Path) -> None:
    """One string of 40 MB, longer than any buffer on the way."""
    value = np.random.default_rng(1).bytes(40_000_000)
    prefix = save_v2(tf, tmp_path / "ckpt", {"s": tf.constant(value)})

    assert_reads_equal(prefix, {"s": np.array(value, object)})


def test_names_of_any_bytes_read_equal(tf: Any, tmp_path: Path) -> None:
    """Names with zero bytes, 0xff, spaces, slashes, unicode and 10,000 letters; not UTF-8 comes back by surrogateescape."""
    names = [
        b"a",
        b"A/b",
        b"/",
        b"_",
        b" ",
        b"a\x00b",
        b"\xff",
        b"n\xff\x00a",
        "größe".encode(),
        b"x" * 10_000,
        b"a" * 300,
    ]
    values = {name: np.array([number], np.int32) for number, name in enumerate(names)}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "ckpt"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )

    assert_reads_equal(
        tmp_path / "ckpt", {name.decode("utf-8", "surrogateescape"): value for name, value in values.items()}
    )
    assert_sound(tmp_path / "ckpt")


@pytest.mark.parametrize(
    "name", ["plain", "with space", "br[ack]et", "st*r", "back\\slash", ".hidden", "-dash", "a.index", "checkpoint"]
)
def test_prefixes_of_any_name_open_literally(tf: Any, tmp_path: Path, name: str) -> None:
    """Where the name holds a glob character TensorFlow writes what it then cannot read; openckpt reads it."""
    (tmp_path / "dir").mkdir()
    prefix = save_v2(tf, tmp_path / "dir" / name, {"a": np.arange(3)})

    assert_reads_equal(prefix, {"a": np.arange(3)})


def test_tensor_lists_are_opaque_bytes_that_tensorflow_takes_back(tf: Any, tmp_path: Path) -> None:
    """A variant element is the VariantTensorDataProto that TensorFlow's own serialiser makes of the value."""
    from tensorflow.core.framework import tensor_pb2

    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=tf.constant(rows), element_shape=tf.constant([2]))
        for rows in ([[1, 2]], [[3, 4], [5, 6]])
    ]
    value = tf.stack(lists)
    prefix = save_v2(tf, tmp_path / "ckpt", {"v": value, "w": tf.constant(1.0)})

    read = assert_reads_as_tensorflow(tf, prefix)

    # TensorFlow's own serialiser: the lengths of all elements as varints, then the elements.
    proto = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(value).numpy())
    assert read["v"].shape == (2,)
    assert bytes(map(len, read["v"])) + b"".join(read["v"]) == proto.tensor_content
    assert_sound(prefix)


def test_a_dataset_iterator_is_listed_and_read_as_variant(tf: Any, tmp_path: Path) -> None:
    """The state of a dataset iterator in a tf.train.Checkpoint."""
    iterator = iter(tf.data.Dataset.range(100).shuffle(10, seed=1).batch(3))
    next(iterator)
    prefix = tf.train.Checkpoint(iterator=iterator, step=tf.Variable(7)).save(str(tmp_path / "ckpt"))

    read = assert_reads_as_tensorflow(tf, prefix)

    variants = [value for value in read.values() if value.dtype == object and value.shape]
    assert len(variants) == 1
    assert all(isinstance(element, bytes) and element for element in variants[0])
    assert_sound(prefix)
