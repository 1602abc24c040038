"""The lock of a writer: an exclusive lock on a file beside what is saved, called after it, and gone when the save is over."""

from __future__ import annotations

import time

from openckpt.errors import ConflictError
from openckpt.storage.pending import attempt, doing
from openckpt.storage.temporary import lock_name
from openckpt.storage.writable import OutputFile, WritableStore

_PAUSE = 0.005
_TRIES = 20  # a sweeper holds a free lock for a moment
_PATIENT_TRIES = 2_000  # ten seconds: another prefix of the directory is updating the manifest


def take_lock(store: WritableStore, directory: str, stem: str, *, wait: bool = False) -> OutputFile:
    """Return the lock of ``stem`` in a directory.

    Args:
        store: where.
        directory: its path.
        stem: last part of the prefix, or the name of the manifest.
        wait: be patient with another holder, who needs it for a moment only.

    Raises:
        ConflictError: ``commit.locked``, another program or thread holds it.
        OSError: the system refused.
    """
    path = store.join(directory, lock_name(stem))
    for number in range(_PATIENT_TRIES if wait else _TRIES):
        if number:
            time.sleep(_PAUSE)
        with doing("lock", path):
            lock = store.try_lock(path)
        if lock is not None:
            return lock
    raise ConflictError(
        "commit.locked", store.join(directory, stem), "another program or thread is saving this right now"
    )


def release(store: WritableStore, lock: OutputFile) -> None:
    """Let go of a lock and remove its file; what the system refuses of that the next save does."""
    # Removed while it is held: who opens it after that has opened a file without a name, and sees so.
    try:
        attempt(store.remove, lock.path)
    finally:
        attempt(store.close, lock)  # an interrupt takes hold of the frames here, and would hold the lock with them
