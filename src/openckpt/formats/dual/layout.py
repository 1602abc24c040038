"""The layout of a data shard that is at the same time a complete safetensors file (docs/format/dual.md).

    +--------+----------------------------------------------------------------+----------------------------------------+
    | N: <u8 | {"NAME":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}, ..., | sizes of n * 64 | other sizes | no size |
    |        |  "__metadata__":{"openckpt":"{...}"}}      spaces              | wide ... narrow | wide ... 1  | yet     |
    +--------+----------------------------------------------------------------+----------------------------------------+
    0        8                                                       a multiple of 64

Tensors whose size is a multiple of 64 come first, then the others; wide items before narrow ones, then by key. So the first lie
at multiples of 64, and every other one at a multiple of its item. Strings and variants whose size a streaming writer does not
know yet come last, in the order in which they arrive.

The value of ``openckpt`` is JSON as well, and says what safetensors cannot:

    {"version":1, "header":"3f2a99c0", "crc32c":"0123abcd...", "tensors":{"NAME":{"key":KEY,"dtype":"string","shape":[2]}}}
                   CRC-32C of the 8 digits a tensor, in the    only those that are stored as plain bytes, under another name
                   header, with   order of the header          or in pieces ("slice":"0,2:-"; the shape is the whole tensor's)
                   these digits 0

The first data file of a delta checkpoint has a member more, ``"superseded":[1,2]``: the numbers of the checkpoint's data files that
are links to those of earlier ones and hold, beside its own tensors, values that are no longer its.

All digits have a fixed width: the header can be reserved before the tensors are written, and filled in when their checksums are
known. It is the last member of the header, where the stock library never writes it: a file that another program has rewritten
is told by that.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, repeat
from math import prod
from typing import NamedTuple, TypeAlias

from openckpt.errors import LimitError, Where
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import Extents, format_extents
from openckpt.formats.spec import TensorSpec

ALIGNMENT = 64
"""of the data, and of every tensor whose size is a multiple of it: a cache line, and what zero-copy consumers ask for at most"""
HEADER_BYTES = 100_000_000
"""longest header that stock safetensors reads (formats 8.4)"""
VERSION = 1
BLOB = "U8"
"""the dtype under which safetensors sees what it has no type for"""
METADATA_NAME = "__metadata__"

SAFETENSORS_NAMES: dict[str, str] = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""TensorFlow's name -> safetensors' name; every other type is stored as `BLOB`"""

# As it is spelled in the header: the quotes of the inner JSON are escaped.
METADATA_MARK = '"__metadata__":{"openckpt":"'
METADATA_START = METADATA_MARK + '{\\"version\\":1,\\"header\\":\\"'
"""what stands before the digits of the header's own checksum"""
METADATA_REST = '\\",\\"crc32c\\":\\"'
TENSORS_START = '\\",\\"tensors\\":{'
METADATA_END = '}}"}}'
SUPERSEDED_START = ',\\"superseded\\":['
"""what stands between the braces of the end in the first data file of a delta checkpoint"""

_ESCAPED = bytes(range(0x20)) + b'"\\'
_DIGITS = 19  # of the largest offset that a file can have, 2**63 - 1

Place: TypeAlias = "bytes | tuple[bytes, Extents]"
"""Which tensor of a shard: its key, or key and extents for one piece of a partitioned tensor."""


class DualTensor(NamedTuple):
    """One tensor of a shard, or one piece of a partitioned tensor.

    Attributes:
        key: the key in the index, any bytes but none.
        spec: TensorFlow's dtype, the shape of what is stored here (of the piece), and its stored bytes: None for strings and
            variants whose size is not known yet, and for numbers, whose size dtype and shape settle.
        slice: the extents of a piece as the index lists them; None for a tensor that is stored whole.
        full_shape: the shape of the whole tensor, for a piece.
    """

    key: bytes
    spec: TensorSpec
    slice: Extents | None = None
    full_shape: tuple[int, ...] | None = None

    @classmethod
    def whole(cls, keys: Iterable[bytes], specs: Iterable[TensorSpec]) -> list[DualTensor]:
        """Return one for each of many tensors that are stored whole, at half of what calling the class costs."""
        return list(map(tuple.__new__, repeat(cls), zip(keys, specs, repeat(None), repeat(None))))

    @property
    def place(self) -> Place:
        """What the plan calls this tensor."""
        return self.key if self.slice is None else (self.key, self.slice)


@dataclass(frozen=True, slots=True)
class DualPlan:
    """Where everything lies in one shard; made by `plan_dual`.

    Attributes:
        data_start: length of what `header` returns, a multiple of 64: the first byte of the tensors.
        offsets: place -> first byte in the file, in the order of the file, of every tensor whose size is known.
        end: the byte after the last of them: where the first tensor of unknown size goes, the next right behind it.
        unsized: the places of the tensors of unknown size.
    """

    data_start: int
    offsets: Mapping[Place, int]
    end: int
    unsized: tuple[Place, ...]
    _sized_text: str
    _unsized_names: Mapping[Place, str]
    _described: str
    _superseded: str

    def header(self, crcs: Mapping[Place, int], sizes: Mapping[Place, int] | None = None) -> bytes:
        """Return the first ``data_start`` bytes of the file.

        Args:
            crcs: the checksum of every tensor as its entry of the index has it, unmasked (that of a string tensor also runs over
                its lengths, formats 2.7).
            sizes: stored bytes of the tensors of unknown size, in the order in which they lie behind `end`.

        Raises:
            KeyError: a tensor has no checksum, or no size.
        """
        members = [self._sized_text] if self._sized_text else []
        order = list(self.offsets)
        at = self.end - self.data_start
        sizes = sizes or {}
        for place, size in sizes.items():
            members.append(_member(self._unsized_names[place], at, size))
            order.append(place)
            at += size
        if len(sizes) != len(self.unsized):
            raise KeyError(next(place for place in self.unsized if place not in sizes))
        members.append(METADATA_START)
        words = array("I", map(crcs.__getitem__, order))
        if sys.byteorder == "little":
            words.byteswap()  # hexadecimal digits come in the order of the bytes
        front = ("{" + ",".join(members)).encode()
        tail = (
            f"{METADATA_REST}{words.tobytes().hex()}{TENSORS_START}{self._described}{_end(self._superseded)}".encode()
        )
        tail = tail.ljust(self.data_start - 8 - len(front) - 8)
        checksum = b"%08x" % crc32c(tail, crc32c(b"00000000", crc32c(front)))
        return b"".join(((self.data_start - 8).to_bytes(8, "little"), front, checksum, tail))


_Group: TypeAlias = "tuple[bool, int]"


class _Kind:
    """What dtype and shape alone settle about a tensor.

    Attributes:
        nbytes: stored bytes; -1 where they are not known yet.
        group: sorts as the file does.
        is_plain: whether safetensors has a type for it.
        text: its member of the header between name and offsets.
    """

    __slots__ = ("group", "is_plain", "nbytes", "text")

    def __init__(self, spec: TensorSpec) -> None:
        dtype = BY_NAME.get(spec.dtype)
        if dtype is None or dtype.name == "resource" or spec.shape is None:
            raise ValueError(f"a tensor of dtype {spec.dtype} and shape {spec.shape} cannot be stored")
        nbytes = -1 if spec.nbytes is None else spec.nbytes
        if dtype.is_numeric:
            nbytes = prod(spec.shape) * dtype.itemsize
            if spec.nbytes not in (None, nbytes):
                raise ValueError(f"{spec.dtype} {list(spec.shape)} takes {nbytes} bytes, not {spec.nbytes}")
        name = SAFETENSORS_NAMES.get(dtype.name)
        self.nbytes = nbytes
        self.group: _Group = (nbytes % ALIGNMENT != 0, -max(1, dtype.itemsize))
        self.is_plain = name is not None
        self.text = _describe(BLOB, (nbytes,)) if name is None else _describe(name, spec.shape)


class _Odd(NamedTuple):
    """A tensor that the metadata describes: of a type that safetensors lacks, in pieces, or under another name."""

    key: bytes
    extents: Extents
    name: str | None
    kind: _Kind
    tensor: DualTensor


def _describe(dtype: str, shape: Iterable[int]) -> str:
    return f':{{"dtype":"{dtype}","shape":[{",".join(map(str, shape))}],"data_offsets":['


def plan_dual(tensors: Sequence[DualTensor], where: Where | str = "", *, superseded: Sequence[int] = ()) -> DualPlan:
    """Lay out one shard. Equal tensors give an equal plan, in whatever order they come.

    Args:
        tensors: what the shard holds; may be empty.
        where: the file, for messages.
        superseded: numbers of the checkpoint's data files that hold tensors of earlier steps too, ascending.

    Raises:
        LimitError: the header would be longer than stock safetensors reads (``dual.header-too-large``).
        ValueError: a tensor that no checkpoint can hold, or one that is there twice; a caller refuses such first.
    """
    kinds: dict[TensorSpec, _Kind] = {}
    plain: dict[_Group, list[str]] = {}
    kind_of: dict[str, _Kind] = {}
    odd: list[_Odd] = []
    keys = [tensor[0] for tensor in tensors]
    for name, tensor in zip(_decode(keys), tensors, strict=True):
        spec, piece = tensor[1], tensor[2]
        kind = kinds.get(spec)
        if kind is None:
            kind = kinds[spec] = _Kind(spec)
            plain.setdefault(kind.group, [])
        if piece is None and kind.is_plain and name is not None and name != METADATA_NAME:
            plain[kind.group].append(name)
            kind_of[name] = kind
        else:
            odd.append(_Odd(tensor[0], piece or (), name, kind, tensor))
    odd = _name(sorted(odd, key=lambda item: item[:2]), kind_of)
    if len(kind_of) + len({item.tensor.place for item in odd}) != len(tensors):
        raise ValueError("a tensor is there twice")
    places: list[Place] = []
    names: list[str] = []
    order: list[_Kind] = []
    for group in sorted(plain):
        members = plain[group]
        members.sort()  # by code point, which is the order of their bytes in UTF-8
        extra = [item for item in odd if item.kind.group == group and item.kind.nbytes >= 0]
        if not extra:
            places += map(str.encode, members)
            names += members
            order += map(kind_of.__getitem__, members)
            continue
        mixed: list[tuple[bytes, Extents, Place, str, _Kind]] = [
            (name.encode(), (), name.encode(), name, kind_of[name]) for name in members
        ]
        mixed += [(item.key, item.extents, item.tensor.place, item.name or "", item.kind) for item in extra]
        for _, _, place, name, kind in sorted(mixed, key=lambda row: row[:2]):
            places.append(place)
            names.append(name)
            order.append(kind)
    unsized = {item.tensor.place: _quote(item.name or "") for item in odd if item.kind.nbytes < 0}
    marked = f"{SUPERSEDED_START}{','.join(map(str, superseded))}]" if superseded else ""
    return _assemble(places, names, order, unsized, _describe_odd(odd), marked, where)


def _decode(keys: list[bytes]) -> list[str | None]:
    """Return the keys as text, all at once where they are plain UTF-8 without line ends; None for one that is not UTF-8."""
    try:
        names = b"\n".join(keys).decode().split("\n")
        if len(names) == len(keys):
            return list(names)
    except UnicodeDecodeError:
        pass
    return [_decode_one(key) for key in keys]


def _decode_one(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _name(odd: list[_Odd], plain: Container[str]) -> list[_Odd]:
    """Return the odd tensors under the names that safetensors sees: their key, ``KEY::SLICE``, else ``key-N``."""
    taken = {item.name for item in odd if item.tensor.slice is None}
    numbers = count()

    def free(item: _Odd) -> str:
        name = item.name
        if item.tensor.slice is None and name is not None and name != METADATA_NAME:
            return name
        if name is not None and item.tensor.slice is not None:
            name = f"{name}::{format_extents(item.extents)}"
        while name is None or name == METADATA_NAME or name in plain or name in taken:
            name = f"key-{next(numbers)}"
        taken.add(name)
        return name

    return [item._replace(name=free(item)) for item in odd]


def _describe_odd(odd: list[_Odd]) -> str:
    """Return what the metadata says of the odd tensors: members of a JSON object, spelled for the inside of a JSON string."""
    members = []
    for item in odd:
        said: dict[str, object] = {
            "key": item.key.decode("utf-8", "surrogateescape"),
            "dtype": item.tensor.spec.dtype,
            "shape": item.tensor.full_shape if item.tensor.slice is not None else item.tensor.spec.shape,
        }
        if item.tensor.slice is not None:
            said["slice"] = format_extents(item.extents)
        members.append(f"{json.dumps(item.name)}:{json.dumps(said, separators=(',', ':'))}")
    return ",".join(members).replace("\\", "\\\\").replace('"', '\\"')


def _quote(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _assemble(
    places: list[Place],
    names: list[str],
    kinds: list[_Kind],
    unsized: dict[Place, str],
    described: str,
    superseded: str,
    where: Where | str,
) -> DualPlan:
    raw = "".join(names).encode()
    if len(raw.translate(None, _ESCAPED)) != len(raw):
        names = [_quote(name)[1:-1] for name in names]
    ends = list(accumulate([kind.nbytes for kind in kinds], initial=0))
    text = ",".join(
        [
            f'"{name}"{kind.text}{begin},{end}]}}'
            for name, kind, begin, end in zip(names, kinds, ends, ends[1:], strict=False)
        ]
    )
    frame = (
        len("{" + METADATA_START + METADATA_REST + TENSORS_START + METADATA_END) + 8 + 8 * (len(kinds) + len(unsized))
    )
    length = len(text.encode()) + frame + len(described) + len(superseded)
    length += sum(len(_member(name, 0, 0).encode()) + 3 * (_DIGITS - 1) + 1 for name in unsized.values()) + bool(text)
    data_start = -(-(8 + length) // ALIGNMENT) * ALIGNMENT
    if data_start - 8 > HEADER_BYTES:
        raise LimitError(
            "dual.header-too-large",
            where,
            f"the safetensors header of {len(kinds) + len(unsized)} tensors is too long",
            expected=f"at most {HEADER_BYTES} bytes",
            found=f"{data_start - 8} bytes",
        )
    offsets = dict(zip(places, map(data_start.__add__, ends), strict=False))
    return DualPlan(data_start, offsets, data_start + ends[-1], tuple(unsized), text, unsized, described, superseded)


def _end(superseded: str) -> str:
    return METADATA_END[:1] + superseded + METADATA_END[1:]


def _member(name: str, at: int, size: int) -> str:
    """Return the member of the header of a tensor whose size has become known."""
    return f"{name}{_describe(BLOB, (size,))}{at},{at + size}]}}"
