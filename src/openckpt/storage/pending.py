"""A file that is being written under a temporary name, and the naming of what the system refused."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from openckpt.storage.threads import start_thread
from openckpt.storage.writable import OutputFile, WritableStore, WriteBuffer

_START_BYTES = 1 << 20
"""Bytes of one write from which the disk is told to begin at once; what is smaller has time until the sync."""

_SYNCS_AT_ONCE = 16  # a disk has no use for more, and a container may not allow a thousand threads


class doing:
    """Names the call and the path in an OSError that leaves the block."""

    __slots__ = ("_call", "_path")

    def __init__(self, call: str, path: str) -> None:
        self._call, self._path = call, path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            if error.filename is None:
                error.filename = self._path
            error.add_note(f"the call that failed: {self._call} of {self._path}")


class PendingFile:
    """One file of a commit, written at any place in any order; `Commit` gives it its name.

    Attributes:
        path: its temporary name.
        end: the end of the last byte written.
    """

    def __init__(self, store: WritableStore, path: str, *, durable: bool) -> None:
        self._store = store
        self._durable = durable
        with doing("create", path):
            self._file: OutputFile = store.create(path)
        self.path = path
        self.end = 0
        self._refusal: BaseException | None = None
        self._open = True

    def reserve(self, offset: int, size: int) -> None:
        """Ask the disk for space before the bytes come; exactly this range must then be written."""
        with doing("allocate", self.path):
            self._store.allocate(self._file, offset, size)

    def write(self, offset: int, buffers: Sequence[WriteBuffer], size: int) -> None:
        """Write buffers of ``size`` bytes in all, one after the other from ``offset``, however many calls it takes."""
        end = offset + size
        with doing("write", self.path):
            taken = self._store.write(self._file, offset, buffers)
            while offset + taken < end:
                if taken <= 0:
                    raise OSError(errno.EIO, "the system wrote nothing", self.path)
                offset += taken
                buffers = _rest(buffers, taken)
                taken = self._store.write(self._file, offset, buffers)
        if end > self.end:
            self.end = end
        if self._durable and size >= _START_BYTES:
            # The disk works while the next bytes are copied. Never a sync in between: every one waits for all that is under
            # way and makes the file system write its journal, and a GiB then takes half as long again.
            with doing("start of the sync", self.path):
                self._store.start_sync(self._file, end - size, size)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` of the bytes written so far, fewer at their end."""
        with doing("read", self.path):
            return self._store.read(self._file, offset, size)

    def settle(self) -> None:
        """Return when every byte is safe, where the commit is a durable one, and let go of the descriptor; raises OSError.

        Nothing can be written after it; a second call does nothing.
        """
        if self._refusal is not None:
            # Never synced again: after a refusal the system may have dropped the pages and would say yes.
            raise self._refusal
        if self._open and self._durable:
            try:
                with doing("sync", self.path):
                    self._store.sync(self._file)
            except BaseException as error:
                self._refusal = error
                raise
        self.close()

    def close(self) -> None:
        """Let go of the descriptor, once."""
        if self._open:
            self._open = False
            with doing("close", self.path):
                self._store.close(self._file)


def settle_all(files: Sequence[PendingFile]) -> None:
    """Sync several files at once, on a few threads; raise the first error when all are done."""
    waiting = deque(files)
    errors: list[BaseException] = []

    def settle() -> None:
        while True:
            try:
                file = waiting.popleft()
            except IndexError:
                return
            try:
                file.settle()
            except BaseException as error:
                errors.append(error)

    threads = [start_thread(settle, "openckpt-sync") for _ in range(min(len(files), _SYNCS_AT_ONCE) - 1)]
    settle()
    for thread in threads:
        if thread is not None:
            thread.join()
    if errors:
        raise errors[0]


def _rest(buffers: Sequence[WriteBuffer], taken: int) -> Sequence[WriteBuffer]:
    """Return what a short write left over."""
    for number, buffer in enumerate(buffers):
        if taken < len(buffer):
            return [memoryview(buffer)[taken:], *buffers[number + 1 :]]
        taken -= len(buffer)
    return []


def attempt(step: Callable[..., object], *arguments: Any) -> bool:
    """Run a step of tidying up and return whether it went: what cannot be removed is swept by the next save in the directory."""
    try:
        step(*arguments)
    except OSError:
        return False
    return True


def has_no_links(error: OSError) -> bool:
    """Return whether an error of `WritableStore.link` means that the file system has no hard links."""
    return error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
