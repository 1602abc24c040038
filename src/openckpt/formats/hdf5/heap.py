"""The global heap of an HDF5 file, where strings of variable length lie; read by our own code.

    collection   "GCOL" 1 0 0 0 | size:L | object*
    object       index:2 references:2 0:4 size:L data, padded to 8 bytes; index 0 is the free space at the end
    element      length:4 address:O index:4        what a dataset or an attribute holds in place of the string

Elements may all point to one object of many megabytes: libhdf5 would make as many copies of it, here they share one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where
from openckpt.formats.hdf5.superblock import Superblock

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource


class GlobalHeap:
    """Global heap collections, read when first needed. An object that many elements share is one `bytes` object."""

    def __init__(self, source: ByteSource, block: Superblock, where: Where) -> None:
        self._source = source
        self._block = block
        self._where = where
        self._tables: dict[int, dict[int, tuple[int, int]]] = {}
        self._values: dict[tuple[int, int, int], bytes] = {}
        self._read = 0

    def strings(self, rows: bytes) -> list[bytes]:
        """Return the strings that the elements in ``rows`` point to; without their end at the first zero byte."""
        size = self._block.offset_size
        return [
            self.get(
                int.from_bytes(rows[at : at + 4], "little"),
                int.from_bytes(rows[at + 4 : at + 4 + size], "little"),
                int.from_bytes(rows[at + 4 + size : at + 8 + size], "little"),
            )
            for at in range(0, len(rows), 8 + size)
        ]

    def get(self, length: int, address: int, index: int) -> bytes:
        """Return the string of ``length`` bytes that is object ``index`` of the collection at ``address``."""
        if length == 0:
            return b""
        value = self._values.get((length, address, index))
        if value is None:
            if address not in self._tables:
                self._tables[address] = self._table(address + self._block.offset)
            place, stored = self._tables[address].get(index, (0, -1))
            if length > stored:
                raise self._bad(address, f"object {index} of the heap is missing or shorter than {length} bytes")
            # libhdf5 hands out C strings, which end at the first zero byte
            value = self._source.read_at(place, length).partition(b"\0")[0]
            self._values[length, address, index] = value
        return value

    def _table(self, at: int) -> dict[int, tuple[int, int]]:
        """Return ``{index: (offset in the file, bytes)}`` of the collection at ``at``."""
        header = 8 + self._block.length_size
        if at + header > self._source.size:
            raise self._bad(at, "the heap lies beyond the end of the file")
        head = self._source.read_at(at, header)
        size = int.from_bytes(head[8:], "little")
        # collections that claim each other's bytes would be read again and again
        self._read += size
        if head[:4] != b"GCOL" or size < header or at + size > self._source.size or self._read > 2 * self._source.size:
            raise self._bad(at, "no heap collection where a string should be, or one larger than the file")
        data = self._source.read_at(at, size)
        objects: dict[int, tuple[int, int]] = {}
        place = header
        while place + header <= size:
            index = int.from_bytes(data[place : place + 2], "little")
            length = int.from_bytes(data[place + 8 : place + header], "little")
            if index == 0:
                break
            place += header
            if place + length > size:
                raise self._bad(at + place, "an object of the heap is larger than its collection")
            objects[index] = (at + place, length)
            place += -(-length // 8) * 8
        return objects

    def _bad(self, offset: int, message: str) -> CorruptionError:
        return CorruptionError("hdf5.heap", Where(self._where.path, self._where.key, offset), message)
