"""One safetensors file: byte for byte a data file of a dual checkpoint of the same tensors (docs/format/dual.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openckpt.conversion.planning import Row, key_bytes
from openckpt.formats.dual import DualTensor, plan_dual
from openckpt.writing.behind import WriteBehind
from openckpt.writing.data import DataFile

if TYPE_CHECKING:
    from openckpt.conversion.moving import Moved
    from openckpt.formats.dual import DualPlan, Place
    from openckpt.storage.pending import PendingFile


class SafetensorsFile:
    """Fills one safetensors file; tensors come in any order, the header last."""

    def __init__(self, file: PendingFile, rows: Sequence[Row]) -> None:
        self._file = file
        self._plan = plan_rows(rows, file.path)
        self._crcs: dict[Place, int] = {}
        self._behind = WriteBehind()
        self._data = DataFile(file, self._behind)
        file.reserve(0, self._plan.end)

    @property
    def order(self) -> list[str]:
        """The keys as they lie in the file."""
        return order_of(self._plan)

    def add(self, moved: Moved) -> None:
        """Write one tensor."""
        place, (data, crc) = key_bytes(moved.row.key), moved.stored
        self._crcs[place] = crc or 0
        self._data.write(self._plan.offsets[place], data, reserve=False)

    def flush(self) -> None:
        """Return when everything is with the system."""
        self._data.flush()
        self._behind.drain()

    def finish(self) -> None:
        """Write the header."""
        self.flush()
        self._behind.close()
        header = self._plan.header(self._crcs)
        self._file.write(0, [header], len(header))

    def abandon(self) -> None:
        """End the writing; what waits is dropped."""
        self._behind.close()


def plan_rows(rows: Sequence[Row], path: str) -> DualPlan:
    """Lay out the file of some tensors, the sizes of all of which are known.

    Raises:
        LimitError: the header would be too long (``dual.header-too-large``).
    """
    return plan_dual(
        [DualTensor(key_bytes(row.key), row.target) for row in rows],
        path,
    )


def order_of(plan: DualPlan) -> list[str]:
    """Return the keys of a plan as they lie in the file."""
    return [place.decode("utf-8", "surrogateescape") for place in plan.offsets if isinstance(place, bytes)]
