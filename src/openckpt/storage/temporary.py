"""The names under which a save works, made and parsed here: nothing that a reader looks for may look like them.

STEM.openckpt-lock        exclusive lock of one prefix (or of the manifest) while it is saved
STEM.<n>.openckpt-tmp     a file that has not got its final name yet

STEM is the last part of the prefix, ``checkpoint`` for the manifest. A lock that nobody holds is a dead writer's.
"""

from __future__ import annotations

LOCK_SUFFIX = ".openckpt-lock"
TEMP_SUFFIX = ".openckpt-tmp"


def lock_name(stem: str) -> str:
    """Return the name of the lock file of a stem."""
    return stem + LOCK_SUFFIX


def temporary_name(stem: str, number: int) -> str:
    """Return the name of the ``number``-th temporary file of a stem."""
    return f"{stem}.{number}{TEMP_SUFFIX}"


def stem_of(name: str) -> str | None:
    """Return the stem that a lock or temporary file is called after, or None for any other name."""
    if name.endswith(LOCK_SUFFIX):
        return name[: -len(LOCK_SUFFIX)]
    if name.endswith(TEMP_SUFFIX):
        stem, dot, number = name[: -len(TEMP_SUFFIX)].rpartition(".")
        return stem if dot and number.isascii() and number.isdigit() else None
    return None
