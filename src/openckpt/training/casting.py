"""Floats of one width put into variables of another, by request, with the largest error known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openckpt.formats.dtypes import DType
    from openckpt.formats.spec import Array
    from openckpt.training.live import LiveNode

_AT_ONCE = 1 << 16  # elements whose error is computed at once: in float64, in a few copies, 3 MiB


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

    def cast(self, value: Array, dtype: DType, out: Array | None, node: LiveNode) -> Array:
        """Return ``value`` as another type of float, in ``out`` where there is one, and remember what was lost."""
        import numpy as np

        new = np.empty(value.shape, dtype.numpy()) if out is None else out
        self.count += 1
        exact = np.can_cast(value.dtype, new.dtype)
        source, target = value.reshape(-1), new.reshape(-1)
        for start in range(0, source.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            with np.errstate(over="ignore"):
                target[part] = source[part]
            if not exact:
                error = _largest_error(source[part], target[part])
                if error > self.largest_error:
                    self.largest_error, self.where = error, node.label()
        return new

    def __str__(self) -> str:
        text = f"{self.count} values cast"
        return f"{text}, largest error {self.largest_error:.3g} in {self.where}" if self.where else text


def _largest_error(stored: Array, kept: Array) -> float:
    import numpy as np

    wide, narrow = stored.astype(np.float64), kept.astype(np.float64)
    differs = (wide != narrow) & ~(np.isnan(wide) & np.isnan(narrow))
    with np.errstate(invalid="ignore"):
        error = np.abs(wide - narrow)[differs]
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))
