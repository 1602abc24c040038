"""TensorFlow's data types: enum number, name, bytes per stored element and the numpy type, without importing numpy.

Source: formats 2.5. Sub-byte types are stored one element per byte, value in the low bits. Enum + 100 is the reference
variant of the same type (old graph files).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class DType(NamedTuple):
    """One data type of a checkpoint.

    Attributes:
        name: TensorFlow's name, e.g. "float32".
        enum: number in TensorFlow's ``DataType`` enum.
        itemsize: bytes per element in a data file; 0 for strings, variants and resources.
        numpy_name: name for `numpy.dtype` or of an attribute of ``ml_dtypes``; "object" for strings and variants.
        swap: size in bytes of the unit that a big-endian bundle swaps; 1 where nothing is swapped.
    """

    name: str
    enum: int
    itemsize: int
    numpy_name: str
    swap: int

    @property
    def is_numeric(self) -> bool:
        """Whether elements have a fixed size: everything but string, variant and resource."""
        return self.itemsize > 0

    def numpy(self) -> np.dtype[np.generic]:
        """Return the numpy dtype (imports numpy, and ml_dtypes for the types that numpy lacks)."""
        found = _NUMPY.get(self.numpy_name)
        return _NUMPY.setdefault(self.numpy_name, self._make_numpy()) if found is None else found

    def _make_numpy(self) -> np.dtype[np.generic]:
        import numpy

        if self.numpy_name in _ML:
            import ml_dtypes

            scalar: type[np.generic] = getattr(ml_dtypes, self.numpy_name)
            return numpy.dtype(scalar)
        return numpy.dtype(self.numpy_name)


_NUMPY: dict[str, np.dtype[np.generic]] = {}
_ML = frozenset(
    "bfloat16 float8_e5m2 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz float8_e5m2fnuz int4 uint4 int2 uint2 "
    "float4_e2m1fn".split()
)

# enum, name, bytes per stored element, numpy name, bytes per swapped unit
_TABLE = """
 1 float32 4 float32 4        2 float64 8 float64 8       3 int32 4 int32 4          4 uint8 1 uint8 1
 5 int16 2 int16 2            6 int8 1 int8 1             7 string 0 object 1        8 complex64 8 complex64 4
 9 int64 8 int64 8           10 bool 1 bool 1            11 qint8 1 int8 1          12 quint8 1 uint8 1
13 qint32 4 int32 4          14 bfloat16 2 bfloat16 2    15 qint16 2 int16 2        16 quint16 2 uint16 2
17 uint16 2 uint16 2         18 complex128 16 complex128 8  19 float16 2 float16 2  20 resource 0 object 1
21 variant 0 object 1        22 uint32 4 uint32 4        23 uint64 8 uint64 8
24 float8_e5m2 1 float8_e5m2 1             25 float8_e4m3fn 1 float8_e4m3fn 1
26 float8_e4m3fnuz 1 float8_e4m3fnuz 1     27 float8_e4m3b11fnuz 1 float8_e4m3b11fnuz 1
28 float8_e5m2fnuz 1 float8_e5m2fnuz 1     29 int4 1 int4 1  30 uint4 1 uint4 1  31 int2 1 int2 1  32 uint2 1 uint2 1
33 float4_e2m1fn 1 float4_e2m1fn 1
""".split()

DTYPES: dict[int, DType] = {
    int(enum): DType(name, int(enum), int(size), numpy_name, int(swap))
    for enum, name, size, numpy_name, swap in zip(*[iter(_TABLE)] * 5, strict=True)
}
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in DTYPES.values()}


def dtype_of_enum(enum: int) -> DType | None:
    """Return the type of an enum number, reference variants included, or None for an unknown number."""
    return DTYPES.get(enum - 100 if 100 < enum < 200 else enum)


def unknown_name(enum: int) -> str:
    """Return the name under which an unknown enum is listed."""
    return f"unknown-{enum}"


def dtype_of_numpy(dtype: np.dtype[np.generic]) -> DType | None:
    """Return the TensorFlow type of a numpy dtype (quantised types cannot be told from their integers), or None."""
    kind = dtype.kind
    if kind in "OSUT":
        return BY_NAME["string"]
    found = BY_NAME.get(dtype.name)
    return found if found is not None and found.is_numeric else None
