"""Uncompressed tar archives: every member is a window on the archive's bytes."""

from __future__ import annotations

from openckpt.errors import CorruptionError
from openckpt.storage.archive.names import harmless_path
from openckpt.storage.archive.sources import WindowSource
from openckpt.storage.archive.store import ArchiveStore, Listing, Member, cut_short, make_listing
from openckpt.storage.archive.tarheaders import WORDS, TarEntry, TarScan
from openckpt.storage.reading import ByteSource, Kind


def member_of(entry: TarEntry, key: int) -> Member:
    """Return the member that a tar header describes."""
    path, odd = harmless_path(entry.name, backslash_separates=False)
    kind: Kind = "other"
    what = ""
    link = False
    if entry.type == "5":
        kind = "dir"
    elif entry.sparse:
        what = WORDS["S"]
    elif entry.type in "07":
        kind = "file"
    else:
        link = entry.type in "12"
        what = WORDS.get(entry.type, f"of the unknown type {entry.type!r}")
        what = f"{what} {entry.link!r}" if link else what
    mtime_ns = min(entry.mtime, 1 << 40) * 10**9
    return Member(path, entry.size, entry.offset, kind, what, link, odd, mtime_ns=mtime_ns, key=key)


class _Cursor:
    """A source read from front to back; passing over bytes costs nothing."""

    __slots__ = ("_source", "offset")

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.offset = 0

    def read(self, size: int) -> bytes:
        data = self._source.read_at(self.offset, min(size, self._source.size - self.offset))
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        size = min(size, self._source.size - self.offset)
        self.offset += size
        return size


class TarStore(ArchiveStore):
    """An uncompressed tar as a `Store`."""

    format = "tar"

    def _list(self) -> Listing:
        cursor = _Cursor(self._source)
        scan = TarScan(cursor, self._source.path, self._limits)
        members: list[Member] = []
        damage = None
        try:
            for entry in scan:
                members.append(member_of(entry, len(members)))
                if entry.offset + entry.size > self._source.size:
                    cut_short(members)
        except CorruptionError as error:
            if not members:
                raise
            damage = error
        return make_listing(members, damage=damage, has_end=scan.ended)

    def _open(self, member: Member) -> ByteSource:
        return WindowSource(self, self.display(member.path), member.offset, member.size, nesting=self._nesting)
