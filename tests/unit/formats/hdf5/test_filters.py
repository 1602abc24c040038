"""Chunks: everything that h5py's own filters make reads equal, and no stream grows beyond its chunk."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from hdf5_bytes import hdf5
from openckpt.errors import CorruptionError, Where
from openckpt.formats.hdf5.filters import DEFLATE, FLETCHER32, SHUFFLE, Filter, decode_chunk, fletcher32
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.storage.memory import MemoryStore

VALUE = np.random.default_rng(7).integers(0, 50, (37, 23)).astype(np.float32)

PIPELINES: dict[str, dict[str, Any]] = {
    "chunked": {"chunks": (8, 8)},
    "gzip": {"compression": "gzip", "chunks": (8, 23)},
    "gzip and shuffle": {"compression": "gzip", "shuffle": True, "chunks": (10, 10)},
    "fletcher32": {"fletcher32": True, "chunks": (37, 5)},
    "gzip, shuffle, fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (9, 9)},
    "lzf": {"compression": "lzf"},
    "lzf, shuffle, fletcher32": {"compression": "lzf", "shuffle": True, "fletcher32": True, "chunks": (9, 9)},
    "szip": {"compression": "szip", "chunks": (16, 16)},
    "resizable": {"maxshape": (None, None), "chunks": (16, 16)},
}


def reader_of(data: bytes) -> Any:
    return open_hdf5(MemoryStore({"x.h5": data}), "x.h5")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_reads_equal(name: str, libver: str) -> None:
    """Each filter of h5py alone and together, with chunks that do not divide the shape, in old and new chunk indexes."""
    data = hdf5(lambda file: file.create_dataset("a", data=VALUE, **PIPELINES[name]), libver=libver)
    reader = reader_of(data)

    assert reader.read("a").tolist() == VALUE.tolist()
    assert [finding.code for finding in reader.validate()] == []
    assert reader.locate("a") == ()


def test_chunks_behind_a_user_block() -> None:
    """Addresses count from behind a user block."""
    data = hdf5(lambda file: file.create_dataset("a", data=VALUE, compression="gzip"), userblock_size=512)

    assert reader_of(data).read("a").tolist() == VALUE.tolist()


def test_chunks_that_were_never_written_hold_the_fill_value() -> None:
    """Only the first of three chunks is there."""

    def build(file: Any) -> None:
        dataset = file.create_dataset("a", (30,), ">i4", chunks=(10,), fillvalue=7)
        dataset[:10] = 1

    assert reader_of(hdf5(build)).read("a").tolist() == [1] * 10 + [7] * 20


def test_big_endian_chunks_become_native() -> None:
    """The value is native whatever the file holds."""
    value = reader_of(hdf5(lambda f: f.create_dataset("a", data=VALUE.astype(">f8"), compression="gzip"))).read("a")

    assert value.dtype == np.float64
    assert value.tolist() == VALUE.tolist()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 1 << 20, (1 << 22) + 3])
def test_fletcher32_of_the_library(size: int) -> None:
    """Our checksum is that of libhdf5 for lengths even and odd, in one block and in several."""
    value = np.random.default_rng(size).integers(0, 256, max(size, 1)).astype(np.uint8)
    data = hdf5(lambda file: file.create_dataset("a", data=value, fletcher32=True, chunks=(len(value),)))

    stored = data[data.index(value.tobytes()) + len(value) :][:4]
    high, low = fletcher32(value.tobytes())

    assert (high << 16 | low).to_bytes(4, "little") == stored


def test_a_changed_byte_under_fletcher32_is_found() -> None:
    """The error and the finding name the dataset and the place of the chunk."""
    data = bytearray(hdf5(lambda file: file.create_dataset("a", data=VALUE, fletcher32=True, chunks=(37, 23))))
    place = data.index(VALUE.tobytes())
    data[place + 5] ^= 1
    reader = reader_of(bytes(data))

    with pytest.raises(CorruptionError) as caught:
        reader.read("a")

    assert caught.value.code == "hdf5.chunk-checksum"
    assert caught.value.where == Where("memory:x.h5", "a", place)
    assert [finding.code for finding in reader.validate()] == ["hdf5.chunk-checksum"]
    assert [finding.code for finding in reader.validate(data=False)] == []


def test_a_damaged_stream_is_found() -> None:
    """zlib's own complaint becomes ours."""
    packed = zlib.compress(VALUE.tobytes())
    data = bytearray(
        hdf5(lambda f: f.create_dataset("a", data=VALUE, compression="gzip", compression_opts=6, chunks=(37, 23)))
    )
    place = data.index(packed)
    data[place + 20 : place + 30] = bytes(10)

    with pytest.raises(CorruptionError) as caught:
        reader_of(bytes(data)).read("a")
    assert caught.value.code == "hdf5.chunk-damaged"


GZIP, SUM = Filter(DEFLATE, (6,)), Filter(FLETCHER32, ())
DECODED = {
    "nothing": (b"abcd", (), 0, b"abcd"),
    "a filter that the writer skipped": (b"abcd", (GZIP,), 1, b"abcd"),
    "shuffle": (b"aceg" + b"bdfh", (Filter(SHUFFLE, (2,)),), 0, b"abcdefgh"),
    "shuffle with a rest": (b"ac" + b"bd" + b"x", (Filter(SHUFFLE, (2,)),), 0, b"abcdx"),
    "checksum inside compression": (
        zlib.compress(b"\0\1" + (1 << 16 | 1).to_bytes(4, "little")),
        (SUM, GZIP),
        0,
        b"\0\1",
    ),
}


@pytest.mark.parametrize("name", DECODED)
def test_decoded_chunks(name: str) -> None:
    """Filters are undone from the last to the first."""
    data, pipeline, skipped, expected = DECODED[name]

    assert decode_chunk(data, pipeline, skipped, len(expected), Where("x")) == expected


DAMAGED = {
    "a stream that grows": (zlib.compress(bytes(1 << 20)), (GZIP,), 16),
    "a stream that ends early": (zlib.compress(b"abcd")[:-6], (GZIP,), 4),
    "no stream": (b"not zlib", (GZIP,), 4),
    "too few bytes": (b"abc", (), 4),
    "too many bytes": (b"abcde", (), 4),
    "no room for a checksum": (b"abc", (SUM,), 0),
    "a wrong checksum": (b"abcd\0\0\0\0", (SUM,), 4),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_chunks(name: str) -> None:
    """Damage is a CorruptionError, whatever it is."""
    data, pipeline, size = DAMAGED[name]

    with pytest.raises(CorruptionError):
        decode_chunk(data, pipeline, 0, size, Where("x"))
