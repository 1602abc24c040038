"""A file of a commit as a Python file object, for libraries that write through one: zipfile, h5py."""

from __future__ import annotations

import io
from typing import Any

from openckpt.storage.pending import PendingFile

_CHUNK = 4 << 20  # bytes of one write: the disk begins with each while the next is copied


class SeekingFile(io.RawIOBase):
    """Reads and writes a `PendingFile` at a position. Closing it leaves the file of the commit as it is."""

    def __init__(self, file: PendingFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as the file protocol says."""
        self._at = offset + (0, self._at, self._file.end)[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def write(self, data: Any) -> int:
        """Write all of ``data``, a bytes-like object."""
        view = memoryview(data).cast("B")
        for start in range(0, view.nbytes, _CHUNK):
            part = view[start : start + _CHUNK]
            self._file.write(self._at, [part], part.nbytes)
            self._at += part.nbytes
        return view.nbytes

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes."""
        view = memoryview(buffer).cast("B")
        data = self._file.read(self._at, view.nbytes)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Make the file longer. It never becomes shorter: a commit only adds, and its libraries end where they wrote last."""
        end = self._at if size is None else size
        if end > self._file.end:
            self._file.write(end - 1, [b"\0"], 1)
        return end
