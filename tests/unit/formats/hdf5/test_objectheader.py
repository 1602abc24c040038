"""Attributes of variable length: found in headers of both versions, read without libhdf5's copies."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from hdf5_bytes import ONES, hdf5
from openckpt.formats.hdf5.objectheader import find_attribute
from openckpt.formats.hdf5.superblock import read_superblock
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.storage.memory import MemorySource, MemoryStore


def names(count: int) -> list[str]:
    return [f"layer_{number}" for number in range(count)]


def file_of(layer_names: Any, others: int = 0, **options: Any) -> bytes:
    import h5py

    def build(file: Any) -> None:
        for number in range(others):
            file.attrs[f"other_{number}"] = "x" * 100
        file.attrs.create("layer_names", layer_names, dtype=h5py.string_dtype())
        file["a"] = ONES

    return hdf5(build, **options)


def layer_names(data: bytes) -> tuple[str, ...]:
    return open_hdf5(MemoryStore({"x.h5": data}), "x.h5").attributes.layer_names


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("others", [0, 5, 40])
def test_lists_are_read_wherever_they_are_stored(libver: str, others: int) -> None:
    """In the first chunk of a header, behind a continuation, in dense storage; behind a user block too."""
    expected = (*names(100), "", "größe")

    for options in ({"libver": libver}, {"libver": libver, "userblock_size": 512}):
        assert layer_names(file_of(list(expected), others, **options)) == expected


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_headers_of_both_versions_hold_the_attribute(libver: str) -> None:
    """Our own parser finds the stored elements, and nothing under another name."""
    import h5py

    data = file_of(names(3), libver=libver)
    source = MemorySource("x.h5", data)
    with h5py.File(io.BytesIO(data), "r") as file:
        address = h5py.h5o.get_info(file.id).addr

    found = find_attribute(source, read_superblock(source), address, b"layer_names")

    assert found is not None
    assert len(found) >= 3 * 16
    assert find_attribute(source, read_superblock(source), address, b"layer_name") is None


def test_any_bytes_are_a_header_or_none() -> None:
    """Noise has no attributes and raises nothing of its own."""
    rng = np.random.default_rng(5)
    block = read_superblock(MemorySource("x.h5", file_of(names(1))))
    for start in (b"\1\0\xff\xff", b"OHDR\2\xff", b"OHDR\2\0", b""):
        for _ in range(50):
            noise = MemorySource("x", start + rng.integers(0, 256, 200).astype(np.uint8).tobytes())
            for address in (0, 100, 1 << 60):
                assert find_attribute(noise, block, address, b"a") is None


def same_string(count: int, size: int) -> bytes:
    """A list of ``count`` elements that all point to one string of ``size`` bytes in the heap."""
    data = bytearray(file_of(["x" * size] + ["y"] * (count - 1)))
    first = data.index(size.to_bytes(4, "little"), data.index(b"layer_names"))
    for number in range(1, count):
        data[first + 16 * number : first + 16 * (number + 1)] = data[first : first + 16]
    return bytes(data)


def test_elements_that_share_a_string_share_its_memory() -> None:
    """4,000 elements of 60 kB each are one string of 60 kB."""
    found = layer_names(same_string(4000, 60_000))

    assert len(found) == 4000
    assert {id(name) for name in found} == {id(found[0])}
    assert found[0] == "x" * 60_000


def test_a_list_that_cannot_be_bounded_is_passed_over_with_a_note() -> None:
    """In dense storage only libhdf5 finds it, and libhdf5 would copy."""
    import h5py

    def build(file: Any) -> None:
        for number in range(20):
            file.attrs[f"other_{number}"] = number
        file.attrs.create("layer_names", names(500), dtype=h5py.string_dtype())
        file["a"] = np.zeros(100_000)

    reader = open_hdf5(MemoryStore({"x.h5": hdf5(build, libver="latest")}), "x.h5")

    assert reader.attributes.layer_names == ()
    assert [(f.code, f.severity) for f in reader.validate()] == [("hdf5.attribute-skipped", "note")]
    assert list(reader.keys()) == ["a"]
