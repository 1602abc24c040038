"""The index of several part bundles as one checkpoint (formats 2.11): what TensorFlow's ``MergeV2Checkpoints`` writes.

    part-00000-of-00002.index    "" header   m -> 0:0     w -> slices [2,1]   piece of w -> 0:48
    part-00001-of-00002.index    "" header   a -> 0:0     w -> slices [0,2]   piece of w -> 0:96
    merged                       "" header   a -> 1:0   m -> 0:0   w -> slices [2,1] [0,2]   pieces -> 0:48, 1:96

Data files are numbered as they are met: part by part in the order of the list, inside a part in key order. A partitioned tensor
may lie in several parts; its slices are listed in that order too, and its own entry, which has no data, carries the number of
the first data file of the first part that holds one (TensorFlow writes it there, so byte identity asks for it).

TensorFlow counts the data files of parts that hold no tensor, and cannot read the result; here only files with tensors count.
It also writes partitioned tensors whose pieces leave gaps or overlap; here they are refused. Pure: nobody renames a file here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from openckpt.errors import ConflictError, CorruptionError, Where
from openckpt.formats.bundle.entry import BundleEntry, encode_entries, encode_entry, parse_entry
from openckpt.formats.bundle.header import Header, encode_header, header_of
from openckpt.formats.messages import Versions
from openckpt.formats.slicekeys import encode_slice_key
from openckpt.formats.slicing import full_region, plan_copies, region_shape, resolve_extents
from openckpt.formats.sstable import Table, encode_table
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.memory import MemorySource


class Origin(NamedTuple):
    """Where a data file of the merged checkpoint is now: shard ``shard`` of ``num_shards`` of the part called ``part``."""

    part: str
    shard: int
    num_shards: int


@dataclass(frozen=True, slots=True)
class MergedIndex:
    """The merged checkpoint before a file is renamed.

    Attributes:
        header: byte order, version, and the number of data files: that of ``origins``, or 1 where there is none.
        entries: stored key -> entry with its new shard, in table order, pieces of partitioned tensors among them.
        origins: the data file that becomes each shard, by its new number. Empty where no part holds a tensor; the one data file
            is then an empty one.
    """

    header: Header
    entries: Mapping[bytes, BundleEntry]
    origins: tuple[Origin, ...]

    def encode(self) -> bytes:
        """Return the index file."""
        header = self.header
        versions = Versions(header.producer, header.min_consumer, header.bad_consumers)
        rows = encode_entries(entry[:6] for entry in self.entries.values())
        values = [
            encode_entry(entry) if entry.slices else row for entry, row in zip(self.entries.values(), rows, strict=True)
        ]
        head = encode_header(header.num_shards, big_endian=header.big_endian, versions=versions)
        return encode_table([(b"", head), *zip(self.entries, values, strict=True)])


def merge_indexes(parts: Sequence[tuple[str, Table | bytes]], *, limits: Limits = DEFAULT_LIMITS) -> MergedIndex:
    """Return the index of one checkpoint made of ``parts``.

    Args:
        parts: name and index of each part, in the order that numbers the data files. The name stands in messages and in
            `Origin.part`.
        limits: caps on what the parts may state.

    Raises:
        ConflictError: two parts hold the same tensor or the same piece of one (``bundle.merge-duplicate``).
        CorruptionError: the parts disagree in byte order or version, or about a partitioned tensor
            (``bundle.merge-contradicts``), an entry names a data file that its part does not have (``bundle.shard-range``),
            the pieces of a tensor are not one whole (``bundle.slice-missing``, ``bundle.slice-contradicts``, ``slices.gap``,
            ``slices.overlap``); and what `Table` and the parsers of header and entry raise.
        LimitError: more data files or slices than ``limits``.
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("there is nothing to merge: no parts were given")
    merge = _Merge(limits)
    for name, index in parts:
        merge.add(name, index if isinstance(index, Table) else Table(MemorySource(name, index), limits=limits))
    return merge.finish()


class _Merge:
    """The entries gathered so far, and the part that each came from."""

    __slots__ = ("_entries", "_header", "_home", "_limits", "_origins")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._header: tuple[str, Header] | None = None  # of the first part
        self._entries: dict[bytes, BundleEntry] = {}
        self._home: dict[bytes, str] = {}
        self._origins: dict[Origin, int] = {}

    def add(self, name: str, table: Table) -> None:
        """Take in one part."""
        header = header_of(table, self._limits)
        self._check_header(name, header)
        for key, value in table.items():
            if not key:
                continue
            where = Where(name, key.decode("utf-8", "surrogateescape"))
            entry = parse_entry(value, where, self._limits)
            before = self._entries.get(key)
            if before is not None:
                self._entries[key] = self._join(before, entry, key, where)
                continue
            if entry.shard >= header.num_shards:
                raise CorruptionError(
                    "bundle.shard-range",
                    where,
                    "the entry names a data file that its part does not have",
                    expected=f"below {header.num_shards}",
                    found=entry.shard,
                )
            origin = Origin(name, entry.shard, header.num_shards)
            self._entries[key] = entry._replace(shard=self._origins.setdefault(origin, len(self._origins)))
            self._home[key] = name
        self._limits.check("shards", len(self._origins), name, "the number of data files of the merged checkpoint")

    def _check_header(self, name: str, header: Header) -> None:
        if self._header is None:
            self._header = name, header
            return
        first, expected = self._header
        if header._replace(num_shards=0) != expected._replace(num_shards=0):
            raise CorruptionError(
                "bundle.merge-contradicts",
                name,
                f"this part is of another byte order or version than {first!r}",
                expected=_describe(expected),
                found=_describe(header),
            )

    def _join(self, before: BundleEntry, entry: BundleEntry, key: bytes, where: Where) -> BundleEntry:
        """Return the entry of a partitioned tensor with the slices of another part added."""
        home = self._home[key]
        if not (before.slices and entry.slices):
            raise ConflictError("bundle.merge-duplicate", where, f"the part {home!r} holds this tensor too")
        if (before.enum, before.shape) != (entry.enum, entry.shape):
            raise CorruptionError(
                "bundle.merge-contradicts",
                where,
                f"the slices in {home!r} are of another tensor",
                expected=f"dtype {before.enum}, shape {list(before.shape or ())}",
                found=f"dtype {entry.enum}, shape {list(entry.shape or ())}",
            )
        slices = before.slices + entry.slices
        self._limits.check("slices", len(slices), where, "the number of slices")
        return before._replace(slices=slices)

    def finish(self) -> MergedIndex:
        """Return the whole after a last look at its partitioned tensors."""
        assert self._header is not None
        for key, entry in self._entries.items():
            if entry.slices:
                self._check_pieces(key, entry)
        header = self._header[1]._replace(num_shards=max(1, len(self._origins)))
        return MergedIndex(header, dict(sorted(self._entries.items())), tuple(self._origins))

    def _check_pieces(self, key: bytes, entry: BundleEntry) -> None:
        where = Where(self._home[key], key.decode("utf-8", "surrogateescape"))
        shape = entry.shape or ()
        regions = [resolve_extents(extents, shape, where) for extents in entry.slices]
        for extents, region in zip(entry.slices, regions, strict=True):
            piece = self._entries.get(encode_slice_key(key, extents))
            if piece is None:
                raise CorruptionError("bundle.slice-missing", where, f"no part holds the entry of slice {extents}")
            if (piece.enum, piece.shape) != (entry.enum, region_shape(region)):
                raise CorruptionError(
                    "bundle.slice-contradicts",
                    where,
                    f"slice {extents} contradicts its tensor",
                    expected=f"dtype {entry.enum}, shape {list(region_shape(region))}",
                    found=f"dtype {piece.enum}, shape {list(piece.shape or ())}",
                )
        plan_copies(full_region(shape), regions, where)


def _describe(header: Header) -> str:
    order = "big-endian" if header.big_endian else "little-endian"
    bad = f", not for {list(header.bad_consumers[:8])}" if header.bad_consumers else ""
    return f"{order}, producer {header.producer}, min_consumer {header.min_consumer}{bad}"
