"""Memory for large copies, straight from the system."""

from __future__ import annotations

import mmap


def map_pages(nbytes: int) -> mmap.mmap | None:
    """Return that many new bytes, zeros, freed with the last that refers to them; None where the system maps no such memory.

    NumPy would ask for huge pages, for which Linux moves memory about where it is in pieces: the first copy of a state on a
    machine that has run for long took four times as long.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
