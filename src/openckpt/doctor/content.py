"""What lies under a name when it is not what the name says."""

from __future__ import annotations

from openckpt.codes.quoting import quoted
from openckpt.errors import CheckpointError, UnsupportedError, Where
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.detect import Detected, detect, refusal_of
from openckpt.storage import ByteSource

# Data files have no signature, so nearly anything may be one. These never are, or only by a chance of one in millions.
_NEVER_DATA = frozenset("lfs-pointer html xml empty text".split())
_COMPRESSED = {"gz": ("gz", "gunzip"), "bz2": ("bz2", "bunzip2"), "xz": ("xz", "unxz")}


def not_an_archive(source: ByteSource) -> CheckpointError:
    """Return the error that says what a file with the name of an archive is instead."""
    found = detect(source)
    refusal = refusal_of(found, source.path)
    if refusal is not None:
        return refusal
    return UnsupportedError("path.not-an-archive", Where(source.path), f"not an archive: this is {found.detail}")


def find_replacement(source: ByteSource) -> Finding | None:
    """Return what lies in place of tensors in a data file that is not what its index says, or None where nothing tells."""
    found = detect(source)
    if found.kind in _COMPRESSED:
        return compressed(found, source.path)
    if found.kind in _NEVER_DATA or (found.kind == "zeros" and _is_zero(source)):
        refusal = refusal_of(found, source.path)
        return None if refusal is None else finding_of(refusal)
    return None


def compressed(found: Detected, path: str) -> Finding:
    """Return the finding for a file that somebody compressed and left under its old name."""
    suffix, command = _COMPRESSED[found.kind]
    packed = f"{path}.{suffix}"
    fix = f"mv {quoted(path)} {quoted(packed)} && {command} {quoted(packed)}"
    return make_finding("run.compressed", path, f"this is {found.detail}", fix=fix)


def _is_zero(source: ByteSource) -> bool:
    # detect looks at samples; here a verdict hangs on it.
    from openckpt.doctor.damage import is_all_zero

    return is_all_zero(source)
