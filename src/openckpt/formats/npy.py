"""The .npy header, parsed by our own code without NumPy (docs/format/npz.md).

    93 "NUMPY" | major minor | length: <u2 (version 1) or <u4 (2, 3) | a Python dict as text, padded, ended by a newline
    {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }

The dict is text that strangers wrote: its length is capped, its characters and its nesting are checked before
`ast.literal_eval` sees it, because that can crash the interpreter on nested text.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any, Literal

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.limits import Limits

MAGIC = b"\x93NUMPY"
HEADER_CAP = 65_536
"""Longest header: NumPy's own loader refuses more than 10,000 characters without being asked."""

_SHORT = 512  # bytes of a header that is remembered
_DEPTH = 16
_BRACKET = re.compile(r"[\[\](){}]")
_STEPS = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}
_TEXT = re.compile(r"'[^'\\\n]*'|\"[^\"\\\n]*\"")
_OTHER = re.compile(r"(?:[\s{}\[\](),:]|\d{1,19}L?(?!\d)|True|False|None)*")
_DESCR = re.compile(r"([<>|=])([a-zA-Z?])(\d{0,9})(\[[^\]]*\])?")

_NUMBERS = {
    "b1": "bool", "?": "bool", "?1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
    "c16": "complex128",
}  # fmt: skip

_WORDS = {"f": "float", "c": "complex", "i": "int", "u": "uint", "M": "datetime", "m": "timedelta"}

Sort = Literal["number", "bytes", "text", "object", "void", "other"]


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """A checked header.

    Attributes:
        dtype: TensorFlow's name, or ``unknown-...`` for what it has no name for.
        sort: number, fixed-size bytes (S), fixed-size text (U), pickled objects, raw void bytes, or anything else.
        itemsize: bytes per element; 0 for objects and for what cannot be told.
        big_endian: whether elements (numbers, characters) are big-endian.
        fortran: whether the first index varies fastest.
        shape: sizes in elements.
        data_offset: first byte of the data in the member.
    """

    dtype: str
    sort: Sort
    itemsize: int
    big_endian: bool
    fortran: bool
    shape: tuple[int, ...]
    data_offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return prod(self.shape) * self.itemsize


def header_length(start: bytes, where: Where) -> tuple[int, int]:
    """Return ``(offset, length)`` of the header text from the first 12 bytes of a member (10 where it has no more).

    Raises:
        CorruptionError: not a .npy file (``npz.magic``), or a header above the cap (``npz.header``).
        UnsupportedError: a version that nobody has defined yet (``npz.version``).
    """
    if start[:6] != MAGIC or len(start) < 10:
        raise CorruptionError(
            "npz.magic", where, "the member is not a .npy file", expected=MAGIC.hex(" "), found=start[:6].hex(" ")
        )
    major, minor = start[6], start[7]
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise UnsupportedError(
            "npz.version", where, "an unknown version of .npy", expected="1.0, 2.0 or 3.0", found=f"{major}.{minor}"
        )
    size = 2 if major == 1 else 4
    length = int.from_bytes(start[8 : 8 + size], "little")
    if length > HEADER_CAP:
        raise CorruptionError(
            "npz.header",
            where,
            "the header is longer than any honest one",
            expected=f"at most {HEADER_CAP}",
            found=length,
        )
    return 8 + size, length


def parse_header(text: bytes, data_offset: int, where: Where, limits: Limits) -> NpyHeader:
    """Parse the header text of a member whose data starts at ``data_offset``.

    Raises:
        CorruptionError: not the header that the format describes (``npz.header``).
        LimitError: more dimensions than ``limits.tensor_rank``.
    """
    fields = _literal(text, where)
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise _bad(where, "the header is not a dict of descr, fortran_order and shape")
    shape, fortran = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise _bad(where, "the shape is not a tuple of sizes")
    if not isinstance(fortran, bool):
        raise _bad(where, "fortran_order is neither True nor False")
    limits.check("tensor_rank", len(shape), where, "the rank")
    dtype, sort, itemsize, big_endian = _parse_descr(fields["descr"], where)
    return NpyHeader(dtype, sort, itemsize, big_endian, fortran, shape, data_offset)


def _bad(where: Where, message: str) -> CorruptionError:
    return CorruptionError("npz.header", where, message)


def _literal(data: bytes, where: Where) -> Any:
    try:
        return (_known if len(data) <= _SHORT else _evaluate)(data)
    except ValueError as error:
        raise _bad(where, str(error)) from None


def _evaluate(data: bytes) -> Any:
    """Return the dict; raises ValueError with the reason why it is none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # versions 1 and 2
    bare = _TEXT.sub("", text)
    if not _OTHER.fullmatch(bare):
        raise ValueError("the header holds more than names, numbers and brackets")
    if max(accumulate(_STEPS[bracket] for bracket in _BRACKET.findall(bare)), default=0) > _DEPTH:
        raise ValueError("the header is nested too deeply")
    # Python 2 wrote sizes as 10L
    if "L" in bare:
        text = re.sub(r"(?<=\d)L", "", text)
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("the header is not a Python dict") from None


_known = lru_cache(maxsize=256)(_evaluate)  # the members of one file have few types and shapes


def _parse_descr(descr: Any, where: Where) -> tuple[str, Sort, int, bool]:
    if isinstance(descr, list):
        return "unknown-structured", "other", 0, False
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None:
        raise _bad(where, "the descr is no data type")
    order, kind, digits, _ = match.groups()
    size = int(digits or 0)
    name = _NUMBERS.get(kind + digits)
    if name is not None:
        return name, "number", max(size, 1), order == ">" and size > 1
    if kind in "Sa":
        return "string", "bytes", size, False
    if kind == "U":
        return "string", "text", 4 * size, order == ">"
    if kind == "O":
        return "unknown-object", "object", 0, False
    if kind == "V":
        return f"unknown-void{8 * size}", "void", size, False
    return f"unknown-{_WORDS.get(kind, kind)}{8 * size}", "other", size, False
