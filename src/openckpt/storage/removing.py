"""Removing a checkpoint: the mirror image of a commit, so that a reader finds it whole or not at all.

    1  STEM.openckpt-lock        the writers' lock: nobody saves this prefix meanwhile
    2  the index                 held against readers: one that has a lease on it keeps the checkpoint
    3  the lock's first line     what is about to go, for whoever sweeps up after a death here
    4  the index                 remove, sync the directory     <- from here on there is no checkpoint
    5  the data, the lock        remove

Leases: `openckpt.storage.leases`.
"""

from __future__ import annotations

from collections.abc import Iterable

from openckpt.storage.pending import attempt, doing
from openckpt.storage.writable import Durability, OutputFile, WritableStore
from openckpt.storage.writer_locks import release, take_lock


def remove_files(
    store: WritableStore,
    directory: str,
    stem: str,
    *,
    index: str,
    data: Iterable[str],
    record: bytes,
    durability: Durability = "power-loss",
) -> bool:
    """Remove the files of one checkpoint, the index first; return False, nothing removed, where a reader has a lease on it.

    Args:
        store: where.
        directory: path of the directory.
        stem: last part of the prefix.
        index: name of the index in the directory; it need not be there.
        data: names of the other files.
        record: see `openckpt.storage.commit.Commit.publish`; tells the next save in the directory what a death here has left.
        durability: whether a power cut between the removals must not leave an index without its data.

    Raises:
        ConflictError: another program or thread is saving this prefix (``commit.locked``).
        OSError: the system refused; a note names call and path. What is left then, the next save in the directory sweeps.
    """
    lock = take_lock(store, directory, stem)
    claim: OutputFile | None = None
    begun = done = False
    try:
        path = store.join(directory, index)
        try:
            with doing("lock", path):
                claim = store.try_claim(path)
        except FileNotFoundError:
            pass  # an earlier removal came this far
        else:
            if claim is None:
                return False
        with doing("write", lock.path):
            store.write(lock, 0, [record + b"\n"])
        begun = True
        if claim is not None:
            _remove(store, path)
        if durability == "power-loss":
            with doing("sync of the directory", directory or "."):
                store.sync_directory(directory)
        for name in data:
            _remove(store, store.join(directory, name))
        done = True
        return True
    finally:
        if claim is not None:
            attempt(store.close, claim)
        if begun and not done:
            attempt(store.close, lock)  # its file stays, with the record: the mark of what is unfinished
        else:
            release(store, lock)


def _remove(store: WritableStore, path: str) -> None:
    try:
        with doing("remove", path):
            store.remove(path)
    except FileNotFoundError:
        pass  # somebody else's sweep was faster
