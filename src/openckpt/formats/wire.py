"""The protobuf wire format, as far as checkpoints need it: varints and a walk over the fields of one message.

    field := varint(number << 3 | wire type), payload
    payload := varint (type 0) | 8 bytes (1) | varint length, bytes (2) | 4 bytes (5)

Importing protobuf to list a checkpoint would cost more than the listing, and nothing else here needs it either. Functions
raise `ValueError` on bytes that are not a message; callers know the file and the key, and turn it into the `CorruptionError`
of their format.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def parse_varint(data: bytes | memoryview, pos: int) -> tuple[int, int]:
    """Return ``(value, next position)`` of the varint at ``pos``; at most 10 bytes and 64 bits (formats 0)."""
    try:
        byte = data[pos]
        if byte < 0x80:
            return byte, pos + 1
        value, shift = byte & 0x7F, 7
        while True:
            pos += 1
            byte = data[pos]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise ValueError("a varint is longer than 64 bits")
                return value, pos + 1
            shift += 7
            if shift > 63:
                raise ValueError("a varint is longer than 10 bytes")
    except IndexError:
        raise ValueError("a varint runs past the end") from None


def encode_varint(value: int) -> bytes:
    """Return the varint of an unsigned integer; negative int32/int64 are passed as ``value & (2**64 - 1)``."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def to_signed(value: int) -> int:
    """Return the int64 (or int32) that a varint of up to 64 bits stands for."""
    return value - (1 << 64) if value >> 63 else value


def iter_fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield ``(field number, wire type, value)`` of a serialized message, in stored order.

    Varints and fixed integers come unsigned, length-delimited payloads as bytes. Groups (types 3 and 4, long deprecated and
    in no message of TensorFlow's) are refused.
    """
    pos, end = 0, len(data)
    while pos < end:
        tag, pos = parse_varint(data, pos)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32:
            raise ValueError(f"field number {number} is not legal")
        if wire == VARINT:
            value, pos = parse_varint(data, pos)
            yield number, wire, value
        elif wire == LENGTH:
            length, pos = parse_varint(data, pos)
            if length > end - pos:
                raise ValueError(f"field {number} claims {length} bytes, {end - pos} are left")
            yield number, wire, data[pos : pos + length]
            pos += length
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
            if length > end - pos:
                raise ValueError(f"field {number} runs past the end")
            yield number, wire, int.from_bytes(data[pos : pos + length], "little")
            pos += length
        else:
            raise ValueError(f"field {number} has wire type {wire}")


def varint_fields(data: bytes) -> dict[int, int]:
    """Return ``{field number: value}`` of the varints of a message as signed integers, the last of each number."""
    return {n: to_signed(value) for n, wire, value in iter_fields(data) if wire == VARINT and isinstance(value, int)}


def text_fields(data: bytes, wanted: tuple[int, ...]) -> dict[int, str]:
    """Return ``{field number: text}`` of the string fields with the ``wanted`` numbers, the last of each."""
    return {n: value.decode() for n, _, value in iter_fields(data) if isinstance(value, bytes) and n in wanted}


def encode_field(number: int, value: int | bytes) -> bytes:
    """Return one field: an integer as varint, bytes as length-delimited."""
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value & 0xFFFFFFFFFFFFFFFF)
    return encode_varint(number << 3 | LENGTH) + encode_varint(len(value)) + value
