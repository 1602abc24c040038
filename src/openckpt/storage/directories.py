"""Directories of a save: made where they are not there, and their names kept safe from a power cut as far as the system can."""

from __future__ import annotations

from openckpt.errors import warn
from openckpt.storage.pending import attempt, doing
from openckpt.storage.writable import Durability, WritableStore


class Directories:
    """Makes and syncs directories for one save.

    Attributes:
        durability: what the names survive so far: less than asked for where the file system refused to sync a directory.
    """

    def __init__(self, store: WritableStore, durability: Durability) -> None:
        self._store = store
        self._durable = durability == "power-loss"
        self.durability: Durability = durability
        self._made: list[str] = []

    def make(self, directory: str) -> None:
        """Make a directory with its parents, as far as they are not there, and sync what names them."""
        missing = []
        directory = directory.rstrip("/")
        while directory and not self._is_there(directory):
            missing.append(directory)
            directory = self._store.split(directory)[0].rstrip("/")
        if directory and self._durable:
            self._sync_name_of(directory)
        for path in reversed(missing):
            try:
                with doing("mkdir", path):
                    self._store.make_directory(path)
            except FileExistsError:
                pass  # another writer was faster, and may die before it syncs
            else:
                self._made.append(path)
            self.sync(self._store.split(path)[0])

    def _is_there(self, path: str) -> bool:
        with doing("stat", path):
            return self._store.stat(path) is not None

    def _sync_name_of(self, directory: str) -> None:
        """Sync the name of a directory that is there: whoever made it may have died before that.

        Not those above it: a chain of directories that another program has just made is that program's to sync.
        """
        parent = self._store.split(directory)[0]
        try:
            with doing("sync of the directory", parent or "."):
                self._store.sync_directory(parent)
        except PermissionError:
            pass  # nobody of this user's can have made it

    def sync(self, path: str) -> None:
        """Make the names in a directory safe, where the save is to survive a power cut; warns where the system cannot."""
        if not self._durable:
            return
        with doing("sync of the directory", path or "."):
            synced = self._store.sync_directory(path)
        if not synced and self.durability == "power-loss":
            self.durability = "process-crash"
            warn(
                f"{path or '.'}: this file system cannot sync a directory, so the save survives a crash of the program but "
                "perhaps not a power cut; the result's durability says so"
            )

    def remove_made(self) -> None:
        """Remove the directories that were made, where they are empty."""
        for path in reversed(self._made):
            attempt(self._store.remove_directory, path)
