"""`ArchiveStore`: the members of one archive as a tree of names; the kinds of archives say how to list and open them.

The tree is not built: members lie in one list sorted by path, a directory is the range of paths that begin with its name.
So a member called "a/a/a/..." costs no more than its name, and a directory need not be a member to exist.
"""

from __future__ import annotations

import copy
import errno
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from openckpt.errors import CheckpointError, UnsafeError, UnsupportedError, Where
from openckpt.findings import Finding, Progress, finding_of, make_finding
from openckpt.limits import Limits
from openckpt.storage.archive.sources import nesting_of
from openckpt.storage.locks import ForkLock
from openckpt.storage.reading import ByteSource, FileStat, Kind


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        path: harmless path (`openckpt.storage.archive.names`), unique in a listing.
        size: bytes of the member, unpacked.
        offset: where its data begins: in the archive for a tar or mag, in the unpacked tar for a compressed tar; for a zip
            the offset of its local header.
        kind: "other" for links, devices, sparse files and everything else whose bytes are not simply there.
        what: for "other": what it is, in words.
        link: whether it is a symbolic or hard link.
        odd: whether the stored name would have led outside the folder it is unpacked to.
        whole: False when the archive ends inside it.
        key: its number in the archive, in stored order.
    """

    path: str
    size: int
    offset: int
    kind: Kind = "file"
    what: str = ""
    link: bool = False
    odd: bool = False
    whole: bool = True
    mtime_ns: int = 0
    key: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive contains.

    Attributes:
        members: by path, the last of a name.
        damage: what stopped the listing or makes it doubtful, None for a sound archive.
        suspect: whether the damage may lie in any member (a checksum over the whole archive failed).
        repeated: paths that occur more than once.
        unnamed: members whose name left nothing to list them under.
        has_end: whether a tar had its end marker.
    """

    members: dict[str, Member]
    damage: CheckpointError | None = None
    suspect: bool = False
    repeated: tuple[str, ...] = ()
    unnamed: int = 0
    has_end: bool = True
    paths: list[str] = field(default_factory=list)


def make_listing(
    members: Iterable[Member],
    *,
    damage: CheckpointError | None = None,
    suspect: bool = False,
    has_end: bool = True,
) -> Listing:
    """Put members, in stored order, under their paths: of two with one path the last wins, as in tar and zip tools."""
    by_path: dict[str, Member] = {}
    repeated: dict[str, None] = {}
    unnamed = 0
    for member in members:
        if not member.path:
            unnamed += member.kind != "dir"  # "./" is the root itself
            continue
        if member.path in by_path and member.kind != "dir":
            repeated[member.path] = None
        by_path[member.path] = member
    return Listing(by_path, damage, suspect, tuple(repeated), unnamed, has_end, sorted(by_path))


_FEW_INNER, _BYTES_FOR_ONE_MORE = 4, 1 << 20


class ArchiveStore(ABC):
    """The members of one archive as a `Store`. Paths are "/"-separated, "" is the root.

    Thread-safe and usable after a fork. The archive's source stays open as long as anybody needs it; it belongs to the caller.
    """

    format: str
    """which kind of archive: one of `ArchiveKind`"""

    def __init__(self, source: ByteSource, limits: Limits, progress: Progress | None = None) -> None:
        self._source = source
        self._limits = limits
        self._progress = progress
        self._nesting = nesting_of(source) + 1
        self._lock = ForkLock()
        self._listing: Listing | None = None
        self._inner_left = _FEW_INNER + source.size // _BYTES_FOR_ONE_MORE
        self._map: memoryview | None = None

    # How a kind of archive lists and opens.

    @abstractmethod
    def _list(self) -> Listing:
        """List the members."""

    @abstractmethod
    def _open(self, member: Member) -> ByteSource:
        """Open a member of kind "file" that is whole."""

    # What all have in common.

    @property
    def source(self) -> ByteSource:
        """The archive's own bytes."""
        return self._source

    @property
    def passes(self) -> int:
        """How often the archive was unpacked from its start; 0 for archives with random access."""
        return 0

    def map(self) -> memoryview | None:
        """Return the map of the whole archive, made once for all members; None where the medium cannot."""
        if self._map is None:
            self._map = self._source.map()
        return self._map

    def listing(self) -> Listing:
        """Return what the archive contains; the first call lists it.

        Raises:
            CorruptionError, LimitError, UnsupportedError: nothing of the archive can be listed.
        """
        found = self._listing
        if found is None:
            with self._lock:
                found = self._listing
                if found is None:
                    found = self._listing = self._list()
        return found

    def damage(self) -> CheckpointError | None:
        """Return what is wrong with the archive as a whole, None for a sound one. What precedes the damage is listed."""
        return self.listing().damage

    def _raise_damage(self, listing: Listing) -> None:
        if listing.damage is not None:
            raise copy.copy(listing.damage)  # a fresh one: an exception that is raised twice mixes its tracebacks

    def open(self, path: str) -> ByteSource:
        """Open one member.

        Raises:
            FileNotFoundError, IsADirectoryError: no such member; it is a directory.
            UnsafeError: it is a link (``archive.link``).
            UnsupportedError: it is a device, a sparse file or encrypted, or compressed in a way that is not read.
            CorruptionError: the archive is damaged where this member is, or ends before it.
        """
        path = path.strip("/")
        listing = self.listing()
        member = listing.members.get(path)
        if member is None or member.kind == "dir":
            if self.stat(path) is not None:
                raise IsADirectoryError(errno.EISDIR, "Is a directory", self.display(path))
            self._raise_damage(listing)  # the member may be in the part that is not there
            raise FileNotFoundError(errno.ENOENT, "No such file in the archive", self.display(path))
        if member.link:
            raise UnsafeError(
                "archive.link", self.display(path), f"this member is {member.what}; links in archives are not followed"
            )
        if member.kind != "file":
            raise UnsupportedError("archive.special-file", self.display(path), f"this member is {member.what}")
        if listing.suspect or not member.whole:
            self._raise_damage(listing)
        return self._open(member)

    def stat(self, path: str) -> FileStat | None:
        """Return what ``path`` is; a link is "other" with ``link`` set and is not followed."""
        path = path.strip("/")
        listing = self.listing()
        member = listing.members.get(path)
        name = path.rpartition("/")[2]
        if member is None:
            at = bisect_left(listing.paths, path + "/") if path else 0
            inside = at < len(listing.paths) and listing.paths[at].startswith(path + "/")
            return FileStat(name, path, "dir", 0) if inside or not path else None
        identity = (member.offset, member.size, member.key)
        size = member.size if member.kind == "file" else 0
        return FileStat(name, path, member.kind, size, member.mtime_ns, identity, member.link)

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory.

        Raises:
            FileNotFoundError, NotADirectoryError: there is no such directory.
        """
        path = path.strip("/")
        own = self.stat(path)
        if own is None:
            raise FileNotFoundError(errno.ENOENT, "No such directory in the archive", self.display(path))
        if own.kind != "dir":
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", self.display(path))
        prefix = path + "/" if path else ""
        paths = self.listing().paths
        names: dict[str, None] = {}
        at = bisect_left(paths, prefix)
        while at < len(paths) and paths[at].startswith(prefix):
            name, slash, _ = paths[at][len(prefix) :].partition("/")
            names[name] = None
            # "0" follows "/": everything below this child is jumped over.
            at = bisect_left(paths, f"{prefix}{name}0", at + 1) if slash else at + 1
        return [stat for name in names if (stat := self.stat(prefix + name)) is not None]

    def expect(self, paths: Sequence[str]) -> None:  # noqa: B027 - a default, not a duty
        """Nothing to prepare where members are read at any place."""

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        return f"{directory}/{name}" if directory else name

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)``."""
        directory, _, name = path.rpartition("/")
        return directory, name

    def display(self, path: str) -> str:
        """Return ``archive!path``, or the archive itself for the root."""
        return f"{self._source.path}!{path}" if path else self._source.path

    def may_enter(self) -> bool:
        """Return whether one more archive inside this one may be looked into unasked; every call spends one.

        There are four, and one for each MiB of the archive: packed twice, a kilobyte holds a thousand archives of 64 MiB each.
        """
        self._inner_left -= 1
        return self._inner_left >= 0

    def validate(self) -> Iterator[Finding]:
        """Yield what is wrong with or odd about the archive itself (not what its members mean)."""
        try:
            listing = self.listing()
        except CheckpointError as error:
            yield finding_of(error)
            return
        if listing.damage is not None:
            yield finding_of(listing.damage)
        odd = [member.path for member in listing.members.values() if member.odd]
        if odd or listing.unnamed:
            names = ", ".join(map(repr, odd[:3])) or "(nothing left of the name)"
            yield make_finding(
                "archive.unsafe-name",
                Where(self._source.path),
                f"{len(odd) + listing.unnamed} member names lead outside the folder they would be unpacked to; "
                f"listed without that part: {names}",
                found=len(odd) + listing.unnamed,
                expected=0,
            )
        if listing.repeated:
            yield make_finding(
                "archive.repeated-name",
                Where(self._source.path),
                f"{len(listing.repeated)} names occur more than once and the last one counts: "
                + ", ".join(map(repr, listing.repeated[:3])),
            )
        if not listing.has_end and listing.damage is None:
            yield make_finding(
                "archive.no-end", Where(self._source.path), "the tar has no end marker", expected="a block of zeros"
            )


def cut_short(members: list[Member]) -> None:
    """Mark the last member as one that the archive's end cuts off."""
    members[-1] = replace(members[-1], whole=False)
