"""Which kind of archive a file is, by its content, and the store that reads it."""

from __future__ import annotations

from typing import Literal

from openckpt.errors import FormatError, UnsupportedError, Where
from openckpt.findings import Progress
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.archive.sources import nesting_of
from openckpt.storage.archive.store import ArchiveStore
from openckpt.storage.archive.streams import MAGIC, PackedStream
from openckpt.storage.archive.tarheaders import BLOCK, is_tar_header
from openckpt.storage.reading import ByteSource

ArchiveKind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "mag", "gz", "bz2", "xz"]
"""``gz``, ``bz2`` and ``xz`` are single compressed files: archives of one member"""

_PACKED: dict[str, tuple[ArchiveKind, ArchiveKind]] = {
    "gz": ("tar.gz", "gz"),
    "bz2": ("tar.bz2", "bz2"),
    "xz": ("tar.xz", "xz"),
}
_STUBS = (b"MZ", b"#!", b"\x7fELF")  # what a self-extracting zip begins with


def archive_kind(source: ByteSource) -> ArchiveKind | None:
    """Return the kind of archive, or None for any other file. Reads a few hundred bytes; never the name."""
    head = source.read_at(0, min(BLOCK, source.size))
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return "zip"
    for codec, magic in MAGIC.items():
        if head.startswith(magic):
            tarred, single = _PACKED[codec]
            return tarred if _begins_with_tar(source, codec) else single
    if is_tar_header(head):
        return "tar"
    if head[:1] in (b"\x0a", b"\x12", b"\x1a", b"\x22"):
        from openckpt.storage.archive.mag import is_mag

        return "mag" if is_mag(source) else None
    if head.startswith(_STUBS):
        from openckpt.storage.archive.zipheaders import read_directory

        try:
            return "zip" if read_directory(source).count else None
        except FormatError:
            return None
    return None


def _begins_with_tar(source: ByteSource, codec: str) -> bool:
    try:
        return is_tar_header(PackedStream(source, codec, DEFAULT_LIMITS).read(BLOCK))
    except FormatError:
        return False  # damaged from the start; opening it says so


def open_archive(
    source: ByteSource, *, limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None
) -> ArchiveStore:
    """Open an archive as a `Store` of its members; see `openckpt.storage.archive` and docs/format/archives.md.

    The source stays the caller's, and must stay open as long as members are read. A compressed tar is listed when the store
    is first asked something, all others here.

    Args:
        source: the archive's bytes; a member of another archive counts as nested.
        limits: caps; ``archive_nesting`` says how deep archives may lie in archives.
        progress: told of passes over a compressed archive that take longer than a second.

    Raises:
        UnsupportedError: it is no archive (``archive.unknown``), or of a kind that is not read.
        CorruptionError: it is damaged so that nothing can be listed.
        LimitError: nested too deep, too many members.
    """
    limits.check("archive_nesting", nesting_of(source), Where(source.path), "the number of archives around this one")
    kind = archive_kind(source)
    store: ArchiveStore
    if kind is None:
        raise UnsupportedError("archive.unknown", source.path, "this is no archive of a kind that is read in place")
    if kind == "zip":
        from openckpt.storage.archive.zips import ZipStore

        store = ZipStore(source, limits, progress)
    elif kind == "tar":
        from openckpt.storage.archive.tars import TarStore

        store = TarStore(source, limits, progress)
    elif kind == "mag":
        from openckpt.storage.archive.mag import MagStore

        store = MagStore(source, limits, progress)
    else:
        from openckpt.storage.archive.packed import PackedStore, SingleStore

        codec = kind.removeprefix("tar.")
        return (PackedStore if kind != codec else SingleStore)(source, codec, limits, progress)
    store.listing()
    return store
