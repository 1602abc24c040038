"""Data files of a checkpoint that are second names of another one's: what has not changed is not written again.

A hard link is the same bytes under another name. Whoever deletes the other checkpoint deletes its name; the bytes stay as long as
one checkpoint has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from openckpt.formats.spec import TensorSpec
from openckpt.storage.pending import doing
from openckpt.storage.writable import WritableStore


class Placed(NamedTuple):
    """Where a tensor lies that is stored whole.

    Attributes:
        spec: dtype, shape and stored bytes.
        shard: number of the data file.
        offset: its first byte in it.
        crc: CRC-32C, unmasked.
    """

    spec: TensorSpec
    shard: int
    offset: int
    crc: int


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """A data file that a new checkpoint shares.

    Attributes:
        path: one of its names.
        size: its bytes.
        tensors: encoded key -> the place, of those that the new checkpoint refers to.
        is_superseded: whether it holds other tensors too.
    """

    path: str
    size: int
    tensors: Mapping[bytes, Placed]
    is_superseded: bool


class FileId(NamedTuple):
    """What tells a file from every other one that may come to have its name."""

    size: int
    mtime_ns: int
    identity: tuple[int, ...]
    """device and number; not the time at which it got its last name"""


def identify(store: WritableStore, path: str) -> FileId | None:
    """Return what tells a file from others of its name, None where it is not there; raises OSError."""
    with doing("stat", path):
        stat = store.stat(path)
    return None if stat is None or stat.kind != "file" else FileId(stat.size, stat.mtime_ns, stat.identity[:2])
