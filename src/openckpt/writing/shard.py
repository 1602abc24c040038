"""One data file while it is being written: where each tensor goes, and in the dual layout the header in front of them."""

from __future__ import annotations

from collections.abc import Sequence

from openckpt.formats.dual import DualPlan, DualTensor, Place, plan_dual
from openckpt.storage.pending import PendingFile
from openckpt.writing.data import DataFile
from openckpt.writing.values import Stored

_RESERVED = 1 << 20  # bytes of a tensor from which disk space is reserved for it alone


class PackedShard:
    """TensorFlow's layout: tensors back to back in the order in which they are added (formats 2.10)."""

    def __init__(self, file: PendingFile, crcs: list[int]) -> None:
        self.file = file
        self.end = 0
        self._data = DataFile(file, crcs)

    def put(self, slot: int, place: Place, stored: Stored) -> int:
        """Write one tensor and return its offset."""
        offset, size = self.end, len(stored.data)
        if size >= _RESERVED:
            self._data.flush()
            self.file.reserve(offset, size)
        self._data.write(slot, offset, stored)
        self.end = offset + size
        return offset

    def flush(self) -> None:
        """Write what is held back, so that the caller may change its arrays."""
        self._data.flush()

    def finish(self, places: Sequence[Place], sizes: Sequence[int], crcs: Sequence[int]) -> None:
        """Write what is still missing."""
        self._data.flush()


class DualShard:
    """The dual layout: every tensor at the place that was planned for it, the header last (docs/format/dual.md)."""

    def __init__(self, file: PendingFile, crcs: list[int], tensors: Sequence[DualTensor], path: str) -> None:
        self.file = file
        self.plan: DualPlan = plan_dual(tensors, path)
        self._offsets = self.plan.offsets
        self.end = self.plan.end
        self._unsized: dict[Place, int] = {}
        self._data = DataFile(file, crcs)
        file.reserve(0, self.end)

    def put(self, slot: int, place: Place, stored: Stored) -> int:
        """Write one tensor and return its offset."""
        offset = self._offsets.get(place)
        if offset is None:  # its size was not known: behind everything else, in the order in which they come
            offset = self.end
            self._unsized[place] = len(stored.data)
            self.end += len(stored.data)
        self._data.write(slot, offset, stored)
        return offset

    def flush(self) -> None:
        """Write what is held back, so that the caller may change its arrays."""
        self._data.flush()

    def finish(self, places: Sequence[Place], sizes: Sequence[int], crcs: Sequence[int]) -> None:
        """Write the header, now that every checksum is known."""
        self._data.flush()
        header = self.plan.header(dict(zip(places, crcs, strict=True)), self._unsized)
        self.file.write(0, [header], len(header))


Shard = PackedShard | DualShard
