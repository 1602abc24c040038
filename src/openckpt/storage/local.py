"""The local file system: positioned reads (`pread`, `preadv`) on one descriptor, maps on request.

Positioned reads need no lock, share no file position, and work on both sides of a fork (Linux and macOS; Windows has none).
A descriptor is closed when the last read on it is over: were it closed under a read in another thread, its number could
already belong to another file, and the read would return that file's bytes.
"""

from __future__ import annotations

import errno
import os
import stat as stat_bits
from collections.abc import Callable, Sequence

from openckpt.errors import CorruptionError, Where
from openckpt.limits import no_memory
from openckpt.storage.reading import Buffer, ByteSource, FileStat, Kind, short_read

_SCANS = 5
_IOV_MAX = 1000  # POSIX guarantees 16, Linux and macOS have 1024
NO_LOCKS = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EBADF))
"""what flock says on file systems and descriptors that cannot be locked"""


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # ctime as well: a rewrite within one tick of the clock that keeps the size still shows where the clock is finer. Not of an
    # open file: its ctime changes when its name goes.
    return (*_version(status), status.st_ctime_ns)


def _kind(mode: int) -> Kind:
    if stat_bits.S_ISREG(mode):
        return "file"
    return "dir" if stat_bits.S_ISDIR(mode) else "other"


class _Descriptor:
    """A file descriptor that closes itself when nobody refers to it any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        _close(self.number)


class LocalFile:
    """One open local file; see `ByteSource`.

    Raises:
        FileNotFoundError: there is none, or no file can have this name (a NUL in it).
        IsADirectoryError, OSError: a directory; a FIFO, device or socket; whatever the system says.
    """

    __slots__ = ("_descriptor", "_map", "_version", "path", "size")

    def __init__(self, path: str) -> None:
        # O_NONBLOCK: opening a FIFO that somebody called ckpt.index must fail, not wait for a writer.
        try:
            descriptor = _Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except ValueError:
            raise FileNotFoundError(errno.ENOENT, "no file can have this name", path) from None
        status = os.fstat(descriptor.number)
        if stat_bits.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        if not stat_bits.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        self._descriptor: _Descriptor | None = descriptor
        self._map: memoryview | None = None
        self.path = path
        self.size = status.st_size
        self._version = _version(status)

    def _held(self) -> _Descriptor:
        # The caller keeps the descriptor in a local variable: that is what holds it open during a read.
        held = self._descriptor
        if held is None:
            raise OSError(errno.EBADF, "the file was closed", self.path)
        return held

    def _short(self, offset: int, wanted: int, got: int) -> CorruptionError:
        return short_read(self.path, offset, wanted, got)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._short(offset, size, self.size - offset)
        held = self._held()
        try:
            data = os.pread(held.number, size, offset)
            if len(data) == size:
                return data
            # One call may return less: a signal, or the kernel's cap of 2 GiB - 4 KiB.
            buffer = bytearray(size)
            buffer[: len(data)] = data
            self._fill(held, memoryview(buffer)[len(data) :], offset + len(data))
            return bytes(buffer)
        except MemoryError:  # a sparse file has any number of bytes for nothing
            raise no_memory(Where(self.path, offset=offset), f"{size} bytes at once") from None

    def _fill(self, held: _Descriptor, view: memoryview, offset: int) -> None:
        while view.nbytes:
            got = os.preadv(held.number, [view], offset)
            if got == 0:
                raise self._short(offset, view.nbytes, 0)
            view, offset = view[got:], offset + got

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        view = memoryview(buffer)
        size = view.nbytes
        if offset < 0 or offset + size > self.size:
            raise self._short(offset, size, self.size - offset)
        held = self._held()
        got = os.preadv(held.number, [buffer], offset)
        if got != size:
            self._fill(held, view.cast("B")[got:], offset + got)

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other from ``offset``."""
        held = self._held()
        for start in range(0, len(buffers), _IOV_MAX):
            part = buffers[start : start + _IOV_MAX]
            size = sum(memoryview(b).nbytes for b in part)
            if offset < 0 or offset + size > self.size:
                raise self._short(offset, size, self.size - offset)
            got = os.preadv(held.number, part, offset)
            if got != size:
                for buffer in part:  # rare: read each again on its own
                    view = memoryview(buffer)
                    if view.nbytes:  # a view with a zero in its shape cannot be cast
                        self._fill(held, view.cast("B"), offset)
                    offset += view.nbytes
            else:
                offset += size

    def map(self) -> memoryview | None:
        """Return the whole file as one read-only memoryview, made once."""
        whole = self._map
        if whole is None:  # one map serves every view: each would hold a descriptor of its own
            import mmap

            held = self._held()
            try:
                whole = memoryview(mmap.mmap(held.number, self.size, access=mmap.ACCESS_READ) if self.size else b"")
            except ValueError:  # the file is shorter than it was
                raise self._short(0, self.size, os.fstat(held.number).st_size) from None
            self._map = whole
        return whole

    def unchanged(self) -> bool:
        """Return whether size, time and inode still are those of the open, and the name still leads here."""
        try:
            now = os.stat(self.path)
            opened = os.fstat(self._held().number)
        except OSError:
            return False
        return _version(now) == self._version == _version(opened)

    def rewritten(self) -> bool:
        """Return whether somebody has written into the open file itself; one that was renamed or removed is intact."""
        try:
            opened = os.fstat(self._held().number)
        except OSError:
            return False
        return self._version != _version(opened)

    def lease(self) -> bool:
        """Ask those who sweep up to spare this file for as long as it is open, here and in forks; False where one removes it now.

        A shared flock: nothing is written. Where the file system has no locks, nobody is asked and nobody refuses.
        """
        import fcntl

        try:
            fcntl.flock(self._held().number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        return True

    def close(self) -> None:
        """Let go of the descriptor; a read that is under way in another thread ends first."""
        self._descriptor = None
        self._map = None


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
        return _file_stat(os.path.basename(path.rstrip("/")), path, own)

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory.

        A name that vanishes while it is looked at has perhaps a successor that was not there when the names were read (a
        trainer that saves and sweeps): then all is read again. What vanishes at the last attempt too is left out.
        """
        for _ in range(_SCANS - 1):
            found, whole = _scan(path)
            if whole:
                return found
        return _scan(path)[0]

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


def _scan(path: str) -> tuple[list[FileStat], bool]:
    """Return what lies in a directory, and whether every name was still there when it was looked at."""
    found, whole = [], True
    with os.scandir(path or ".") as entries:
        for entry in entries:
            try:
                own = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                whole = False
                continue
            found.append(_file_stat(entry.name, entry.path if path else entry.name, own))
    return found, whole


_NOT_A_NAME = {errno.ENAMETOOLONG, errno.ELOOP}  # no file can be there


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
