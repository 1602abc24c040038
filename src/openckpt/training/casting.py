"""Floats of one width put into variables of another, by request, with the largest error known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openckpt.formats.dtypes import DType
    from openckpt.formats.spec import Array
    from openckpt.training.live import LiveNode

_AT_ONCE = 1 << 18  # elements whose error is computed at once: the two copies in float64 take 4 MiB


@dataclass(slots=True)
class Casts:
    """What was cast in one restore.

    Attributes:
        count: how many values.
        largest_error: largest absolute difference between a stored element and what took its place; infinity where one was
            too large for the narrower type.
        where: readable name of the variable that has it; "" where nothing was lost.
    """

    count: int = 0
    largest_error: float = 0.0
    where: str = ""

    def cast(self, value: Array, dtype: DType, node: LiveNode) -> Array:
        """Return ``value`` as another type of float, and remember what was lost."""
        import numpy as np

        with np.errstate(over="ignore"):
            new: Array = value.astype(dtype.numpy())
        self.count += 1
        flat, other = value.reshape(-1), new.reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):
            stored = flat[start : start + _AT_ONCE].astype(np.float64)
            kept = other[start : start + _AT_ONCE].astype(np.float64)
            differs = (stored != kept) & ~(np.isnan(stored) & np.isnan(kept))
            with np.errstate(invalid="ignore"):
                error = np.abs(stored - kept)[differs]
            largest = float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))
            if largest > self.largest_error:
                self.largest_error, self.where = largest, node.label()
        return new

    def __str__(self) -> str:
        text = f"{self.count} values cast"
        return f"{text}, largest error {self.largest_error:.3g} in {self.where}" if self.where else text
