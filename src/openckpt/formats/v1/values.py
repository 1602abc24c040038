"""The values of V1 checkpoints: the packed numbers and strings of a TensorProto (formats 3.2).

    SavedTensorSlices   12  data { 0a name   12 slice   1a TensorProto }
    TensorProto         the field of the dtype, packed:   2a float   32 double   3a int_val   42 string_val ...

The TensorProto states neither dtype nor shape; both come from the table's list. Integers are varints, a negative one takes ten
bytes. They are decoded by numpy a block at a time, never one by one in Python; floats are taken as they lie. Unpacked
fields, which old writers may have left, are joined first: they hold the same bytes, each behind a tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.dtypes import DType
from openckpt.formats.wire import encode_field, parse_varint

if TYPE_CHECKING:
    import numpy as np

    from openckpt.formats.spec import Array

    Octets = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
    Places = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

INT_VAL, STRING_VAL = 7, 8
FIELDS: dict[str, int] = {
    "float32": 5, "float64": 6, "int32": INT_VAL, "uint8": INT_VAL, "int8": INT_VAL, "int16": INT_VAL,
    "uint16": INT_VAL, "qint8": INT_VAL, "quint8": INT_VAL, "qint32": INT_VAL, "string": STRING_VAL, "complex64": 9,
    "int64": 10, "bool": 11, "complex128": 12, "float16": 13,
}  # fmt: skip
"""dtype -> field of TensorProto; what is not here cannot be in a V1 checkpoint"""

_FIXED = {"float32": "<f4", "float64": "<f8", "complex64": "<c8", "complex128": "<c16"}
_CHUNK = 1 << 18  # bytes of varints decoded at once: small enough that the temporaries stay in the cache

Span = tuple[int, int]


def field_of(dtype: DType, where: Where) -> int:
    """Return the TensorProto field of a dtype; raises UnsupportedError ``v1.dtype``."""
    field = FIELDS.get(dtype.name)
    if field is None:
        raise UnsupportedError("v1.dtype", where, f"V1 checkpoints cannot hold the data type {dtype.name}")
    return field


def find_data(value: bytes, where: Where) -> tuple[bytes, bytes, Span]:
    """Return ``(name, slice proto, place of the TensorProto)`` of a table value; raises CorruptionError ``v1.bad-value``."""
    name = extents = b""
    proto: Span | None = None
    try:
        for number, wire, start, stop in _spans(value, 0, len(value)):
            if number != 2 or wire != 2:
                continue
            for inner, inner_wire, first, last in _spans(value, start, stop):
                if inner_wire != 2:
                    continue
                if inner == 1:
                    name = value[first:last]
                elif inner == 2:
                    extents = value[first:last]
                elif inner == 3:
                    proto = (first, last)
    except ValueError as error:
        raise CorruptionError("v1.bad-value", where, f"the stored value does not parse: {error}") from None
    if proto is None:
        raise CorruptionError("v1.bad-value", where, "the stored value holds no data")
    return name, extents, proto


def decode_values(value: bytes, proto: Span, dtype: DType, count: int, where: Where) -> Array:
    """Return the ``count`` elements of a TensorProto as a new 1-d array; bytes objects for strings.

    Raises:
        CorruptionError: another number of elements (``v1.value-count``), or no such message (``v1.bad-value``).
        UnsupportedError: a dtype that V1 cannot hold (``v1.dtype``).
    """
    import numpy as np

    field = field_of(dtype, where)
    try:
        spans = [(start, stop) for number, _, start, stop in _spans(value, *proto) if number == field]
        if field == STRING_VAL:
            _check_count(len(spans), count, where)
            strings = np.empty(count, dtype=object)
            strings[:] = [value[start:stop] for start, stop in spans]
            return strings
        if len(spans) == 1:
            raw = memoryview(value)[spans[0][0] : spans[0][1]]
        else:
            raw = memoryview(b"".join([value[start:stop] for start, stop in spans]))
        if dtype.name in _FIXED:
            stored = np.dtype(_FIXED[dtype.name])
            if len(raw) % stored.itemsize:
                raise ValueError(f"{len(raw)} bytes are no whole number of elements")
            _check_count(len(raw) // stored.itemsize, count, where)
            return np.frombuffer(raw, stored).astype(stored.newbyteorder("="))
        return _decode_integers(raw, dtype, count, where)
    except ValueError as error:
        raise CorruptionError("v1.bad-value", where, f"the stored value does not parse: {error}") from None


def _check_count(found: int, expected: int, where: Where) -> None:
    if found != expected:
        raise CorruptionError(
            "v1.value-count",
            where,
            "the number of stored values does not fit the shape",
            expected=expected,
            found=found,
        )


def _decode_integers(raw: memoryview, dtype: DType, count: int, where: Where) -> Array:
    import numpy as np

    stored = np.frombuffer(raw, np.uint8)
    if stored.size and stored[-1] & 0x80:
        raise ValueError("a varint runs past the end")
    found = sum(int(np.count_nonzero(stored[start : start + _CHUNK] < 0x80)) for start in range(0, stored.size, _CHUNK))
    _check_count(found, count, where)
    half = dtype.name == "float16"
    result = np.empty(count, np.uint16 if half else dtype.numpy())
    done = start = 0
    while start < stored.size:
        # Up to ten bytes more than a chunk hold the end of its last varint, or it has no end that is legal.
        window = stored[start : start + _CHUNK + 10]
        ends = np.flatnonzero(window < 0x80)
        if ends.size == 0:
            raise ValueError("a varint is longer than 10 bytes")
        numbers = _decode_varints(window[: int(ends[-1]) + 1], ends)
        part = result[done : done + numbers.size]
        # bool: any nonzero is true; integers: the low bits, as a C++ cast takes them
        part[...] = numbers != 0 if dtype.name == "bool" else numbers.astype(result.dtype)
        done += numbers.size
        start += int(ends[-1]) + 1
    return result.view(np.float16) if half else result


def _decode_varints(stored: Octets, ends: Places) -> Numbers:
    """Return the varints of ``stored``, each of which ends at one of ``ends``, as uint64."""
    import numpy as np

    if ends.size == stored.size:  # all below 128: nothing to put together
        return stored.astype(np.uint64)
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    if int(lengths.max()) > 10:
        raise ValueError("a varint is longer than 10 bytes")
    # All numbers of one length at once: four times as fast as a mask over all numbers for each byte.
    numbers = np.empty(ends.size, np.uint64)
    groups = stored & 0x7F
    for length in np.flatnonzero(np.bincount(lengths)):
        these = np.flatnonzero(lengths == length)
        at = starts[these]
        value = groups[at].astype(np.uint64)
        for place in range(1, int(length)):
            value |= groups[at + place].astype(np.uint64) << np.uint64(7 * place)
        numbers[these] = value
    return numbers


def _spans(data: bytes, pos: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ``(field number, wire type, start, end)`` of each field's payload, without copying it."""
    while pos < stop:
        tag, pos = parse_varint(data, pos)
        number, wire = tag >> 3, tag & 7
        start = pos
        if wire == 2:
            length, start = parse_varint(data, pos)
            pos = start + length
        elif wire == 0:
            _, pos = parse_varint(data, pos)
        elif wire in (1, 5):
            pos += 8 if wire == 1 else 4
        else:
            raise ValueError(f"field {number} has wire type {wire}")
        if pos > stop or number == 0:
            raise ValueError(f"field {number} runs past the end")
        yield number, wire, start, pos


# ------------------------------------------------------------------------------------------------------------ encode


def encode_values(array: Array, dtype: DType) -> bytes:
    """Return the TensorProto that TensorFlow's V1 writer makes of the elements of ``array`` in C order."""
    import numpy as np

    field = field_of(dtype, Where(""))
    if field == STRING_VAL:
        items = array.reshape(-1).tolist()
        return b"".join(encode_field(field, _string(item)) for item in items)
    if array.size == 0:
        return b""
    if dtype.name in _FIXED:
        return encode_field(field, array.astype(_FIXED[dtype.name]).tobytes())
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype.name == "float16":
        flat = flat.view(np.uint16)
    return encode_field(field, _encode_varints(flat.astype(np.int64).view(np.uint64)))


def _string(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")


def _encode_varints(numbers: Numbers) -> bytes:
    import numpy as np

    lengths = np.ones(numbers.size, np.int64)
    for place in range(1, 10):
        lengths += (numbers >> np.uint64(7 * place)) != 0
    starts = np.cumsum(lengths) - lengths
    out = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=1))):
        having = lengths > place
        groups = ((numbers[having] >> np.uint64(7 * place)) & np.uint64(0x7F)).astype(np.uint8)
        out[starts[having] + place] = groups | np.where(lengths[having] > place + 1, 0x80, 0).astype(np.uint8)
    return out.tobytes()
