"""Partitioned tensors that a caller hands over: their pieces must tile the whole exactly once (formats 2.9).

In the part of one of several writers some pieces may be missing: others have them, and the merge looks whether all are there.
"""

from __future__ import annotations

import os

from openckpt.errors import CorruptionError, MismatchError, Where
from openckpt.formats.names import TEMP_SUFFIX, parse_part_name
from openckpt.formats.slicekeys import Extents
from openckpt.formats.slicing import check_disjoint, full_region, plan_copies, region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.writing.values import Sliced, describe


def is_part(prefix: str) -> bool:
    """Return whether a prefix is that of one writer's part: ``run/ckpt-1_temp/part-00000-of-00002``."""
    directory, _, stem = prefix.replace(os.sep, "/").rpartition("/")
    return directory.endswith(TEMP_SUFFIX) and parse_part_name(stem) is not None


def check_pieces(value: Sliced, named: str | None, where: Where) -> tuple[TensorSpec, tuple[Extents, ...]]:
    """Return the spec of the whole tensor and its pieces in order; no pieces where one of them is everything.

    A piece that covers the whole tensor is stored as a plain tensor (formats 2.9).

    Raises:
        MismatchError: pieces differ in dtype, from their extents, or do not tile the tensor (``writing.slices``).
        UnsupportedError: as `describe`.
    """
    whole = full_region(value.shape)
    try:
        regions = {extents: resolve_extents(extents, value.shape, where) for extents in value.pieces}
        if is_part(where.path) and regions:
            check_disjoint(list(regions.values()), where)
        else:
            plan_copies(whole, list(regions.values()), where)
    except CorruptionError as error:  # the words of a reader: here nothing is stored yet, and nothing is damaged
        message = error.message.replace("stored slices", "pieces")
        raise MismatchError("writing.slices", where, message, expected=error.expected, found=error.found) from None
    found: dict[str, int] = {}
    for extents, piece in value.pieces.items():
        dtype, shape, nbytes = describe(piece, named, where)
        if shape != region_shape(regions[extents]):
            raise MismatchError(
                "writing.slices",
                where,
                "a piece is not as its extents say",
                expected=region_shape(regions[extents]),
                found=shape,
            )
        found[dtype.name] = found.get(dtype.name, 0) + (nbytes or 0)
    if len(found) != 1:
        raise MismatchError("writing.slices", where, "the pieces have different data types", found=sorted(found))
    ((name, size),) = found.items()
    spec = TensorSpec(name, value.shape)
    if dtype.itemsize and size == spec.size * dtype.itemsize:
        spec = spec._replace(nbytes=size)  # else: the rest is in other parts
    return spec, () if list(regions.values()) == [whole] else tuple(value.pieces)
