"""Writing behind the work: one thread that hands bytes to the system while the caller makes and checksums the next ones.

The system copies at memory speed without the GIL, so a checksum or the index is computed in the same time. Whole batches are
handed over, not tensors: 20,000 hand-overs would cost more than they save.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from openckpt.storage.threads import start_thread

_MOST_BYTES = 64 << 20
"""Bytes that may wait: arrays that had to be converted are copies, and these are what a save holds beyond the caller's."""


class WriteBehind:
    """Runs pieces of work in order on a thread of its own, which lives from the first that is worth it to `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._bytes = 0  # of what waits or runs
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def run(self, size: int, work: Callable[[], None], *, here: bool = False) -> None:
        """Run work of ``size`` bytes, later and elsewhere, or ``here`` and now where nothing is waiting.

        Raises:
            BaseException: what earlier work raised; nothing more is run then.
        """
        with self._changed:
            if here and not self._bytes:
                self._raise()
            else:
                while self._bytes and self._bytes + size > _MOST_BYTES and self._error is None:
                    self._changed.wait()
                self._raise()
                if self._thread is None:
                    self._thread = start_thread(self._work, "openckpt-write", daemon=True)
                if self._thread is not None:
                    self._waiting.append((size, work))
                    self._bytes += size
                    self._changed.notify_all()
                    return
        work()

    def drain(self) -> None:
        """Return when everything has run; raises what it raised."""
        with self._changed:
            while self._bytes and self._error is None:
                self._changed.wait()
            self._raise()

    def close(self) -> None:
        """End the thread, after the work that runs; what still waits is dropped."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        thread.join()
        self._thread = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                size, work = self._waiting.popleft()
            try:
                work()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._bytes = 0
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
