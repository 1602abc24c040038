"""Reading what the header of a dual shard says of the checkpoint (docs/format/dual.md).

    ... "__metadata__":{"openckpt":"{\\"version\\":1,\\"header\\":\\"3f2a99c0\\",\\"crc32c\\":\\"...\\",\\"tensors\\":{...}}"}}     spaces
        last of all members          CRC-32C of the whole text, these 8 digits as zeros

The metadata counts where it is the last member of the header and spelled as `openckpt.formats.dual.layout` spells it. The stock
library puts metadata first: a file that it has written again, metadata and all, is plain safetensors, whose tensors may have
other values and another order than the checksums know. Where the metadata counts, it is held against its own checksum and then
against the header, and whatever does not fit is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME, DType
from openckpt.formats.dual.layout import METADATA_MARK, METADATA_START, SAFETENSORS_NAMES, VERSION, Place
from openckpt.formats.slicekeys import FULL, Extents
from openckpt.formats.slicing import region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import DEFAULT_LIMITS, Limits

_MEMBERS, _OF_DELTA = {"version", "header", "crc32c", "tensors"}, {"superseded"}
_REQUIRED, _OPTIONAL = {"key", "dtype", "shape"}, {"slice"}
_MARK, _START = METADATA_MARK.encode(), METADATA_START.encode()
# From the mark on: one string, then the end of the header.
_LAST = re.compile(re.escape(_MARK) + rb'(?:[^"\\]++|\\.)*+"\}\} *', re.DOTALL).fullmatch
_NUMBERED = re.compile(re.escape(_MARK) + rb'\{\\"version\\":([0-9]{1,9}),').match
_DIGITS = re.compile(r"[0-9a-f]*").fullmatch
_EXTENT = re.compile(r"(0|[1-9][0-9]{0,18}),(0|[1-9][0-9]{0,18})|-").fullmatch


class DualEntry(NamedTuple):
    """One tensor of a shard, or one piece of a partitioned one, as the header describes it.

    Attributes:
        name: what safetensors calls it.
        key: the key in the index.
        spec: TensorFlow's dtype, shape and bytes of what is stored here.
        offset: first byte in the file.
        crc: CRC-32C as the entry of the index has it, unmasked.
        slice: the extents of a piece; None for a tensor that is stored whole.
        full_shape: the shape of the whole tensor, for a piece.
    """

    name: str
    key: bytes
    spec: TensorSpec
    offset: int
    crc: int
    slice: Extents | None = None
    full_shape: tuple[int, ...] | None = None

    @property
    def place(self) -> Place:
        """Which tensor of the shard this is: its key, or key and extents."""
        return self.key if self.slice is None else (self.key, self.slice)


@dataclass(frozen=True, slots=True)
class DualShard:
    """What a shard's header says of the checkpoint: its file, as shown to people, and its tensors in the order of the header.

    ``superseded`` are the numbers of the checkpoint's data files that hold values of earlier steps beside its own.
    """

    path: str
    entries: tuple[DualEntry, ...]
    superseded: tuple[int, ...] = ()


def parse_dual(
    text: bytes,
    tensors: Mapping[str, tuple[TensorSpec, int]],
    metadata: Mapping[str, str],
    path: str,
    limits: Limits = DEFAULT_LIMITS,
) -> DualShard | None:
    """Return what a checked safetensors header says of the checkpoint, or None where it says nothing of one.

    Args:
        text: the JSON of the header, padding included.
        tensors: name -> (spec as safetensors has it, first byte in the file), in the order of the header.
        metadata: the map under ``__metadata__``.
        path: the file, as shown to people.
        limits: caps on ranks and numbers of slices.

    Raises:
        CorruptionError: the header is not what was written (``dual.header-checksum``), the metadata cannot be understood
            (``dual.metadata``), contradicts the header (``dual.contradiction``) or itself (``dual.duplicate-key``), or a slice
            is impossible (``slices.bad-extent``).
        UnsupportedError: written by a newer version (``dual.version``).
        LimitError: more dimensions or slices than ``limits``.
    """
    at = text.rfind(_MARK)
    if at < 0 or "openckpt" not in metadata or not _LAST(text, at):
        return None
    where = Where(path, offset=8 + at)
    version = _NUMBERED(text, at)
    if version is not None and int(version[1]) != VERSION:
        raise UnsupportedError(
            "dual.version",
            where,
            "the metadata has a form that this version of openckpt does not know",
            expected=f"version {VERSION}",
            found=f"version {int(version[1])}",
        )
    if not text.startswith(_START, at):
        raise CorruptionError("dual.metadata", where, "the metadata does not start with its version and a checksum")
    _check_text(text, at + len(_START), where)
    document = parse_json(metadata["openckpt"].encode(), where, code="dual.metadata", surrogates=True)
    if not isinstance(document, dict) or document.keys() - _OF_DELTA != _MEMBERS:
        raise CorruptionError(
            "dual.metadata", where, f"the metadata is an object with exactly {', '.join(sorted(_MEMBERS))}"
        )
    crcs = _parse_checksums(document["crc32c"], len(tensors), where)
    described = document["tensors"]
    if not isinstance(described, dict):
        raise CorruptionError("dual.metadata", where, "what the metadata says of the tensors is not an object")
    entries: list[DualEntry] = []
    for (name, (spec, offset)), crc in zip(tensors.items(), crcs, strict=True):
        said = described.pop(name, None) if described else None
        if said is not None:
            entries.append(_parse_described(name, said, spec, offset, crc, Where(path, name, offset), limits))
        elif spec.dtype not in SAFETENSORS_NAMES or not name:
            raise _contradiction(Where(path, name, offset), "no data type or no key is stated for this tensor")
        else:
            entries.append(DualEntry(name, name.encode(), spec, offset, crc))
    if described:
        name = next(iter(described))
        raise _contradiction(Where(path, name), "the metadata describes a tensor that the header does not have")
    superseded = _parse_superseded(document["superseded"], where, limits) if "superseded" in document else ()
    shard = DualShard(path, tuple(entries), superseded)
    gather_pieces((shard,), limits)
    return shard


def _check_text(text: bytes, at: int, where: Where) -> None:
    """Hold the text of the header against the checksum whose digits stand in it at ``at``."""
    digits = text[at : at + 8]
    computed = crc32c(text[at + 8 :], crc32c(b"00000000", crc32c(text[:at])))
    if digits != b"%08x" % computed:
        raise CorruptionError(
            "dual.header-checksum",
            where,
            "checksum mismatch: the header is not the one that was written",
            expected=f"{computed:08x}, computed over the header",
            found=digits.decode("ascii", "backslashreplace"),
        )


def _parse_checksums(value: Json, count: int, where: Where) -> tuple[int, ...]:
    if not isinstance(value, str) or not _DIGITS(value) or len(value) != 8 * count:
        found = f"{len(value)} characters" if isinstance(value, str) else "no text"
        raise CorruptionError(
            "dual.metadata",
            where,
            "the checksums of the tensors are not 8 hexadecimal digits each",
            expected=f"{8 * count} digits",
            found=found,
        )
    return struct.unpack(f">{count}I", bytes.fromhex(value))


def _parse_superseded(value: Json, where: Where, limits: Limits) -> tuple[int, ...]:
    if isinstance(value, list):
        limits.check("shards", len(value), where, "the number of data files")
        numbers = tuple(number for number in value if type(number) is int and 0 < number < limits.shards)
        if numbers and list(numbers) == value == sorted(set(numbers)):
            return numbers
    raise CorruptionError("dual.metadata", where, "what the metadata says of superseded data is no list of data files")


def _parse_described(
    name: str, said: Json, stored: TensorSpec, offset: int, crc: int, where: Where, limits: Limits
) -> DualEntry:
    """Return the entry of a tensor that the metadata describes; ``stored`` is what safetensors sees of it."""
    if not isinstance(said, dict) or not _REQUIRED <= said.keys() <= _REQUIRED | _OPTIONAL:
        raise CorruptionError("dual.metadata", where, "a tensor is described by key, dtype, shape and at most a slice")
    shape = _parse_shape(said["shape"], where, limits)
    dtype = BY_NAME.get(said["dtype"]) if isinstance(said["dtype"], str) else None
    if dtype is None or dtype.name == "resource":
        raise UnsupportedError(
            "spec.unknown-dtype", where, f"the metadata states a data type that is not known: {said['dtype']!r:.80}"
        )
    key = _parse_key(said["key"], where)
    piece, full = None, None
    if "slice" in said:
        piece, full = _parse_slice(said["slice"], where, limits), shape
        shape = region_shape(resolve_extents(piece, full, where))
    spec = TensorSpec(dtype.name, shape, stored.nbytes)
    _check_stored(dtype, spec, stored, where)
    return DualEntry(name, key, spec, offset, crc, piece, full)


def _check_stored(dtype: DType, spec: TensorSpec, stored: TensorSpec, where: Where) -> None:
    """Hold dtype and shape of the metadata against dtype, shape and size of the header."""
    nbytes = stored.nbytes or 0
    if dtype.name in SAFETENSORS_NAMES:
        fits = (dtype.name, spec.shape) == (stored.dtype, stored.shape)
    elif stored.dtype != "uint8" or stored.shape != (nbytes,):
        fits = False
    elif dtype.is_numeric:
        fits = spec.size * dtype.itemsize == nbytes
    else:
        fits = spec.size <= nbytes  # a byte for the length of each element, at least
    if not fits:
        raise CorruptionError(
            "dual.contradiction",
            where,
            "header and metadata contradict each other",
            expected=f"what {dtype.name} {list(spec.shape or ())} takes",
            found=f"{stored.dtype} {list(stored.shape or ())} of {nbytes} bytes",
        )


def _parse_shape(value: Json, where: Where, limits: Limits) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise CorruptionError("dual.metadata", where, "the shape in the metadata is not a list")
    limits.check("tensor_rank", len(value), where, "the rank")
    sizes = tuple(size for size in value if type(size) is int and 0 <= size < 1 << 63)
    if len(sizes) != len(value):
        raise CorruptionError("dual.metadata", where, "the shape in the metadata is not a list of sizes")
    return sizes


def _parse_key(value: Json, where: Where) -> bytes:
    try:
        if isinstance(value, str) and value:
            return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    raise CorruptionError("dual.metadata", where, "the key in the metadata is not one that an index can hold")


def _parse_slice(value: Json, where: Where, limits: Limits) -> Extents:
    """Return the extents of TensorFlow's text of a slice, ``0,2:-``."""
    if not isinstance(value, str):
        raise CorruptionError("dual.metadata", where, "the slice in the metadata is not a text")
    parts = value.split(":") if value else []
    limits.check("tensor_rank", len(parts), where, "the rank of a slice")
    extents = []
    for part in parts:
        match = _EXTENT(part)
        if match is None:
            raise CorruptionError(
                "slices.bad-extent", where, "the slice in the metadata is none", found=f"{value!r:.80}"
            )
        extents.append(FULL if part == "-" else (int(match[1]), int(match[2])))
    return tuple(extents)


class Piece(NamedTuple):
    """One piece of a partitioned tensor and the number of the shard that holds it."""

    shard: int
    entry: DualEntry


def gather_pieces(shards: Sequence[DualShard], limits: Limits = DEFAULT_LIMITS) -> dict[bytes, list[Piece]]:
    """Return the pieces of the partitioned tensors of a checkpoint by key, in the order of shards and then of extents.

    Raises:
        CorruptionError: a tensor or piece is there twice (``dual.duplicate-key``), or pieces of one tensor disagree about its
            dtype or shape (``dual.contradiction``).
        LimitError: more slices of one tensor than ``limits.slices``.
    """
    pieces: dict[bytes, list[Piece]] = {}
    whole: set[bytes] = set()
    for number, shard in enumerate(shards):
        for entry in shard.entries:
            if entry.slice is None:
                if entry.key in whole:
                    raise twice(shard, entry.name, entry.offset)
                whole.add(entry.key)
                continue
            where = Where(shard.path, entry.name, entry.offset)
            others = pieces.setdefault(entry.key, [])
            others.append(Piece(number, entry))
            limits.check("slices", len(others), where, "the number of slices")
            first = others[0].entry
            if (entry.spec.dtype, entry.full_shape) != (first.spec.dtype, first.full_shape):
                raise _contradiction(where, "pieces of one tensor disagree about its data type or shape")
    for key, found in pieces.items():
        found.sort(key=lambda piece: (piece.shard, piece.entry.slice or ()))
        if key in whole or len({piece.entry.slice for piece in found}) != len(found):
            last = found[-1]
            raise twice(shards[last.shard], last.entry.name, last.entry.offset)
    return pieces


def twice(shard: DualShard, name: str, offset: int) -> CorruptionError:
    """Make the error for a tensor whose key another one has already."""
    return CorruptionError("dual.duplicate-key", Where(shard.path, name, offset), "two tensors have the same key")


def _contradiction(where: Where, message: str) -> CorruptionError:
    return CorruptionError("dual.contradiction", where, message)
