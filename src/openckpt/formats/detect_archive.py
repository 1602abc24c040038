"""What an archive is for: a .keras file, an npz, a PyTorch checkpoint, or a plain archive that may hold a checkpoint."""

from __future__ import annotations

from openckpt.errors import FormatError
from openckpt.formats.detect import TAIL, Detected, read_tail
from openckpt.limits import DEFAULT_LIMITS, MIB
from openckpt.storage.archive import ArchiveKind
from openckpt.storage.archive.zipheaders import LOCAL, iter_entries, read_directory
from openckpt.storage.reading import ByteSource

_WORDS: dict[ArchiveKind, str] = {
    "tar": "a tar archive",
    "tar.gz": "a gzip-compressed tar archive",
    "tar.bz2": "a bzip2-compressed tar archive",
    "tar.xz": "an xz-compressed tar archive",
    "mag": "a Magenta bundle (a V1 checkpoint and its meta graph in one file)",
    "gz": "a gzip-compressed file",
    "bz2": "a bzip2-compressed file",
    "xz": "an xz-compressed file",
}

_NPY, _NPZ_SIDE = b".npy", b"openckpt.json"
"""members of an npz; the second is openckpt's own (`openckpt.formats.npz_encoder`)"""


def detect_archive(source: ByteSource, kind: ArchiveKind, head: bytes) -> Detected:
    """Return what an archive of a known kind is."""
    if kind != "zip":
        return Detected(kind, _WORDS[kind])
    try:
        directory = read_directory(source)
        if directory.shift and head.startswith(LOCAL) and is_translated(source, grown=True):
            return text_damaged("a zip file")
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        # ten thousand members and more: only an npz has so many in earnest
        if directory.size > (64 * MIB if first.endswith(_NPY) else MIB):
            return Detected("zip", "a zip archive")
        names = [entry.name for entry in iter_entries(source, directory, DEFAULT_LIMITS)]
        cut = ""
    except FormatError as error:
        if error.code == "archive.bad-directory" and is_translated(source, grown=False):
            return text_damaged("a zip file")
        names = [head[30 : 30 + int.from_bytes(head[26:28], "little")]]
        cut = ", damaged" if error.code != "archive.truncated" else ", its end is missing"
    found = _by_members(names)
    return Detected(found.kind, found.detail + cut, found.code, found.fix) if cut else found


def _by_members(names: list[bytes]) -> Detected:
    have = set(names)
    if b"model.weights.h5" in have or {b"config.json", b"metadata.json"} & have:
        return Detected("keras", "a Keras .keras archive")
    arrays = have - {_NPZ_SIDE}
    if arrays and all(name.endswith(_NPY) for name in arrays):
        return Detected("npz", "a NumPy npz archive")
    if any(name == b"data.pkl" or name.endswith(b"/data.pkl") for name in names):
        return Detected(
            "torch-zip", "a PyTorch checkpoint (a zip with a pickle inside, never executed here)", "detect.torch"
        )
    return Detected("zip", "a zip archive")


def is_translated(source: ByteSource, *, grown: bool) -> bool:
    """Return whether the line ends at both ends of the file are those of a transfer in text mode.

    ``grown``: LF became CRLF and the file longer, so that no line feed stands alone; else CRLF became LF, and no pair is left.
    """
    around = source.read_at(0, min(TAIL, source.size)) + read_tail(source)
    pairs, feeds = around.count(b"\r\n"), around.count(b"\n")
    return feeds > 0 and pairs == (feeds if grown else 0)


def text_damaged(what: str) -> Detected:
    """Return the verdict for a binary file that was handled as text."""
    return Detected(
        "text-damaged",
        f"{what} that was transferred or saved as text: bytes were inserted, removed or replaced all over it",
        "detect.text-damaged",
    )
