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

This module knows files, not formats: which bytes are an index, and which data a dead writer had already given its final
name, its callers say.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from openckpt.errors import CheckpointWarning, ConflictError
from openckpt.storage.pending import PendingFile, doing, settle_all
from openckpt.storage.reading import FileStat
from openckpt.storage.temporary import TEMP_SUFFIX, lock_name, stem_of, temporary_name
from openckpt.storage.writable import Durability, OutputFile, WritableStore

_LOCK_TRIES, _LOCK_PAUSE = 20, 0.005  # a sweeper holds a free lock for a moment
_MANIFEST_TRIES = 2_000  # ten seconds: another prefix of the directory is updating it
_RECORD_BYTES = 4096

Settle = Callable[[WritableStore, str, str, bytes], None]
"""Removes the data that a dead writer had published and nothing names: ``settle(store, directory, stem, record)``."""


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
        self._lock_tries = _MANIFEST_TRIES if wait else _LOCK_TRIES
        self.directory = directory
        self.stem = stem
        self._store = store
        self._durable = durability == "power-loss"
        self._held: Durability = durability
        self._settle = settle
        self._lock: OutputFile | None = None
        self._files: list[PendingFile] = []
        self._temporary: dict[str, None] = {}
        self._numbers = 0
        self._undo: list[Callable[[], None]] = []

    @property
    def durability(self) -> Durability:
        """What holds so far: less than asked for where the file system refused to sync a directory."""
        return self._held

    def __enter__(self) -> Commit:
        try:
            self._make_directories()
            self._lock = self._take_lock(self.stem, self._lock_tries)
            sweep(self._store, self.directory, settle=self._settle, own=(self.stem, self._lock))
        except BaseException as error:
            self._roll_back(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._roll_back(error)
        else:
            self._clean(remove_lock=True)

    # -- the steps ----------------------------------------------------------------------------------------------------

    def require_space(self, nbytes: int) -> None:
        """Raise OSError (ENOSPC) where the file system has fewer bytes left than will be written."""
        import errno

        with doing("statvfs", self.directory or "."):
            free = self._store.free_bytes(self.directory)
        if free is not None and free < nbytes:
            message = f"not enough room: {nbytes} bytes to write, {free} are free"
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
        record: bytes = b"",
    ) -> None:
        """Give data files their names, none of which may be taken, once all their bytes are safe.

        Args:
            names: file -> its name in the directory.
            adopted: path of a file that is there already -> the second name that it gets in the directory. Where the file
                system has no hard links it is renamed.
            record: what `Settle` needs should this process die before the commit point.

        Raises:
            ConflictError: a name is taken (``commit.exists``); nothing is replaced.
        """
        if record and self._lock is not None:
            with doing("write", self._lock.path):
                self._store.write(self._lock, 0, [record + b"\n"])
        settle_all(list(names))
        for file, name in names.items():
            self._rename_new(file.path, self._path(name))
            self._temporary.pop(file.path)
            self._undo.append(partial(self._store.remove, self._path(name)))
        for source, name in (adopted or {}).items():
            self._adopt(source, self._path(name))
        self._sync_directory()

    def _rename_new(self, source: str, path: str) -> None:
        try:
            with doing("rename", path):
                self._store.rename_new(source, path)
        except FileExistsError:
            raise ConflictError("commit.exists", path, "a file of this name is there already") from None

    def _adopt(self, source: str, path: str) -> None:
        if self._store.stat(source) is None and self._store.stat(path) is not None:
            return  # an earlier try, without hard links, died after it had renamed this one
        if self._durable:
            with doing("sync", source):
                self._store.sync_path(source)
        try:
            with doing("link", path):
                self._store.link(source, path)
        except FileExistsError:
            raise ConflictError("commit.exists", path, "a file of this name is there already") from None
        except OSError as error:
            if not _has_no_links(error):
                raise
            if self._lock is not None:  # from here on its final name may be the only one: no sweep may take it
                with doing("write", self._lock.path):
                    self._store.write(self._lock, 0, [b"\n"])
            self._rename_new(source, path)
            self._undo.append(partial(self._store.rename_new, path, source))
        else:
            self._undo.append(partial(self._store.remove, path))

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
        lock = self._take_lock(name, _MANIFEST_TRIES)
        try:
            path = self._path(name)
            data = make(self._read(path))
            file = PendingFile(self._store, self._temporary_path(name), durable=self._durable)
            self._files.append(file)
            file.write(0, [data], len(data))
            file.settle()
            self._switch(file.path, path, self._backup(name, path))
        finally:
            self._release(lock)

    def retire(self, names: Iterable[str]) -> None:
        """Remove files that the commit has made useless; what cannot be removed is left to a later save."""
        for name in names:
            _attempt(self._store.remove, self._path(name))

    def retire_directory(self, name: str) -> None:
        """Remove a directory that the commit has made useless, where it is empty."""
        _attempt(self._store.remove_directory, self._path(name))

    # -- how ----------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return self._store.join(self.directory, name)

    def _temporary_path(self, stem: str) -> str:
        path = self._path(temporary_name(stem, self._numbers))
        self._numbers += 1
        self._temporary[path] = None
        return path

    def _make_directories(self) -> None:
        missing = []
        directory = self.directory.rstrip("/")
        while directory and self._stat(directory) is None:
            missing.append(directory)
            directory = self._store.split(directory)[0].rstrip("/")
        for path in reversed(missing):
            try:
                with doing("mkdir", path):
                    self._store.make_directory(path)
            except FileExistsError:
                continue
            self._undo.append(partial(_attempt, self._store.remove_directory, path))
            self._sync_directory(self._store.split(path)[0])

    def _sync_directory(self, directory: str | None = None) -> None:
        path = self.directory if directory is None else directory
        if not self._durable:
            return
        with doing("sync of the directory", path or "."):
            synced = self._store.sync_directory(path)
        if not synced and self._held == "power-loss":
            self._held = "process-crash"
            warnings.warn(
                f"{path or '.'}: this file system cannot sync a directory, so the save survives a crash of the program but "
                "perhaps not a power cut; the result's durability says so",
                CheckpointWarning,
                stacklevel=3,
            )

    def _take_lock(self, stem: str, tries: int) -> OutputFile:
        path = self._path(lock_name(stem))
        for attempt in range(tries):
            if attempt:
                time.sleep(_LOCK_PAUSE)
            with doing("lock", path):
                lock = self._store.try_lock(path)
            if lock is not None:
                return lock
        raise ConflictError("commit.locked", self._path(stem), "another program or thread is saving this right now")

    def _release(self, lock: OutputFile) -> None:
        # Removed while it is held: who opens it after that has opened a file without a name, and sees so.
        _attempt(self._store.remove, lock.path)
        _attempt(self._store.close, lock)

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
            if not _has_no_links(error):
                raise
            data = self._read(path) or b""
            copy = PendingFile(self._store, backup, durable=False)
            self._files.append(copy)
            copy.write(0, [data], len(data))
        return backup

    def _switch(self, temporary: str, path: str, backup: str | None) -> None:
        with doing("rename", path):
            self._store.rename(temporary, path)
        self._temporary.pop(temporary)

        def undo() -> None:
            if backup is None:
                self._store.remove(path)
            else:
                self._store.rename(backup, path)
                self._temporary.pop(backup)
            # Before any data goes: a power cut must not find the new index without its data.
            if self._durable:
                self._store.sync_directory(self.directory)

        self._undo.append(undo)
        self._sync_directory()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _roll_back(self, error: BaseException) -> None:
        try:
            while self._undo:
                self._undo[-1]()
                self._undo.pop()
        except OSError as refused:
            error.add_note(
                f"it could not be undone completely ({refused}): look at {self._path(self.stem)} with `openckpt doctor`; "
                "the next save in this directory sweeps what is left"
            )
        self._clean(remove_lock=not self._undo)

    def _clean(self, *, remove_lock: bool) -> None:
        for file in self._files:
            _attempt(file.close)
        for path in self._temporary:
            _attempt(self._store.remove, path)
        if self._lock is not None:
            if remove_lock:
                self._release(self._lock)
            else:
                _attempt(self._store.close, self._lock)
            self._lock = None


def _attempt(step: Callable[..., None], *arguments: Any) -> None:
    """Run a step of tidying up: what it cannot remove is swept by the next save in the directory."""
    try:
        step(*arguments)
    except OSError:
        pass


def _has_no_links(error: OSError) -> bool:
    import errno

    return error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def sweep(
    store: WritableStore,
    directory: str,
    *,
    settle: Settle | None = None,
    own: tuple[str, OutputFile] | None = None,
) -> None:
    """Remove what dead writers left in a directory: those whose lock nobody holds.

    Args:
        store: where.
        directory: its path.
        settle: see `Settle`.
        own: the stem that the caller writes and the lock it holds on it; only its leftovers must go, others' may stay.
    """
    leftovers: dict[str, list[FileStat]] = {}
    with doing("list", directory or "."):
        for stat in store.scan(directory):
            stem = stem_of(stat.name)
            if stem is not None and stat.kind == "file" and not stat.link:
                leftovers.setdefault(stem, []).append(stat)
    for stem, stats in leftovers.items():
        if own is not None and stem == own[0]:
            _sweep_stem(store, directory, stem, stats, own[1], settle)
            continue
        path = store.join(directory, lock_name(stem))
        try:
            lock = store.try_lock(path)
            if lock is None:
                continue  # it lives
            try:
                _sweep_stem(store, directory, stem, stats, lock, settle)
                store.remove(path)
            finally:
                store.close(lock)
        except OSError:
            continue  # other people's leftovers must not stop this save


def _sweep_stem(
    store: WritableStore, directory: str, stem: str, stats: list[FileStat], lock: OutputFile, settle: Settle | None
) -> None:
    with doing("sweep of what a dead writer left at", store.join(directory, stem)):
        record, ended, _ = store.read(lock, 0, _RECORD_BYTES).partition(b"\n")
        if record and ended and settle is not None:
            settle(store, directory, stem, record)
            store.write(lock, 0, [b"\n"])
        for stat in stats:
            if stat.name.endswith(TEMP_SUFFIX):
                store.remove(stat.path)
