"""`PowerLossFS`: a file system in memory that remembers what was synced, and shows what a power cut may leave.

    fs = PowerLossFS()
    save("run/ckpt-1", store=fs)
    for cut in fs.cuts():                     the moment behind each call
        for image in cut.images():            what may lie on the disk then: a store to read from
            ...open the checkpoint: it must be old, new or absent...

Every call is written down, and `PowerLossFS.cuts` plays the record again; so a record can also be played with calls left out or
in another order: `PowerLossFS.cuts` of the record without one sync must give images that are broken, or the sync is useless or
the check is blind. What may be lost is told in `openckpt.testing.weakdisk`.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

from openckpt.storage.memory import MemorySource
from openckpt.storage.reading import ByteSource, FileStat
from openckpt.storage.writable import OutputFile, WriteBuffer
from openckpt.testing.images import Enumeration, Image
from openckpt.testing.record import Change, Disk, os_error, parts_of
from openckpt.testing.weakdisk import DirectoryNode, FileNode, Node, cells_of

BLOCK_BYTES = 4096


class _File:
    """An open file or lock of a `PowerLossFS`."""

    __slots__ = ("handle", "node", "path")

    def __init__(self, path: str, handle: int, node: FileNode) -> None:
        self.path, self.handle, self.node = path, handle, node


class Cut:
    """The moment behind one call: what a power cut there may leave. Good until the next one is taken from the iterator.

    Attributes:
        change: the call; None for the moment before the first.
        notes: the notes made so far, oldest first.
    """

    def __init__(self, disk: Disk, name: str, change: Change | None, notes: Sequence[str]) -> None:
        self.change = change
        self.notes = tuple(notes)
        self._disk, self._name = disk, name
        self._moment = disk.applied

    @property
    def where(self) -> str:
        """The history and the number of the call: the first two words of `Image.replay`."""
        return f"{self._name} {self.change.number if self.change else 0}"

    def images(self, limit: int | None = None, seed: int = 0) -> Iterator[Image]:
        """Yield what may lie on the disk; see `PowerLossFS.images`.

        Raises:
            RuntimeError: the next cut was taken from the iterator, and this moment is over.
        """
        return self._enumeration().images(limit, seed)

    def image(self, choice: str) -> Image:
        """Return the image of one `Image.choice`."""
        return self._enumeration().image(choice)

    def _enumeration(self) -> Enumeration:
        if self._disk.applied != self._moment:
            raise RuntimeError(f"the moment {self.where!r} is over: look at its images before the next cut is taken")
        return Enumeration(self._disk.root, cells_of(self._disk.root), self.where)


class PowerLossFS:
    """A `WritableStore` in memory that yields every image which a weak file system may leave after a power cut.

    Paths are relative to its root; a leading "/" changes nothing. Safe to use from several threads; the order in which they
    come is then part of the record.

    Args:
        files: what lies on it from the start, all synced: path -> bytes, or an `Image` of another one, so that a save can
            go on after a power cut.
        name: what `Image.replay` calls the history, one word.
        block: bytes of a block, the smallest part of a file that is written whole; 512 tears within the blocks of
            most file systems.

    Attributes:
        changes: every call that changed something, and every note; what `cuts` plays again.
    """

    def __init__(
        self, files: Mapping[str, bytes] | Image | None = None, *, name: str = "history", block: int = BLOCK_BYTES
    ) -> None:
        directories: Iterable[str] = ()
        if isinstance(files, Image):
            directories = files.directories
            files = files.files
        self._files = dict(files or {})
        self._directories = tuple(directories)
        self._name, self._block = name, block
        self._disk = self._fresh()
        self._locked: set[int] = set()
        self._open: set[int] = set()
        self._handles = 0
        self._guard = threading.RLock()
        self.changes: list[Change] = []

    def _fresh(self) -> Disk:
        return Disk(self._files, self._directories, self._block)

    # -- what is left -------------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[str]:
        """Every call that changed something and every note, a line each."""
        return [str(change) for change in self.changes]

    def note(self, text: str) -> None:
        """Write into the record what has happened here ("saved 2"), for `Cut.notes`."""
        with self._guard:
            self._record(Change(len(self.changes) + 1, "note", text))

    def images(self, limit: int | None = None, seed: int = 0) -> Iterator[Image]:
        """Yield what may lie on the disk if the power goes now, each tree once.

        Where there are at most ``limit`` combinations (4,096 if None), all of them. Else ``limit`` images: nothing lost,
        everything unsynced lost, one change away from these, then pairs of changes and random draws.

        Args:
            limit: the most images.
            seed: for the draws.
        """
        return self._now().images(limit, seed)

    def cuts(self, changes: Iterable[Change] | None = None) -> Iterator[Cut]:
        """Play the record again and stop behind every call, where the power may go.

        Args:
            changes: another record than `changes`: with syncs left out, say, or in another order.

        Raises:
            OSError: a record that was changed cannot be played; a rename of what is not there.
        """
        disk, notes = self._fresh(), list[str]()
        yield Cut(disk, self._name, None, notes)
        for change in list(self.changes) if changes is None else changes:
            disk.apply(change)
            if change.name == "note":
                notes.append(change.path)
            yield Cut(disk, self._name, change, notes)

    def image(self, replay: str) -> Image:
        """Return the image that a line of `Image.replay` means, in this record or an equal one.

        Raises:
            LookupError: the record has no such call.
        """
        _, number, choice = replay.rsplit(" ", 2)
        for cut in self.cuts():
            if cut.change is None or cut.change.number < int(number):
                continue
            return cut.image(choice)
        raise LookupError(f"the record has {len(self.changes)} calls, none with number {number}")

    def kill_writers(self) -> None:
        """Let go of every lock and open file, as the death of their process does; nothing that was written is lost."""
        with self._guard:
            self._locked.clear()
            self._open.clear()

    def _now(self) -> Cut:
        return Cut(self._disk, self._name, self.changes[-1] if self.changes else None, ())

    def _record(self, change: Change) -> None:
        self._disk.apply(change)
        self.changes.append(change)

    def _do(self, name: str, path: str, target: str = "") -> None:
        with self._guard:
            self._record(Change(len(self.changes) + 1, name, path, target))

    def _handle(self, file: OutputFile) -> _File:
        assert isinstance(file, _File)
        if file.handle not in self._open:
            raise os_error(errno.EBADF, file.path)
        return file

    # -- Store --------------------------------------------------------------------------------------------------------

    def open(self, path: str) -> ByteSource:
        """Open the current bytes of a file."""
        with self._guard:
            return MemorySource(path, self._disk.file(path).content())

    def stat(self, path: str) -> FileStat | None:
        """Return what a path is."""
        with self._guard:
            node = self._disk.find(path)
            return None if node is None else _stat((parts_of(path) or [""])[-1], path, node)

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies in a directory."""
        with self._guard:
            names = self._disk.directory(path).names
            return [_stat(name, self.join(path, name), node) for name, node in names.items()]

    def expect(self, paths: Sequence[str]) -> None:
        """Nothing to prepare."""

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        return f"{directory.rstrip('/')}/{name}" if directory else name

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)``."""
        directory, _, name = path.rpartition("/")
        return directory, name

    def display(self, path: str) -> str:
        """Return the path itself."""
        return path

    # -- WritableStore ------------------------------------------------------------------------------------------------

    def create(self, path: str) -> OutputFile:
        """Create a new file."""
        with self._guard:
            return self._opened("create", path)

    def _opened(self, name: str, path: str) -> _File:
        self._handles += 1
        handle = self._handles
        self._record(Change(len(self.changes) + 1, name, path, handle=handle))
        self._open.add(handle)
        return _File(path, handle, self._disk.handles[handle])

    def allocate(self, file: OutputFile, offset: int, size: int) -> None:
        """Make the file as long as it will be."""
        with self._guard:
            handle = self._handle(file).handle
            self._record(Change(len(self.changes) + 1, "allocate", file.path, handle=handle, offset=offset, size=size))

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write everything."""
        data = b"".join(buffers)
        with self._guard:
            handle = self._handle(file).handle
            number = len(self.changes) + 1
            self._record(Change(number, "write", file.path, handle=handle, offset=offset, size=len(data), data=data))
        return len(data)

    def read(self, file: OutputFile, offset: int, size: int) -> bytes:
        """Read what is there."""
        with self._guard:
            return self._handle(file).node.read(offset, size)

    def size(self, file: OutputFile) -> int:
        """Return the current size."""
        with self._guard:
            return self._handle(file).node.size

    def start_sync(self, file: OutputFile, offset: int, size: int) -> None:
        """Nothing: what was written may be on the medium in part anyway, and nothing is promised."""

    def sync(self, file: OutputFile) -> None:
        """Make the current bytes and size of a file last; not its name."""
        with self._guard:
            handle = self._handle(file).handle
            self._record(Change(len(self.changes) + 1, "sync", file.path, handle=handle))

    def sync_path(self, path: str) -> None:
        """Make the current bytes and size of a file last, whoever wrote them."""
        self._do("sync_path", path)

    def close(self, file: OutputFile) -> None:
        """Let go of a file or a lock."""
        with self._guard:
            handle = self._handle(file)
            self._open.discard(handle.handle)
            self._locked.discard(handle.node.number)

    def rename(self, source: str, target: str) -> None:
        """Rename over what is there."""
        self._do("rename", source, target)

    def rename_new(self, source: str, target: str) -> None:
        """Rename without replacing."""
        self._do("rename_new", source, target)

    def link(self, source: str, target: str) -> None:
        """Give a second name."""
        self._do("link", source, target)

    def remove(self, path: str) -> None:
        """Take a name away."""
        self._do("remove", path)

    def make_directory(self, path: str) -> None:
        """Create a directory."""
        self._do("make_directory", path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self._do("remove_directory", path)

    def sync_directory(self, path: str) -> bool:
        """Make the current names of a directory last; not its own name."""
        self._do("sync_directory", path)
        return True

    def free_bytes(self, path: str) -> int | None:
        """Nobody knows."""
        return None

    def try_lock(self, path: str) -> OutputFile | None:
        """Lock a file, which is created where it is not there; None where it is locked through this object."""
        with self._guard:
            node = self._disk.find(path)
            if node is not None and node.number in self._locked:
                return None
            file = self._opened("try_lock", path)
            self._locked.add(file.node.number)
            return file

    def try_claim(self, path: str) -> OutputFile | None:
        """Hold a file that is there; None where it is held or locked through this object. Changes nothing."""
        with self._guard:
            node = self._disk.file(path)
            if node.number in self._locked:
                return None
            self._handles += 1
            self._open.add(self._handles)
            self._locked.add(node.number)
            return _File(path, self._handles, node)


def _stat(name: str, path: str, node: Node) -> FileStat:
    if isinstance(node, DirectoryNode):
        return FileStat(name, path, "dir", 0, identity=(node.number,))
    return FileStat(name, path, "file", node.size, identity=(node.number, node.size))
