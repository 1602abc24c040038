"""Compressed tars, and single compressed files: read from the start, in at most two passes for one checkpoint.

Pass 1 lists the members and keeps what is small (the smallest up to 16 MiB in all: index files, manifests, meta graphs) and
what was announced by `expect` before. Pass 2 begins with the first access to data that is not at hand. It loads everything
announced, or, where nothing was, every member that shares the stem of the one asked for (``ckpt-7.index`` brings
``ckpt-7.data-00000-of-00002``). A later pass, for members outside both, loads those and lets go of what the last one held;
bytes that a source or a view still uses live on and are not read again.

Nothing is allocated on the word of a header: buffers grow with the bytes that come, and all of them together stay under
``limits.archive_bytes``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

from openckpt.errors import CorruptionError, Where
from openckpt.findings import Progress
from openckpt.limits import MIB, Limits
from openckpt.storage.archive.sources import Blob, UnpackedSource
from openckpt.storage.archive.store import ArchiveStore, Listing, Member, cut_short, make_listing
from openckpt.storage.archive.streams import PackedStream
from openckpt.storage.archive.tarheaders import TarScan
from openckpt.storage.archive.tars import member_of
from openckpt.storage.reading import ByteSource

KEPT_BYTES = 16 * MIB
"""bytes of small members that the first pass keeps"""


class PackedStore(ArchiveStore):
    """``tar.gz``, ``tar.bz2``, ``tar.xz`` as a `Store`. Nothing is read before the first question."""

    def __init__(self, source: ByteSource, codec: str, limits: Limits, progress: Progress | None = None) -> None:
        super().__init__(source, limits, progress)
        self.format = f"tar.{codec}"
        self._codec = codec
        self._passes = 0
        self._expected: frozenset[str] = frozenset()
        # Blobs by the number of their member: kept from pass 1, held since the last pass, and loaded by any and still in use.
        self._kept: dict[int, Blob] = {}
        self._held: dict[int, Blob] = {}
        self._alive: WeakValueDictionary[int, Blob] = WeakValueDictionary()

    @property
    def passes(self) -> int:
        """How often the archive was unpacked from its start."""
        return self._passes

    def expect(self, paths: Sequence[str]) -> None:
        """Announce members that belong together; they are loaded in one pass when the first of them is needed.

        An announcement that shares a member with the last one adds to it; any other replaces it.
        """
        names = frozenset(path.strip("/") for path in paths)
        self._expected = names if names.isdisjoint(self._expected) else names | self._expected

    def _start(self) -> PackedStream:
        self._passes += 1
        return PackedStream(self._source, self._codec, self._limits, self._progress)

    def _list(self) -> Listing:
        stream = self._start()
        members: list[Member] = []
        damage: CorruptionError | None = None
        keep = _Keep(self._limits, self._source.path)
        has_end = True
        try:
            has_end = self._scan(stream, members, keep)
        except CorruptionError as error:
            damage = error
            if members and stream.offset < members[-1].offset + members[-1].size:
                cut_short(members)
        if damage is None or damage.code == "archive.bad-header":
            try:
                stream.drain()  # the checksum comes last, and a broken header is most often a sign of it
            except CorruptionError as error:
                damage = error
        if damage is not None and not members:
            raise damage
        self._kept = keep.small
        self._held = keep.expected
        self._alive.update(keep.expected)
        # A checksum at the very end is all that gzip and xz have: where the data is damaged, what came before may be as well,
        # and an HDF5 file would not show it. A download that broke off is another thing: what came is as it was sent.
        suspect = damage is not None and damage.code in ("archive.crc-mismatch", "archive.damaged")
        return make_listing(members, damage=damage, suspect=suspect, has_end=has_end)

    def _scan(self, stream: PackedStream, members: list[Member], keep: _Keep) -> bool:
        scan = TarScan(stream, self._source.path, self._limits)
        for entry in scan:
            member = member_of(entry, len(members))
            members.append(member)
            if member.kind == "file":
                keep.offer(stream, member, expected=member.path in self._expected)
        return scan.ended

    def _open(self, member: Member) -> ByteSource:
        path = self.display(member.path)
        return UnpackedSource(self._source, path, member.size, lambda: self._get(member), nesting=self._nesting)

    def _get(self, member: Member) -> Blob:
        if not member.size:
            return Blob(b"")
        blob = self._kept.get(member.key) or self._alive.get(member.key)
        if blob is not None:
            return blob
        with self._lock:
            blob = self._alive.get(member.key)
            if blob is None:
                self._load(self._wanted(member))
                blob = self._held[member.key]
        return blob

    def _wanted(self, member: Member) -> list[Member]:
        """Return what the next pass loads: what was announced, and the relatives of a member that was not."""
        listing = self.listing()
        names = self._expected
        if member.path not in names:
            directory, _, name = member.path.rpartition("/")
            stem = self.join(directory, name.rpartition(".")[0] or name) + "."
            names = names | {member.path} | {path for path in listing.paths if path.startswith(stem)}
        found = (listing.members.get(path) for path in names)
        return [
            one for one in found if one is not None and one.kind == "file" and one.whole and one.key not in self._kept
        ]

    def _load(self, wanted: Iterable[Member]) -> None:
        ready: dict[int, Blob] = {}
        missing: list[Member] = []
        total = 0
        for member in sorted(wanted, key=lambda one: one.offset):
            total += member.size  # true sizes: the first pass has seen every byte of them
            blob = self._alive.get(member.key)
            if blob is None:
                missing.append(member)
            else:
                ready[member.key] = blob
        self._limits.check("archive_bytes", total, self._source.path, "the size of the members to hold in memory")
        self._held = ready  # what the last pass held and nobody uses goes before new memory is taken
        stream = self._start()
        for member in missing:
            stream.skip(member.offset - stream.offset)
            data = bytearray(member.size)
            if fill(stream, data) < member.size:
                raise CorruptionError(
                    "storage.changed",
                    Where(self.display(member.path)),
                    "the archive is shorter than when it was listed",
                    expected=f"{member.size} bytes",
                )
            self._held[member.key] = self._alive[member.key] = Blob(data)


def fill(stream: PackedStream, buffer: bytearray) -> int:
    """Fill a buffer from a stream and return how many bytes there were."""
    with memoryview(buffer) as view:
        at = 0
        while at < len(buffer) and (piece := stream.take(len(buffer) - at)):
            view[at : at + piece.nbytes] = piece
            at += piece.nbytes
    return at


class _Keep:
    """What the first pass keeps: everything announced, and the smallest of the rest."""

    def __init__(self, limits: Limits, path: str) -> None:
        self.small: dict[int, Blob] = {}
        self.expected: dict[int, Blob] = {}
        self._heap: list[tuple[int, int]] = []  # (-size, key): the largest kept goes first
        self._bytes = 0
        self._expected_bytes = 0
        self._limits = limits
        self._path = path

    def offer(self, stream: PackedStream, member: Member, *, expected: bool) -> None:
        """Take the member's data from the stream if it is worth keeping."""
        if not member.size or (not expected and member.size > KEPT_BYTES):
            return
        data = bytearray()
        while len(data) < member.size and (piece := stream.take(member.size - len(data))):
            data += piece
            if expected:
                self._expected_bytes += piece.nbytes
                what = "the size of the members held in memory"
                self._limits.check("archive_bytes", self._expected_bytes, self._path, what)
        if len(data) < member.size:
            return  # the scan sees the end too, and says so
        if expected:
            self.expected[member.key] = Blob(data)
            return
        self.small[member.key] = Blob(data)
        heapq.heappush(self._heap, (-member.size, member.key))
        self._bytes += member.size
        while self._bytes > KEPT_BYTES:
            size, key = heapq.heappop(self._heap)
            self._bytes += size
            del self.small[key]


class SingleStore(PackedStore):
    """A compressed file that is no tar, as an archive of one member named like the file without its suffix."""

    def __init__(self, source: ByteSource, codec: str, limits: Limits, progress: Progress | None = None) -> None:
        super().__init__(source, codec, limits, progress)
        self.format = codec

    def _scan(self, stream: PackedStream, members: list[Member], keep: _Keep) -> bool:
        name = self._source.path.rpartition("!")[2].replace("\\", "/").rpartition("/")[2]
        bare = name[: -len(self._codec) - 1] if name.lower().endswith(f".{self._codec}") else name
        expected = (bare or name) in self._expected
        data: bytearray | None = bytearray()
        while piece := stream.take(MIB):
            if data is not None:
                data += piece
                if expected:
                    self._limits.check("archive_bytes", len(data), self._source.path, "the size of the unpacked file")
                elif len(data) > KEPT_BYTES:
                    data = None
        member = Member(bare or name or "data", stream.offset, 0)
        members.append(member)
        if data is not None:
            (keep.expected if expected else keep.small)[0] = Blob(data)
        return True
