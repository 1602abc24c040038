"""Tensor bytes on their way into a data file: checksummed here, written behind, small ones many to a call, none copied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from openckpt.storage.pending import PendingFile
from openckpt.writing.behind import WriteBehind

_CHUNK = 4 << 20  # bytes per write: the disk begins with each while the next is copied (of 1, 2, 4, 8, 16 MiB the best)
_BATCH_BYTES = 8 << 20
_BATCH_BUFFERS = 1000
_RESERVED = 1 << 20  # bytes of a tensor from which disk space is reserved for it alone


class DataFile:
    """Puts tensors into one file. The bytes may be taken later: they must stay as they are until `flush` and a drain."""

    def __init__(self, file: PendingFile, behind: WriteBehind) -> None:
        self.file = file
        self._behind = behind
        self._buffers: list[memoryview | bytes] = []
        self._start = self._size = 0

    def write(self, offset: int, data: memoryview | bytes, *, reserve: bool) -> None:
        """Write one tensor; ``reserve`` asks the disk for the space of a large one first."""
        size = len(data)
        if size > _BATCH_BYTES:
            self.flush()
            self._write_large(offset, data, reserve=reserve)
            return
        self.write_run(offset, (data,), size)

    def write_run(self, offset: int, parts: Sequence[memoryview | bytes], size: int) -> None:
        """Write small tensors of ``size`` bytes in all, one behind the other."""
        if offset != self._start + self._size:
            self.flush()
            self._start = offset
        self._buffers += parts
        self._size += size
        if self._size >= _BATCH_BYTES or len(self._buffers) >= _BATCH_BUFFERS:
            self.flush()

    def flush(self) -> None:
        """Hand over what is still held; a first, small batch is written here and now."""
        if self._buffers:
            if self._size:
                write = partial(self.file.write, self._start, self._buffers, self._size)
                self._behind.run(self._size, write, here=self._size < _BATCH_BYTES // 2)
            self._buffers = []
        self._start += self._size
        self._size = 0

    def _write_large(self, offset: int, data: memoryview | bytes, *, reserve: bool) -> None:
        view, size = memoryview(data), len(data)

        def write() -> None:
            if reserve:
                self.file.reserve(offset, size)
            for at in range(0, size, _CHUNK):
                part = view[at : at + _CHUNK]
                self.file.write(offset + at, [part], len(part))

        self._behind.run(size, write)
        self._start = offset + size
