"""The local file system as a `WritableStore`.

Linux and macOS. The two calls that Python lacks, rename without replacing and allocation that never falls back to writing
zeros, go through the C library where it has them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from openckpt.storage.local import NO_LOCKS, LocalStore
from openckpt.storage.writable import OutputFile, WriteBuffer

_IOV_MAX = 1000  # POSIX guarantees 16, Linux and macOS have 1024
_MAC = sys.platform == "darwin"
_SYNC_FILE_RANGE_WRITE = 2  # <linux/fs.h>: begin, and wait for nothing
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY}


class DiskFile:
    """An open descriptor and the name it was opened under."""

    __slots__ = ("__weakref__", "number", "path")

    def __init__(self, path: str, number: int) -> None:
        self.path = path
        self.number = number

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        if self.number >= 0:  # nobody has a handle: an interrupt came before anybody got it
            _close(self.number)


def _number(file: OutputFile) -> int:
    assert isinstance(file, DiskFile)
    return file.number


class Disk(LocalStore):
    """Local files, read and written; see `openckpt.storage.writable.WritableStore`."""

    __slots__ = ()

    def create(self, path: str) -> OutputFile:
        """Create a new file."""
        return DiskFile(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))

    def allocate(self, file: OutputFile, offset: int, size: int) -> None:
        """Reserve disk space; half as much time again for a new file where the file system has extents."""
        fallocate = _c_function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if fallocate is None or not size:
            return
        # Not os.posix_fallocate: where the file system cannot, the C library writes a byte into every block.
        if fallocate(_number(file), 0, offset, size) and ctypes.get_errno() in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        ):
            raise _os_error(ctypes.get_errno(), file.path)

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write buffers, the first thousand of them."""
        return os.pwritev(_number(file), buffers[:_IOV_MAX], offset)

    def read(self, file: OutputFile, offset: int, size: int) -> bytes:
        """Read what is there."""
        return os.pread(_number(file), size, offset)

    def size(self, file: OutputFile) -> int:
        """Return the size."""
        return os.fstat(_number(file)).st_size

    def start_sync(self, file: OutputFile, offset: int, size: int) -> None:
        """Start writing back on Linux; elsewhere the sync does all."""
        start = _c_function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        if start is None or not start(_number(file), offset, size, _SYNC_FILE_RANGE_WRITE):
            return
        number = ctypes.get_errno()
        if number not in {*_UNSUPPORTED, errno.ESPIPE}:
            raise _os_error(number, file.path)

    def sync(self, file: OutputFile) -> None:
        """Flush to the medium: fdatasync, which carries the size too; F_FULLFSYNC on macOS, whose fsync stops at the drive."""
        if _MAC:
            _full_sync(_number(file))
        else:
            os.fdatasync(_number(file))

    def sync_path(self, path: str) -> None:
        """Open the file and flush it."""
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _MAC:
                _full_sync(number)
            else:
                os.fdatasync(number)
        finally:
            os.close(number)

    def close(self, file: OutputFile) -> None:
        """Close the descriptor, once."""
        assert isinstance(file, DiskFile)
        number, file.number = file.number, -1
        if number >= 0:
            os.close(number)

    def rename(self, source: str, target: str) -> None:
        """Rename over what is there."""
        os.replace(source, target)

    def rename_new(self, source: str, target: str) -> None:
        """Rename without replacing: by one call where system and file system have it, else by link and unlink."""
        refused = _rename_without_replacing(source, target)
        if refused == 0:
            return
        if refused not in _UNSUPPORTED:
            raise _os_error(refused, target)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in {*_UNSUPPORTED, errno.EPERM, errno.EMLINK}:
                raise
            # Neither is there (exFAT, some mounts). The lock of the prefix keeps our own writers apart.
            if os.path.lexists(target):
                raise _os_error(errno.EEXIST, target) from None
            os.rename(source, target)
        else:
            try:
                os.unlink(source)
            except BaseException:
                os.unlink(target)
                raise

    def link(self, source: str, target: str) -> None:
        """Make a hard link."""
        os.link(source, target, follow_symlinks=False)

    def remove(self, path: str) -> None:
        """Unlink."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Create one directory."""
        os.mkdir(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def sync_directory(self, path: str) -> bool:
        """Sync the names of a directory; False where the file system refuses (some network and FUSE mounts)."""
        number = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _MAC:
                _full_sync(number)
            else:
                os.fsync(number)
        except OSError as error:
            if error.errno in {*_UNSUPPORTED, errno.EBADF}:
                return False
            raise
        finally:
            os.close(number)
        return True

    def free_bytes(self, path: str) -> int | None:
        """Return what the file system says is free for this user."""
        stat = os.statvfs(path or ".")
        return stat.f_bavail * stat.f_frsize if stat.f_blocks else None  # some mounts count nothing

    def try_lock(self, path: str) -> OutputFile | None:
        """Take an exclusive flock on a file, which is created where it is not there."""
        import fcntl

        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have removed the name: then this is a lock on nothing.
                if _same_file(number, path):
                    file = DiskFile(path, number)
                    _LOCKS.add(file)
                    return file
            except BlockingIOError:
                os.close(number)
                return None
            except BaseException as error:
                os.close(number)
                if isinstance(error, OSError) and error.errno in _UNSUPPORTED:
                    with suppress(FileNotFoundError):
                        os.unlink(path)  # nobody can have locked it either
                    reason = f"{error.strerror}: this file system has no flock, and without it two writers could mix"
                    raise OSError(error.errno, f"{reason}; save elsewhere, or mount it with locks", path) from None
                raise
            os.close(number)

    def try_claim(self, path: str) -> OutputFile | None:
        """Take an exclusive flock on a file that is there; readers' leases are shared ones."""
        import fcntl

        try:
            number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # enough where locks are the kernel's own
        file = DiskFile(path, number)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close(file)
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        _LOCKS.add(file)
        return file


def lock_is_held(path: str) -> bool:
    """Return whether a running program holds this lock file; nothing is written.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.
    """
    import fcntl

    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def _same_file(number: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(number)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _full_sync(number: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(number, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 - not in the types of other systems
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        os.fsync(number)  # a network mount: the server decides


def _os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


@cache
def _c_function(name: str, *arguments: Any) -> Callable[..., int] | None:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = arguments, ctypes.c_int
    return function  # type: ignore[no-any-return]


def _rename_without_replacing(source: str, target: str) -> int:
    """Return 0, or the error number; ENOSYS where the C library lacks the call."""
    old, new = os.fsencode(source), os.fsencode(target)
    if _MAC:
        rename = _c_function("renamex_np", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
        arguments: tuple[Any, ...] = (old, new, 4)  # RENAME_EXCL
    else:
        rename = _c_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        arguments = (-100, old, -100, new, 1)  # AT_FDCWD, RENAME_NOREPLACE
    if rename is None:
        return errno.ENOSYS
    return ctypes.get_errno() if rename(*arguments) else 0


_LOCKS: weakref.WeakSet[DiskFile] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A child shares the lock: a data loader that outlives a killed trainer would keep the dead writer's lock alive.
    for file in _LOCKS:
        if file.number >= 0:
            os.close(file.number)
            file.number = -1


os.register_at_fork(after_in_child=_let_go_in_child)

DISK = Disk()
