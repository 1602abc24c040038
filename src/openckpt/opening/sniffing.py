"""What one file in a directory is, for as few system calls as possible; names first, then a look inside.

Names decide only whether a look is worth it (a directory may hold a million pictures); what a file *is* comes from its
content, by `openckpt.formats.detect`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from openckpt.errors import CheckpointError, CorruptionError, UnsafeError, UnsupportedError, Where
from openckpt.formats.bundle.header import header_of, parse_header, table_kind
from openckpt.formats.detect import Detected, detect, refusal_of
from openckpt.formats.names import KERAS_SHARDS_SUFFIX, SAFETENSORS_SHARDS_SUFFIX
from openckpt.formats.sstable import Table
from openckpt.limits import Limits
from openckpt.opening.ends import data_ends
from openckpt.storage import ByteSource, FileStat, Store
from openckpt.storage.memory import MemorySource

_ARCHIVE = re.compile(r".+\.(?:zip|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz)|mag)", re.IGNORECASE | re.DOTALL)
# What a file of this suffix promises to be; a file that breaks the promise is a damaged checkpoint, not some other file.
_PROMISES = {
    "h5": "hdf5", "hdf5": "hdf5", "h5f": "hdf5", "hdf": "hdf5", "keras": "keras-v3", "safetensors": "safetensors",
    "npz": "npz", "ckpt": "table-v1",
}  # fmt: skip
# Suffixes under which programs have saved checkpoints of one file without a promise.
_MAYBE = frozenset("model weights tf sess save sav chkpt ckp cpkt params bin dat data v1".split())
_WORD = re.compile(r"[A-Za-z_]+\d?")  # .py .json .mp4: the suffix of some known other kind of file
_FORMATS = {"hdf5": "hdf5", "keras": "keras-v3", "safetensors": "safetensors", "npz": "npz"}
_ARCHIVES = frozenset("zip tar tar.gz tar.bz2 tar.xz mag gz bz2 xz".split())
_STAND_INS = frozenset("lfs-pointer html xml empty zeros table-cut table-trailing-junk text-damaged gz zip".split())
_SMALL_INDEX = 1 << 18  # read whole with one call
_HEADER_HEAD = b"\0\0"  # the first entry of an index: shared 0, length of the empty key 0


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a look into one file showed.

    Attributes:
        format: as `Group.format`; None where the file is no checkpoint.
        num_shards: what the header of a V2 index says.
        damage: why it cannot be read, where it looks like a checkpoint or its name promises one.
        plausible: whether, damaged as it is, it was an index once (or the stub of one).
        manifest: whether it reads like a manifest.
        archive: whether it is an archive to look into.
        maker: which library's keys an index holds, where they tell: ``tf-agents``.
        ends: where the last tensor of each shard ends, by a small V2 index; None where it was not asked.
    """

    format: str | None = None
    num_shards: int | None = None
    damage: CheckpointError | OSError | None = None
    plausible: bool = False
    manifest: bool = False
    archive: bool = False
    maker: str | None = None
    ends: Mapping[int, int] | None = None


def archive_suffix(name: str) -> bool:
    """Return whether the name is that of an archive which openckpt can look into."""
    return _ARCHIVE.fullmatch(name) is not None


def promises_checkpoint(name: str) -> str | None:
    """Return the format that the suffix promises, or None."""
    return _PROMISES.get(name.rpartition(".")[2].lower()) if "." in name else None


def could_be_checkpoint(name: str) -> bool:
    """Return whether a file of this name may be a checkpoint of one file: a known suffix, none, or one that is no word.

    ``model.ckpt-7``, ``graph`` and ``net.0-95`` may be; ``train.py``, ``cat.jpg`` and event files are not.
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem:
        return True
    if suffix.lower() in _PROMISES or suffix.lower() in _MAYBE:
        return True
    return _WORD.fullmatch(suffix) is None and ".tfevents." not in name


def shard_map_format(name: str) -> str | None:
    """Return the format of a checkpoint whose files are listed in a JSON index of this name, or None."""
    if name.endswith(KERAS_SHARDS_SUFFIX):
        return "hdf5"
    return "safetensors" if name.endswith(SAFETENSORS_SHARDS_SUFFIX) else None


def read_shard_map(store: Store, stat: FileStat, format_: str, limits: Limits) -> tuple[str, ...]:
    """Return the names of the files that a JSON index lists.

    Raises:
        CorruptionError, UnsafeError, LimitError, OSError: it cannot be read, or names files elsewhere.
    """
    from openckpt.formats.shardmap import read_index

    data, shown = read_index(store, stat.path, limits), store.display(stat.path)
    if format_ == "hdf5":
        from openckpt.formats.keras_h5 import parse_shard_map

        return tuple(dict.fromkeys(name for names in parse_shard_map(data, shown).values() for name in names))
    from openckpt.formats.safetensors import parse_weight_map

    return tuple(dict.fromkeys(parse_weight_map(data, shown).values()))


def could_be_manifest(name: str) -> bool:
    """Return whether a manifest may have been given this name: ``checkpoint.txt``, ``checkpoint_best.pbtxt``."""
    return "checkpoint" in name.lower() and len(name) < 64


def is_manifest_text(store: Store, stat: FileStat) -> bool:
    """Return whether the file begins like a manifest."""
    try:
        with closing(store.open(stat.path)) as source:
            return _looks_like_manifest(source.read_at(0, min(source.size, 256)))
    except (OSError, CheckpointError):
        return False


def _looks_like_manifest(head: bytes) -> bool:
    return head.lstrip().startswith(b"model_checkpoint_path") or b"all_model_checkpoint_paths:" in head


def sniff_index(store: Store, stat: FileStat, limits: Limits) -> Sniffed:
    """Look into an ``.index`` file: how many shards, or why that cannot be told."""
    try:
        source = store.open(stat.path)
    except (OSError, CheckpointError) as error:
        return Sniffed(damage=error, plausible=True)
    try:
        return _sniff_table(source, limits)
    except OSError as error:
        return Sniffed(damage=error, plausible=True)
    except CheckpointError as error:
        return Sniffed(damage=error, plausible=_was_an_index(source))
    finally:
        source.close()


def _sniff_table(source: ByteSource, limits: Limits) -> Sniffed:
    maker = None
    small = source.size <= _SMALL_INDEX
    if small:
        data = source.read_at(0, source.size)
        source = MemorySource(source.path, data)
        maker = _maker(data)
    table = Table(source, limits=limits)
    first = table.first()
    kind = table_kind(first)
    if kind == "v1":
        return Sniffed("table-v1")
    if kind == "v2" and first is not None:
        shards = parse_header(first[1], Where(source.path), limits).num_shards
        return Sniffed("bundle-v2", shards, maker=maker, ends=data_ends(table, limits) if small else None)
    header_of(table, limits)  # raises what is wrong with it
    raise CorruptionError("bundle.no-header", source.path, "the index has no header entry")


def _maker(index: bytes) -> str | None:
    """Return which library's keys stand in the bytes of a small index; keys share prefixes, but the first one is whole."""
    if b"agent/_" in index and (
        b"global_step/.ATTRIBUTES" in index or b"replay_buffer/" in index or b"policy/" in index
    ):
        return "tf-agents"
    return None


def _was_an_index(source: ByteSource) -> bool:
    """Return whether what is no table may stand for an index: its head, or a stub or page left in its place."""
    try:
        return source.size == 0 or source.read_at(0, 2) == _HEADER_HEAD or detect(source).kind in _STAND_INS
    except (OSError, CheckpointError):
        return True


def what_it_is(source: ByteSource) -> CheckpointError | None:
    """Return the error that names a file which is no index (a git-lfs pointer, an error page); None where it may be one."""
    found = detect(source)
    return None if found.kind in ("table", "unknown") else refusal_of(found, source.path)


def sniff_file(store: Store, stat: FileStat, limits: Limits) -> Sniffed:
    """Look into a file that may be a checkpoint of one file, or a manifest under another name."""
    try:
        source = store.open(stat.path)
    except (OSError, CheckpointError) as error:
        return Sniffed(damage=error)
    try:
        return _sniff_content(source, limits)
    except (OSError, CheckpointError) as error:
        return Sniffed(damage=error)
    finally:
        source.close()


def _sniff_content(source: ByteSource, limits: Limits) -> Sniffed:
    found = detect(source)
    if found.kind in _FORMATS:
        return Sniffed(_FORMATS[found.kind], damage=_cut_short(source) if found.kind == "hdf5" else None)
    if found.kind == "manifest":
        return Sniffed(manifest=True)
    if found.kind in _ARCHIVES:
        return Sniffed(archive=True)
    if found.kind == "table":
        table = _sniff_table(source, limits)
        if table.format == "table-v1":
            return table
        raise UnsupportedError(
            "path.renamed-index", source.path, "the index of a V2 checkpoint, under a name without .index"
        )
    if found.kind in ("torch-zip", "torch-pickle", "pickle"):
        raise _unsafe(source, found, limits)
    raise refusal_of(found, source.path) or UnsupportedError(
        "path.not-a-checkpoint", source.path, f"not a checkpoint: this is {found.detail}"
    )


def _cut_short(source: ByteSource) -> CheckpointError | None:
    """Return what the superblock of an HDF5 file says against it: that the file was longer once."""
    from openckpt.formats.hdf5.superblock import read_superblock

    try:
        read_superblock(source)
    except CheckpointError as error:
        return error
    return None


def _unsafe(source: ByteSource, found: Detected, limits: Limits) -> UnsafeError:
    from openckpt.formats.torch_archive import describe_torch, refuse_torch

    torch = describe_torch(source, limits=limits)
    if torch is not None:
        return refuse_torch(source, torch)
    return UnsafeError(found.code or "detect.pickle", source.path, f"this is {found.detail}", fix=found.fix)
