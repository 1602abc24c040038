"""The durable commit of a checkpoint: several files, and one moment at which all of them count (docs/decisions/0015).

    1  STEM.openckpt-lock              exclusive lock: one writer per prefix; then dead writers' leftovers are swept
    2  STEM.<n>.openckpt-tmp           data under temporary names           write, sync, all files at once
    3  ... -> STEM.data-0000?-of-...   rename without replacing             sync directory
    4  STEM.<n>.openckpt-tmp           index                                write, sync, read back and check
    5  ... -> STEM.index               rename, replacing                    sync directory     <- the commit point
    6  checkpoint                      manifest, under a lock of its own    write, sync, rename, sync directory
    7  old data, the lock              remove

At every instant, and after a power cut at any instant, a reader finds the old checkpoint or the new one, never a mixture. An
error at any call undoes what had become visible, newest first; what cannot be undone keeps its lock file, unheld: the mark of
a dead writer, whose leftovers the next save in the directory sweeps.

This module knows files, not formats: which bytes are an index, and which data is a dead writer's, its callers say.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType

from openckpt.errors import ConflictError
from openckpt.storage.directories import Directories
from openckpt.storage.pending import PendingFile, attempt, doing, has_no_links, settle_all
from openckpt.storage.reading import FileStat
from openckpt.storage.sweeping import Settle, sweep
from openckpt.storage.temporary import temporary_name
from openckpt.storage.writable import Durability, OutputFile, WritableStore
from openckpt.storage.writer_locks import release, take_lock


class Commit:
    """One save into one directory; a context manager. Leaving the block by an error undoes everything.

    Args:
        store: where to write.
        directory: path of the directory, made with its parents where it is not there.
        stem: last part of the prefix; lock and temporary files are called after it.
        durability: see `openckpt.storage.writable.Durability`.
        settle: see `Settle`.
        wait: for a small file that several programs update, wait up to ten seconds for the one that does so now.

    Raises:
        ConflictError: another program or thread is writing this prefix (``commit.locked``).
        OSError: the system refused a call; a note names call and path, and what could not be undone.
    """

    def __init__(
        self,
        store: WritableStore,
        directory: str,
        stem: str,
        *,
        durability: Durability = "power-loss",
        settle: Settle | None = None,
        wait: bool = False,
    ) -> None:
        self._wait = wait
        self.directory = directory
        self.stem = stem
        self._store = store
        self._durable = durability == "power-loss"
        self._directories = Directories(store, durability)
        self._settle = settle
        self._lock: OutputFile | None = None
        self._files: list[PendingFile] = []
        self._temporary: dict[str, None] = {}
        self._numbers = 0
        self._undo: list[Callable[[], None]] = []
        self._retiring = False  # interrupted in it, the lock stays, whose note says what is left
        self._process: int | None = None

    @property
    def durability(self) -> Durability:
        """What holds so far: less than asked for where the file system refused to sync a directory."""
        return self._directories.durability

    def __enter__(self) -> Commit:
        self._process = os.getpid()
        try:
            self._lock = self._enter_directory()
            sweep(self._store, self.directory, settle=self._settle, own=(self.stem, self._lock))
        except BaseException as error:
            self._roll_back(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process != os.getpid():
            return  # a fork leaves the block: what lies there is its parent's
        if error is not None:
            self._roll_back(error)
        else:
            self._clean(remove_lock=True)

    # -- the steps ----------------------------------------------------------------------------------------------------

    def require_space(self, nbytes: int) -> None:
        """Raise OSError (ENOSPC) where the file system has fewer bytes left than will be written."""
        with doing("check of the free space", self.directory or "."):
            free = self._store.free_bytes(self.directory)
            if free is not None and free < nbytes:
                message = f"{os.strerror(errno.ENOSPC)}: {nbytes} bytes to write, {free} are free"
                raise OSError(errno.ENOSPC, message, self.directory or ".")

    def create(self) -> PendingFile:
        """Return a new file under a temporary name."""
        file = PendingFile(self._store, self._temporary_path(self.stem), durable=self._durable)
        self._files.append(file)
        return file

    def put(self, data: bytes) -> PendingFile:
        """Return a new file that holds ``data``."""
        file = self.create()
        if data:
            file.write(0, [data], len(data))
        return file

    def publish(
        self,
        names: Mapping[PendingFile, str],
        *,
        adopted: Mapping[str, str] | None = None,
        linked: Mapping[str, str] | None = None,
        record: bytes = b"",
    ) -> None:
        """Give data files their names, none of which may be taken, once all their bytes are safe.

        Args:
            names: file -> its name in the directory.
            adopted: path of a file that is there already -> the second name that it gets in the directory. Where the file
                system has no hard links it is renamed.
            linked: the same of files that keep their first name; OSError where the file system has no hard links.
            record: what `Settle` needs should this process die before the commit point.

        Raises:
            ConflictError: a name is taken (``commit.exists``); nothing is replaced.
        """
        if record and self._lock is not None:
            with doing("write", self._lock.path):
                self._store.write(self._lock, 0, [record + b"\n"])
        settle_all(list(names))
        for file, name in names.items():
            self._rename_new(file.path, self._path(name), partial(self._take_back, file.path, self._path(name)))
            self._temporary.pop(file.path)
        for source, name in (adopted or {}).items():
            self._adopt(source, self._path(name))
        for source, name in (linked or {}).items():
            self._adopt(source, self._path(name), movable=False)
        self._directories.sync(self.directory)

    def _rename_new(self, source: str, path: str, undo: Callable[[], None]) -> None:
        # Noted before it is done, here and below: a Ctrl-C may come between the two.
        self._undo.append(undo)
        try:
            with doing("rename", path):
                self._store.rename_new(source, path)
        except FileExistsError:
            raise ConflictError("commit.exists", path, "a file of this name is there already") from None

    def _take_back(self, source: str, path: str) -> None:
        """Remove a name that was to be given to the file ``source``, if it was."""
        there, named = self._stat(source), self._stat(path)
        if named is not None and (there is None or there.identity == named.identity):
            self._store.remove(path)

    def _move_back(self, source: str, path: str) -> None:
        """Give a file its old name again, if it was renamed."""
        if self._stat(source) is None:
            self._store.rename_new(path, source)

    def _adopt(self, source: str, path: str, *, movable: bool = True) -> None:
        if movable and self._stat(source) is None and self._stat(path) is not None:
            return  # an earlier try, without hard links, died after it had renamed this one
        if self._durable:
            with doing("sync", source):
                self._store.sync_path(source)
        self._undo.append(partial(self._take_back, source, path))
        try:
            with doing("link", path):
                self._store.link(source, path)
        except FileExistsError:
            raise ConflictError("commit.exists", path, "a file of this name is there already") from None
        except OSError as error:
            if not movable or not has_no_links(error):
                raise
            if self._lock is not None:  # from here on its final name may be the only one: no sweep may take it
                with doing("write", self._lock.path):
                    self._store.write(self._lock, 0, [b"\n"])
            self._undo[-1] = partial(self._move_back, source, path)
            self._rename_new(source, path, self._undo[-1])

    def switch(self, file: PendingFile, name: str, *, check: Callable[[bytes], None] | None = None) -> None:
        """Put a file in the place of what has its name: the commit point, where everything else is in place.

        Args:
            file: what was written.
            name: its name in the directory.
            check: gets the file's bytes, read again from the store, and raises where they are not what they should be.
        """
        file.settle()
        path = self._path(name)
        if check is not None:
            check(self._read(file.path) or b"")
        self._switch(file.path, path, self._backup(self.stem, path))

    def follow(self, name: str, make: Callable[[bytes | None], bytes]) -> None:
        """Replace a small file that other saves of the directory update too (the manifest), one after the other.

        Args:
            name: its name in the directory; it has a lock of its own.
            make: its new bytes from the present ones, None where there is no such file.
        """
        lock = take_lock(self._store, self.directory, name, wait=True)
        steps = len(self._undo)
        try:
            path = self._path(name)
            data = make(self._read(path))
            # Called after this save and not after the manifest: its lock guards them, and outlives the one taken here.
            file = PendingFile(self._store, self._temporary_path(self.stem), durable=self._durable)
            self._files.append(file)
            file.write(0, [data], len(data))
            file.settle()
            self._switch(file.path, path, self._backup(self.stem, path))
        except BaseException:
            with suppress(OSError):  # then it is tried again, and told, when the rest is undone
                self._undo_to(steps)  # while nobody else can have put his own in its place
            raise
        finally:
            release(self._store, lock)

    def retire(self, names: Iterable[str], *, settle: str | None = None) -> bool:
        """Remove files that the commit has made useless; from here on there is no way back, whatever interrupts it.

        With ``settle``, a directory below the commit's, its names are synced behind that: for what must be gone before something
        else goes. Returns whether everything is gone for good; what could not be removed is left to a later save.
        """
        self._undo.clear()
        self._retiring = True
        gone = [attempt(self._store.remove, self._path(name)) for name in names]
        if settle is not None and self._durable:
            gone.append(attempt(self._store.sync_directory, self._path(settle)))
        self._retiring = False
        return all(gone)

    def retire_directory(self, name: str) -> None:
        """Remove a directory that the commit has made useless, where it is empty."""
        attempt(self._store.remove_directory, self._path(name))

    # -- how ----------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return self._store.join(self.directory, name)

    def _temporary_path(self, stem: str) -> str:
        path = self._path(temporary_name(stem, self._numbers))
        self._numbers += 1
        self._temporary[path] = None
        return path

    def _enter_directory(self) -> OutputFile:
        """Return the lock of the stem in the directory, which is made where it is not there."""
        for last in (False, False, True):
            self._directories.make(self.directory)
            try:
                return take_lock(self._store, self.directory, self.stem, wait=self._wait)
            except FileNotFoundError:
                if last:
                    raise  # else: another save had made it too, failed, and took it away again
        raise AssertionError("the last attempt returns or raises")

    def _stat(self, path: str) -> FileStat | None:
        with doing("stat", path):
            return self._store.stat(path)

    def _read(self, path: str) -> bytes | None:
        if self._stat(path) is None:
            return None
        with doing("read", path):
            source = self._store.open(path)
            try:
                return source.read_at(0, source.size)
            finally:
                source.close()

    def _backup(self, stem: str, path: str) -> str | None:
        """Keep what has this name under a temporary one, so that a failure behind the rename can bring it back."""
        if self._stat(path) is None:
            return None
        backup = self._temporary_path(stem)
        try:
            with doing("link", backup):
                self._store.link(path, backup)
        except OSError as error:
            if not has_no_links(error):
                raise
            data = self._read(path) or b""
            copy = PendingFile(self._store, backup, durable=self._durable)
            self._files.append(copy)
            copy.write(0, [data], len(data))
            copy.settle()
        return backup

    def _switch(self, temporary: str, path: str, backup: str | None) -> None:
        def undo() -> None:
            if self._stat(temporary) is not None:
                return  # it was not renamed
            if backup is None:
                self._take_back(temporary, path)
            elif backup in self._temporary:
                self._store.rename(backup, path)
                self._temporary.pop(backup)
            # Before any data goes: a power cut must not find the new index without its data.
            if self._durable:
                self._store.sync_directory(self.directory)

        self._undo.append(undo)
        with doing("rename", path):
            self._store.rename(temporary, path)
        self._temporary.pop(temporary)
        self._directories.sync(self.directory)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _roll_back(self, error: BaseException) -> None:
        try:
            self._undo_to(0)
        except OSError as refused:
            error.add_note(
                f"it could not be undone completely ({refused}): look at {self._path(self.stem)} with `openckpt doctor`; "
                "the next save in this directory sweeps what is left"
            )
        self._clean(remove_lock=not self._undo and not self._retiring)
        self._directories.remove_made()

    def _undo_to(self, steps: int) -> None:
        while len(self._undo) > steps:
            self._undo[-1]()
            self._undo.pop()

    def _clean(self, *, remove_lock: bool) -> None:
        try:
            for file in self._files:
                attempt(file.close)
            for path in self._temporary:
                attempt(self._store.remove, path)
        finally:
            lock, self._lock = self._lock, None
            if lock is not None and remove_lock:
                release(self._store, lock)
            elif lock is not None:
                attempt(self._store.close, lock)
