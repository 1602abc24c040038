"""How much memory a call takes at its worst, as Python and NumPy allocate it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def traced_peak(call: Callable[[], object]) -> int:
    """Return the most bytes that a call has held at one time."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
