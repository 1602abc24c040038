"""The end of a process in which a save has failed, and nobody has heard of it: the error is printed, and the exit status is 120.

    program                        `atexit`, behind the wait for threads. A status cannot be changed there, but Python gives 120
                                   itself where its last flush of standard output fails: nothing else of the end is skipped
    forked by multiprocessing      runs none of that, but its own finalizers, which may raise SystemExit

120 is Python's own status for a program that could not write what it had to when it ended.
"""

from __future__ import annotations

import atexit
import io
import sys
from collections.abc import Callable
from typing import Any

STATUS = 120
_LAST = -1000  # of the priorities of multiprocessing: when its queues are written and its children have ended


def at_end(wait: Callable[[], object], error: Callable[[], BaseException | None]) -> Callable[[], None]:
    """Have an error told when the process ends; return what cancels that.

    Args:
        wait: returns when it is known whether there is one.
        error: returns it, None where there is none or somebody has heard of it.
    """

    def tell() -> None:
        if _told(error()):
            sys.stdout = _Unwritten(sys.stdout)

    atexit.register(tell)
    cancel_own = _at_end_of_child(wait, error)

    def cancel() -> None:
        atexit.unregister(tell)
        cancel_own()

    return cancel


def _at_end_of_child(wait: Callable[[], object], error: Callable[[], BaseException | None]) -> Callable[[], object]:
    """Have an error told at the end of a process that `multiprocessing` has made; its finalizers run before threads have ended."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None:
        return lambda: None
    from multiprocessing.util import Finalize

    def tell() -> None:
        wait()
        if _told(error()):
            raise SystemExit(STATUS)

    return Finalize(None, tell, exitpriority=_LAST).cancel


def _told(error: BaseException | None) -> bool:
    """Print an error, where there is one, as of a program that it ends; return whether there is."""
    if error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
    return error is not None


class _Unwritten:
    """Standard output for the rest of a program: all the same, but the interpreter's last flush of it fails."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = io.StringIO() if stream is None else stream  # a program without a console has none

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __repr__(self) -> str:
        return "the end of a program that has lost a save in the background"

    def flush(self) -> None:
        """Flush; at the very end raise OSError."""
        try:
            self._stream.flush()
        finally:
            if sys.is_finalizing():
                raise OSError(f"a save failed in the background, see above: exit status {STATUS}")
