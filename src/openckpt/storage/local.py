"""The local file system: positioned reads (`pread`, `preadv`) on one descriptor, maps on request.

Linux and macOS use the descriptor's positioned reads, which need no lock and survive a fork. Where the system has none
(Windows) reads take a lock around seek and read.
"""

from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Sequence

from openckpt.errors import CorruptionError, Where
from openckpt.storage.reading import Buffer, ByteSource, FileStat, Kind

_IOV_MAX = 1000  # POSIX guarantees 16, Linux and macOS have 1024


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # ctime as well: a rewrite within one tick of the clock that keeps the size still shows where the clock is finer.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _kind(mode: int) -> Kind:
    if stat_bits.S_ISREG(mode):
        return "file"
    return "dir" if stat_bits.S_ISDIR(mode) else "other"


class LocalFile:
    """One open local file; see `ByteSource`."""

    __slots__ = ("_fd", "_identity", "_map", "path", "size")

    def __init__(self, path: str) -> None:
        # O_NONBLOCK: opening a FIFO that somebody called ckpt.index must fail, not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        fd = os.open(path, flags)
        status = os.fstat(fd)
        if not stat_bits.S_ISREG(status.st_mode):
            os.close(fd)
            kind = IsADirectoryError(21, "Is a directory", path)
            raise kind if stat_bits.S_ISDIR(status.st_mode) else OSError(22, "not a regular file", path)
        self._fd = fd
        self._map: memoryview | None = None
        self.path = path
        self.size = status.st_size
        self._identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _short(self, offset: int, wanted: int, got: int) -> CorruptionError:
        return CorruptionError(
            "storage.short-read",
            Where(self.path, offset=offset),
            "the file ended early",
            expected=f"{wanted} bytes",
            found=f"{got} bytes",
        )

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._short(offset, size, max(0, self.size - offset))
        data = os.pread(self._fd, size, offset)
        if len(data) == size:
            return data
        # One call may return less: a signal, or the kernel's cap of 2 GiB - 4 KiB.
        buffer = bytearray(size)
        buffer[: len(data)] = data
        self._fill(memoryview(buffer)[len(data) :], offset + len(data))
        return bytes(buffer)

    def _fill(self, view: memoryview, offset: int) -> None:
        while view.nbytes:
            got = os.preadv(self._fd, [view], offset)
            if got == 0:
                raise self._short(offset, view.nbytes, 0)
            view, offset = view[got:], offset + got

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        view = memoryview(buffer)
        size = view.nbytes
        if offset < 0 or offset + size > self.size:
            raise self._short(offset, size, max(0, self.size - offset))
        got = os.preadv(self._fd, [buffer], offset)
        if got != size:
            self._fill(view.cast("B")[got:], offset + got)

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other from ``offset``."""
        for start in range(0, len(buffers), _IOV_MAX):
            part = buffers[start : start + _IOV_MAX]
            size = sum(memoryview(b).nbytes for b in part)
            if offset < 0 or offset + size > self.size:
                raise self._short(offset, size, max(0, self.size - offset))
            got = os.preadv(self._fd, part, offset)
            if got != size:
                for buffer in part:  # rare: read each again on its own
                    view = memoryview(buffer).cast("B")
                    self._fill(view, offset)
                    offset += view.nbytes
            else:
                offset += size

    def map(self) -> memoryview | None:
        """Return the whole file as a read-only memoryview, or None for an empty file."""
        if self._map is None:  # one map serves every view: each would hold a descriptor of its own
            import mmap

            whole = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ) if self.size else b""
            self._map = memoryview(whole)
        return self._map

    def unchanged(self) -> bool:
        """Return whether size, time and inode still are those of the open, and the name still leads here."""
        try:
            now = os.stat(self.path)
            held = os.fstat(self._fd)
        except OSError:
            return False
        mine = self._identity
        return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) == mine == (
            held.st_dev, held.st_ino, held.st_size, held.st_mtime_ns,
        )  # fmt: skip

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        try:
            self.close()
        except (AttributeError, OSError):
            pass


class LocalStore:
    """The local file system as a `Store`."""

    __slots__ = ()

    def open(self, path: str) -> ByteSource:
        """Open a local file."""
        return LocalFile(path)

    def stat(self, path: str) -> FileStat | None:
        """Return what ``path`` is, following a link of this name, or None."""
        path = path or "."
        try:
            own = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) or error.errno in _NOT_A_NAME:
                return None
            raise
        return _file_stat(os.path.basename(path), path, own)

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory; names that vanish meanwhile are left out."""
        found = []
        with os.scandir(path or ".") as entries:
            for entry in entries:
                try:
                    own = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append(_file_stat(entry.name, os.path.join(path, entry.name) if path else entry.name, own))
        return found

    def expect(self, paths: Sequence[str]) -> None:
        """Nothing to prepare: local files are read at any place."""

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        return os.path.join(directory, name)

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)``."""
        return os.path.split(path)

    def display(self, path: str) -> str:
        """Return the path itself."""
        return path


_NOT_A_NAME = {36, 63, 40, 62}  # ENAMETOOLONG and ELOOP on Linux and macOS: no file can be there


def _file_stat(name: str, path: str, own: os.stat_result) -> FileStat:
    link = stat_bits.S_ISLNK(own.st_mode)
    status = own
    if link:
        try:
            status = os.stat(path)
        except OSError:
            return FileStat(name, path, "other", 0, own.st_mtime_ns, _identity(own), True)
    return FileStat(name, path, _kind(status.st_mode), status.st_size, status.st_mtime_ns, _identity(status), link)


LOCAL = LocalStore()
