"""Magenta bundles (``.mag``): a serialized protobuf message that holds a V1 checkpoint and its meta graph.

    field 1  generator details (message)     field 2  checkpoint file (bytes, repeated: one per shard)
    field 4  bundle details (message)        field 3  meta graph file (bytes)

All four are length-delimited: a tag byte (0a 12 1a 22), a varint length, the bytes. The members appear as ``model.ckpt``
(``model.ckpt-00000-of-00002`` ... for several) and ``model.ckpt.meta``; each is a window on the bundle's bytes.

A MetaGraphDef has the same outer shape. What tells a bundle from it is field 2: a table, whose last eight bytes are the table
magic and whose first entry has the empty key (formats 1 and 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from openckpt.errors import CorruptionError, Where
from openckpt.storage.archive.sources import WindowSource
from openckpt.storage.archive.store import ArchiveStore, Listing, Member, cut_short, make_listing
from openckpt.storage.reading import ByteSource

_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
_FIRST_KEY = b"\0\0"  # shared 0, non-shared 0: the empty key
_CHECKPOINT, _META = 2, 3
_MOST_FIELDS = 100_003  # shards are limited to 100,000


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    offset: int
    size: int


def _fields(source: ByteSource, most: int) -> tuple[list[_Field], bool]:
    """Return the outer fields and whether they are all of a bundle's numbers and fill the file exactly."""
    found: list[_Field] = []
    at = 0
    while at < source.size:
        head = source.read_at(at, min(11, source.size - at))
        if head[0] not in b"\x0a\x12\x1a\x22" or len(found) == most:
            return found, False
        length = 0
        for i, byte in enumerate(head[1:]):
            length |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                break
        else:
            return found, False
        at += i + 2
        found.append(_Field(head[0] >> 3, at, length))
        at += length
    return found, at == source.size


def is_mag(source: ByteSource) -> bool:
    """Return whether a file is a bundle, also one whose end is missing."""
    fields, exact = _fields(source, 8)
    first = next((field for field in fields if field.number == _CHECKPOINT), None)
    if first is None or first.offset + 3 > source.size or source.read_at(first.offset, 2) != _FIRST_KEY:
        return False
    if first.offset + first.size > source.size:
        return not exact and len(fields) <= 3
    magic_at = first.offset + first.size - len(_TABLE_MAGIC)
    return magic_at > first.offset and source.read_at(magic_at, len(_TABLE_MAGIC)) == _TABLE_MAGIC


class MagStore(ArchiveStore):
    """A Magenta bundle as a `Store`."""

    format = "mag"

    def _list(self) -> Listing:
        fields, exact = _fields(self._source, _MOST_FIELDS)
        shards = [field for field in fields if field.number == _CHECKPOINT]
        meta = [field for field in fields if field.number == _META][-1:]
        members: list[Member] = []
        for i, field in enumerate(shards):
            name = "model.ckpt" if len(shards) == 1 else f"model.ckpt-{i:05d}-of-{len(shards):05d}"
            self._add(members, name, field)
        for field in meta:
            self._add(members, "model.ckpt.meta", field)
        damage = None
        if not exact:
            last = fields[-1]
            end = last.offset + last.size
            damage = CorruptionError(
                "archive.truncated" if end > self._source.size else "archive.bad-header",
                Where(self._source.path, offset=min(end, self._source.size)),
                "the bundle ends early: the download or copy broke off"
                if end > self._source.size
                else "what follows is no field of a Magenta bundle",
                expected=f"{end} bytes" if end > self._source.size else "the end of the file",
                found=f"{self._source.size} bytes",
            )
        return make_listing(members, damage=damage)

    def _add(self, members: list[Member], name: str, field: _Field) -> None:
        members.append(Member(name, field.size, field.offset, key=len(members)))
        if field.offset + field.size > self._source.size:
            cut_short(members)

    def _open(self, member: Member) -> ByteSource:
        return WindowSource(self, self.display(member.path), member.offset, member.size, nesting=self._nesting)
