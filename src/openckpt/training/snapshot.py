"""Values as they are now: copied to the host, so that a save can go on while the program changes them.

Every array is copied, JAX's too: it cannot be changed, but a step may *donate* it, and its memory then holds something else. Text
and numbers are values already. The memory is kept for the next save, which then waits for no new pages of the system, and it is
all that a save takes beyond the program's own: one copy of the state.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from openckpt.errors import UnsupportedError, Where
from openckpt.storage.threads import start_thread
from openckpt.training.tracking import Leaf

if TYPE_CHECKING:
    from openckpt.formats.spec import Array, TensorSpec

_CHUNK_BYTES = 8 << 20
_LARGE_BYTES = 16 << 20
"""bytes of an array that is copied by several threads: one does not use up what the memory can do"""
_THREADS = min(4, os.cpu_count() or 1)


class HostBuffers:
    """Memory on the host for the values of one save, used again by the next one. For one save at a time."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self.frozen: frozenset[str] = frozenset()
        """keys whose values have not changed since they were copied, as the program says"""

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(array.nbytes for array in self._arrays.values())

    def keep(self, keys: Container[str]) -> None:
        """Let go of everything else, before new memory is asked for."""
        for key in [key for key in self._arrays if key not in keys]:
            del self._arrays[key]

    def kept(self, key: str, spec: TensorSpec | None) -> Array | None:
        """Return the copy of a value that has not changed, None where there is none."""
        array = self._arrays.get(key) if key in self.frozen else None
        return array if array is not None and spec is not None and array.shape == spec.shape else None

    def copy(self, key: str, value: Any) -> Any:
        """Return the value as it is now; an array lies in memory that is this one's until the next copy under this key."""
        import numpy as np

        if isinstance(value, (bytes, str, int, float, complex, np.generic)):
            return value
        source = np.asarray(value)
        if source.dtype.kind in "OT":  # text, whose elements cannot be changed
            return source.copy()
        array = self._arrays.get(key)
        if array is None or array.shape != source.shape or array.dtype != source.dtype:
            self._arrays.pop(key, None)
            array = None  # before there is another one
            array = self._arrays[key] = np.empty(source.shape, source.dtype)
        _copy(array, source)
        return array


def take_snapshot(
    leaves: Mapping[str, Leaf], path: str, buffers: HostBuffers, frozen: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the values of live objects as they are now, by key.

    Args:
        leaves: key -> what is to be saved.
        path: the checkpoint, for messages.
        buffers: where the copies lie; those of another save are overwritten.
        frozen: keys that the program declares unchanged; not copied again where it did so the last time.

    Raises:
        UnsupportedError: something has no value that could be stored (``training.*``).
    """
    buffers.keep(leaves.keys())
    values: dict[str, Any] = {}
    for key, leaf in leaves.items():
        kept = buffers.kept(key, leaf.spec()) if key in frozen else None
        if kept is not None:
            values[key] = kept
            continue
        try:
            value = leaf.value()
            # One by one: a value from a device is a copy already, and TensorFlow never writes into what somebody holds.
            values[key] = value if getattr(leaf, "is_stable", False) else buffers.copy(key, value)
        except UnsupportedError as error:
            if error.where.key is None:
                error.where = Where(path, key)
            raise
    buffers.frozen = frozen
    return values


def _copy(target: Array, source: Array) -> None:
    import numpy as np

    if source.nbytes < _LARGE_BYTES or not source.flags.c_contiguous or _THREADS < 2:
        np.copyto(target, source)
        return
    to, of = target.reshape(-1), source.reshape(-1)
    size = max(1, _CHUNK_BYTES // source.dtype.itemsize)
    parts = deque(range(0, len(of), size))

    def work() -> None:
        while True:
            try:
                start = parts.popleft()
            except IndexError:
                return
            np.copyto(to[start : start + size], of[start : start + size])  # without the GIL

    threads = [start_thread(work, "openckpt-copy") for _ in range(_THREADS - 1)]
    try:
        work()
    finally:  # an interrupt, say: nobody goes on writing into memory that the next save takes
        parts.clear()
        for thread in threads:
            if thread is not None:
                thread.join()
