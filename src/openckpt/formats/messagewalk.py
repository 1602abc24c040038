"""A walk over the fields of a protobuf message that lies in a file, skipping what is not wanted without reading it.

A meta graph may hold hundreds of megabytes of graph, of which a checkpoint tool wants a hundred bytes. `iter_fields` here reads
the file through a window of 64 KiB and jumps over payloads; `openckpt.formats.wire` does the same for bytes in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openckpt.formats.wire import parse_varint
from openckpt.storage.reading import ByteSource

_WINDOW = 1 << 16
_LONGEST_HEAD = 20  # bytes of a tag and a length, both as long as varints go


class Field(NamedTuple):
    """One field of a message in a file."""

    number: int
    wire: int
    start: int
    """where its payload starts"""
    stop: int
    """where its payload ends"""


class MessageFile:
    """The fields of messages inside one file. Raises ValueError where the bytes are no message."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._window = b""
        self._at = 0

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield each field of the message that lies from ``start`` to ``stop``."""
        pos = start
        while pos < stop:
            head, base = self._head(pos, stop)
            tag, end = parse_varint(head, pos - base)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >> 32:
                raise ValueError(f"field number {number} is not legal at {pos}")
            payload = base + end
            if wire == 2:
                length, end = parse_varint(head, end)
                payload = base + end
                after = payload + length
            elif wire == 0:
                _, end = parse_varint(head, end)
                after = base + end
            elif wire in (1, 5):
                after = payload + (8 if wire == 1 else 4)
            else:
                raise ValueError(f"field {number} has wire type {wire} at {pos}")
            if after > stop:
                raise ValueError(f"field {number} at {pos} ends at {after}, its message at {stop}")
            yield Field(number, wire, payload, after)
            pos = after

    def _head(self, pos: int, stop: int) -> tuple[bytes, int]:
        """Return bytes that hold the head of the field at ``pos``, and the place of the first of them."""
        room = min(_LONGEST_HEAD, stop - pos)
        if not self._at <= pos or pos + room > self._at + len(self._window):
            self._at = pos
            self._window = self._source.read_at(pos, min(_WINDOW, self._source.size - pos))
        return self._window, self._at

    def read(self, field: Field) -> bytes:
        """Return the payload of a field."""
        return self._source.read_at(field.start, field.stop - field.start)

    def count(self, start: int, stop: int, number: int) -> int:
        """Return how many fields of this number a message has."""
        return sum(field.number == number for field in self.fields(start, stop))
