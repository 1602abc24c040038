"""Slices of partitioned tensors: their keys and their protos.

A tensor that was saved in pieces has one entry under its own name and one per piece under a *slice key*:

    key      00 | name, 00 as 00 ff, ff as ff 00 | 00 01 | rank | start, length | start, length | ...
             uint                                  end     uint   signed, one pair per dimension
    uint     one byte N, then N bytes big-endian:                0 = 00            300 = 02 01 2c
    signed   as many leading 1 bits as bytes (0 bits if negative): 0 = 80   100 = c0 64   -1 = 7f
    proto    TensorSliceProto { repeated Extent extent = 1 { int64 start = 1; oneof { int64 length = 2 } } }

An extent without a length is the whole dimension and stands here as ``FULL = (0, -1)``, also inside the key; an explicit
extent that happens to span the dimension stays explicit, because the key is made of the extents exactly as listed.
Source: formats 2.9 (V2) and 3.2 (V1, where every tensor has a slice key).

Everything here is pure and imports no numpy: listing a checkpoint needs the keys, not the data.
"""

from __future__ import annotations

from typing import TypeAlias

from openckpt.errors import CorruptionError, Where
from openckpt.formats.wire import encode_varint, iter_fields, to_signed

Extents: TypeAlias = tuple[tuple[int, int], ...]
"""``(start, length)`` per dimension as stored; `FULL` for a whole dimension."""

FULL = (0, -1)

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


def encode_slice_key(name: bytes, extents: Extents) -> bytes:
    """Return the table key of the piece ``extents`` of the tensor ``name`` (formats 2.9)."""
    if b"\xff" in name or b"\x00" in name:
        name = b"".join(_ESCAPED.get(byte) or bytes((byte,)) for byte in name)
    parts = [b"\x00", name, b"\x00\x01", _encode_unsigned(len(extents))]
    for start, length in extents:
        parts.append(_encode_signed(start))
        parts.append(_encode_signed(length))
    return b"".join(parts)


_ESCAPED = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


def _encode_unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes((size,)) + value.to_bytes(size, "big")


def _encode_signed(value: int) -> bytes:
    size = ((value if value >= 0 else ~value).bit_length() + 7) // 7
    mask = ((1 << size) - 1) << (7 * size)
    return ((value & ((1 << 8 * size) - 1)) ^ mask).to_bytes(size, "big")


def is_slice_key(key: bytes) -> bool:
    """Return whether ``key`` can be a slice key: it starts with the byte 00."""
    return key[:1] == b"\x00"


def parse_slice_key(key: bytes, where: Where | str = "") -> tuple[bytes, Extents]:
    """Return ``(name, extents)`` of a slice key; the inverse of `encode_slice_key`.

    Raises:
        CorruptionError: not such a key, or not written in its one canonical way (``slices.bad-key``).
    """
    try:
        if key[0] != 0:
            raise ValueError("it does not start with 00")
        name, pos = _parse_string(key, 1)
        rank, pos = _parse_unsigned(key, pos)
        if rank > (len(key) - pos) // 2:
            raise ValueError(f"rank {rank} does not fit into {len(key) - pos} bytes")
        extents = []
        for _ in range(rank):
            start, pos = _parse_signed(key, pos)
            length, pos = _parse_signed(key, pos)
            extents.append((start, length))
        if pos != len(key):
            raise ValueError(f"{len(key) - pos} bytes follow its end")
    except (IndexError, ValueError) as error:
        reason = "it ends early" if isinstance(error, IndexError) else str(error)
        raise CorruptionError("slices.bad-key", where, f"not a slice key: {reason}", found=shorten(key.hex())) from None
    return name, tuple(extents)


def _parse_string(key: bytes, pos: int) -> tuple[bytes, int]:
    stop = key.index(b"\x00", pos)
    if key[stop + 1] == 1 and key.find(b"\xff", pos, stop) < 0:  # nearly every name
        return key[pos:stop], stop + 2
    name = bytearray()
    while True:
        byte = key[pos]
        pos += 1
        if byte not in _ESCAPED:
            name.append(byte)
            continue
        second = key[pos]
        pos += 1
        if byte == 0 and second == 1:
            return bytes(name), pos
        if second != _ESCAPED[byte][1]:
            raise ValueError(f"{byte:02x} {second:02x} is no escape")
        name.append(byte)


def _parse_unsigned(key: bytes, pos: int) -> tuple[int, int]:
    size = key[pos]
    raw = key[pos + 1 : pos + 1 + size]
    if size > 8 or len(raw) != size or raw[:1] == b"\x00":
        raise ValueError("bad unsigned number")
    return int.from_bytes(raw, "big"), pos + 1 + size


def _parse_signed(key: bytes, pos: int) -> tuple[int, int]:
    head = int.from_bytes(key[pos : pos + 2].ljust(2, b"\x00"), "big")
    run = head if key[pos] & 0x80 else head ^ 0xFFFF
    size = min(16 - (run ^ 0xFFFF).bit_length(), 10)
    raw = key[pos : pos + size]
    value = int.from_bytes(raw, "big") ^ (((1 << size) - 1) << (7 * size))
    if value >> (8 * size - 1):
        value -= 1 << (8 * size)
    if len(raw) != size or not _INT64_MIN <= value <= _INT64_MAX or _encode_signed(value) != raw:
        raise ValueError("bad signed number")
    return value, pos + size


def parse_slice_proto(data: bytes, where: Where | str = "") -> Extents:
    """Return the extents of a serialized TensorSliceProto; an extent without a length becomes `FULL`.

    Raises:
        CorruptionError: not such a proto, or an extent that no slice can have (``slices.bad-extent``).
    """
    extents = []
    try:
        for number, _, value in iter_fields(data):
            if number == 1 and isinstance(value, bytes):
                extents.append(_parse_extent(value))
    except ValueError as error:
        raise CorruptionError("slices.bad-extent", where, f"not a slice: {error}", found=shorten(data.hex())) from None
    return tuple(extents)


def _parse_extent(data: bytes) -> tuple[int, int]:
    start, length = 0, -1
    for number, _, value in iter_fields(data):
        if isinstance(value, int) and number == 1:
            start = to_signed(value)
        elif isinstance(value, int) and number == 2:
            length = to_signed(value)
    if start < 0 or length < -1 or (length == -1 and start):
        raise ValueError(f"no extent starts at {start} with length {length}")
    return start, length


def encode_slice_proto(extents: Extents) -> bytes:
    """Return the TensorSliceProto as TensorFlow writes it: start 0 is left out, a length is always written."""
    parts = []
    for start, length in extents:
        body = (b"\x08" + encode_varint(start) if start else b"") + (
            b"\x10" + encode_varint(length) if length >= 0 else b""
        )
        parts.append(b"\x0a" + encode_varint(len(body)) + body)
    return b"".join(parts)


def format_extents(extents: Extents) -> str:
    """Return TensorFlow's text form: ``0,2:-`` is the first two rows of a matrix."""
    return ":".join("-" if extent == FULL else f"{extent[0]},{extent[1]}" for extent in extents)


def shorten(text: str) -> str:
    """Return text as far as a message can hold it."""
    return text if len(text) <= 200 else f"{text[:200]}..."
