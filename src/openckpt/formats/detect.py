"""What a file *is*, by its content and never by its name: a checkpoint, something like one, or what a download left instead.

Only small windows are read: the head, the tail, and single bytes between. Nothing is unpickled, nothing is executed; of a
zip the directory is read, of a compressed archive the first block. The signatures (docs/format/detection.md):

    table        last 8 bytes 57 fb 80 8b 24 75 47 db     HDF5    89 48 44 46 0d 0a 1a 0a at 0, 512, 1024, 2048, ...
    zip          50 4b 03 04 (keras, npz, torch by its members)   safetensors  u64 header length, then "{"
    lfs-pointer  "version https://git-lfs", "oid sha256:"         npy  93 "NUMPY"     pickle  80 02..05
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openckpt.errors import CorruptionError, FormatError, UnsupportedError, Where
from openckpt.storage.reading import ByteSource

Kind = Literal[
    "table", "hdf5", "keras", "safetensors", "npz", "npy", "manifest",
    "zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "mag", "gz", "bz2", "xz",
    "saved-model", "meta-graph", "graph", "tfevents",
    "torch-zip", "torch-pickle", "pickle", "msgpack", "other",
    "lfs-pointer", "html", "xml", "json", "text",
    "table-trailing-junk", "table-cut", "text-damaged", "empty", "zeros", "unknown",
]  # fmt: skip
"""``other``: a file of another trade, named in the detail (a picture, a TensorFlow Lite model)"""

HEAD = 4096
TAIL = 64 << 10


@dataclass(frozen=True, slots=True)
class Detected:
    """What a file is.

    Attributes:
        kind: one word.
        detail: one sentence without a full stop, to follow "this is": "a Git LFS pointer: the real file (873 kB) was ...".
        code: the code (area ``detect``) with which to refuse it as a checkpoint; None for what is one, or may hold one.
        fix: what helps, where it depends on the file; otherwise the catalogue's fix for the code.
    """

    kind: Kind
    detail: str
    code: str | None = None
    fix: str | None = None


_DAMAGE = frozenset(
    "lfs-pointer html xml text table-trailing-junk table-cut text-damaged empty zeros unknown json".split()
)


def refusal_of(found: Detected, path: str) -> FormatError | None:
    """Return the error that refuses the file as a checkpoint, or None where `Detected.code` is None."""
    if found.code is None:
        return None
    kind = CorruptionError if found.kind in _DAMAGE else UnsupportedError
    fix = found.fix
    if fix is None and found.code == "detect.torch":
        from openckpt.formats.torch_archive import convert_command

        fix = convert_command(path)
    return kind(found.code, Where(path), f"this is {found.detail}", fix=fix)


def detect(source: ByteSource) -> Detected:
    """Return what a file is.

    Raises:
        CorruptionError: the file shrank while it was read (``storage.short-read``).
        OSError: the system could not read it.
    """
    from openckpt.formats.detect_binary import detect_binary, is_table
    from openckpt.formats.detect_text import detect_text

    if source.size == 0:
        return Detected(
            "empty", "an empty file: whatever wrote it was interrupted, or the disk was full", "detect.empty"
        )
    if is_table(source):
        return detect_binary(source, b"")
    head = source.read_at(0, min(HEAD, source.size))
    from openckpt.storage.archive import archive_kind  # 5 ms that a listing of a plain checkpoint does not pay

    archive = archive_kind(source)
    if archive is not None:
        from openckpt.formats.detect_archive import detect_archive

        return detect_archive(source, archive, head)
    return detect_text(source, head) or detect_binary(source, head)


def read_tail(source: ByteSource) -> bytes:
    """Return the last 64 KiB of a file, or all of a shorter one."""
    size = min(TAIL, source.size)
    return source.read_at(source.size - size, size)


def pickle_of(head: bytes) -> Detected:
    """Return the verdict for a pickle, with the library whose objects it mentions."""
    about = next((f" of {name.decode()} objects" for name in (b"torch", b"numpy", b"sklearn") if name in head), "")
    return Detected(
        "pickle", f"a Python pickle{about} (never executed here: it could run any program)", "detect.pickle"
    )
