"""HDF5 data types to TensorFlow's names.

Keras writes plain numbers, bool as an enumeration {FALSE: 0, TRUE: 1}, complex as a compound {r, i}, and bfloat16 as two
opaque bytes with an attribute ``dtype`` (formats 8.2). Everything else is listed as ``unknown-...`` and not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openckpt.formats.dtypes import BY_NAME

if TYPE_CHECKING:
    from h5py import h5t

Text = Literal["fixed", "terminated", "variable"]

# (bytes, exponent bits, mantissa bits) of the floats that have a name here
_FLOATS = {(2, 5, 10): "float16", (4, 8, 23): "float32", (8, 11, 52): "float64", (2, 8, 7): "bfloat16"}
_OPAQUE = frozenset(name for name in BY_NAME if name.startswith(("bfloat16", "float8_", "float4_")))


@dataclass(frozen=True, slots=True)
class StoredType:
    """How elements lie in the file.

    Attributes:
        dtype: TensorFlow's name, or ``unknown-...``.
        itemsize: bytes per element in the file.
        big_endian: whether numbers must be swapped.
        text: for strings: padded to a fixed size, ended by a zero byte, or kept in the global heap.
    """

    dtype: str
    itemsize: int
    big_endian: bool = False
    text: Text | None = None


def stored_type(tid: h5t.TypeID, named: str | None) -> StoredType:
    """Return the type of a dataset; ``named`` is its ``dtype`` attribute, which says what opaque bytes mean."""
    from h5py import h5t

    kind, size = tid.get_class(), tid.get_size()
    if kind in (h5t.INTEGER, h5t.FLOAT):
        return _number(tid, size)
    if kind == h5t.STRING:
        if tid.is_variable_str():
            return StoredType("string", size, text="variable")
        ends = tid.get_strpad() == h5t.STR_NULLTERM
        return StoredType("string", size, text="terminated" if ends else "fixed")
    if kind == h5t.OPAQUE:
        known = named in _OPAQUE and BY_NAME[named].itemsize == size
        return StoredType(named if known and named else f"unknown-opaque{8 * size}", size)
    if kind == h5t.ENUM:
        return _enumeration(tid, size)
    if kind == h5t.COMPOUND:
        return _compound(tid, size)
    names = {
        h5t.BITFIELD: "bitfield",
        h5t.REFERENCE: "reference",
        h5t.VLEN: "vlen",
        h5t.ARRAY: "array",
        h5t.TIME: "time",
    }
    return StoredType(f"unknown-{names.get(kind, 'type')}", size)


def _number(tid: h5t.TypeID, size: int) -> StoredType:
    from h5py import h5t

    order = tid.get_order()
    plain = order in (h5t.ORDER_LE, h5t.ORDER_BE, h5t.ORDER_NONE)
    plain = plain and tid.get_precision() == 8 * size and tid.get_offset() == 0
    if isinstance(tid, h5t.TypeFloatID):
        _, _, exponent, _, mantissa = tid.get_fields()
        name = _FLOATS.get((size, exponent, mantissa), f"unknown-float{8 * size}")
    else:
        name = ("int" if tid.get_sign() == h5t.SGN_2 else "uint") + str(8 * size)
    if not plain or name not in BY_NAME:
        return StoredType(name if name.startswith("unknown-") else f"unknown-{name}", size)
    return StoredType(name, size, big_endian=order == h5t.ORDER_BE and size > 1)


def _enumeration(tid: h5t.TypeID, size: int) -> StoredType:
    count = tid.get_nmembers()
    if size == 1 and count == 2:
        members = {tid.get_member_name(i).upper(): tid.get_member_value(i) for i in range(2)}
        if members == {b"FALSE": 0, b"TRUE": 1}:
            return StoredType("bool", 1)
    return StoredType("unknown-enum", size)


def _compound(tid: h5t.TypeID, size: int) -> StoredType:
    from h5py import h5t

    if tid.get_nmembers() == 2 and [tid.get_member_name(i) for i in range(2)] == [b"r", b"i"]:
        parts = [tid.get_member_type(i) for i in range(2)]
        packed = [tid.get_member_offset(i) for i in range(2)] == [0, size // 2]
        if packed and all(part.get_class() == h5t.FLOAT for part in parts):
            real, imaginary = (_number(part, part.get_size()) for part in parts)
            name = {"float32": "complex64", "float64": "complex128"}.get(real.dtype)
            if name is not None and real == imaginary:
                return StoredType(name, size, big_endian=real.big_endian)
    return StoredType("unknown-compound", size)
