"""What one file in a directory is, for as few system calls as possible; names first, then a look inside.

Names decide only whether a look is worth it (a directory may hold a million pictures); what a file *is* comes from its
content, by `openckpt.formats.detect`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openckpt.errors import CheckpointError, CorruptionError, UnsupportedError, Where
from openckpt.formats.bundle.header import header_of, parse_header, table_kind
from openckpt.formats.sstable import MAGIC_BYTES, Table
from openckpt.limits import Limits
from openckpt.storage import ByteSource, FileStat, Store

_ARCHIVE = re.compile(r".+\.(?:zip|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz)|mag)", re.IGNORECASE | re.DOTALL)
# What a file of this suffix promises to be; a file that breaks the promise is a damaged checkpoint, not some other file.
_PROMISES = {
    "h5": "hdf5", "hdf5": "hdf5", "h5f": "hdf5", "hdf": "hdf5", "keras": "keras-v3", "safetensors": "safetensors",
    "npz": "npz", "ckpt": "table-v1",
}  # fmt: skip
# Suffixes under which programs have saved checkpoints of one file without a promise.
_MAYBE = frozenset("model weights tf sess save sav chkpt ckp cpkt params bin dat data v1".split())
_WORD = re.compile(r"[A-Za-z_]+\d?")  # .py .json .mp4: the suffix of some known other kind of file
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
    """

    format: str | None = None
    num_shards: int | None = None
    damage: CheckpointError | OSError | None = None
    plausible: bool = False
    manifest: bool = False
    archive: bool = False


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


def could_be_manifest(name: str) -> bool:
    """Return whether a manifest may have been given this name: ``checkpoint.txt``, ``checkpoint_best.pbtxt``."""
    return "checkpoint" in name.lower() and len(name) < 64


def is_manifest_text(store: Store, stat: FileStat) -> bool:
    """Return whether the file begins like a manifest."""
    try:
        source = store.open(stat.path)
        try:
            return _looks_like_manifest(source.read_at(0, min(source.size, 256)))
        finally:
            source.close()
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
    table = Table(source, limits=limits)
    first = table.first()
    kind = table_kind(first)
    if kind == "v1":
        return Sniffed("table-v1")
    if kind == "v2" and first is not None:
        return Sniffed("bundle-v2", parse_header(first[1], Where(source.path), limits).num_shards)
    header_of(table, limits)  # raises what is wrong with it
    raise CorruptionError("bundle.no-header", source.path, "the index has no header entry")


def _was_an_index(source: ByteSource) -> bool:
    try:
        head = source.read_at(0, min(source.size, 64))
    except (OSError, CheckpointError):
        return True
    return not head or head.startswith((_HEADER_HEAD, b"version https://git-lfs", b"\x1f\x8b", b"<"))


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
    size = source.size
    head = source.read_at(0, min(size, 256))
    if size >= 48 and source.read_at(size - 8, 8) == MAGIC_BYTES:
        table = _sniff_table(source, limits)
        if table.format == "table-v1":
            return table
        raise UnsupportedError(
            "path.renamed-index", source.path, "the index of a V2 checkpoint, under a name without .index"
        )
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return Sniffed("hdf5")
    if head.startswith(b"PK\x03\x04"):
        member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        if member in (b"metadata.json", b"config.json", b"model.weights.h5"):
            return Sniffed("keras-v3")
        if member.endswith(b".npy"):
            return Sniffed("npz")
    if size > 10 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return Sniffed("safetensors")
    if _looks_like_manifest(head):
        return Sniffed(manifest=True)
    raise UnsupportedError("path.not-a-checkpoint", source.path, "not a checkpoint of any kind that openckpt knows")
