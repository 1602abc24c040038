"""Saves that go on in the background: one thread each, one at a time, and no failure that nobody hears of.

    save(blocking=False)     waits for the one before   snapshot   |   write, sync, rename ... on a thread
                             raises its failure                    returns a `SaveHandle`

The thread is none of the kind that dies with the program: an interpreter that ends waits for it. A failure that nobody asked the
handle for is raised by the next save, and where there is none it is printed when the program ends, whose exit status is 120 then
(`openckpt.training.ending`). A forked process has neither the thread nor the save: they are its parent's.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from openckpt.errors import ConflictError
from openckpt.formats.names import step_of
from openckpt.storage.threads import start_thread
from openckpt.training.ending import at_end
from openckpt.writing import SavedPath


class SaveHandle:
    """A save that goes on in the background.

    Attributes:
        path: the prefix under which the checkpoint will be there.
        step: the number in it, None where it has none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.step = step_of(path)
        self._ended = threading.Event()
        self._saved: SavedPath | None = None
        self._error: BaseException | None = None
        self._is_heard = False
        self._process = os.getpid()
        self._be_silent: Callable[[], None] = at_end(self.wait, self._unheard)

    def __repr__(self) -> str:
        state = "under way" if not self.done else "saved" if self._error is None else "failed"
        return f"<SaveHandle {self.path!r}: {state}>"

    @property
    def done(self) -> bool:
        """Whether the save has ended, well or not."""
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when the save has ended, or after ``timeout`` seconds; whether it has ended. Raises none of its errors.

        Raises:
            ConflictError: this process is a fork of the one that saves (``training.forked``).
        """
        if not self.done and self._process != os.getpid():
            raise ConflictError("training.forked", self.path, "the process of which this is a fork is saving it")
        return self._ended.wait(timeout)

    def result(self, timeout: float | None = None) -> SavedPath:
        """Return the checkpoint once it is there.

        Args:
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: the save goes on.
            CheckpointError, OSError: why it failed; nothing has changed on the disk then.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"{self.path}: the save has not ended after {timeout} seconds; it goes on")
        if self._error is not None:
            raise self._heard(self._error)
        assert self._saved is not None
        return self._saved

    def _run(self, write: Callable[[], SavedPath]) -> None:
        try:
            self._saved = write()
            self._be_silent()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold the values
            error.add_note(f"this happened to the save of {self.path} in the background")
            self._error = error
        finally:
            self._ended.set()

    def _heard(self, error: BaseException) -> BaseException:
        """Return the error, which somebody hears now."""
        self._is_heard = True
        self._be_silent()
        return error

    def _unheard(self) -> BaseException | None:
        """Return why the save failed, where nobody knows it yet; the parent's failures are no fork's business."""
        return None if self._is_heard or self._process != os.getpid() else self._error


def finished(saved: SavedPath) -> SaveHandle:
    """Return the handle of a save that has ended well."""
    handle = SaveHandle(saved)
    handle._run(lambda: saved)
    return handle


_IMPORTED_LATE = (
    "cramjam",
    "json",
    "openckpt.formats.bundle.header",
    "openckpt.formats.bundle.payload",
    "openckpt.formats.sstable.table",
)
"""what a save imports when it needs it: a fork at the moment when the thread does would leave half a module in the child"""


_HEAD_START = 0.002
"""Seconds in which the program goes on alone. Without them it would not go on at all for Python's switch interval of 5 ms: the new
thread has the interpreter then, and computes."""


class Saving:
    """The save of one program that goes on in the background, if there is one."""

    def __init__(self) -> None:
        self._handle: SaveHandle | None = None

    @property
    def under_way(self) -> SaveHandle | None:
        """The save that goes on; None where none does, or where it is that of the process of which this is a fork."""
        handle = self._handle
        if handle is None or handle.done or handle._process != os.getpid():
            return None
        return handle

    def wait(self, timeout: float | None = None) -> None:
        """Return when nothing is under way.

        Raises:
            TimeoutError: there still is.
        """
        handle = self.under_way
        if handle is not None and not handle.wait(timeout):
            raise TimeoutError(f"{handle.path}: the save has not ended after {timeout:.3g} seconds; it goes on")

    def settle(self, timeout: float | None = None) -> None:
        """Return when nothing is under way; raise why the last save failed, where nobody has heard it yet.

        Raises:
            TimeoutError: the save goes on.
            CheckpointError, OSError: why it failed.
        """
        self.wait(timeout)
        handle, self._handle = self._handle, None
        error = None if handle is None else handle._unheard()
        if handle is not None and error is not None:
            raise handle._heard(error)

    def start(self, path: str, write: Callable[[], SavedPath]) -> SaveHandle:
        """Begin a save; none may be under way."""
        for module in _IMPORTED_LATE:
            import_module(module)
        handle = self._handle = SaveHandle(path)

        def behind() -> None:
            time.sleep(_HEAD_START)
            handle._run(write)

        if start_thread(behind, "openckpt-save") is None:
            handle._run(write)
        return handle


class Turn:
    """Who works with a program's values: one thread at a time, and what waits until it has finished.

    A signal handler runs between any two steps of the main thread, and so in the middle of a save or a restore: there it may do
    neither, but have it done when that has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # no Lock: a handler runs between its taking and `_owner`, too
        self._process = os.getpid()
        self._owner: int | None = None
        self._then: Callable[[], None] | None = None

    @contextmanager
    def taken(self, timeout: float | None = None) -> Iterator[float | None]:
        """Do something with the values; gets what is left of the timeout.

        Raises:
            TimeoutError: another thread is at it.
            ConflictError: this thread is, further up (``training.nested``).
        """
        if self._process != os.getpid():  # a lock of another thread, which a fork does not have
            self._lock, self._process, self._owner, self._then = threading.RLock(), os.getpid(), None, None
        if self.is_mine():
            raise ConflictError(
                "training.nested", "", "this thread is in the middle of another save or restore of these objects"
            )
        began = time.monotonic()
        lock = self._lock
        if not lock.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            raise TimeoutError(f"another thread saves or restores the same objects, after {timeout} seconds still")
        try:
            self._owner = threading.get_ident()
            yield None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        finally:
            self._owner = None
            lock.release()
            then, self._then = self._then, None
            if then is not None:
                then()

    def is_mine(self) -> bool:
        """Return whether this thread is in the middle of something."""
        return self._process == os.getpid() and self._owner == threading.get_ident()

    def then(self, work: Callable[[], None]) -> None:
        """Have something done when what this thread is in the middle of has ended, whatever becomes of it."""
        self._then = work
