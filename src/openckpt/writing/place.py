"""What lies under a prefix before a save, which shard count the save gets, and what a dead save left there.

An index names its data files only by their number: ``-of-00002`` after ``-of-00001``. So a save over an existing checkpoint
takes a count that is not on the disk yet: its data lies beside the old, and one rename of the index switches between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from openckpt.errors import CheckpointError
from openckpt.formats.bundle import saving
from openckpt.formats.names import INDEX_SUFFIX, parse_shard_name, shard_name
from openckpt.storage.pending import doing
from openckpt.storage.writable import WritableStore

_MOST_COUNTS = 64  # in a record, which is short; a prefix has one or two


@dataclass(frozen=True, slots=True)
class Taken:
    """What is there under one prefix.

    Attributes:
        index: whether there is an index.
        shards: count -> names of the data files of that count, without directory.
    """

    index: bool
    shards: dict[int, list[str]]

    def free_count(self, wanted: int) -> int:
        """Return the smallest shard count, at least ``wanted``, of which no data file is there."""
        while wanted in self.shards:
            wanted += 1
        return wanted


def look_at(store: WritableStore, directory: str, stem: str) -> Taken:
    """Return what is there under a prefix; raises OSError."""
    index, shards = False, dict[int, list[str]]()
    with doing("list", directory or "."):
        found = store.scan(directory)
    for stat in found:
        if stat.name == stem + INDEX_SUFFIX:
            index = True
        elif stat.name.startswith(stem + ".data-"):
            parsed = parse_shard_name(stat.name)
            if parsed is not None and parsed[0] == stem:
                shards.setdefault(parsed[2], []).append(stat.name)
    return Taken(index, shards)


def record_of(writes: int, taken: Taken) -> bytes:
    """Return the note that a save leaves in its lock: the shard count it writes, and those it will remove."""
    return saving.encode_record(
        saving.SaveRecord(writes, tuple(sorted(taken.shards)[:_MOST_COUNTS]) if taken.index else ())
    )


def settle_dead(store: WritableStore, directory: str, stem: str, record: bytes) -> None:
    """Remove the data files that a dead save had published and its index never named, or those whose removal it missed.

    Which side counts the index on the disk says. Numbers are taken from the record, never names.

    Raises:
        OSError: as the system says.
    """
    note = saving.parse_record(record)
    if note is None:
        return  # a torn record says nothing; the files stay, and the doctor names them
    counts = {note.writes, *note.replaces}
    named = named_count(store, store.join(directory, stem + INDEX_SUFFIX))
    if named is None:  # the save died before its switch, where nothing was under this prefix
        useless = {note.writes} if not note.replaces else set()
    else:
        useless = counts - {named} if named in counts else set()
    if not useless:
        return
    # What is seen must be what a power cut leaves, before anything that it may still need goes.
    with doing("sync of the directory", directory or "."):
        store.sync_directory(directory)
    for count, names in look_at(store, directory, stem).shards.items():
        for name in names if count in useless else ():
            path = store.join(directory, name)
            with doing("remove", path):
                store.remove(path)


def named_count(store: WritableStore, index: str) -> int | None:
    """Return how many data files an index names: None where there is no index, -1 where it cannot be read."""
    from openckpt.formats.bundle.header import header_of
    from openckpt.formats.sstable.table import Table

    with doing("stat", index):
        if store.stat(index) is None:
            return None
    with doing("open", index):
        source = store.open(index)
    try:
        return header_of(Table(source)).num_shards
    except CheckpointError:
        return -1
    finally:
        source.close()


def shard_names(stem: str, count: int) -> list[str]:
    """Return the names of all data files of a checkpoint, without directory."""
    return [shard_name(stem, number, count) for number in range(count)]
