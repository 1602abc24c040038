"""Slices of partitioned tensors: their keys, their protos, and how pieces are put together again.

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

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from openckpt.errors import CorruptionError, LimitError, Where
from openckpt.formats.wire import encode_varint, iter_fields, to_signed

Extents: TypeAlias = tuple[tuple[int, int], ...]
"""``(start, length)`` per dimension as stored; `FULL` for a whole dimension."""

Region: TypeAlias = tuple[tuple[int, int], ...]
"""``(start, length)`` per dimension, every length known; made from `Extents` by `resolve_extents`."""

FULL = (0, -1)

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


# ---------------------------------------------------------------------------------------------------- slice keys


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
        raise CorruptionError(
            "slices.bad-key", where, f"not a slice key: {reason}", found=_shorten(key.hex())
        ) from None
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


# --------------------------------------------------------------------------------------------------- slice protos


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
        raise CorruptionError("slices.bad-extent", where, f"not a slice: {error}", found=_shorten(data.hex())) from None
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


# ------------------------------------------------------------------------------------------------ pieces to a whole


@dataclass(frozen=True, slots=True)
class Copy:
    """One step of putting a tensor together: ``target[self.target] = pieces[self.piece][self.source]``."""

    piece: int
    source: tuple[slice, ...]
    target: tuple[slice, ...]


def resolve_extents(extents: Extents, shape: Sequence[int], where: Where | str = "") -> Region:
    """Return ``extents`` with whole dimensions filled in from ``shape``, the shape of the whole tensor.

    Raises:
        CorruptionError: another rank than the tensor, or outside it (``slices.bad-extent``).
    """
    if len(extents) != len(shape):
        raise CorruptionError(
            "slices.bad-extent",
            where,
            "a slice has another rank than its tensor",
            expected=len(shape),
            found=f"{len(extents)} ({_shorten(format_extents(extents))})",
        )
    region = tuple((0, size) if extent == FULL else extent for extent, size in zip(extents, shape, strict=True))
    for (start, length), size in zip(region, shape, strict=True):
        if start < 0 or length < 0 or start + length > size:
            raise CorruptionError(
                "slices.bad-extent",
                where,
                "a slice reaches outside its tensor",
                expected=f"inside {list(shape)}",
                found=_shorten(format_extents(extents)),
            )
    return region


def full_region(shape: Sequence[int]) -> Region:
    """Return the region of a whole tensor."""
    return tuple((0, size) for size in shape)


def region_shape(region: Region) -> tuple[int, ...]:
    """Return the shape of the array that holds ``region``."""
    return tuple(length for _, length in region)


def intersect(a: Region, b: Region) -> Region | None:
    """Return the region common to both, or None where they share no element. Two scalars share their element."""
    common = []
    for (start_a, length_a), (start_b, length_b) in zip(a, b, strict=True):
        start = max(start_a, start_b)
        length = min(start_a + length_a, start_b + length_b) - start
        if length <= 0:
            return None
        common.append((start, length))
    return tuple(common)


def plan_copies(request: Region, pieces: Sequence[Region], where: Where | str = "") -> list[Copy]:
    """Return the copies that fill ``request`` from ``pieces``, every element exactly once.

    Args:
        request: the part of the tensor that is wanted, usually `full_region`.
        pieces: the stored slices, resolved; those that miss the request are left out of the plan.
        where: the place for messages.

    Raises:
        CorruptionError: some elements lie in no piece (``slices.gap``) or in several (``slices.overlap``).
        LimitError: so many pieces, so intertwined, that the proof would take too long (``slices.tangled``).
    """
    parts: list[Region] = []
    copies: list[Copy] = []
    for index, piece in enumerate(pieces):
        common = intersect(request, piece)
        if common is None:
            continue
        parts.append(common)
        copies.append(Copy(index, _relative(common, piece), _relative(common, request)))
    wanted = prod(region_shape(request))
    covered = sum(prod(region_shape(part)) for part in parts)
    if covered < wanted:
        raise CorruptionError(
            "slices.gap",
            where,
            f"the stored slices do not cover the tensor: {_list_regions(pieces)}",
            expected=f"{wanted} elements",
            found=f"{covered}",
        )
    check_disjoint(parts, where)
    if covered > wanted:
        raise CorruptionError("slices.overlap", where, "stored slices overlap: several")
    return copies


def check_disjoint(pieces: Sequence[Region], where: Where | str = "") -> None:
    """Raise CorruptionError (``slices.overlap``) where two pieces share an element; LimitError as `plan_copies`."""
    clash = None if len(pieces) < 2 else _find_overlap(list(pieces), where)
    if clash is not None:
        both = " and ".join(format_extents(part) for part in clash)
        raise CorruptionError("slices.overlap", where, f"stored slices overlap: {_shorten(both)}")


def _relative(common: Region, frame: Region) -> tuple[slice, ...]:
    return tuple(
        slice(start - origin, start - origin + length)
        for (start, length), (origin, _) in zip(common, frame, strict=True)
    )


def _find_overlap(parts: list[Region], where: Where | str) -> tuple[Region, Region] | None:
    """Return two parts that share an element, or None.

    Cuts a group of parts wherever a plane along one axis passes through none of them, and goes on with what lies between
    two planes along the other axes: a grid, or anything made by cutting and cutting again, falls apart into single parts.
    What no plane divides (a pinwheel) is compared pairwise. The work is bounded, so that a million hostile slices cannot
    hold the reader up: TensorFlow itself only makes what the cuts take apart.
    """
    rank = len(parts[0])
    axes = [axis for axis in range(rank) if any(part[axis] != parts[0][axis] for part in parts)]
    budget = 1_000_000 + 16 * len(parts) * max(1, len(axes))
    groups = [parts]
    while groups:
        group = groups.pop()
        if len(group) == 1:
            continue
        for axis in axes:
            budget -= len(group)
            divided = _divide(group, axis)
            if len(divided) > 1:
                groups.extend(divided)
                break
        else:
            budget -= len(group) ** 2 // 2
            if budget >= 0:
                for index, part in enumerate(group):
                    for other in group[:index]:
                        if intersect(part, other) is not None:
                            return other, part
        if budget < 0:
            raise LimitError(
                "slices.tangled",
                where,
                f"{len(parts)} slices are too intertwined to be proven free of overlaps",
            )
    return None


def _divide(group: list[Region], axis: int) -> list[list[Region]]:
    ordered = sorted(group, key=lambda part: part[axis])
    divided: list[list[Region]] = []
    reach = -1
    for part in ordered:
        start, length = part[axis]
        if start >= reach:
            divided.append([])
        divided[-1].append(part)
        reach = max(reach, start + length)
    return divided


def _list_regions(regions: Sequence[Region]) -> str:
    shown = ", ".join(format_extents(region) or "scalar" for region in regions[:4])
    more = f" and {len(regions) - 4} more" if len(regions) > 4 else ""
    return _shorten(f"slices {shown}{more}" if regions else "there is none")


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
