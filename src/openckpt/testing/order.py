"""`OrderFS`: the order of a commit, asserted call by call.

A save that syncs too little works until the power goes; one that deletes too early works until it is killed. Both show in the
order of the calls, so every test that saves can watch for them:

    names-behind-bytes      a final name is given only to a file whose every byte has been synced since it was written
    sync-tried-again        ... and none of whose syncs was ever refused: a second one may say yes to pages that are gone
    index-behind-data       an index gets its name when each shard that it needs has its own, and the directory was synced since
    manifest-behind-index   another file gets its final name when the directory was synced behind the last index
    switch-before-removal   no data is removed or replaced that an index needs, or may need again after a power cut
    published-is-final      nothing is written to a file that has a final name
    nothing-left            at the end there is no temporary name, no lock, no final name whose directory was not synced

With durability "process-crash" nothing has to be synced, and the rest of each rule holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from openckpt.errors import CheckpointError
from openckpt.formats.bundle.header import header_of
from openckpt.formats.names import INDEX_SUFFIX, is_part_file, parse_index_name, parse_shard_name, shard_name
from openckpt.formats.sstable.table import Table
from openckpt.storage.writable import Durability, OutputFile, WritableStore, WriteBuffer
from openckpt.testing.calls import CallFS

T = TypeVar("T")


class _Watched:
    """A file that was created through the store: which of its writes a sync has covered."""

    __slots__ = ("begun", "covered", "path", "published", "spoiled", "under_way")

    def __init__(self, path: str) -> None:
        self.path = path
        self.begun = 0  # writes
        self.covered = 0  # writes that were complete when a sync began that is over
        self.under_way: set[int] = set()
        self.published = ""
        self.spoiled = False

    @property
    def complete(self) -> int:
        """The number of the last write before which all are over."""
        return min(self.under_way, default=self.begun + 1) - 1


def is_openckpt_temporary(name: str) -> bool:
    """Return whether a file name is that of a lock or temporary file of openckpt's own commit."""
    return name.endswith((".openckpt-tmp", ".openckpt-lock"))


class OrderFS(CallFS):
    """A `WritableStore` that hands every call on and asserts the rules above.

    A violation raises AssertionError with the rule and the history, inside the call; and once more from `check`, should the
    saver have swallowed it.

    Args:
        store: where the calls go.
        durability: what the saver promises; None finds out: a save that never syncs is taken for "process-crash".
        is_temporary: tells temporary file names from final ones; openckpt's own unless given.

    Attributes:
        violations: what was wrong, a text for each.
    """

    def __init__(
        self,
        store: WritableStore,
        *,
        durability: Durability | None = "power-loss",
        is_temporary: Callable[[str], bool] = is_openckpt_temporary,
    ) -> None:
        super().__init__(store)
        self.violations: list[str] = []
        self._durability = durability
        self._is_temporary = is_temporary
        self._guard = threading.RLock()
        self._files: dict[int, _Watched] = {}  # by id of the handle, which it keeps alive
        self._handles: list[OutputFile] = []
        self._names: dict[str, _Watched] = {}
        self._temporary: set[str] = set()
        self._locks: dict[int, str] = {}
        self._unsynced: dict[str, set[str]] = {}  # directory -> final names given since its last sync
        self._needs: dict[
            str, list[frozenset[str]]
        ] = {}  # index -> data it may need after a power cut; the last one now
        self._synced_once = False

    # -- the rules ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError for everything that was wrong so far."""
        if self.violations:
            raise AssertionError(self.violations[0])

    def check_end(self) -> None:
        """Raise AssertionError for everything that was wrong, and where a save that is over has left something behind."""
        self.check()
        if self._temporary:
            self._violated("nothing-left", f"{sorted(self._temporary)} still there when the save was over")
        if self._locks:
            self._violated("nothing-left", f"{sorted(self._locks.values())} still locked when the save was over")
        unsynced = sorted(name for names in self._unsynced.values() for name in names)
        if unsynced and self._must_sync():
            self._violated("nothing-left", f"{unsynced} were named, and their directory was never synced since")

    def _must_sync(self) -> bool:
        return self._synced_once if self._durability is None else self._durability == "power-loss"

    def _violated(self, rule: str, what: str) -> None:
        text = f"{rule}: {what}; the calls were\n" + "\n".join(f"  {line}" for line in self.history)
        self.violations.append(text)
        raise AssertionError(text)

    def _is_final(self, path: str) -> bool:
        return not self._is_temporary(self.split(path)[1])

    def _check_publication(self, source: str, target: str) -> None:
        """Check a rename or link of ``source`` to the final name ``target``, before it happens."""
        file, directory = self._names.get(source), self.split(target)[0]
        if self._must_sync():
            if file is not None and file.spoiled:
                self._violated("sync-tried-again", f"{target} gets its name, but a sync of {source} was refused")
            if file is not None and file.covered < file.begun:
                self._violated(
                    "names-behind-bytes", f"{target} gets its name, but {source} was written and not synced since"
                )
        unsynced = self._unsynced.get(directory, set()) if self._must_sync() else set()
        prefix = parse_index_name(target)
        if prefix is not None:
            late = sorted(name for name in unsynced if _prefix_of_shard(name) == prefix)
            if late:
                self._violated(
                    "index-behind-data", f"{target} gets its name, but {directory or '.'} was not synced behind {late}"
                )
            absent = sorted(name for name in self._needed_by(source, prefix) if self.store.stat(name) is None)
            if absent:
                self._violated("index-behind-data", f"{target} gets its name, but {absent} do not have theirs")
        elif parse_shard_name(target) is None:
            late = sorted(name for name in unsynced if name.endswith(INDEX_SUFFIX))
            if late:
                self._violated(
                    "manifest-behind-index",
                    f"{target} gets its name, but {directory or '.'} was not synced behind {late}",
                )

    def _check_removal(self, path: str, verb: str) -> None:
        for index, needs in self._all_needs(path).items():
            may = needs if self._must_sync() else needs[-1:]
            if any(path in names for names in may):
                now = " now" if path in needs[-1] else ", until the directory is synced,"
                self._violated("switch-before-removal", f"{path} is {verb}, and {index} may{now} need it")

    def _all_needs(self, path: str) -> dict[str, list[frozenset[str]]]:
        """Return the index that a data file belongs to, with what it may need; {} for any other file."""
        prefix = _prefix_of_shard(path)
        if prefix is None:
            return {}
        index = prefix + INDEX_SUFFIX
        return {index: self._needs.get(index) or [self._needed_by(index, prefix)]}

    def _needed_by(self, path: str, prefix: str) -> frozenset[str]:
        """Return the data files that the index in ``path`` needs under the name of ``prefix``; none where it is not one."""
        try:
            source = self.store.open(path)
        except OSError:
            return frozenset()
        try:
            count = header_of(Table(source)).num_shards
        except CheckpointError:
            return frozenset()
        finally:
            source.close()
        return frozenset(shard_name(prefix, shard, count) for shard in range(count))

    def _before_index_changes(self, path: str) -> None:
        if path not in self._needs:
            self._needs[path] = [self._needed_by(path, path[: -len(INDEX_SUFFIX)])]

    def _named(self, source: str, target: str, *, moved: bool) -> None:
        """Take note of a rename or link that has happened."""
        file = self._names.pop(source, None) if moved else self._names.get(source)
        if moved:
            self._temporary.discard(source)
        if not self._is_final(target):
            self._temporary.add(target)
        else:
            self._unsynced.setdefault(self.split(target)[0], set()).add(target)
            if target.endswith(INDEX_SUFFIX):
                self._needs[target].append(self._needed_by(target, target[: -len(INDEX_SUFFIX)]))
            if file is not None:
                file.published = target
        if file is not None:
            self._names[target] = file
        else:
            self._names.pop(target, None)

    # -- the calls ----------------------------------------------------------------------------------------------------

    def create(self, path: str) -> OutputFile:
        """Create a new file."""
        file = super().create(path)
        with self._guard:
            watched = self._names[path] = self._files[id(file)] = _Watched(path)
            self._handles.append(file)
            if self._is_final(path):
                watched.published = path  # the first write to it is a violation: who looks meanwhile finds half a file
                self._unsynced.setdefault(self.split(path)[0], set()).add(path)
            else:
                self._temporary.add(path)
        return file

    def allocate(self, file: OutputFile, offset: int, size: int) -> None:
        """Reserve space: a write, as far as the order goes."""
        self._writing(file, lambda: super(OrderFS, self).allocate(file, offset, size))

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write buffers."""
        return self._writing(file, lambda: super(OrderFS, self).write(file, offset, buffers))

    def _writing(self, file: OutputFile, do: Callable[[], T]) -> T:
        watched = self._files.get(id(file))
        if watched is None:  # a lock's record
            return do()
        with self._guard:
            if watched.published:
                self._violated("published-is-final", f"{watched.published} is written to after it got its name")
            watched.begun += 1
            number = watched.begun
            watched.under_way.add(number)
        try:
            return do()
        finally:
            with self._guard:
                watched.under_way.discard(number)

    def sync(self, file: OutputFile) -> None:
        """Sync a file: covers the writes that were over when it began."""
        self._syncing(self._files.get(id(file)), lambda: super(OrderFS, self).sync(file))

    def sync_path(self, path: str) -> None:
        """Sync a file by its name."""
        self._syncing(self._names.get(path), lambda: super(OrderFS, self).sync_path(path))

    def _syncing(self, watched: _Watched | None, do: Callable[[], None]) -> None:
        with self._guard:
            self._synced_once = True
            complete = watched.complete if watched is not None else 0
        try:
            do()
        except BaseException:
            if watched is not None:
                watched.spoiled = True
            raise
        with self._guard:
            if watched is not None:
                watched.covered = max(watched.covered, complete)

    def close(self, file: OutputFile) -> None:
        """Let go of a file or a lock."""
        with self._guard:
            self._locks.pop(id(file), None)
        super().close(file)

    def rename(self, source: str, target: str) -> None:
        """Rename over what is there."""
        self._publish(source, target, lambda: super(OrderFS, self).rename(source, target), replaces=True)

    def rename_new(self, source: str, target: str) -> None:
        """Rename without replacing."""
        self._publish(source, target, lambda: super(OrderFS, self).rename_new(source, target))

    def link(self, source: str, target: str) -> None:
        """Give a second name."""
        self._publish(source, target, lambda: super(OrderFS, self).link(source, target), moved=False)

    def _publish(
        self, source: str, target: str, do: Callable[[], None], *, moved: bool = True, replaces: bool = False
    ) -> None:
        with self._guard:
            if self._is_final(target):
                self._check_publication(source, target)
                if replaces:
                    self._check_removal(target, "replaced")
                if target.endswith(INDEX_SUFFIX):
                    self._before_index_changes(target)
            # A merge without hard links takes the data of its parts over by renaming it, and can be run again.
            if moved and self._is_final(source) and not is_part_file(self.split(source)[1]):
                self._check_removal(source, "renamed")
            do()
            self._named(source, target, moved=moved)

    def remove(self, path: str) -> None:
        """Take a name away."""
        with self._guard:
            self._check_removal(path, "removed")
            if path.endswith(INDEX_SUFFIX):
                self._before_index_changes(path)
            super().remove(path)
            self._names.pop(path, None)
            self._temporary.discard(path)
            self._unsynced.get(self.split(path)[0], set()).discard(path)
            if path.endswith(INDEX_SUFFIX):
                self._needs[path].append(frozenset())

    def make_directory(self, path: str) -> None:
        """Create a directory."""
        super().make_directory(path)
        with self._guard:
            path = path.rstrip("/")
            self._unsynced.setdefault(self.split(path)[0], set()).add(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        super().remove_directory(path)
        with self._guard:
            self._unsynced.get(self.split(path.rstrip("/"))[0], set()).discard(path.rstrip("/"))

    def sync_directory(self, path: str) -> bool:
        """Sync the names of a directory. One that the file system cannot sync counts: nobody can do more."""
        self._synced_once = True
        done = super().sync_directory(path)
        with self._guard:
            self._unsynced.pop(path, None)
            for index in [index for index in self._needs if self.split(index)[0] == path]:
                del self._needs[index]  # what it needs now is on the disk to read
        return done

    def try_lock(self, path: str) -> OutputFile | None:
        """Lock a file."""
        with self._guard:
            if not self._locks:
                self._synced_once = False  # another save begins
            file = super().try_lock(path)
            if file is not None:
                self._handles.append(file)
                self._locks[id(file)] = path
                self._temporary.add(path)
        return file

    def try_claim(self, path: str) -> OutputFile | None:
        """Hold a file against readers."""
        with self._guard:
            file = super().try_claim(path)
            if file is not None:
                self._handles.append(file)
                self._locks[id(file)] = path
        return file


def _prefix_of_shard(path: str) -> str | None:
    parsed = parse_shard_name(path)
    return parsed[0] if parsed is not None else None
