"""Hostile tables (formats 1): lengths, counts, handles and order that lie, with every checksum right."""

from __future__ import annotations

import struct

from attacks.attack import Attack
from attacks.craft import (
    EMPTY_BLOCK,
    MAGIC,
    block,
    entry,
    entry_bytes,
    floats,
    footer,
    handle,
    header,
    snappy_copies,
    stored,
    table,
    table_of_blocks,
    varint,
)

DATA = floats(1.0, 2.0, 3.0, 4.0)
ONE = entry(DATA[:8], 2)
TWO = entry(DATA[8:], 2, offset=8)
ITEMS = [(b"", header()), (b"a", ONE), (b"b", TWO)]
SOUND = table(ITEMS)


def _index(name: str, code: str, data: bytes, *, how: str = "read") -> Attack:
    """An index with one sound shard beside it."""
    files = {"ckpt.index": data, "ckpt.data-00000-of-00001": DATA}
    return Attack(name, files, "ckpt", code, how=how)  # type: ignore[arg-type]


def _one_block(name: str, code: str, contents: bytes, **overrides: object) -> Attack:
    """An index of a single data block with the given contents."""
    return _index(name, code, table_of_blocks([(b"\xff", contents)], **overrides))  # type: ignore[arg-type]


def _flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


_HEAD = entry_bytes(b"", header())
_A = entry_bytes(b"a", ONE)


def _long_keys() -> dict[str, bytes]:
    """Half a megabyte that spells out ten gigabytes of keys: each entry shares 100,000 bytes with the one before."""
    long = b"k" * 100_000
    entries = [_HEAD, entry_bytes(long, ONE)]
    for number in range(100_000):
        entries.append(entry_bytes(struct.pack(">I", number), b"", shared=len(long)))
    return {"ckpt.index": table_of_blocks([(b"\xff", block(entries))]), "ckpt.data-00000-of-00001": DATA}


def _restarts_on_one_key() -> dict[str, bytes]:
    """A megabyte of restart points that all lead to the same key of 100,000 bytes."""
    entries = [_HEAD, entry_bytes(b"k" * 100_000, ONE)]
    contents = block(entries, restarts=[0, *[len(_HEAD)] * 225_000])
    return {"ckpt.index": table_of_blocks([(b"\xff", contents)]), "ckpt.data-00000-of-00001": DATA}


def _restarts_inside_a_key() -> dict[str, bytes]:
    """A key whose own bytes read as entries with long keys, and restart points into every fourth of them."""
    inner = (b"\x00" + varint(60_000) + b"\x00") * 20_000
    entries = [_HEAD, entry_bytes(inner, ONE)]
    start = len(entries[0]) + len(entries[1]) - len(inner) - len(ONE)
    contents = block(entries, restarts=[0, *range(start, start + 40_000, len(inner) // 20_000)])
    return {"ckpt.index": table_of_blocks([(b"\xff", contents)]), "ckpt.data-00000-of-00001": DATA}


def _metaindex_on_data() -> dict[str, bytes]:
    """The footer names the only data block as the metaindex block too."""
    contents = block([_HEAD, _A])
    data = table_of_blocks([(b"\xff", contents)], metaindex_handle=handle(0, len(contents)))
    return {"ckpt.index": data, "ckpt.data-00000-of-00001": DATA}


def _same_block_again() -> dict[str, bytes]:
    """An index block that files one data block under 100,000 separators."""
    contents = block([_HEAD, _A])
    at = handle(0, len(contents))
    entries = [entry_bytes(b"x" + struct.pack(">I", number), at) for number in range(100_000)]
    return {
        "ckpt.index": table_of_blocks([(b"\xff", contents)], index_block=block(entries)),
        "ckpt.data-00000-of-00001": DATA,
    }


def _cut_footer(metaindex: bytes, index: bytes) -> bytes:
    return stored(EMPTY_BLOCK) + stored(EMPTY_BLOCK) + footer(metaindex, index)


CASES = [
    # The file as a whole.
    _index("empty-file", "detect.empty", b""),
    _index("shorter-than-footer", "table.too-short", SOUND[-47:]),
    _index("footer-only-zeros", "detect.zeros", bytes(48)),
    _index("truncated-by-one-byte", "detect.table-cut", SOUND[:-1]),
    _index("one-byte-appended", "detect.trailing-junk", SOUND + b"\n"),
    _index("magic-of-the-wrong-endianness", "detect.table-cut", SOUND[:-8] + MAGIC[::-1]),
    # The footer.
    _index("footer-index-handle-endless-varint", "table.footer-handle", _cut_footer(handle(0, 8), b"\xff" * 30)),
    _index("footer-index-past-end", "table.handle-past-end", _cut_footer(handle(0, 8), handle(1 << 40, 8))),
    _index("footer-index-size-huge", "table.handle-past-end", _cut_footer(handle(0, 8), handle(0, (1 << 63) - 1))),
    _index(
        "footer-index-offset-and-size-wrap",
        "table.handle-past-end",
        _cut_footer(handle(0, 8), handle((1 << 64) - 8, 16)),
    ),
    _index("footer-index-inside-footer", "table.handle-past-end", _cut_footer(handle(0, 8), handle(26, 30))),
    _index("footer-index-misses-by-one", "table.block-crc", _cut_footer(handle(0, 8), handle(12, 8))),
    # The index block.
    _index("index-value-is-no-handle", "table.bad-handle", table(ITEMS, handles={0: b"\x80"})),
    _index("index-value-empty", "table.bad-handle", table(ITEMS, handles={0: b""})),
    _index("data-block-past-end", "table.handle-past-end", table(ITEMS, handles={0: handle(0, 1 << 31)})),
    _index("data-block-size-zero", "table.block-crc", table(ITEMS, handles={0: handle(0, 0)})),
    _index("separators-not-sorted", "table.key-order", table_of_blocks([(b"z", block([_HEAD])), (b"b", block([_A]))])),
    _index(
        "key-under-the-wrong-separator",
        "table.separator",
        table_of_blocks([(b"A", block([_HEAD, _A])), (b"z", block([entry_bytes(b"b", ONE)]))]),
    ),
    _index(
        "second-block-starts-before-separator",
        "table.separator",
        table_of_blocks([(b"p", block([_HEAD, _A])), (b"z", block([entry_bytes(b"b", ONE)]))]),
    ),
    Attack("one-block-under-100000-separators", _same_block_again, "ckpt", "table.bad-handle"),
    # A block and its trailer.
    _index("flipped-byte-in-data-block", "table.block-crc", _flip(SOUND, 5)),
    _index("crc-zero", "table.block-crc", table(ITEMS, crcs={0: 0})),
    _index("unmasked-crc", "table.block-crc", table(ITEMS, crcs={0: 0x12345678})),
    _index("block-type-2", "table.block-type", table(ITEMS, kinds={0: 2})),
    _index("block-type-255", "table.block-type", table(ITEMS, kinds={0: 255})),
    _one_block("block-shorter-than-its-count", "table.bad-block", b"\x01\0\0"),
    _one_block("restart-count-huge", "table.bad-block", block([_HEAD], count=0xFFFFFFFF)),
    _one_block("restart-count-one-too-many", "table.bad-block", struct.pack("<I", 2) * 2),
    # Entries.
    _one_block("shared-with-no-key-before", "table.bad-entry", block([entry_bytes(b"", header(), shared=1)])),
    _one_block(
        "shared-more-than-previous-key", "table.bad-entry", block([_HEAD, _A, entry_bytes(b"x", ONE, shared=2)])
    ),
    _one_block("key-length-past-block", "table.bad-entry", block([_HEAD, entry_bytes(b"a", b"", non_shared=1 << 20)])),
    _one_block("value-length-past-block", "table.bad-entry", block([_HEAD, entry_bytes(b"a", b"", length=100)])),
    _one_block("value-length-2-to-63", "table.bad-entry", block([_HEAD, entry_bytes(b"a", b"", length=1 << 63)])),
    _one_block("entry-cut-by-restarts", "table.bad-entry", block([_HEAD, b"\x00"])),
    _one_block("varint-of-eleven-bytes", "table.bad-entry", block([_HEAD, varint(0, pad=10) + b"\x01\x00a"])),
    _one_block("varint-of-70-bits", "table.bad-entry", block([_HEAD, b"\xff" * 9 + b"\x7f" + b"\x01\x00a"])),
    _one_block("varint-runs-off-the-block", "table.bad-entry", block([_HEAD, b"\xff" * 5], restarts=())),
    _one_block("keys-not-sorted", "table.key-order", block([_HEAD, entry_bytes(b"b", ONE), _A])),
    _one_block("duplicate-key", "table.key-order", block([_HEAD, _A, _A])),
    _one_block("duplicate-empty-key", "table.key-order", block([_HEAD, _HEAD])),
    _index(
        "keys-not-sorted-across-blocks",
        "table.key-order",
        table_of_blocks([(b"b", block([_HEAD, entry_bytes(b"b", ONE)])), (b"c", block([_A]))]),
    ),
    Attack("keys-that-expand-without-end", _long_keys, "ckpt", "limits.exceeded"),
    Attack("restart-points-on-one-long-key", _restarts_on_one_key, "ckpt", "table.bad-entry"),
    Attack("restart-points-inside-a-key", _restarts_inside_a_key, "ckpt", "table.bad-entry"),
    _one_block("restart-points-in-falling-order", "table.bad-entry", block([_HEAD, _A], restarts=[len(_HEAD), 0])),
    # Snappy.
    _one_block("snappy-empty", "table.snappy", b"", kinds={0: 1}),
    _one_block("snappy-claims-2-to-60", "table.snappy", varint(1 << 60) + b"\x00\x00", kinds={0: 1}),
    _one_block("snappy-claims-4-GiB", "table.snappy", varint((1 << 32) - 1) + bytes(200), kinds={0: 1}),
    _one_block("snappy-claims-too-little", "table.snappy", snappy_copies(4000, claimed=100), kinds={0: 1}),
    _one_block("snappy-claims-too-much", "table.snappy", snappy_copies(4000, claimed=4001), kinds={0: 1}),
    _one_block("snappy-copy-before-start", "table.snappy", varint(64) + b"\xfe\x09\x00", kinds={0: 1}),
    _one_block("snappy-copy-of-offset-zero", "table.snappy", varint(65) + b"\x00\x00\xfe\x00\x00", kinds={0: 1}),
    _one_block("snappy-literal-past-end", "table.snappy", varint(60) + b"\xf0\xff" + b"x" * 3, kinds={0: 1}),
    _one_block("snappy-of-two-million-zeros", "bundle.bad-header", snappy_copies(2_000_000), kinds={0: 1}),
    # What no reader needs, but the doctor tells.
    _index(
        "metaindex-handle-past-end", "table.metaindex", table(ITEMS, metaindex_handle=handle(1 << 50, 8)), how="doctor"
    ),
    _index("metaindex-not-empty", "table.metaindex", table(ITEMS, metaindex=block([_A])), how="doctor"),
    Attack("metaindex-on-top-of-data", _metaindex_on_data, "ckpt", "table.blocks-overlap", how="doctor"),
]
