"""`load`: a whole checkpoint as a dictionary of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.opener import open

if TYPE_CHECKING:
    import os

    from openckpt.formats.spec import Array


def load(path: str | os.PathLike[str], *, verify: bool = True, limits: Limits = DEFAULT_LIMITS) -> dict[str, Array]:
    """Return every tensor of a checkpoint: the counterpart of `openckpt.save`.

    Args:
        path: whatever `openckpt.open` takes: a prefix, a file of it, a directory, an archive.
        verify: check the checksum of every tensor.
        limits: caps against hostile files.

    Returns:
        Key -> array, in the order of the file; strings and variants are object arrays of bytes, scalars 0-d arrays.

    Raises:
        PathNotFoundError, FormatError, OSError: as `openckpt.open`.
        CorruptionError: a tensor has changed since it was written.
    """
    with open(path, limits=limits, verify=verify) as checkpoint:
        return checkpoint.read_many(list(checkpoint))
