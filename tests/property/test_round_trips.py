"""What is encoded reads back equal: tables of any keys, bundles of any values, in every form a writer may choose."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strategies
from openckpt.formats.bundle import Sliced, Strings, Variants, encode_bundle, open_bundle
from openckpt.formats.slicekeys import encode_slice_key, parse_slice_key
from openckpt.formats.sstable import Table, encode_table
from openckpt.storage.memory import MemorySource, MemoryStore

fast = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_OPAQUE = (Strings, Variants)


@fast
@given(items=strategies.table_items, compress=st.booleans())
def test_table_round_trip(items: list[tuple[bytes, bytes]], compress: bool) -> None:
    """A table lists what was put in, finds every key, and finds no other."""
    table = Table(MemorySource("t", encode_table(items, compress_blocks=compress)))

    assert list(table.items()) == items
    assert [table.get(key) for key, _ in items] == [value for _, value in items]
    held = dict(items)
    for key, _ in items:
        for near in (key + b"\x00", key[:-1], key + b"\xff"):
            assert table.get(near) == held.get(near)
    assert list(table.validate()) == []


@fast
@given(
    name=st.binary(max_size=20),
    extents=st.lists(st.tuples(st.integers(0, 1 << 62), st.integers(-1, 1 << 62)), max_size=6).map(tuple),
)
def test_slice_key_round_trip(name: bytes, extents: tuple[tuple[int, int], ...]) -> None:
    """A slice key parses to the name and extents it was made of."""
    assert parse_slice_key(encode_slice_key(name, extents)) == (name, extents)


@fast
@given(data=st.data())
def test_slice_keys_sort_as_their_extents(data: Any) -> None:
    """Ordered code: the byte order of keys of one tensor is the order of their extents."""
    rank = data.draw(st.integers(1, 3))
    pairs = st.tuples(*[st.tuples(st.integers(-(1 << 40), 1 << 40), st.integers(-1, 1 << 40))] * rank)
    extents = data.draw(st.lists(pairs, max_size=8))

    keys = sorted(encode_slice_key(b"w", one) for one in extents)

    assert [parse_slice_key(key)[1] for key in keys] == sorted(extents)


def _expected(value: Any) -> tuple[tuple[int, ...], Any]:
    if isinstance(value, _OPAQUE):
        return value.shape, list(value.elements)
    return value.shape, value.tobytes()


def _read(array: np.ndarray) -> tuple[tuple[int, ...], Any]:
    return array.shape, array.ravel().tolist() if array.dtype == object else array.tobytes()


@fast
@given(data=st.data())
def test_bundle_round_trip(data: Any) -> None:
    """Any values under any names, over any shards, aligned or not, in either byte order, index compressed or not."""
    keys = data.draw(st.lists(strategies.tensor_keys, min_size=1, max_size=8, unique=True))
    big_endian = data.draw(st.booleans())
    stored, whole, dtypes = {}, {}, {}
    for key in keys:
        kind = data.draw(
            st.sampled_from(["numeric", "numeric", "strings", "sliced", *(["variants"] * (not big_endian))])
        )
        if kind == "numeric":
            dtypes[key], stored[key] = data.draw(strategies.arrays())
            whole[key] = stored[key]
        elif kind == "sliced":
            dtypes[key], whole[key], stored[key] = data.draw(strategies.sliced())
            # One piece that covers everything is a plain entry (formats 2.9).
            if len(stored[key].pieces) == 1:
                stored[key] = whole[key]
        else:
            stored[key] = whole[key] = data.draw(getattr(strategies, kind)())

    files = encode_bundle(
        stored,
        "ckpt",
        shards=data.draw(st.integers(1, 4)),
        dtypes=dtypes,
        alignment=data.draw(st.sampled_from([1, 8, 64])),
        big_endian=big_endian,
        compress_index=data.draw(st.booleans()),
    )

    with closing(open_bundle(MemoryStore(files), "ckpt")) as reader:
        by_bytes = sorted(keys, key=lambda key: key.encode("utf-8", "surrogateescape"))
        assert list(reader.keys()) == by_bytes
        assert [spec for _, spec in reader.items()] == [reader.spec(key) for key in by_bytes]
        assert {key: _read(reader.read(key)) for key in keys} == {key: _expected(whole[key]) for key in keys}
        assert {key: _read(array) for key, array in reader.read_many(keys).items()} == {
            key: _expected(whole[key]) for key in keys
        }
        assert {key: reader.spec(key).dtype for key in dtypes} == dtypes
        findings = [finding for finding in reader.validate() if finding.severity != "note"]
        unreadable = any(isinstance(value, Sliced) for value in stored.values())
        assert [finding.code for finding in findings if not unreadable] == []


@fast
@given(data=st.data())
def test_any_region_of_a_sliced_tensor(data: Any) -> None:
    """Any part of a partitioned tensor reads as the same part of the whole."""
    name, whole, pieces = data.draw(strategies.sliced())
    region = []
    for length in whole.shape:
        start = data.draw(st.integers(0, length - 1))
        region.append((start, data.draw(st.integers(1, length - start))))

    with closing(open_bundle(MemoryStore(encode_bundle({"w": pieces}, "ckpt", dtypes={"w": name})), "ckpt")) as reader:
        read = reader.read_slice("w", tuple(region))

    part = whole[tuple(slice(start, start + length) for start, length in region)]
    assert (read.shape, read.dtype, read.tobytes()) == (part.shape, part.dtype, part.tobytes())
