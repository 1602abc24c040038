"""Sweeping up after dead writers: those whose lock nobody holds."""

from __future__ import annotations

from collections.abc import Callable

from openckpt.storage.pending import doing
from openckpt.storage.reading import FileStat
from openckpt.storage.temporary import TEMP_SUFFIX, lock_name, stem_of
from openckpt.storage.writable import OutputFile, WritableStore

_RECORD_BYTES = 4096

Settle = Callable[[WritableStore, str, str, bytes], None]
"""Removes the data that a dead writer had published and nothing names: ``settle(store, directory, stem, record)``."""


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
        settle: see `Settle`; without it those that had published data are left to a save that has one.
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
                if _sweep_stem(store, directory, stem, stats, lock, settle):
                    store.remove(path)
            finally:
                store.close(lock)
        except OSError:
            continue  # other people's leftovers must not stop this save


def _sweep_stem(
    store: WritableStore, directory: str, stem: str, stats: list[FileStat], lock: OutputFile, settle: Settle | None
) -> bool:
    """Return whether all is swept."""
    with doing("read", lock.path):
        record, ended, _ = store.read(lock, 0, _RECORD_BYTES).partition(b"\n")
    if record and ended:
        if settle is None:
            return False  # without the record nobody would ever know whose the data is that has its name already
        # The record stays until the next one is written over it: a second death before that must find it. To settle twice
        # does no harm.
        settle(store, directory, stem, record)
    for stat in stats:
        if stat.name.endswith(TEMP_SUFFIX):
            try:
                with doing("remove", stat.path):
                    store.remove(stat.path)
            except FileNotFoundError:
                continue  # it lived when the directory was listed, and has ended since
    return True
