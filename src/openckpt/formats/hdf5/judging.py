"""Whether a dataset can be read: its declared size against the bytes that exist, its type, layout and filters."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.hdf5.report import Dataset, Problem
from openckpt.formats.hdf5.types import StoredType
from openckpt.limits import OBJECT_BYTES, Limits, growth_of

if TYPE_CHECKING:
    from h5py import h5p

# deflate, shuffle, fletcher32, szip, lzf: what every h5py has. A plugin that a file asks for would be foreign code.
_FILTERS = frozenset((1, 2, 3, 4, 32000))


def refusal_of(found: Dataset, kind: StoredType, plan: h5p.PropDCID, file_size: int, limits: Limits) -> Problem | None:
    """Return why the dataset cannot be read, or None. ``plan`` is its creation property list; nothing is read."""
    path, shape, stored = found.path, found.shape or (), found.nbytes or 0
    declared = prod(shape) * kind.itemsize
    if kind.dtype not in BY_NAME:
        return Problem("spec.unknown-dtype", path, f"the data type {kind.dtype} is not known")
    if prod(max(length, 1) for length in shape) * kind.itemsize >= 1 << 63:
        return Problem("limits.exceeded", path, f"NumPy has no arrays of shape {list(shape)}")
    if found.storage in ("contiguous", "compact"):
        if stored != declared:
            message = f"{kind.dtype} of shape {list(shape)} does not fit its stored bytes"
            return Problem("hdf5.size-mismatch", path, message, f"{stored} bytes", f"{declared} bytes")
        end = (found.offset or 0) + stored
        if end > file_size:
            message = "the bytes of the dataset lie beyond the end of the file"
            return Problem("hdf5.data-past-end", path, message, f"{file_size} bytes", f"{end} bytes", found.offset)
    elif stored > file_size:
        message = "more bytes are said to be stored than the file has"
        return Problem("hdf5.size-mismatch", path, message, f"{stored} bytes", f"at most {file_size} bytes")
    if found.storage == "compact" and found.text == "variable":
        return Problem("hdf5.layout", path, "strings of variable length inside the object header are not read")
    if found.storage == "chunked":
        alien = [i for i in range(plan.get_nfilters()) if plan.get_filter(i)[0] not in _FILTERS]
        if alien:
            number, _, _, name = plan.get_filter(alien[0])
            text = name.decode("utf-8", "replace") or "no name"
            return Problem("hdf5.filter", path, "the dataset needs a filter that is not built in", f"{number} ({text})")
        declared = max(declared, prod(plan.get_chunk()) * kind.itemsize)
    if kind.text is not None:
        declared = max(declared, prod(shape) * OBJECT_BYTES)
    needed = growth_of(declared, stored)
    if needed > limits.archive_ratio and declared > stored:
        message = f"{declared} bytes are declared for {stored} stored ones, above the limit archive_ratio={limits.archive_ratio}"
        return Problem("hdf5.declared-size", path, f"{message}; if you trust this file, raise it to {needed}")
    if declared > limits.tensor_bytes:
        message = f"the tensor is {declared} bytes, above the limit tensor_bytes={limits.tensor_bytes}"
        return Problem("limits.exceeded", path, message)
    return None
