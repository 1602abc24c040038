"""The bytes of string and variant tensors (formats 2.7, 2.8). Numeric tensors need no decoding.

    string:   varint64 length * n | fixed32 masked length-crc | bytes * n
    variant:  (varint64 length | bytes | fixed32 masked running crc) * n

The length-crc runs over the lengths as 4-byte integers (8-byte where one is longer than 32 bits), not over the varints. The
entry's CRC continues it over the 4 stored length-crc bytes and all string bytes. In a big-endian bundle the integers that
enter the CRC, and the stored length-crc, are big-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from openckpt.errors import CorruptionError, Where
from openckpt.formats.crc import crc32c, mask_crc, unmask_crc
from openckpt.formats.wire import encode_varint, parse_varint

Order = Literal["little", "big"]


def _lengths_crc(lengths: Sequence[int], order: Order) -> int:
    if all(length <= 0xFFFFFFFF for length in lengths):
        import struct

        return crc32c(struct.pack(f"{'<' if order == 'little' else '>'}{len(lengths)}I", *lengths))
    return crc32c(b"".join(n.to_bytes(4 if n <= 0xFFFFFFFF else 8, order) for n in lengths))


def crc_mismatch(where: Where, stored: int, computed: int, what: str = "the tensor's bytes") -> CorruptionError:
    """Make the error for a tensor whose bytes are not those that were written."""
    return CorruptionError(
        "bundle.crc-mismatch",
        where,
        f"checksum mismatch: {what} have changed since they were written",
        expected=f"stored crc32c {stored:#010x}",
        found=f"computed {computed:#010x}",
    )


def parse_strings(
    data: bytes, count: int, crc: int, where: Where, *, verify: bool, order: Order = "little"
) -> list[bytes]:
    """Return the ``count`` elements of a string tensor.

    Args:
        data: the stored bytes, exactly as many as the entry states.
        count: number of elements by the shape.
        crc: the entry's checksum, unmasked.
        where: file, key and offset of ``data``, for errors.
        verify: check both checksums; without it only lengths that cannot be right are refused.
        order: byte order of the bundle.

    Raises:
        CorruptionError: ``bundle.string-lengths``, ``bundle.crc-mismatch``.
    """
    if count == 0 and not data:
        return []  # TensorFlow writes 4 bytes here; other writers none (formats 2.7)
    if count > len(data):
        raise CorruptionError(
            "bundle.string-lengths", where, f"{count} strings do not fit into {len(data)} bytes of lengths and text"
        )
    lengths, pos = [], 0
    try:
        for _ in range(count):
            length, pos = parse_varint(data, pos)
            lengths.append(length)
    except ValueError as error:
        raise CorruptionError(
            "bundle.string-lengths", where, f"the list of string lengths is broken: {error}"
        ) from None
    if pos + 4 + sum(lengths) != len(data):
        raise CorruptionError(
            "bundle.string-lengths",
            where,
            "the string lengths do not add up to the stored size",
            expected=f"{len(data)} bytes",
            found=f"{pos + 4 + sum(lengths)}",
        )
    word = data[pos : pos + 4]
    pos += 4
    if verify:
        running = _lengths_crc(lengths, order)
        stored = unmask_crc(int.from_bytes(word, order))
        if stored != running:
            raise crc_mismatch(where, stored, running, "the string lengths")
        running = crc32c(memoryview(data)[pos:], crc32c(word, running))
        if running != crc:
            raise crc_mismatch(where, crc, running)
    elements = []
    for length in lengths:
        elements.append(data[pos : pos + length])
        pos += length
    return elements


def encode_strings(elements: Sequence[bytes], *, order: Order = "little") -> tuple[bytes, int]:
    """Return ``(stored bytes, crc)`` of a string tensor."""
    lengths = [len(element) for element in elements]
    running = _lengths_crc(lengths, order)
    word = mask_crc(running).to_bytes(4, order)
    text = b"".join(elements)
    return b"".join(map(encode_varint, lengths)) + word + text, crc32c(text, crc32c(word, running))


def parse_variants(data: bytes, count: int, crc: int, where: Where, *, verify: bool) -> list[bytes]:
    """Return the ``count`` elements of a variant tensor as opaque bytes; raises CorruptionError ``bundle.variant``."""
    if count * 5 > len(data):
        raise CorruptionError("bundle.variant", where, f"{count} variants do not fit into {len(data)} bytes")
    elements, pos, running = [], 0, 0
    for number in range(count):
        try:
            length, pos = parse_varint(data, pos)
        except ValueError as error:
            raise CorruptionError("bundle.variant", where, f"the length of variant {number}: {error}") from None
        if length > len(data) - pos - 4:
            raise CorruptionError(
                "bundle.variant", where, f"variant {number} claims {length} bytes, {len(data) - pos - 4} are left"
            )
        element, word = data[pos : pos + length], data[pos + length : pos + length + 4]
        pos += length + 4
        if verify:
            running = crc32c(element, crc32c(length.to_bytes(8, "little"), running))
            stored = unmask_crc(int.from_bytes(word, "little"))
            if stored != running:
                raise crc_mismatch(where, stored, running, f"the bytes of variant {number}")
            running = crc32c(word, running)
        elements.append(element)
    if pos != len(data):
        raise CorruptionError("bundle.variant", where, f"{len(data) - pos} bytes follow the last variant")
    if verify and running != crc:
        raise crc_mismatch(where, crc, running)
    return elements


def encode_variants(elements: Sequence[bytes]) -> tuple[bytes, int]:
    """Return ``(stored bytes, crc)`` of a variant tensor."""
    out, running = bytearray(), 0
    for element in elements:
        running = crc32c(element, crc32c(len(element).to_bytes(8, "little"), running))
        word = mask_crc(running).to_bytes(4, "little")
        running = crc32c(word, running)
        out += encode_varint(len(element)) + element + word
    return bytes(out), running
