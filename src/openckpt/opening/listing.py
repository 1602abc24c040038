"""The values of grouping: `Group`, the files of one checkpoint, and `Listing`, what lies in one directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openckpt.errors import CheckpointError
from openckpt.storage import FileStat


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one checkpoint in one directory.

    Attributes:
        prefix: path in the store that opens it: the prefix of a V2 checkpoint, the file of any other, the
            ``NAME-?????-of-NNNNN`` pattern of a sharded V1 checkpoint.
        name: the last part of the prefix; "" for the empty prefix (``.index``).
        format: ``bundle-v2 table-v1 hdf5 keras-v3 safetensors npz``.
        step: the number at the end of the name, or None.
        index: the index of a V2 checkpoint, or the JSON index of sharded weights; else None, or where it is missing.
        shards: the data files that are there, in order; the file itself for other formats.
        extras: what belongs to it without being needed to read it: the meta graph.
        missing: names of files that are needed and not there, the first 100 of them.
        num_missing: how many they are.
        num_shards: how many shards the checkpoint has; None where nothing says.
        header_shards: what the index says, where that differs from the one whole set of shards on the disk (the files
            win, formats 2.11).
        complete: whether every file is there and the index is one.
        uncommitted: whether openckpt is saving it for the first time, or died over it: there is no index, and the lock or
            temporary files of that save lie beside the data. It does not count as a checkpoint, not even as a broken one.
        maker: which library wrote it, where the keys in the index tell: ``tf-agents``.
        damage: why the index, or the only file, cannot be read.
        ends: where the last tensor of each shard ends, where the index was small enough to say so in passing.
    """

    prefix: str
    name: str
    format: str
    step: int | None = None
    index: FileStat | None = None
    shards: tuple[FileStat, ...] = ()
    extras: tuple[FileStat, ...] = ()
    missing: tuple[str, ...] = ()
    num_missing: int = 0
    num_shards: int | None = None
    header_shards: int | None = None
    complete: bool = True
    uncommitted: bool = False
    maker: str | None = None
    damage: CheckpointError | OSError | None = field(default=None, compare=False)
    ends: Mapping[int, int] | None = field(default=None, compare=False, repr=False)

    @property
    def files(self) -> tuple[FileStat, ...]:
        """Every file that is there: index, shards, extras."""
        return (*(() if self.index is None else (self.index,)), *self.shards, *self.extras)

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return sum(stat.size for stat in self.files)

    @property
    def mtime_ns(self) -> int:
        """When the checkpoint was finished: the time of its index, or of its newest file."""
        if self.index is not None:
            return self.index.mtime_ns
        return max((stat.mtime_ns for stat in self.shards), default=0)


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in one directory, sorted by what it means for checkpoints.

    Attributes:
        directory: path in the store.
        groups: the checkpoints, by name and step.
        manifests: ``checkpoint`` and every other file that reads like one (a manifest renamed to ``checkpoint.txt``).
        leftovers: what interrupted saves left: ``.tempstate`` files, ``checkpoint.tmp...``, ``_temp`` directories.
        unfinished: stem (last part of a prefix, ``checkpoint`` for the manifest) -> lock and temporary files of saves by
            openckpt that run, or died.
        orphan_shards: data files that no index claims.
        orphan_metas: meta graphs without a checkpoint.
        stale_shards: data files of another count beside a whole checkpoint of the same prefix.
        aliases: ``(file, data file)``: a ``.safetensors`` file that is a data file of a whole checkpoint here under another
            name (a hard link, or a symbolic one), and not a checkpoint beside it.
        archives: files whose name says archive.
        others: every other file.
        directories: subdirectories (``_temp`` leftovers aside); those that are links have ``.link`` set.
        saved_model: whether this is the directory of a SavedModel.
    """

    directory: str
    groups: tuple[Group, ...] = ()
    manifests: Mapping[str, FileStat] = field(default_factory=dict)
    leftovers: tuple[FileStat, ...] = ()
    unfinished: Mapping[str, tuple[FileStat, ...]] = field(default_factory=dict)
    orphan_shards: tuple[FileStat, ...] = ()
    orphan_metas: tuple[FileStat, ...] = ()
    stale_shards: tuple[FileStat, ...] = ()
    aliases: tuple[tuple[FileStat, FileStat], ...] = ()
    archives: tuple[FileStat, ...] = ()
    others: tuple[FileStat, ...] = ()
    directories: tuple[FileStat, ...] = ()
    saved_model: bool = False

    def named(self, name: str) -> tuple[Group, ...]:
        """Return the groups of this name; more than one where a file and a prefix share it."""
        return tuple(group for group in self.groups if group.name == name)


def what_is_missing(group: Group) -> str:
    """Return in a few words why a group is not complete, for people."""
    if group.damage is not None:
        return group.damage.message if isinstance(group.damage, CheckpointError) else str(group.damage)
    if not group.num_missing:
        return "nothing is missing"
    shown = ", ".join(group.missing[:3])
    more = group.num_missing - min(3, len(group.missing))
    return f"{shown} missing" + (f" and {more} more" if more > 0 else "")
