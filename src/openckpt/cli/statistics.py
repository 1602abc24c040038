"""What ``show`` says about the values of one tensor: range, moments, non-finite counts and a histogram, as values.

Arrays go through in pieces of a million elements, so a tensor of many gigabytes costs a few megabytes more. Complex numbers
are judged by their absolute value. Moments and range are over the finite values; the others are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from openckpt.findings import Progress

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
    Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

_PIECE = 1 << 20
BINS = 12

_WIDER = {
    "bfloat16": "float32", "float8_e5m2": "float32", "float8_e4m3fn": "float32", "float8_e4m3fnuz": "float32",
    "float8_e4m3b11fnuz": "float32", "float8_e5m2fnuz": "float32", "float4_e2m1fn": "float32",
    "int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8",
}  # fmt: skip
"""Types that numpy lacks -> the plain type that holds each of their values exactly."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Facts about the values of a numeric tensor; the four numbers are None where no value is finite.

    Attributes:
        count: elements.
        nan: elements that are not a number (for complex: in either part).
        inf: elements that are infinite.
        zeros: elements that equal zero.
        minimum, maximum: of the finite values; int for integers and booleans.
        mean, std: of the finite values, in float64; the standard deviation is the population's.
    """

    count: int
    nan: int
    inf: int
    zeros: int
    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts[i]`` finite values lie in ``edges[i] <= value < edges[i + 1]``, the last edge included."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def widen(array: Numbers) -> Numbers:
    """Return the values in a type of numpy's own: exact, and the same array where it already has one."""
    wider = _WIDER.get(array.dtype.name)
    if wider is None:
        return array
    import numpy as np

    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return array.astype(wider)


def is_numeric(array: Numbers) -> bool:
    """Return whether the elements are numbers or booleans (after `widen`)."""
    return array.dtype.kind in "biufc"


def _pieces(array: Numbers, progress: Progress | None, what: str) -> Iterator[Floats]:
    """Yield the values as float64, a piece at a time; complex ones as absolute values."""
    import numpy as np

    flat = array.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        if progress is not None:
            progress(what, start, flat.size)
        piece = flat[start : start + _PIECE]
        if piece.dtype.kind == "c":
            piece = np.where(np.isnan(piece), np.nan, np.abs(piece))
        yield piece.astype(np.float64)


def compute_statistics(array: Numbers, progress: Progress | None = None) -> Statistics:
    """Return the facts about a numeric array of any shape (see `Statistics`)."""
    import numpy as np

    nan = inf = zeros = finite = 0
    total = 0.0
    low, high = np.inf, -np.inf
    with np.errstate(all="ignore"):
        for piece in _pieces(array, progress, "range and mean"):
            nan += int(np.isnan(piece).sum())
            inf += int(np.isinf(piece).sum())
            zeros += int((piece == 0).sum())
            good = piece[np.isfinite(piece)]
            if good.size:
                finite += good.size
                total += float(good.sum())
                low, high = min(low, float(good.min())), max(high, float(good.max()))
        if not finite:
            return Statistics(array.size, nan, inf, zeros, None, None, None, None)
        mean = total / finite
        squares = sum(
            float(((piece[np.isfinite(piece)] - mean) ** 2).sum()) for piece in _pieces(array, progress, "deviation")
        )
    minimum: float | int = low
    maximum: float | int = high
    if array.dtype.kind in "biu":
        minimum, maximum = int(array.min()), int(array.max())
    return Statistics(array.size, nan, inf, zeros, minimum, maximum, mean, float(np.sqrt(squares / finite)))


def compute_histogram(
    array: Numbers, statistics: Statistics, *, bins: int = BINS, progress: Progress | None = None
) -> Histogram | None:
    """Count the finite values in equal bins, one per value for a short range of integers; None where there is no range."""
    import numpy as np

    low, high = statistics.minimum, statistics.maximum
    if low is None or high is None:
        return None
    if array.dtype.kind in "biu" and int(high) - int(low) < bins:
        edges = np.arange(bins + 1, dtype=np.float64)[: int(high) - int(low) + 2] + (float(low) - 0.5)
    elif low == high:
        return None
    else:
        # Halved, because high - low of the largest float64 values overflows.
        edges = np.linspace(float(low) / 2, float(high) / 2, bins + 1) * 2
        edges[0], edges[-1] = float(low), float(high)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for piece in _pieces(array, progress, "histogram"):
        good = piece[np.isfinite(piece)]
        places = np.clip(np.searchsorted(edges, good, side="right") - 1, 0, len(counts) - 1)
        counts += np.bincount(places, minlength=len(counts))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
