"""Which tensor, or which piece of one, goes into which data file when a file may hold so many bytes (formats 7.5).

    40 bytes a file:  a float32 [4, 3] = 48      b float32 [2] = 8      c string of 60      d int64 = 8

    file 0            a[0:2]  a[2:3]  a[3:4, 0:1]      the axis that needs the fewest parts, then again what still fits
    file 1            a[3:4, 1:3]  b  d                the rest of a tensor goes whole
    file 2            c                                too large and not to be cut: a file of its own, behind all others

The cuts are those of TensorFlow's ``MaxShardSizePolicy``, so that its own reader puts the pieces together. Not taken over are
its three faults: a tensor whose smallest row is larger than a file lets it loop for ever (here: a file of its own), tensors
without elements get lost (here: kept), and types whose pieces it cannot read back are cut all the same (here: by request).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import Extents
from openckpt.formats.spec import GRAPH_KEY, TensorSpec
from openckpt.limits import DEFAULT_LIMITS

REASSEMBLED_BY_TENSORFLOW = frozenset(
    "float32 float64 int8 int16 int32 int64 uint8 bool complex64 complex128 bfloat16 qint8 quint8 qint32 int4 uint4".split()
)
"""the types whose slices stock TensorFlow can put together again; of all others it only writes them (formats 2.9)"""


class Piece(NamedTuple):
    """A tensor, or the part of it that ``extents`` name (every length explicit, as TensorFlow writes them)."""

    key: str
    extents: Extents | None = None


def plan_shards(
    specs: Sequence[tuple[str, TensorSpec]], max_bytes: int, *, split_any: bool = False
) -> list[list[Piece]]:
    """Return what each data file holds, in the order in which it is to be written; at least one file, maybe empty.

    The bytes of a file's numbers and strings add up to ``max_bytes`` at most, unless it holds a single tensor that cannot be
    cut smaller. Safetensors headers and the like come on top.

    Args:
        specs: key and spec of every tensor, in the order of writing. Of a string tensor ``nbytes`` is the sum of the lengths
            of its elements; numbers are counted by dtype and shape; variants and the object graph count nothing.
        max_bytes: largest number of tensor bytes in a file, at least 1.
        split_any: cut also the numeric types whose pieces stock TensorFlow cannot put together again. Strings and variants
            are never cut.

    Raises:
        ValueError: ``max_bytes`` below 1, or so small that there would be more data files, or pieces of a tensor, than readers
            take.
    """
    if max_bytes < 1:
        raise ValueError(f"a data file must be allowed at least 1 byte, not {max_bytes}")
    total = sum(_counted_bytes(key, spec) for key, spec in specs)
    if total > max_bytes * DEFAULT_LIMITS.shards:
        least = -(-total // DEFAULT_LIMITS.shards)
        raise ValueError(
            f"{total} bytes in data files of {max_bytes} are more than {DEFAULT_LIMITS.shards} files; allow {least} bytes each"
        )
    shards: list[list[Piece]] = [[]]
    alone: list[list[Piece]] = []
    room = max_bytes
    for key, spec in specs:
        nbytes = _counted_bytes(key, spec)
        if nbytes <= room:
            shards[-1].append(Piece(key))
            room -= nbytes
        elif _may_cut(spec, nbytes, max_bytes, split_any=split_any):
            cut = list(_cut(spec.shape or (), nbytes, room, max_bytes))
            if len(cut) - cut.count(None) > DEFAULT_LIMITS.slices:
                raise ValueError(
                    f"data files of {max_bytes} bytes would cut {key!r} into more than {DEFAULT_LIMITS.slices} pieces"
                )
            for step in cut:
                if step is None:
                    shards.append([])
                    room = max_bytes
                else:
                    extents, used = step
                    shards[-1].append(Piece(key, extents))
                    room -= used
        elif nbytes > max_bytes:
            alone.append([Piece(key)])
        else:
            shards.append([Piece(key)])
            room = max_bytes - nbytes
    return [shard for shard in (*shards, *alone) if shard] or [[]]


def _counted_bytes(key: str, spec: TensorSpec) -> int:
    dtype = BY_NAME.get(spec.dtype)
    if key == GRAPH_KEY or spec.dtype == "variant":
        return 0  # TensorFlow does not know their size yet when it decides
    return spec.size * dtype.itemsize if dtype is not None and dtype.is_numeric else spec.nbytes or 0


def _may_cut(spec: TensorSpec, nbytes: int, max_bytes: int, *, split_any: bool) -> bool:
    """Return whether the tensor may be cut, and one row of it, along its longest axis, fits into a file at all."""
    if spec.dtype in REASSEMBLED_BY_TENSORFLOW or (split_any and BY_NAME[spec.dtype].is_numeric):
        return bool(spec.shape) and nbytes // max(spec.shape or ()) <= max_bytes
    return False


def _cut(shape: tuple[int, ...], nbytes: int, room: int, max_bytes: int) -> Iterator[tuple[Extents | None, int] | None]:
    """Yield ``(extents, bytes)`` of each piece of a tensor, in order, and None wherever a new file begins.

    What is left to do is always one box: each cut takes some rows off its front, along whichever axis.
    """
    starts, lengths = [0] * len(shape), list(shape)
    while nbytes > room:
        axis, rows = _next_rows(lengths, nbytes, room)
        if not rows:
            yield None
            room = max_bytes
            continue
        taken = nbytes // lengths[axis] * rows
        yield tuple(zip(starts, (*lengths[:axis], rows, *lengths[axis + 1 :]), strict=True)), taken
        starts[axis] += rows
        lengths[axis] -= rows
        nbytes -= taken
        room -= taken
    yield None if tuple(lengths) == shape else tuple(zip(starts, lengths, strict=True)), nbytes


def _next_rows(lengths: Sequence[int], nbytes: int, room: int) -> tuple[int, int]:
    """Return the axis that needs the fewest parts, each of at most ``room`` bytes, and the rows of a part; 0 where none fits."""
    best_axis = best_parts = 0
    for axis, length in enumerate(lengths):
        fitting = room // (nbytes // length)
        parts = -(-length // fitting) if fitting else 0
        if parts and (not best_parts or parts < best_parts):
            best_axis, best_parts = axis, parts
    return best_axis, -(-lengths[best_axis] // best_parts) if best_parts else 0
