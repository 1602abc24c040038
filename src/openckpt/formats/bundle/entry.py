"""One record of a V2 index: dtype, shape, place and checksum of a tensor (formats 2.4).

    BundleEntryProto { 1 dtype, 2 shape TensorShapeProto, 3 shard_id, 4 offset, 5 size, 6 crc32c fixed32, 7 slices repeated }

    08 03 | 12 04 12 02 08 02 | 20 ..  | 28 08 | 35 bf df db 7a        int32, shape [2], offset, 8 bytes, masked crc
    `----- prefix: dtype, shape ----'   `----- tail -----------'

Writers emit fields in ascending order, so the entries of equal dtype and shape start with equal bytes: `SpecCache` decodes
each such prefix once, which makes listing a million tensors four times as fast as protobuf would.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CorruptionError, FormatError, Where
from openckpt.formats.crc import MASK_DELTA, unmask_crc
from openckpt.formats.dtypes import dtype_of_enum, unknown_name
from openckpt.formats.messages import encode_shape, parse_shape
from openckpt.formats.spec import TensorSpec
from openckpt.formats.wire import FIXED32, LENGTH, VARINT, encode_field, iter_fields, to_signed
from openckpt.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol, TypeVar

    from openckpt.formats.slicekeys import Extents

    class Head(Protocol):
        """What dtype and shape alone settle about an entry, as much as its reader has a use for."""

        @property
        def nbytes(self) -> int:
            """Stored bytes of a tensor of this dtype and shape."""
            ...

    AnyHead = TypeVar("AnyHead", bound=Head)


class BundleEntry(NamedTuple):
    """The stored facts of one tensor; ``crc`` is unmasked. A partitioned tensor has ``slices`` and no data of its own."""

    enum: int
    shape: tuple[int, ...] | None
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[Extents, ...] = ()

    def spec(self) -> TensorSpec:
        """Return dtype, shape and stored bytes (for a partitioned numeric tensor the bytes of all its slices).

        Of a number they are what dtype and shape demand: an entry that states another size cannot be read, and is listed
        alike whether it is decoded alone or with others of its dtype and shape.
        """
        dtype = dtype_of_enum(self.enum)
        if dtype is None:
            return TensorSpec(unknown_name(self.enum), self.shape, self.size)
        spec = TensorSpec(dtype.name, self.shape, None if self.slices else self.size)
        if dtype.is_numeric and self.shape is not None:
            return spec._replace(nbytes=spec.size * dtype.itemsize)
        return spec


INVALID = TensorSpec("invalid", None, None)
"""the spec under which an entry is listed that does not parse; reading it raises ``bundle.bad-entry``"""

# What may follow dtype and shape in an entry that is listed by its prefix alone: each field at most once, in order.
# The possessive quantifiers never step back, which makes the commonest check of a listing a fifth faster.
_VARINT = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
_TAIL = re.compile(
    rb"(?:\x18" + _VARINT + rb")?+(?:\x20" + _VARINT + rb")?+(?:\x28" + _VARINT + rb")?+(?:\x35.{4})?+", re.DOTALL
).fullmatch

_WIRE_TYPES = {1: VARINT, 2: LENGTH, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: LENGTH}


def parse_entry(value: bytes, where: Where, limits: Limits) -> BundleEntry:
    """Return the entry of its stored value; unknown fields are skipped, a repeated field counts as last written.

    Raises:
        CorruptionError: ``bundle.bad-entry``, ``bundle.bad-shape``, ``slices.bad-extent``.
        LimitError: rank or number of slices beyond ``limits``.
    """
    enum = shard = offset = size = masked = 0
    shape: tuple[int, ...] | None = ()
    slices: list[Extents] = []
    try:
        for number, wire, field in iter_fields(value):
            if _WIRE_TYPES.get(number, wire) != wire:
                raise ValueError(f"field {number} has wire type {wire}")
            if isinstance(field, bytes):
                if number == 2:
                    shape = _parse_shape(field, where, limits)
                elif number == 7:
                    from openckpt.formats.slicekeys import parse_slice_proto  # rare, and not free to import

                    slices.append(parse_slice_proto(field, where))
                    limits.check("slices", len(slices), where, "the number of slices")
            elif number == 1:
                enum = to_signed(field)
            elif number == 3:
                shard = to_signed(field)
            elif number == 4:
                offset = to_signed(field)
            elif number == 5:
                size = to_signed(field)
            elif number == 6:
                masked = field
    except ValueError as error:
        raise CorruptionError("bundle.bad-entry", where, f"the index entry does not parse: {error}") from None
    if shard < 0 or offset < 0 or size < 0:
        raise CorruptionError(
            "bundle.bad-entry",
            where,
            "a negative number in the index entry",
            found=f"shard {shard}, offset {offset}, size {size}",
        )
    return BundleEntry(enum, shape, shard, offset, size, unmask_crc(masked), tuple(slices))


def prefix_end(value: bytes) -> int:
    """Return where dtype and shape end in an entry that starts with them, as writers write it; 0 for any other."""
    if len(value) > 3 and value[0] == 0x08 and value[1] < 0x80 and value[2] == 0x12 and value[3] < 0x80:
        return value[3] + 4
    return 0


def parse_tail(value: bytes, pos: int) -> tuple[int, int, int, int] | None:
    """Return ``(shard, offset, size, unmasked crc)`` from the canonical end of an entry, or None where it is another one.

    The hand-written twin of `parse_entry` for reading many tensors: a microsecond instead of four.
    """
    end = len(value) - 5
    if end < pos or value[end] != 0x35:
        return None
    found = [0, 0, 0]
    last = 0x10
    while pos < end:
        tag = value[pos]
        if tag not in (0x18, 0x20, 0x28) or tag <= last:
            return None
        last = tag
        number = value[pos + 1]
        pos += 2
        if number > 0x7F:
            number &= 0x7F
            shift = 7
            while shift < 63 and pos < end:
                byte = value[pos]
                pos += 1
                number |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
            else:
                return None
        found[(tag >> 3) - 3] = number
    if pos != end:
        return None
    return found[0], found[1], found[2], unmask_crc(int.from_bytes(value[end + 1 :], "little"))


def match_head(value: bytes, heads: Mapping[bytes, AnyHead]) -> tuple[AnyHead, tuple[int, int, int, int]] | None:
    """Return what is known of an entry's dtype and shape, and its place (as `parse_tail`); None where it must be parsed.

    Args:
        value: the stored entry.
        heads: what was learned of other entries, by `shared_head`.
    """
    cut = prefix_end(value)
    head = heads.get(value[:cut])
    if head is None:
        return None
    tail = parse_tail(value, cut)
    return None if tail is None or tail[2] != head.nbytes else (head, tail)


def shared_head(value: bytes, entry: BundleEntry) -> bytes:
    """Return the bytes that the entries of this dtype and shape begin with; b"" where this one is not written canonically."""
    cut = prefix_end(value)
    return value[:cut] if cut and parse_tail(value, cut) == entry[2:6] else b""


def _parse_shape(data: bytes, where: Where, limits: Limits) -> tuple[int, ...] | None:
    shape = parse_shape(data, where, limits)
    for length in shape or ():
        if length < 0:
            raise CorruptionError("bundle.bad-shape", where, "a negative dimension", found=length)
    return shape


class SpecCache:
    """Turns many entry values into specs, decoding every distinct (dtype, shape) prefix once."""

    __slots__ = ("_known", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[bytes, TensorSpec] = {}

    def specs(self, values: list[bytes]) -> list[TensorSpec]:
        """Return the spec of each value, in order; `INVALID` for values that do not parse."""
        known, tail = self._known.get, _TAIL
        try:
            found = [known(value[:cut]) if tail(value, cut := value[3] + 4) else None for value in values]
        except IndexError:  # a value of fewer than four bytes
            found = [None] * len(values)
        if None in found:
            # One entry of each new prefix is decoded, the others are then known.
            for value in {value[: value[3] + 4]: value for value in values if len(value) > 3}.values():
                self._decode(value)
            found = [spec or self.find(value) or self._decode(value) for spec, value in zip(found, values, strict=True)]
        return found  # type: ignore[return-value]

    def find(self, value: bytes) -> TensorSpec | None:
        """Return the spec of one entry value where its prefix is known."""
        cut = prefix_end(value)
        return self._known.get(value[:cut]) if cut and _TAIL(value, cut) else None

    def learn(self, value: bytes) -> None:
        """Remember the spec of an entry value for others of its prefix, where they may share it."""
        self._decode(value)

    def _decode(self, value: bytes) -> TensorSpec:
        cut = prefix_end(value)
        canonical = cut and _TAIL(value, cut)
        if canonical:
            spec = self._known.get(value[:cut])
            if spec is not None:
                return spec
        try:
            entry = parse_entry(value, Where(""), self._limits)
        except (FormatError, ValueError):
            return INVALID
        spec = entry.spec()
        dtype = dtype_of_enum(entry.enum)
        # Only where dtype and shape settle the size may other entries of this prefix share the spec.
        if canonical and dtype is not None and dtype.is_numeric and spec.nbytes == spec.size * dtype.itemsize:
            self._known[value[:cut]] = spec
        return spec


def encode_entry(entry: BundleEntry) -> bytes:
    """Return the entry as TensorFlow writes it: ascending fields, zeros left out, the shape always present."""
    if not entry.slices:
        return encode_entries((entry[:6],))[0]
    from openckpt.formats.slicekeys import encode_slice_proto

    slices = [encode_field(7, encode_slice_proto(extents)) for extents in entry.slices]
    return b"".join((_encode_head(entry.enum, entry.shape or (), entry.shard), *slices))


def encode_entries(rows: Iterable[tuple[int, tuple[int, ...] | None, int, int, int, int]]) -> list[bytes]:
    """Return what `encode_entry` gives for each of many tensors that have data of their own: half a microsecond a tensor.

    Args:
        rows: dtype enum, shape, shard, offset, size in bytes, unmasked crc: the first six fields of `BundleEntry`, no number
            negative. A ``zip`` of six columns is the quickest, for it makes no object per tensor.
    """
    heads: dict[tuple[int, tuple[int, ...] | None, int], bytes] = {}
    tails: dict[int, bytes] = {}
    encoded: list[bytes] = []
    four_digits, fixed = _FOUR_DIGITS.pack, _FIXED.pack
    for enum, shape, shard, offset, size, crc in rows:
        head = heads.get((enum, shape, shard)) or heads.setdefault(
            (enum, shape, shard), _encode_head(enum, shape or (), shard)
        )
        if (
            1 << 21 <= offset < 1 << 28
        ):  # most of a shard of 256 MiB: `encode_field` written out takes a third of the time
            place = four_digits(
                _OFFSET_TAG,
                offset & 0x7F | 0x80,
                offset >> 7 & 0x7F | 0x80,
                offset >> 14 & 0x7F | 0x80,
                offset >> 21,
            )
        else:
            place = encode_field(4, offset) if offset else b""
        tail = tails.get(size)
        if tail is None:
            tail = tails[size] = encode_field(5, size) if size else b""
        masked = ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF  # `mask_crc`, without the call
        encoded.append(b"".join((head, place, tail, fixed(_CRC_TAG, masked) if masked else b"")))
    return encoded


_OFFSET_TAG = 4 << 3 | VARINT
_CRC_TAG = 6 << 3 | FIXED32
_FOUR_DIGITS = struct.Struct("5B")
_FIXED = struct.Struct("<BI")


def _encode_head(enum: int, shape: tuple[int, ...], shard: int) -> bytes:
    head = encode_field(1, enum) + encode_field(2, encode_shape(shape))
    return head + encode_field(3, shard) if shard else head
