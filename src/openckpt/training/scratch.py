"""Memory that is read into again and again, for values that a live object copies into memory of its own.

Fresh arrays for each batch would be given back to the allocator and not by it to the system: 60 to 110 MiB more than the values
of a JAX program, measured, where this takes 32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openckpt.formats.spec import Array, TensorSpec

_ALIGNMENT = 64  # JAX copies what lies so once, and anything else twice


class Scratch:
    """Arrays cut out of one piece of memory, all of them good until the next `reuse`."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._memory: Array | None = None
        self._used = 0

    def reuse(self) -> None:
        """Begin anew: nobody looks at the arrays any more."""
        self._used = 0

    def take(self, spec: TensorSpec) -> Array | None:
        """Return an array of a numeric spec, of unspecified values: in memory of its own where it is too large; None for text."""
        if spec.dtype in ("string", "variant") or spec.shape is None:
            return None
        dtype = spec.numpy_dtype
        nbytes = spec.size * dtype.itemsize
        start, end = self._used, self._used + nbytes
        if end > self._nbytes:
            memory, start, end = _aligned(nbytes), 0, nbytes
        else:
            memory = self._memory = _aligned(self._nbytes) if self._memory is None else self._memory
            self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return memory[start:end].view(dtype).reshape(spec.shape)


def _aligned(nbytes: int) -> Array:
    import numpy as np

    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes]
