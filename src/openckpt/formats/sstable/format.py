"""Constants and the small structures of a table file (formats 1.1 to 1.3).

data block 0 + trailer | data block 1 + trailer | ... | metaindex block + trailer | index block + trailer | footer

trailer (5 bytes)  := compression type (00 none, 01 Snappy), fixed32 masked crc32c(stored block + type)
handle             := varint64 offset, varint64 size (without the trailer)
footer (48 bytes)  := metaindex handle, index handle, zeros up to byte 40, magic 57 fb 80 8b 24 75 47 db
block              := entry*, fixed32 restart offset * n, fixed32 n
entry              := varint32 shared, varint32 non-shared, varint32 value length, key[shared:], value
"""

from __future__ import annotations

from typing import NamedTuple

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.crc import crc32c, unmask_crc
from openckpt.formats.wire import encode_varint, parse_varint
from openckpt.limits import Limits

FOOTER_BYTES = 48
TRAILER_BYTES = 5
MAGIC = 0xDB4775248B80FB57
"""LevelDB's magic number, which TensorFlow kept"""
MAGIC_BYTES = MAGIC.to_bytes(8, "little")

NO_COMPRESSION, SNAPPY = 0, 1

# A Snappy copy element makes at most 64 bytes out of 2; nothing in the format expands further.
_SNAPPY_MAX_RATIO = 32


class Handle(NamedTuple):
    """Where a block lies: offset and size in bytes, the 5-byte trailer not counted."""

    offset: int
    size: int

    def encode(self) -> bytes:
        """Return the stored form."""
        return encode_varint(self.offset) + encode_varint(self.size)


def parse_handle(data: bytes, pos: int) -> tuple[Handle, int]:
    """Return ``(handle, next position)``; raises `ValueError` when the bytes are no handle."""
    offset, pos = parse_varint(data, pos)
    size, pos = parse_varint(data, pos)
    return Handle(offset, size), pos


def parse_footer(footer: bytes, where: Where) -> tuple[Handle | None, Handle]:
    """Return ``(metaindex handle or None when unreadable, index handle)`` of the last 48 bytes of a table.

    The metaindex block is always empty and TensorFlow never looks at it, so a damaged handle is no error here.
    """
    if footer[40:] != MAGIC_BYTES:
        raise CorruptionError(
            "table.bad-magic",
            where,
            "not a table: the file does not end with the table magic",
            expected=MAGIC_BYTES.hex(" "),
            found=footer[40:].hex(" "),
        )
    try:
        metaindex, pos = parse_handle(footer[:40], 0)
        index, _ = parse_handle(footer[:40], pos)
    except ValueError as error:
        raise CorruptionError("table.footer-handle", where, f"the footer holds no block handle: {error}") from None
    return metaindex, index


def unpack_block(stored: bytes, where: Where, limits: Limits) -> bytes:
    """Check the trailer at the end of ``stored`` and return the block's contents, uncompressed.

    Raises:
        CorruptionError: ``table.block-crc``, ``table.block-type``, ``table.snappy``.
        LimitError: a Snappy block that would expand beyond ``limits.block_bytes``.
    """
    size = len(stored) - TRAILER_BYTES
    stated = unmask_crc(int.from_bytes(stored[size + 1 :], "little"))
    computed = crc32c(memoryview(stored)[: size + 1])
    if computed != stated:
        raise CorruptionError(
            "table.block-crc",
            where,
            f"checksum mismatch in a block of {size} bytes",
            expected=f"stored crc32c {stated:#010x}",
            found=f"computed {computed:#010x}",
        )
    kind = stored[size]
    if kind == NO_COMPRESSION:
        return stored[:size]
    if kind != SNAPPY:
        raise UnsupportedError(
            "table.block-type", where, "unknown block compression", expected="0 (none) or 1 (Snappy)", found=kind
        )
    return _uncompress_snappy(stored[:size], where, limits)


def _uncompress_snappy(data: bytes, where: Where, limits: Limits) -> bytes:
    try:
        length, _ = parse_varint(data, 0)
    except ValueError as error:
        raise CorruptionError("table.snappy", where, f"a Snappy block without a length: {error}") from None
    if length > _SNAPPY_MAX_RATIO * len(data):
        raise CorruptionError(
            "table.snappy", where, f"a Snappy block of {len(data)} bytes cannot hold the {length} bytes that it claims"
        )
    limits.check("block_bytes", length, where, "the uncompressed size of a block")
    import cramjam

    try:
        block = bytes(cramjam.snappy.decompress_raw(data))
    except cramjam.DecompressionError as error:
        raise CorruptionError("table.snappy", where, f"a Snappy block does not uncompress: {error}") from None
    if len(block) != length:
        raise CorruptionError("table.snappy", where, "a Snappy block", expected=f"{length} bytes", found=len(block))
    return block
