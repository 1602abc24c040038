"""Values as they are now: copied to the host, so that a save can go on while the program changes them.

An array that can be changed is copied. One of TensorFlow or JAX is held instead: neither writes into memory that somebody else refers
to - a JAX step to which such an array is *donated* makes a new one. Text and numbers are values already. The memory of the copies is
kept for the next save, which then waits for no new pages of the system, and it is all that a save takes beyond the program's own: one
copy of the state.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Container, Mapping
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from openckpt.storage.pages import map_pages
from openckpt.storage.threads import start_thread
from openckpt.training.leaves import value_of
from openckpt.training.tracking import Leaf

if TYPE_CHECKING:
    from openckpt.formats.spec import Array, TensorSpec

_CHUNK_BYTES = 8 << 20
_LARGE_BYTES = 16 << 20
"""bytes of an array that is copied by several threads: one does not use up what the memory can do"""
_MAPPED_BYTES = 1 << 20
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

    def copy(self, key: str, value: Any, copying: Copying) -> Any:
        """Return the value as it is when ``copying`` ends; an array lies in memory that is this one's until the next copy of the key."""
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
            array = self._arrays[key] = _memory(source.shape, source.dtype)
        copying.copy(array, source)
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
    with Copying() as copying:
        for key, leaf in leaves.items():
            kept = buffers.kept(key, leaf.spec()) if key in frozen else None
            if kept is not None:
                values[key] = kept
                continue
            value = value_of(leaf, key, path)
            # One by one: a value from a device is a copy already.
            values[key] = value if getattr(leaf, "is_stable", False) else buffers.copy(key, value, copying)
    buffers.frozen = frozen
    return values


def _memory(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return new memory for an array; large ones from the system itself, as `map_pages` says why."""
    import numpy as np

    nbytes = math.prod(shape) * dtype.itemsize
    pages = map_pages(nbytes) if nbytes >= _MAPPED_BYTES else None
    return np.empty(shape, dtype) if pages is None else np.ndarray(shape, dtype, buffer=pages)


class Copying:
    """The copies of one snapshot: large ones in pieces, on threads that are started once; leaving it, all are done."""

    def __init__(self) -> None:
        self._parts: SimpleQueue[tuple[Array, Array] | None] = SimpleQueue()
        self._threads: list[threading.Thread] | None = None

    def __enter__(self) -> Copying:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._work()
        finally:  # an interrupt, say: nobody goes on writing into memory that the next save takes
            self._drop()
            for _ in self._threads or ():
                self._parts.put(None)
            for thread in self._threads or ():
                thread.join()

    def copy(self, target: Array, source: Array) -> None:
        """Copy an array; of a large one the last pieces may still be under way on another thread."""
        import numpy as np

        if source.nbytes < _LARGE_BYTES or not source.flags.c_contiguous or _THREADS < 2:
            np.copyto(target, source)
            return
        if self._threads is None:
            started = (start_thread(self._help, "openckpt-copy") for _ in range(_THREADS - 1))
            self._threads = [thread for thread in started if thread is not None]
        to, of = target.reshape(-1), source.reshape(-1)
        size = max(1, _CHUNK_BYTES // source.dtype.itemsize)
        for start in range(0, len(of), size):
            self._parts.put((to[start : start + size], of[start : start + size]))
        self._work()

    def _help(self) -> None:
        import numpy as np

        while (part := self._parts.get()) is not None:
            np.copyto(*part)  # without the GIL
            del part  # may be the last that holds the array

    def _work(self) -> None:
        """Copy what no thread has begun with."""
        import numpy as np

        while True:
            try:
                part = self._parts.get_nowait()
            except Empty:
                return
            if part is not None:
                np.copyto(*part)

    def _drop(self) -> None:
        while not self._parts.empty():
            self._parts.get_nowait()
