"""The fast encoders of an index write the bytes of slow ones that follow formats 1.4 and 2.4 word for word."""

from __future__ import annotations

import struct
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from openckpt.errors import Where
from openckpt.formats.bundle import BundleEntry, encode_entries, encode_entry, parse_entry
from openckpt.formats.crc import crc32c, mask_crc, unmask_crc
from openckpt.formats.sstable import encode_table
from openckpt.limits import DEFAULT_LIMITS

thorough = settings(max_examples=300, deadline=None)


def varint(value: int) -> bytes:
    """The definition: groups of seven bits, lowest first, all but the last with the high bit."""
    groups = []
    while value > 0x7F:
        groups.append(value % 128 + 128)
        value //= 128
    return bytes([*groups, value])


class Block:
    """A block of formats 1.2, one entry at a time."""

    def __init__(self, interval: int) -> None:
        self.interval, self.entries, self.restarts, self.since, self.last = interval, b"", [0], 0, b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self.since < self.interval:
            while shared < min(len(key), len(self.last)) and key[shared] == self.last[shared]:
                shared += 1
        else:
            self.restarts.append(len(self.entries))
            self.since = 0
        self.entries += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self.last, self.since = key, self.since + 1

    def estimate(self) -> int:
        return len(self.entries) + 4 * len(self.restarts) + 4

    def stored(self) -> bytes:
        block = self.entries + struct.pack(f"<{len(self.restarts) + 1}I", *self.restarts, len(self.restarts)) + b"\0"
        return block + struct.pack("<I", mask_crc(crc32c(block)))


def separator(low: bytes, high: bytes) -> bytes:
    """formats 1.4, shortest_separator."""
    at = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), None)
    if at is not None and low[at] < 0xFF and low[at] + 1 < high[at]:
        return low[:at] + bytes([low[at] + 1])
    return low


def successor(key: bytes) -> bytes:
    """formats 1.4, short_successor."""
    at = next((i for i, byte in enumerate(key) if byte != 0xFF), None)
    return key if at is None else key[:at] + bytes([key[at] + 1])


def reference_table(items: list[tuple[bytes, bytes]], block_bytes: int) -> bytes:
    """The writer of formats 1.4, step by step."""
    out, data, index = b"", Block(16), Block(1)
    pending: bytes | None = None
    last = b""

    def flush() -> None:
        nonlocal out, data, pending
        if data.entries:
            stored = data.stored()
            pending = varint(len(out)) + varint(len(stored) - 5)
            out += stored
            data = Block(16)

    for number, (key, value) in enumerate(items):
        if number and len(key) + len(value) >= 2 * block_bytes:
            flush()
        if pending is not None:
            index.add(separator(last, key), pending)
            pending = None
        data.add(key, value)
        last = key
        if data.estimate() >= block_bytes:
            flush()
    flush()
    metaindex = varint(len(out)) + varint(8)
    out += Block(16).stored()
    if pending is not None:
        index.add(successor(last), pending)
    stored = index.stored()
    footer = metaindex + varint(len(out)) + varint(len(stored) - 5)
    return out + stored + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


@thorough
@given(items=strategies.table_items, block_bytes=st.sampled_from([1, 9, 40, 64, 300, 2000]))
def test_a_table_of_small_blocks_has_the_reference_s_bytes(items: list[tuple[bytes, bytes]], block_bytes: int) -> None:
    """Blocks of any size, so that every rule at their edges is met within few entries."""
    with mock.patch("openckpt.formats.sstable.builder.BLOCK_BYTES", block_bytes):
        assert encode_table(items) == reference_table(items, block_bytes)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(
            st.integers(0, 300),
            st.integers(262_100, 262_150),
            st.integers(524_250, 524_295),
            st.sampled_from([127, 128, 16_383, 16_384, 131_072, 524_284, 524_285]),  # a key has three bytes
        ),
        max_size=12,
    ),
    long_keys=st.booleans(),
)
def test_a_table_of_entries_around_the_block_size_has_the_reference_s_bytes(sizes: list[int], long_keys: bool) -> None:
    """Values, or keys, of 0 to 512 KiB at TensorFlow's own block size."""
    items = [
        (b"k%02d" % number + bytes(size if long_keys else 0), b"" if long_keys else bytes(size))
        for number, size in enumerate(sizes)
    ]
    assert encode_table(items) == reference_table(items, 262_144)


@pytest.mark.parametrize("keys", [[b"", b""], [b"a", b"a"], [b"b", b"a"], [b"a", b""]])
def test_keys_that_do_not_increase_are_refused(keys: list[bytes]) -> None:
    """Also in a new block, where no prefix is compared."""
    for value in (b"", bytes(600_000)):
        with pytest.raises(ValueError, match="sort"):
            encode_table([(key, value) for key in keys])


def message(number: int, body: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(body)) + body


def reference_entry(entry: BundleEntry) -> bytes:
    """formats 2.4, field by field."""
    dims = b"".join(message(2, b"\x08" + varint(size) if size else b"") for size in entry.shape or ())
    out = b"\x08" + varint(entry.enum) + message(2, dims)
    if entry.slices:
        for extents in entry.slices:
            body = b""
            for start, length in extents:
                first = b"\x08" + varint(start) if start else b""
                body += message(1, first + (b"\x10" + varint(length) if length >= 0 else b""))
            out += message(7, body)
        return out
    for tag, value in ((0x18, entry.shard), (0x20, entry.offset), (0x28, entry.size)):
        out += bytes([tag]) + varint(value) if value else b""
    masked = mask_crc(entry.crc)
    return out + (b"\x35" + struct.pack("<I", masked) if masked else b"")


_edges = [1 << bits for bits in range(7, 63, 7)]
_numbers = st.one_of(
    st.integers(0, 300), st.sampled_from([*_edges, *(edge - 1 for edge in _edges)]), st.integers(0, (1 << 63) - 1)
)
_lengths = st.one_of(st.integers(0, 3), _numbers)
_entries = st.builds(
    BundleEntry,
    enum=st.sampled_from([1, 7, 14, 21, 33]),
    shape=st.lists(_lengths, max_size=4).map(tuple),
    shard=st.one_of(st.just(0), st.integers(0, 100_000)),
    offset=_numbers,
    size=_numbers,
    crc=st.one_of(st.integers(0, (1 << 32) - 1), st.just(unmask_crc(0))),
)


@thorough
@given(entries=st.lists(_entries, max_size=30))
def test_entries_have_the_reference_s_bytes(entries: list[BundleEntry]) -> None:
    """Many at once, one by one, and both read back as they were given."""
    expected = [reference_entry(entry) for entry in entries]

    assert encode_entries(entry[:6] for entry in entries) == expected
    assert [encode_entry(entry) for entry in entries] == expected
    assert [parse_entry(value, Where("x"), DEFAULT_LIMITS) for value in expected] == entries


@thorough
@given(
    shape=st.lists(_lengths, min_size=1, max_size=3).map(tuple),
    slices=st.lists(
        st.lists(st.one_of(st.just((0, -1)), st.tuples(_numbers, _numbers)), max_size=3).map(tuple),
        min_size=1,
        max_size=5,
    ).map(tuple),
)
def test_entries_of_partitioned_tensors_have_the_reference_s_bytes(
    shape: tuple[int, ...], slices: tuple[tuple[tuple[int, int], ...], ...]
) -> None:
    """A list of slices instead of a place."""
    entry = BundleEntry(1, shape, 0, 0, 0, 0, slices)

    assert encode_entry(entry) == reference_entry(entry)
    assert parse_entry(reference_entry(entry), Where("x"), DEFAULT_LIMITS) == entry._replace(crc=unmask_crc(0))
