"""A lock that is safe in programs that fork, as trainers and data loaders do."""

from __future__ import annotations

import os
import threading


class ForkLock:
    """A lock that a child process gets fresh: one held by another thread at the time of a fork is never released there."""

    __slots__ = ("_lock", "_pid")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()
