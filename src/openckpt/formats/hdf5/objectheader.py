"""The header of an HDF5 object, read by our own code just far enough to get at the stored bytes of an attribute.

    version 1   1 0 | messages:2 | references:4 | size:4 | 0:4 | message*           message = type:2 size:2 flags 0:3 data
    version 2   "OHDR" 2 flags | times:16 if flags & 20 | limits:4 if flags & 10 | size:1, 2, 4 or 8 by flags & 3
                | message*, checksum:4                                               message = type size:2 flags [order:2] data
    0010        continuation: address:O length:L of more messages ("OCHK" before and a checksum behind them in version 2)
    000c        attribute: version flags | sizes of name:2 type:2 space:2 | [encoding] | name type space | data
                version 1 pads name, type and space to 8 bytes

Attributes in "dense" storage (hundreds of them, or one above 64 kB in the newest format) are not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openckpt.formats.hdf5.superblock import Superblock

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_MOST_CHUNKS = 1000
_SHARED = 0x02
_PEEK = 512  # most headers are shorter, and need no second read


def find_attribute(source: ByteSource, block: Superblock, address: int, name: bytes) -> bytes | None:
    """Return the stored bytes of attribute ``name`` of the object at ``address``, None where the header does not hold them.

    Never raises for what the bytes say: whatever does not look like a header has no attributes.
    """
    for kind, flags, body in _messages(source, block, address + block.offset):
        if kind == _ATTRIBUTE and not flags & _SHARED:
            found = _attribute_data(body, name)
            if found is not None:
                return found
    return None


def _attribute_data(body: bytes, name: bytes) -> bytes | None:
    if len(body) < 9 or body[0] not in (1, 2, 3):
        return None
    version = body[0]
    sizes = [int.from_bytes(body[at : at + 2], "little") for at in (2, 4, 6)]
    at = 9 if version == 3 else 8
    if body[at : at + sizes[0]].rstrip(b"\0") != name:
        return None
    for size in sizes:
        at += -(-size // 8) * 8 if version == 1 else size
    return body[at:] if at <= len(body) else None


def _messages(source: ByteSource, block: Superblock, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield ``(type, flags, data)`` of every message of the object at byte ``at``, through its continuations."""
    start = _read(source, at, _PEEK)
    first = at
    if start[:4] == b"OHDR" and len(start) > 6 and start[4] == 2:
        flags = start[5]
        at += 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(start[at - first : at - first + width], "little")
        chunks, prefix, order = [(at + width, size)], 4, 2 if flags & 0x04 else 0
    elif start[:1] == b"\1" and len(start) >= 16:
        chunks, prefix, order = [(at + 16, int.from_bytes(start[8:12], "little"))], 0, -1
    else:
        return
    for number, (place, size) in enumerate(chunks):
        if number >= _MOST_CHUNKS or place + size > source.size:
            return
        near = place >= first and place + size <= first + len(start)
        data = start[place - first : place - first + size] if near else source.read_at(place, size)
        if number and prefix:
            if data[:4] != b"OCHK":
                return
            data = data[4:-4]
        for kind, flags, body in _split(data, order):
            if kind == _CONTINUATION:
                width = block.offset_size
                address = int.from_bytes(body[:width], "little") + block.offset
                chunks.append((address, int.from_bytes(body[width : width + block.length_size], "little")))
            else:
                yield kind, flags, body


def _split(data: bytes, order: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the messages in one chunk; ``order`` is -1 for version 1, else the bytes of the creation order."""
    at, head = 0, 8 if order < 0 else 4 + order
    while at + head <= len(data):
        if order < 0:
            kind, size, flags = (
                int.from_bytes(data[at : at + 2], "little"),
                int.from_bytes(data[at + 2 : at + 4], "little"),
                data[at + 4],
            )
        else:
            kind, size, flags = data[at], int.from_bytes(data[at + 1 : at + 3], "little"), data[at + 3]
        at += head
        if at + size > len(data):
            return
        yield kind, flags, data[at : at + size]
        at += size


def _read(source: ByteSource, at: int, size: int) -> bytes:
    return source.read_at(at, min(size, source.size - at)) if 0 <= at < source.size else b""
