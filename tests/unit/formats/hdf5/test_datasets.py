"""HDF5 datasets: which type reads as what, how it is stored, and sizes that are only declared."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hdf5_bytes import ONES, codes, datasets, hdf5, opened
from openckpt.errors import LimitError, UnsupportedError
from openckpt.limits import Limits
from refusals import error_of

NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
           "complex64", "complex128"]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 2, 2)])
def test_numbers_of_h5py_read_equal(name: str, shape: tuple[int, ...]) -> None:
    """Every number type and rank: copy, view and bulk read give what h5py stored."""
    value = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(name)
    reader = opened(datasets({"a/b": value}))

    assert reader.spec("a/b")[:2] == (name, shape)
    assert reader.spec("a/b").nbytes == value.nbytes
    for read in (reader.read("a/b"), reader.read_many(["a/b"])["a/b"]):
        assert (read.dtype, read.shape, read.tolist()) == (value.dtype, shape, value.tolist())
    if value.size:
        assert reader.view("a/b").tolist() == value.tolist()
    assert codes(reader) == []


@pytest.mark.parametrize("name", [">f4", ">i2", ">u8", ">c16"])
def test_big_endian_numbers_become_native(name: str) -> None:
    """A copy is native; a view of swapped bytes cannot be given."""
    value = np.array([1, 2, 3]).astype(name)
    reader = opened(datasets({"a": value}))

    assert reader.read("a").dtype.isnative
    assert reader.read("a").tolist() == value.tolist()
    assert error_of(reader.view, "a").code == "spec.no-view"


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_opaque_bytes_with_a_type_attribute(name: str) -> None:
    """Keras 3 stores bfloat16 as two opaque bytes and names the type beside them (formats 8.2)."""
    value = np.arange(4).astype(getattr(ml_dtypes, name))

    def build(file: Any) -> None:
        dataset = file.create_dataset("a", data=value.view(f"V{value.dtype.itemsize}"))
        dataset.attrs["dtype"] = name

    read = opened(hdf5(build)).read("a")

    assert read.dtype == value.dtype
    assert read.tobytes() == value.tobytes()


def test_opaque_bytes_without_a_type_are_listed() -> None:
    """Their size is known, their meaning is not; a wrong name does not help."""

    def build(file: Any) -> None:
        file.create_dataset("a", data=np.zeros(3, "V2"))
        file.create_dataset("b", data=np.zeros(3, "V2")).attrs["dtype"] = "float32"

    reader = opened(hdf5(build))

    assert {key: spec.dtype for key, spec in reader.items()} == {"a": "unknown-opaque16", "b": "unknown-opaque16"}
    assert error_of(reader.read, "a").code == "spec.unknown-dtype"


def test_strings_of_every_kind() -> None:
    """Fixed and variable, padded and terminated, empty and non-ASCII: object arrays of bytes, as h5py reads them."""
    import h5py

    names = np.array([b"one", b"", "drei ü".encode()])
    terminated = h5py.h5t.C_S1.copy()
    terminated.set_size(6)

    def build(file: Any) -> None:
        file.create_dataset("fixed", data=names)
        file.create_dataset("variable", data=names.astype(object), dtype=h5py.string_dtype())
        file.create_dataset("scalar", data="text", dtype=h5py.string_dtype())
        file.create_dataset("packed", data=names, chunks=(2,), compression="gzip")
        file.create_dataset(
            "packed variable", data=names.astype(object), dtype=h5py.string_dtype(), chunks=(2,), compression="gzip"
        )
        file.create_dataset("unwritten", (2,), h5py.string_dtype())
        space = h5py.h5s.create_simple((1,))
        h5py.h5d.create(file.id, b"terminated", terminated, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab\0xy"], "S6"), terminated
        )

    reader = opened(hdf5(build))

    expected = names.tolist()
    read = {key: reader.read(key).tolist() for key, _ in reader.items()}
    assert read == {
        "fixed": expected, "variable": expected, "scalar": b"text", "packed": expected, "packed variable": expected,
        "unwritten": [b"", b""], "terminated": [b"ab"],
    }  # fmt: skip
    assert {spec.dtype for _, spec in reader.items()} == {"string"}
    assert codes(reader) == []


def test_types_without_a_name_are_listed_and_not_read() -> None:
    """Compounds, lists, references and enumerations keep their shape and keep the rest readable."""
    import h5py

    def build(file: Any) -> None:
        file["ok"] = ONES
        file["compound"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file.create_dataset("list", (2,), h5py.vlen_dtype(np.int32))
        file.create_dataset("reference", (1,), h5py.ref_dtype)
        file.create_dataset("enum", (2,), h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 2}))
        file.create_dataset("long", data=np.zeros(2, np.longdouble))

    reader = opened(hdf5(build))

    assert {key: spec.dtype for key, spec in reader.items() if key != "ok"} == {
        "compound": "unknown-compound", "enum": "unknown-enum", "list": "unknown-vlen", "long": "unknown-float128",
        "reference": "unknown-reference",
    }  # fmt: skip
    for key in ("compound", "enum", "list", "reference", "long"):
        assert isinstance(error_of(reader.read, key), UnsupportedError)
    assert reader.read("ok").tolist() == ONES.tolist()


def test_dataset_without_elements_is_no_array() -> None:
    """A null dataspace has a type and nothing else."""
    import h5py

    reader = opened(hdf5(lambda file: file.create_dataset("a", data=h5py.Empty("f4"))))

    assert reader.spec("a") == ("float32", None, 0)
    assert error_of(reader.read, "a").code == "hdf5.null-dataspace"


def test_compact_and_unwritten_datasets() -> None:
    """Values inside the object header, and values that are only a fill value."""
    import h5py

    def build(file: Any) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 3))
        h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32BE, space, plan).write(h5py.h5s.ALL, h5py.h5s.ALL, ONES)
        file.create_dataset("filled", (2, 2), ">i4", fillvalue=7)
        file.create_dataset("zeros", (2,), "f8")
        file.create_dataset("flags", (2,), bool, fillvalue=True)

    reader = opened(hdf5(build))

    assert reader.read("compact").tolist() == ONES.tolist()
    assert reader.read("filled").tolist() == [[7, 7], [7, 7]]
    assert reader.read("zeros").tolist() == [0.0, 0.0]
    assert reader.read("flags").tolist() == [True, True]


def test_located_bytes_are_those_of_the_dataset() -> None:
    """Contiguous bytes lie where `locate` says, behind a user block too."""
    data = hdf5(lambda file: file.create_dataset("a", data=ONES), userblock_size=512)
    reader = opened(data)

    (place,) = reader.locate("a")

    assert data[place.offset : place.offset + place.nbytes] == ONES.tobytes()
    assert reader.read("a").tolist() == ONES.tolist()


def test_declared_elements_without_bytes_are_not_allocated() -> None:
    """A petabyte of fill values is a limit, named by its code; the file lists."""
    data = hdf5(lambda file: file.create_dataset("a", (10**15,), "f8", chunks=(10**6,)))

    reader = opened(data)

    assert reader.spec("a").shape == (10**15,)
    assert isinstance(error_of(reader.read, "a"), LimitError)
    assert codes(reader) == ["hdf5.declared-size"]


def test_nearly_empty_array_reads_when_the_caller_raises_the_limit() -> None:
    """64 MiB are free; beyond that `archive_ratio` counts, and the message says how far to raise it."""
    data = hdf5(lambda file: file.create_dataset("a", data=np.zeros(10 << 20), compression="gzip"))

    error = error_of(opened(data, limits=Limits(archive_ratio=1)).read, "a")

    assert error.code == "hdf5.declared-size"
    needed = int(error.message.rpartition(" ")[2])
    assert opened(data, limits=Limits(archive_ratio=needed)).read("a").shape == (10 << 20,)


def test_shape_that_numpy_cannot_hold_is_a_limit() -> None:
    """No elements, and sides beyond any address."""
    reader = opened(
        hdf5(
            lambda file: file.create_dataset(
                "a", (0, 1 << 40, 1 << 40), "f8", chunks=(1, 1, 1), maxshape=(None, None, None)
            )
        )
    )

    assert error_of(reader.read, "a").code == "limits.exceeded"
    assert codes(reader) == ["limits.exceeded"]
