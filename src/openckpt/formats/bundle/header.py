"""The header entry of a V2 index: the value under the empty key (formats 2.3).

    BundleHeaderProto { 1 num_shards int32, 2 endianness (0 little, 1 big), 3 version VersionDef }

One shard, little-endian, as TensorFlow writes it: ``08 01 1a 02 08 01``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.messages import Versions, check_versions, encode_versions, parse_versions
from openckpt.formats.sstable.table import Table
from openckpt.formats.wire import encode_field, iter_fields, to_signed
from openckpt.limits import DEFAULT_LIMITS, Limits


class Header(NamedTuple):
    """What the index says of the whole checkpoint."""

    num_shards: int
    big_endian: bool = False
    producer: int = 1
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


def table_kind(first: tuple[bytes, bytes] | None) -> Literal["v1", "v2"] | None:
    """Tell a V1 table from a V2 index by the first entry of the table (formats 3.1), or None where it is neither."""
    if first is None or first[0] != b"":
        return None
    if first[1][:1] == b"\x0a":
        return "v1"
    return "v2" if first[1][:1] in (b"\x08", b"\x10", b"\x1a") else None


def parse_header(value: bytes, where: Where, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Return the header of its stored value.

    Raises:
        CorruptionError: ``bundle.bad-header``.
        UnsupportedError: ``bundle.version``, a format that needs a newer reader; ``bundle.endianness``.
        LimitError: more shards than ``limits.shards``.
    """
    num_shards = endianness = 0
    versions = Versions()
    try:
        for number, _, field in iter_fields(value):
            if isinstance(field, int):
                if number == 1:
                    num_shards = to_signed(field)
                elif number == 2:
                    endianness = field
            elif number == 3:
                versions = parse_versions(field)
    except ValueError as error:
        raise CorruptionError("bundle.bad-header", where, f"the header entry does not parse: {error}") from None
    if num_shards < 1:
        raise CorruptionError(
            "bundle.bad-header", where, "the header states no data files", expected="1 or more shards", found=num_shards
        )
    limits.check("shards", num_shards, where, "the number of shards in the header")
    check_versions(versions, where, "bundle.version")
    if endianness > 1:
        raise UnsupportedError(
            "bundle.endianness", where, "unknown byte order in the header", expected="0 or 1", found=endianness
        )
    return Header(num_shards, endianness == 1, *versions)


def header_of(table: Table, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Return the header of an open index; raises CorruptionError ``bundle.no-header`` where the table has none."""
    first = table.first()
    where = Where(table.path)
    if first is None:
        raise CorruptionError("bundle.no-header", where, "the index is empty: no header entry, no tensor")
    if first[0] != b"":
        raise CorruptionError(
            "bundle.no-header",
            where,
            "the index has no header entry",
            expected="the empty key first",
            found=first[0][:80],
        )
    if table_kind(first) == "v1":
        raise CorruptionError("bundle.is-v1", where, "this table is a V1 checkpoint, not the index of a V2 one")
    return parse_header(first[1], where, limits)


WRITTEN = Versions(producer=1)
"""the version of the format that TensorFlow writes, and openckpt"""


def encode_header(num_shards: int, *, big_endian: bool = False, versions: Versions = WRITTEN) -> bytes:
    """Return the header value as TensorFlow writes it."""
    endianness = encode_field(2, 1) if big_endian else b""
    count = encode_field(1, num_shards) if num_shards else b""
    return count + endianness + encode_field(3, encode_versions(versions))
