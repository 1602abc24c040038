"""From what a caller hands over to stored bytes: arrays, scalars, text, variants and partitioned tensors.

A value is looked at twice: `describe` says dtype, shape and size, without making a byte, so that a whole checkpoint can be
laid out first; `encode` gives its bytes, without a copy where the array already lies as the format wants it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from openckpt.errors import MismatchError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_numpy
from openckpt.formats.slicekeys import Extents

if TYPE_CHECKING:
    import numpy as np

    from openckpt.formats.spec import Array

Value: TypeAlias = Any
"""A numpy array or what `numpy.asarray` makes one of; str, bytes or an array of them; `Variant`; `Sliced`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One element of a variant tensor: a serialized ``VariantTensorDataProto``, kept as it is (formats 2.8)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Sliced:
    """A partitioned tensor: its whole shape, and the pieces of it under their extents (formats 2.9).

    Attributes:
        shape: of the whole tensor.
        pieces: ``((start, length), ...)`` per dimension, ``(0, -1)`` for a whole one -> the values of that piece. All of them;
            under `openckpt.part_prefix` those that this writer has.
    """

    shape: tuple[int, ...]
    pieces: Mapping[Extents, Value] = field(default_factory=dict)


class Stored(NamedTuple):
    """The bytes of a tensor as they will lie in a data file.

    ``crc`` is unmasked, and None where it is simply that of ``data`` and still to be computed.
    """

    data: memoryview | bytes
    crc: int | None


# What a quantised tensor is handed over as: its scale is not in a checkpoint, so numpy knows only the integers.
_CARRIERS = {name: BY_NAME[name].numpy_name for name in ("qint8", "quint8", "qint16", "quint16", "qint32")}
_BITS = {"int4": 0x0F, "uint4": 0x0F, "float4_e2m1fn": 0x0F, "int2": 0x03, "uint2": 0x03}
"""types of less than a byte: the bits of the stored byte that count (formats 2.5: writers put zeros into the others)"""

_KNOWN: dict[Any, DType] = {}  # numpy dtype -> ours, of numbers
_DIRECT: set[Any] = set()  # numpy dtypes whose memory is what is stored, and which have a buffer protocol
_VIEWED: set[Any] = set()  # the same without one: ml_dtypes, for which it has no letter


def as_array(value: Value, where: Where) -> Array:
    """Return the value as an array; str, bytes and `Variant` become object arrays."""
    import numpy as np

    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        message = (
            "a masked array: a checkpoint has no place for the mask; save array.filled(...), or data and mask apart"
        )
        raise UnsupportedError("writing.no-array", where, message)
    if isinstance(value, (str, bytes, Variant)):
        array = np.empty((), object)
        array[()] = value
        return array
    try:
        if isinstance(value, (list, tuple)):
            return _array_of_sequence(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises RuntimeError for what numpy cannot hold
        raise UnsupportedError(
            "writing.no-array", where, f"this {type(value).__name__} cannot be made an array: {error}"
        ) from None


def _array_of_sequence(value: Sequence[Any]) -> Array:
    import numpy as np

    try:
        array = np.asarray(value)
    except UnicodeError:  # text and bytes that are no ASCII
        return np.asarray(value, object)
    # A fixed width would cut zeros off the ends, and make text of the numbers beside it.
    return np.asarray(value, object) if array.dtype.kind in "SU" else array


def describe(value: Value, named: str | None, where: Where) -> tuple[DType, tuple[int, ...], int | None]:
    """Return ``(dtype, shape, stored bytes)``; the size is None for strings and variants, whose bytes must be made first.

    Args:
        value: what is to be stored; not a `Sliced`.
        named: the dtype that the caller wants it stored as, None for the array's own.
        where: for errors.

    Raises:
        UnsupportedError: no checkpoint holds such values (``writing.no-array``, ``writing.dtype``, ``writing.resource``).
        MismatchError: ``named`` is not a way to store this array (``writing.wrong-dtype``).
    """
    array = as_array(value, where)
    if named is None:
        dtype = _KNOWN.get(array.dtype)
        if dtype is None:
            dtype = _dtype_of(array, where)
    else:
        dtype = _named(array, named, where)
    return dtype, array.shape, array.size * dtype.itemsize if dtype.itemsize else None


def _dtype_of(array: Array, where: Where) -> DType:
    if array.dtype.kind == "O":
        first: object = next((item for item in array.reshape(-1).tolist()), b"")
        return BY_NAME["variant" if isinstance(first, Variant) else "string"]
    dtype = dtype_of_numpy(array.dtype)
    if dtype is None:
        raise UnsupportedError(
            "writing.dtype", where, f"no checkpoint holds values of numpy's type {array.dtype}; convert them first"
        )
    if dtype.is_numeric:
        _KNOWN[array.dtype] = dtype
        if array.dtype.isbuiltin == 1:
            _DIRECT.add(array.dtype)
        elif dtype.name not in _BITS and array.dtype.byteorder != ">":
            _VIEWED.add(array.dtype)
    return dtype


def _named(array: Array, named: str, where: Where) -> DType:
    if named == "resource":
        raise UnsupportedError("writing.resource", where, "a resource is a handle of a running program, not a value")
    dtype = BY_NAME.get(named)
    if dtype is None:
        raise UnsupportedError("writing.dtype", where, f"{named!r} is no data type of a checkpoint")
    own = _dtype_of(array, where)
    if own is dtype or _CARRIERS.get(named) == own.name:
        return dtype
    if array.dtype.kind == "O" and not dtype.itemsize:  # variants read from a checkpoint are bytes
        return dtype
    raise MismatchError(
        "writing.wrong-dtype",
        where,
        f"the array cannot be stored as {named}",
        expected=_CARRIERS.get(named, named),
        found=own.name,
    )


def encode(value: Value, dtype: DType, where: Where) -> Stored:
    """Return the stored bytes of a value that `describe` has described.

    Raises:
        UnsupportedError: an element is neither text nor bytes (``writing.element``).
    """
    array = as_array(value, where)
    if not dtype.itemsize:
        from openckpt.formats.bundle.payload import encode_strings, encode_variants

        elements = [_element(item, dtype, where) for item in array.reshape(-1).tolist()]
        return Stored(*(encode_strings if dtype.name == "string" else encode_variants)(elements))
    flags = array.flags
    if not flags.c_contiguous or array.dtype.byteorder == ">":
        import numpy as np

        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    bits = _BITS.get(dtype.name)
    if bits is not None:
        import numpy as np

        return Stored(_bytes_of(array.view(np.uint8) & np.uint8(bits)), None)
    return Stored(_bytes_of(array), None)


def direct_bytes(value: Value) -> memoryview | None:
    """Return the memory of a described array where that is what is stored, as it is in nearly all; None elsewhere."""
    try:
        if value.dtype in _DIRECT:
            data: memoryview = value.data.cast("B")
            return data or None
        if value.dtype in _VIEWED:
            return memoryview(value.view("u1")).cast("B") or None
    except (AttributeError, TypeError, ValueError):
        pass  # no array, one whose elements do not lie one behind the other, or an empty one
    return None


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    if not array.size:
        return b""
    try:
        return array.data.cast("B")
    except ValueError:  # ml_dtypes: the buffer protocol has no letter for them
        return array.reshape(-1).view("u1").data.cast("B")


def _element(item: object, dtype: DType, where: Where) -> bytes:
    if isinstance(item, bytes):
        return item
    if dtype.name == "variant":
        if isinstance(item, Variant):
            return item.data
    elif isinstance(item, str):
        return item.encode("utf-8", "surrogateescape")
    raise UnsupportedError(
        "writing.element",
        where,
        f"an element of this {dtype.name} tensor is of type {type(item).__name__}",
        found=repr(item)[:60],
    )


def text_bytes(value: Value, where: Where) -> int:
    """Return the bytes of all elements of a string tensor together."""
    return sum(len(_element(item, BY_NAME["string"], where)) for item in as_array(value, where).reshape(-1).tolist())
