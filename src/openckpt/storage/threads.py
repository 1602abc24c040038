"""Threads that a save can do without."""

from __future__ import annotations

import threading
from collections.abc import Callable


def start_thread(work: Callable[[], None], name: str, *, daemon: bool = False) -> threading.Thread | None:
    """Return a thread that has begun with ``work``; None where there is none to be had, so that the caller does the work.

    A container may be at its limit, and from Python 3.12 on an interpreter that ends starts no more threads - while it waits for
    the save that is under way.
    """
    thread = threading.Thread(target=work, name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
