"""From stored elements to values: byte order, sub-byte types, bools (formats 2.5, 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.formats.dtypes import DType

if TYPE_CHECKING:
    import numpy as np

    from openckpt.formats.spec import Array

SUB_BYTE = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
"""significant bits of the types that are stored one element per byte"""


def stored_dtype(dtype: DType) -> np.dtype[np.generic]:
    """Return the numpy dtype in which elements are read: sub-byte types come as the bytes they are stored in."""
    if dtype.name in SUB_BYTE:
        import numpy as np

        return np.dtype(np.uint8)
    return dtype.numpy()


def finish(array: Array, dtype: DType, *, big_endian: bool) -> Array:
    """Turn freshly read elements into values, in place except for sub-byte types."""
    if big_endian and dtype.swap > 1:
        import numpy as np

        array.reshape(-1).view(np.dtype(f"u{dtype.swap}")).byteswap(inplace=True)
    if dtype.name == "bool":
        import numpy as np

        raw = array.reshape(-1).view(np.uint8)
        np.not_equal(raw, 0, out=raw.view(np.bool_))  # any nonzero byte is true
    elif dtype.name in SUB_BYTE:
        return _from_low_bits(array, dtype)
    return array


def _from_low_bits(raw: Array, dtype: DType) -> Array:
    """Return sub-byte values of their bytes: high bits are ignored, signed types extend the sign (formats 2.5)."""
    import numpy as np

    bits = SUB_BYTE[dtype.name]
    low = raw.view(np.uint8) & ((1 << bits) - 1)
    if dtype.name == "float4_e2m1fn":
        return low.view(dtype.numpy())
    if dtype.name.startswith("int"):
        shift = 8 - bits
        return ((low << shift).view(np.int8) >> shift).astype(dtype.numpy())
    return low.astype(dtype.numpy())
