"""Whether a prefix is being saved right now: by TensorFlow (formats 2.11) or by openckpt, and what a save of ours notes.

PREFIX_temp/               TensorFlow works in it
PREFIX.openckpt-lock       openckpt holds it; its first line, written before any data file gets its name, is the record

    {"writes": 2, "replaces": [1]}     the shard count that the save writes, and those that it will remove
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CheckpointError
from openckpt.formats.names import TEMP_SUFFIX
from openckpt.storage.temporary import LOCK_SUFFIX

if TYPE_CHECKING:
    from openckpt.storage.reading import Store

_RECORD_BYTES = 4096


class SaveRecord(NamedTuple):
    """What a save of openckpt notes in its lock: shard counts, never names."""

    writes: int
    replaces: tuple[int, ...] = ()


def is_being_saved(store: Store, prefix: str) -> bool:
    """Return whether the save of this prefix still runs, or died: TensorFlow works in the directory ``PREFIX_temp``."""
    stat = store.stat(prefix + TEMP_SUFFIX)
    return stat is not None and stat.kind == "dir"


def encode_record(record: SaveRecord) -> bytes:
    """Return the record as one line of JSON."""
    import json

    return json.dumps({"writes": record.writes, "replaces": list(record.replaces)}).encode()


def parse_record(line: bytes) -> SaveRecord | None:
    """Return the record in a line; None where it is none, or only a part of one."""
    import json  # not on the way of those who only list

    try:
        note = json.loads(line)
        writes, replaces = note["writes"], note["replaces"]
        return SaveRecord(_count(writes), tuple(map(_count, replaces)))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _count(value: object) -> int:
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError("not a shard count")
    return value


def read_record(store: Store, prefix: str) -> SaveRecord | None:
    """Return what the save that runs, or died, has noted in its lock; None where there is no lock, or nothing in it yet."""
    try:
        with closing(store.open(prefix + LOCK_SUFFIX)) as source:
            line, ended, _ = source.read_at(0, min(source.size, _RECORD_BYTES)).partition(b"\n")
    except (OSError, CheckpointError):
        return None
    return parse_record(line) if ended else None
