"""The last look before a save counts: the index as it lies on the disk, against what was meant and the data files beside it."""

from __future__ import annotations

from collections.abc import Mapping

from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.formats.sstable.table import Table
from openckpt.storage.memory import MemorySource
from openckpt.storage.pending import doing
from openckpt.storage.writable import WritableStore


def check_index(
    store: WritableStore, prefix: str, directory: str, found: bytes, meant: bytes, ends: Mapping[str, int]
) -> None:
    """Raise CorruptionError (``writing.verify``) unless a save may be switched to.

    Args:
        store: where it lies.
        prefix: of the checkpoint, for messages.
        directory: of its files.
        found: the index, read back under its temporary name.
        meant: the bytes that were written.
        ends: name of each data file -> its size.
    """
    if found != meant:
        raise CorruptionError("writing.verify", prefix, "the index came back from the disk with other bytes")
    try:
        for _ in Table(MemorySource(prefix, found)).blocks():
            pass
    except CheckpointError as error:
        raise CorruptionError("writing.verify", prefix, f"the index does not parse: {error.message}") from error
    for name, size in ends.items():
        path = store.join(directory, name)
        with doing("stat", path):
            stat = store.stat(path)
        if stat is None or stat.size != size:
            raise CorruptionError(
                "writing.verify",
                Where(path),
                "the data file is not as it was written",
                expected=f"{size} bytes",
                found="no file" if stat is None else f"{stat.size} bytes",
            )
