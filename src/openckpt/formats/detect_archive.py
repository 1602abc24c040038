"""What an archive is for: a .keras file, an npz, a PyTorch checkpoint, or a plain archive that may hold a checkpoint."""

from __future__ import annotations

from openckpt.errors import FormatError
from openckpt.formats.detect import Detected, read_tail
from openckpt.limits import DEFAULT_LIMITS, MIB
from openckpt.storage.archive import ArchiveKind
from openckpt.storage.archive.zipheaders import iter_entries, read_directory
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


def detect_archive(source: ByteSource, kind: ArchiveKind, head: bytes) -> Detected:
    """Return what an archive of a known kind is."""
    if kind != "zip":
        return Detected(kind, _WORDS[kind])
    try:
        directory = read_directory(source)
        if directory.size > MIB:  # a hundred thousand members: no format of weights has so many
            return Detected("zip", "a zip archive")
        names = [entry.name for entry in iter_entries(source, directory, DEFAULT_LIMITS)]
        cut = ""
    except FormatError as error:
        if error.code == "archive.bad-directory" and is_crlf(head + read_tail(source)):
            return text_damaged("a zip file")
        names = [head[30 : 30 + int.from_bytes(head[26:28], "little")]]
        cut = ", damaged" if error.code != "archive.truncated" else ", its end is missing"
    found = _by_members(names)
    return Detected(found.kind, found.detail + cut, found.code, found.fix) if cut else found


def _by_members(names: list[bytes]) -> Detected:
    have = set(names)
    if b"model.weights.h5" in have or {b"config.json", b"metadata.json"} & have:
        return Detected("keras", "a Keras .keras archive")
    if names and all(name.endswith(b".npy") for name in names):
        return Detected("npz", "a NumPy npz archive")
    if any(name == b"data.pkl" or name.endswith(b"/data.pkl") for name in names):
        return Detected(
            "torch-zip", "a PyTorch checkpoint (a zip with a pickle inside, never executed here)", "detect.torch"
        )
    return Detected("zip", "a zip archive")


def is_crlf(data: bytes) -> bool:
    """Return whether every line feed follows a carriage return, as after a transfer in text mode."""
    pairs = data.count(b"\r\n")
    return pairs > 0 and pairs == data.count(b"\n")


def text_damaged(what: str) -> Detected:
    """Return the verdict for a binary file that was handled as text."""
    return Detected(
        "text-damaged",
        f"{what} that was transferred or saved as text: bytes were inserted, removed or replaced all over it",
        "detect.text-damaged",
    )
