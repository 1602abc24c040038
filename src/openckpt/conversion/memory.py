"""Memory for tensors on their way: under a budget, and used again, because touching fresh pages costs more than a copy."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]

_ROUND = 1 << 20


class CancelledError(Exception):
    """The other side has given up."""


class Memory:
    """Buffers that one thread takes and another gives back.

    All that is taken or kept for later is never more than ``budget`` bytes beyond the largest piece: whatever the sizes of the
    tensors, one always fits.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._changed = threading.Condition()
        self._taken: list[int] = []
        self._idle: list[Bytes] = []
        self._cancelled = False

    def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes may be allocated elsewhere; raises `CancelledError`."""
        with self._changed:
            while not self._fits(size):
                self._make_room()
            self._taken.append(size)

    def release(self, size: int) -> None:
        """Take back what `reserve` gave."""
        with self._changed:
            self._taken.remove(size)
            self._changed.notify_all()

    def take(self, size: int) -> Bytes:
        """Wait for a buffer of at least ``size`` bytes; raises `CancelledError`, MemoryError."""
        import numpy as np

        wanted = -(-max(size, 1) // _ROUND) * _ROUND
        with self._changed:
            while True:
                for number, buffer in enumerate(self._idle):
                    if wanted <= buffer.nbytes <= 2 * wanted:
                        del self._idle[number]
                        self._taken.append(buffer.nbytes)
                        return buffer
                if self._fits(wanted):
                    break
                self._make_room()
            buffer = np.empty(wanted, np.uint8)
            self._taken.append(wanted)
        return buffer

    def give(self, buffer: Bytes) -> None:
        """Take back a buffer for the next taker."""
        with self._changed:
            self._taken.remove(buffer.nbytes)
            self._idle.append(buffer)
            self._changed.notify_all()

    def cancel(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._cancelled = True
            self._idle.clear()
            self._changed.notify_all()

    def _make_room(self) -> None:
        """Let one idle buffer go, or wait until something comes back."""
        if self._cancelled:
            raise CancelledError
        if self._idle:
            self._idle.pop(0)
        else:
            self._changed.wait()

    def _fits(self, size: int) -> bool:
        sizes: list[int] = [*self._taken, *(buffer.nbytes for buffer in self._idle), size]
        return bool(sum(sizes) - max(sizes) <= self._budget)
