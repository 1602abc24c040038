"""`remove_checkpoint`: one checkpoint less, whole or not at all at every instant."""

from __future__ import annotations

import os

from openckpt.formats.bundle import saving
from openckpt.formats.names import INDEX_SUFFIX, META_SUFFIX
from openckpt.storage.disk import DISK
from openckpt.storage.pending import doing
from openckpt.storage.removing import remove_files
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.keys import split_prefix
from openckpt.writing.place import look_at, named_count


def remove_checkpoint(
    prefix: str | os.PathLike[str],
    *,
    with_meta: bool = True,
    durability: Durability = "power-loss",
    store: WritableStore | None = None,
) -> bool:
    """Remove the files of a V2 checkpoint: the index, behind a sync of the directory the data, its ``.meta`` with it.

    Names are literal: ``run[1]/ckpt-7`` is that path, where TensorFlow takes it for a pattern and removes nothing.

    Args:
        prefix: the checkpoint; nothing happens where there is none.
        with_meta: remove ``PREFIX.meta`` too, which TensorFlow's Saver writes.
        durability: see `openckpt.save`.
        store: where; the local disk when not given.

    Returns:
        False where a reader has it open; nothing was removed then.

    Raises:
        ConflictError: another program or thread is saving it (``commit.locked``).
        OSError: the system refused.
    """
    store = DISK if store is None else store
    directory, stem = split_prefix(store, os.fsdecode(prefix))
    try:
        taken = look_at(store, directory, stem)
    except FileNotFoundError:
        return True
    data = [name for names in taken.shards.values() for name in names]
    if with_meta:
        meta = store.join(directory, stem + META_SUFFIX)
        with doing("stat", meta):
            if store.stat(meta) is not None:
                data.append(stem + META_SUFFIX)
    if not taken.index and not data:
        return True
    counts = sorted(taken.shards)
    named = named_count(store, store.join(directory, stem + INDEX_SUFFIX)) if taken.index else None
    note = saving.SaveRecord(named if named in taken.shards else counts[-1]) if counts else None
    return remove_files(
        store,
        directory,
        stem,
        index=stem + INDEX_SUFFIX,
        data=data,
        record=b"" if note is None else saving.encode_record(note),
        durability=durability,
    )
