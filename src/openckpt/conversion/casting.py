"""Casts: which types become which, and the numbers that change on the way.

A cast works in place, piece by piece: for a narrower type the results are packed to the front of the tensor's own memory, for a
wider one the tensor lies at the end of the memory that the results will fill. One tensor never takes more than the larger form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from openckpt.conversion.result import CastReport
from openckpt.errors import UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME

if TYPE_CHECKING:
    import numpy as np

    from openckpt.formats.spec import Array

Cast: TypeAlias = "str | Mapping[str, str] | Iterable[str]"
"""``"bfloat16"`` for all floats, ``"float32=bfloat16"``, a mapping, or several of them."""

FLOATS = ("float64", "float32", "float16", "bfloat16", *(name for name in BY_NAME if name.startswith("float8_")))
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
COMPLEX = ("complex64", "complex128")
_KINDS = (FLOATS, INTEGERS, COMPLEX)
_PIECE = 1 << 18  # elements that are cast at a time: they stay in the cache


def parse_casts(cast: Cast | None) -> dict[str, str]:
    """Return ``{type: type it becomes}``, in TensorFlow's names.

    Raises:
        UnsupportedError: a type that is not known, or not of the same kind (``convert.cast``).
    """
    casts: dict[str, str] = {}
    if isinstance(cast, Mapping):
        pairs = [(str(source), str(target)) for source, target in cast.items()]
    else:
        texts = [cast] if isinstance(cast, str) else list(cast or ())
        pairs = []
        for text in texts:
            source, equals, target = text.partition("=")
            pairs.append((source, target) if equals else ("", source))
    for source, target in pairs:
        kind = next((kind for kind in _KINDS if target in kind), None)
        if kind is None or (source and source not in kind) or (not source and kind is not FLOATS):
            raise UnsupportedError(
                "convert.cast",
                Where("--cast", f"{source}={target}" if source else target),
                "no such cast; there are FLOAT=FLOAT, INTEGER=INTEGER, COMPLEX=COMPLEX, or one float type for all floats",
                found=f"{source}={target}" if source else target,
            )
        # what is said of one type wins over what is said of all floats, in whatever order
        for name in (source,) if source else FLOATS:
            if source or name not in casts:
                casts[name] = target
    return {source: target for source, target in casts.items() if source != target}


class Casting:
    """Applies casts and remembers what they changed."""

    def __init__(self, casts: Mapping[str, str]) -> None:
        self.casts = casts
        self._reports: dict[str, CastReport] = {}

    @property
    def reports(self) -> tuple[CastReport, ...]:
        """One per type that was cast."""
        return tuple(self._reports.values())

    def cast(self, key: str, array: Array, dtype: str, memory: np.ndarray[Any, Any], where: Where) -> Array:
        """Return the tensor as the type that ``dtype`` becomes, at the front of ``memory``.

        Args:
            key: its key.
            array: C-contiguous; it may lie in ``memory``, at the front for a narrower type, at the end for a wider one.
            dtype: its type.
            memory: bytes, as many as the larger form takes.
            where: the place, for errors.

        Raises:
            UnsupportedError: an integer that the new type cannot hold (``convert.cast``).
        """
        import numpy as np

        target = self.casts[dtype]
        kind = BY_NAME[target].numpy()
        flat = array.reshape(-1)
        result: Array = memory[: flat.size * kind.itemsize].view(kind)
        largest, overflows = 0.0, 0
        for at in range(0, flat.size, _PIECE):
            piece = flat[at : at + _PIECE]
            with np.errstate(over="ignore", invalid="ignore"):
                cast = piece.astype(kind)
                if dtype in INTEGERS:
                    # the sign shows what equality may hide: numpy compares int64 and uint64 as floats
                    if not np.array_equal(piece, cast) or np.any(np.less(piece, 0) != np.less(cast, 0)):
                        message = f"a value of this tensor does not fit into {target}"
                        raise UnsupportedError("convert.cast", where, message)
                elif kind.itemsize <= array.dtype.itemsize:  # a wider type of the same kind holds every value
                    error, lost = _difference(piece, cast)
                    largest, overflows = max(largest, error), overflows + lost
            result[at : at + _PIECE] = cast
        self._note(key, dtype, target, largest, overflows)
        return result.reshape(array.shape)

    def _note(self, key: str, source: str, target: str, largest: float, overflows: int) -> None:
        old = self._reports.get(source, CastReport(source, target, 0, 0.0, None, 0))
        worse = largest > old.largest_error
        self._reports[source] = CastReport(
            source,
            target,
            old.tensors + 1,
            largest if worse else old.largest_error,
            key if worse else old.at,
            old.overflows + overflows,
        )


def _difference(before: Array, after: Array) -> tuple[float, int]:
    """Return the largest difference of finite values, and how many finite values did not stay finite."""
    import numpy as np

    # Either type is exact in this one, and the difference of a number and its rounding is as well.
    wide: type[np.generic] = np.float64 if 8 in (before.dtype.itemsize, after.dtype.itemsize) else np.float32
    if before.dtype.kind == "c":
        wide = np.complex128
    old, new = before.astype(wide, copy=False), after.astype(wide)
    error = float(np.max(np.abs(np.subtract(old, new, out=new)), initial=0.0))
    if isfinite(error):  # as nearly always: so is everything on both sides
        return error, 0
    new = after.astype(wide)
    finite = np.isfinite(old)
    kept = finite & np.isfinite(new)
    overflows = int(np.count_nonzero(finite) - np.count_nonzero(kept))
    return float(np.max(np.abs(old[kept] - new[kept]), initial=0.0)), overflows
