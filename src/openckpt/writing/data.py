"""Tensor bytes on their way into a data file: checksummed as they are written, small ones many to a call, none copied.

Per tensor the work is a checksum and a write. For large ones both run at once, on two threads, and both let go of the GIL;
for small ones the hand-over would cost more than it saves (20,000 tensors of 13 KiB: twice the time), so they are
checksummed one by one and written up to a thousand at a time.
"""

from __future__ import annotations

from openckpt.formats.crc import crc32c
from openckpt.formats.workers import Work, run_all
from openckpt.storage.pending import PendingFile
from openckpt.writing.values import Stored

_LARGE = 8 << 20  # bytes of a tensor from which two threads pay
_CHUNK = 32 << 20  # bytes of a large tensor per write: a durable file is synced beside the writing in steps of these
_BATCH_BYTES = 8 << 20
_BATCH_BUFFERS = 1000


class DataFile:
    """The tensors of one shard. ``crcs`` gets the unmasked CRC-32C of every tensor under its slot number."""

    def __init__(self, file: PendingFile, crcs: list[int]) -> None:
        self.file = file
        self._crcs = crcs
        self._buffers: list[memoryview | bytes] = []
        self._start = self._size = 0

    def write(self, slot: int, offset: int, stored: Stored) -> None:
        """Write one tensor. The bytes may be taken later: `flush` says when the caller may have them back."""
        data, crc = stored
        size = len(data)
        if size >= _LARGE:
            self._write_large(slot, offset, stored)
            return
        self._crcs[slot] = crc32c(data) if crc is None else crc
        if not size:
            return
        if offset != self._start + self._size:
            self.flush()
            self._start = offset
        self._buffers.append(data)
        self._size += size
        if self._size >= _BATCH_BYTES or len(self._buffers) >= _BATCH_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Write what is still held."""
        if self._buffers:
            self.file.write(self._start, self._buffers, self._size)
            self._buffers = []
        self._start += self._size
        self._size = 0

    def _write_large(self, slot: int, offset: int, stored: Stored) -> None:
        self.flush()
        data, crc = stored
        view, size = memoryview(data), len(data)

        def write() -> None:
            for at in range(0, size, _CHUNK):
                part = view[at : at + _CHUNK]
                self.file.write(offset + at, [part], len(part))

        def check() -> None:
            self._crcs[slot] = crc32c(data)

        work: Work = [(size, write)]
        if crc is None:
            work.append((size, check))
        else:
            self._crcs[slot] = crc
        run_all(work, 2)
        self._start = offset + size
