"""Python's cyclic garbage collector, held off while many small objects are made.

Walking 20,000 variables makes half a million tuples, all of them in use. Every few thousand, the collector looks through all
of the program's objects for cycles, and finds none: measured, more than half of the time of a save and of a restore.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHORT_BYTES = 1 << 30
"""of all tensors: below, reading and writing them is short enough to hold the collector off"""

_lock = threading.Lock()
_held = 0
_resume = False


@contextmanager
def collection_held(*, when: bool = True) -> Iterator[None]:
    """Hold the collector off in this block; for short work of the processor only, because other threads make garbage too.

    Blocks may lie in each other and beside each other in several threads; the last one out lets the collector on again, where
    the program had it on.
    """
    global _held, _resume
    if not when:
        yield
        return
    with _lock:
        if not _held:
            _resume = gc.isenabled()
            gc.disable()
        _held += 1
    try:
        yield
    finally:
        with _lock:
            _held -= 1
            if not _held and _resume:
                gc.enable()
