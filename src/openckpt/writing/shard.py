"""One data file while it is being written: where each tensor goes, and in the dual layout the header in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from openckpt.formats.dual import DualTensor, Place, plan_dual
from openckpt.storage.pending import PendingFile
from openckpt.writing.behind import WriteBehind
from openckpt.writing.data import DataFile


class Shard(Protocol):
    """A layout of one data file."""

    file: PendingFile
    offsets: Mapping[Place, int]
    """the places that are known before anything is written"""

    def put(self, place: Place, offset: int, data: memoryview | bytes) -> int:
        """Write one tensor and return its offset; ``offset`` is that of `offsets`, or -1 where it has none."""
        ...

    def put_run(self, offset: int, parts: Sequence[memoryview | bytes], size: int) -> int:
        """Write small tensors of ``size`` bytes in all that lie one behind the other, and return the first one's offset."""
        ...

    def flush(self) -> None:
        """Hand over what is held back."""
        ...

    def finish(self, crcs: Mapping[Place, int]) -> None:
        """Write what is still missing, now that every checksum is known and every tensor is written."""
        ...


class PackedShard:
    """TensorFlow's layout: tensors back to back in the order in which they are added (formats 2.10)."""

    def __init__(self, file: PendingFile, behind: WriteBehind) -> None:
        self.file = file
        self.offsets: Mapping[Place, int] = {}
        self._end = 0
        self._data = DataFile(file, behind)

    def put(self, place: Place, offset: int, data: memoryview | bytes) -> int:
        """Write one tensor behind the others."""
        offset = self._end
        self._data.write(offset, data, reserve=True)
        self._end += len(data)
        return offset

    def put_run(self, offset: int, parts: Sequence[memoryview | bytes], size: int) -> int:
        """Write small tensors behind the others."""
        offset = self._end
        self._data.write_run(offset, parts, size)
        self._end += size
        return offset

    def flush(self) -> None:
        """Hand over what is held back."""
        self._data.flush()

    def finish(self, crcs: Mapping[Place, int]) -> None:
        """Nothing is missing: this layout has no header."""


class DualShard:
    """The dual layout: every tensor at the place that was planned for it, the header last (docs/format/dual.md)."""

    def __init__(
        self,
        file: PendingFile,
        behind: WriteBehind,
        tensors: Sequence[DualTensor],
        path: str,
        superseded: Sequence[int] = (),
    ) -> None:
        self.file = file
        self._plan = plan_dual(tensors, path, superseded=superseded)
        self.offsets: Mapping[Place, int] = self._plan.offsets
        self._end = self._plan.end
        self._unsized: dict[Place, int] = {}
        self._data = DataFile(file, behind)
        file.reserve(0, self._end)

    def put(self, place: Place, offset: int, data: memoryview | bytes) -> int:
        """Write one tensor; one whose size was not known goes behind everything else, in the order in which they come."""
        if offset < 0:
            offset = self._end
            self._unsized[place] = len(data)
            self._end += len(data)
        self._data.write(offset, data, reserve=False)
        return offset

    def put_run(self, offset: int, parts: Sequence[memoryview | bytes], size: int) -> int:
        """Write small tensors of known size."""
        self._data.write_run(offset, parts, size)
        return offset

    def flush(self) -> None:
        """Hand over what is held back."""
        self._data.flush()

    def finish(self, crcs: Mapping[Place, int]) -> None:
        """Write the header."""
        header = self._plan.header(crcs, self._unsized)
        self.file.write(0, [header], len(header))
