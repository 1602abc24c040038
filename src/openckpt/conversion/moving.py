"""Tensors on their way from a reader to an output: read ahead on one thread, cast and checksummed there, written on the other.

    reader thread      read into a buffer - check - cast in it - checksum
    calling thread                              write           write          write ...

Small tensors travel many to a buffer. What lies in the source as one run of bytes is read into memory that is used again;
strings, types of less than a byte and packed data get memory of their own, under the same budget.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from openckpt.conversion.casting import Casting
from openckpt.conversion.memory import Memory
from openckpt.conversion.planning import Row
from openckpt.errors import Where
from openckpt.formats.bundle.values import SUB_BYTE
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.workers import compute_ahead
from openckpt.limits import MIB, OBJECT_BYTES, no_memory
from openckpt.writing.values import Stored, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openckpt.conversion.memory import Bytes
    from openckpt.findings import Progress
    from openckpt.formats.spec import Array
    from openckpt.opening import CheckpointReader

DEFAULT_MEMORY = 256 * MIB
LEAST_MEMORY = 4 * MIB
_BATCH_BYTES = 32 * MIB
_BATCH_TENSORS = 4096
_ALIGNMENT = 64


class Moved(NamedTuple):
    """One tensor in memory.

    Attributes:
        row: which.
        value: as the target's type; valid until the next batch is asked for.
        stored: its bytes as a V2 data file has them, and their CRC-32C.
    """

    row: Row
    value: Array
    stored: Stored


class _Item(NamedTuple):
    row: Row
    direct: bool  # one run of plain bytes in the source, so that it is read straight into a buffer
    crc: int | None  # of the bytes in the target, where the source states it
    room: int  # bytes of memory


def move(
    ckpt: CheckpointReader,
    rows: Sequence[Row],
    *,
    casting: Casting | None = None,
    max_memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
    what: str = "converting",
    threads: int | None = 1,
) -> Generator[list[Moved]]:
    """Yield the tensors of ``rows``, in this order, many small ones at once; each is checked as it is read.

    Args:
        ckpt: where from.
        rows: which.
        casting: casts to apply; needed where a row has another type than its source.
        max_memory: bytes that all tensors in memory may take beyond the largest one.
        progress: told the bytes of the source that are done.
        what: what to call the work.
        threads: that read; one is best while the caller writes, None takes all that pay.

    Raises:
        CheckpointError, OSError: as the reader; integers that do not fit (``convert.cast``).
    """
    budget = (
        max_memory // 2 if max_memory < 128 * MIB else max_memory - 64 * MIB
    )  # the rest is the writer's and libhdf5's
    memory = Memory(budget)
    batches = list(_batches([_judge(ckpt, row) for row in rows], min(_BATCH_BYTES, budget // 4)))
    total = sum(row.spec.nbytes or 0 for row in rows)
    done = 0
    loaded = compute_ahead(lambda batch: _load(ckpt, batch, memory, casting, threads), batches)
    try:
        for batch in batches:
            buffer, items = next(loaded)  # not by zip, which would hold on to the last ones
            yield items
            items.clear()  # whoever still has the list has no tensor, so that what is given back can be freed
            if buffer is not None:
                memory.give(buffer)
            else:
                memory.release(_room(batch))
            del buffer
            done += sum(item.row.spec.nbytes or 0 for item in batch)
            if progress is not None:
                progress(what, done, total)
    finally:
        memory.cancel()  # before the generator waits for its thread, which may wait for memory
        loaded.close()


def checksum(
    ckpt: CheckpointReader,
    rows: Sequence[Row],
    *,
    casting: Casting | None = None,
    max_memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
    what: str = "checking",
) -> dict[str, int]:
    """Return ``{key: CRC-32C of the tensor's bytes as a V2 data file has them}``, every tensor read and checked."""
    with closing(
        move(ckpt, rows, casting=casting, max_memory=max_memory, progress=progress, what=what, threads=None)
    ) as moved:
        return {item.row.key: item.stored.crc or 0 for batch in moved for item in batch}


def measure(ckpt: CheckpointReader, rows: Sequence[Row], *, max_memory: int = DEFAULT_MEMORY) -> tuple[Row, ...]:
    """Return the same rows with the stored bytes of every string and variant tensor, which must be encoded to be known.

    With them a file can be laid out before anything is written, and equal tensors lie the same way whatever they come from.
    """
    opaque = [row for row in rows if not BY_NAME[row.dtype].is_numeric]
    with closing(move(ckpt, opaque, max_memory=max_memory)) as moved:
        sizes = {item.row.key: len(item.stored.data) for batch in moved for item in batch}
    return tuple(row._replace(nbytes=sizes[row.key]) if row.key in sizes else row for row in rows)


def _judge(ckpt: CheckpointReader, row: Row) -> _Item:
    spec = row.spec
    dtype = BY_NAME[spec.dtype]
    source = spec.size * dtype.itemsize
    extents = ckpt.locate(row.key) if dtype.is_numeric and spec.dtype not in SUB_BYTE else ()
    if len(extents) == 1 and extents[0].nbytes == source:
        room = max(source, spec.size * BY_NAME[row.dtype].itemsize)
        plain = row.dtype == spec.dtype and spec.dtype != "bool" and not _is_swapped(ckpt)
        return _Item(row, True, extents[0].crc if plain else None, -(-room // _ALIGNMENT) * _ALIGNMENT)
    if dtype.is_numeric:
        cast = spec.size * BY_NAME[row.dtype].itemsize if row.dtype != spec.dtype else 0
        return _Item(row, False, None, source + (cast if cast > source else 0))
    return _Item(row, False, None, 2 * (spec.nbytes or 0) + OBJECT_BYTES * spec.size)


def _is_swapped(ckpt: CheckpointReader) -> bool:
    return bool(getattr(getattr(ckpt.reader, "header", None), "big_endian", False))


def _batches(items: Sequence[_Item], most: int) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    size = 0
    for item in items:
        full = size + item.room > most or len(batch) >= _BATCH_TENSORS or (batch and batch[0].direct != item.direct)
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.room
    if batch:
        yield batch


def _room(batch: Sequence[_Item]) -> int:
    return sum(item.room for item in batch)


def _load(
    ckpt: CheckpointReader, batch: Sequence[_Item], memory: Memory, casting: Casting | None, threads: int | None
) -> tuple[Bytes | None, list[Moved]]:
    """Read one batch; on the reader thread."""
    if not batch[0].direct:
        memory.reserve(_room(batch))
        values = ckpt.read_many([item.row.key for item in batch], threads=threads)
        return None, [_finish(item, values[item.row.key], None, casting, ckpt.prefix) for item in batch]
    try:
        buffer = memory.take(_room(batch))
    except MemoryError:
        raise no_memory(Where(ckpt.prefix, batch[0].row.key), "a tensor of this size") from None
    out: dict[str, Array] = {}
    places: list[Bytes] = []
    at = 0
    for item in batch:
        places.append(buffer[at : at + item.room])
        out[item.row.key] = _target(item, buffer[at : at + item.room])
        at += item.room
    read: Mapping[str, Array] = ckpt.read_many(list(out), out=out, threads=threads)
    moved = [
        _finish(item, read[item.row.key], place, casting, ckpt.prefix)
        for item, place in zip(batch, places, strict=True)
    ]
    return buffer, moved


def _target(item: _Item, place: Bytes) -> Array:
    """Return the array to read into: at the front, or behind the room that wider results will fill."""
    spec = item.row.spec
    dtype, shape = BY_NAME[spec.dtype], spec.shape or ()
    size = prod(shape) * dtype.itemsize
    start = max(0, prod(shape) * BY_NAME[item.row.dtype].itemsize - size)
    return place[start : start + size].view(dtype.numpy()).reshape(shape)


def _finish(item: _Item, value: Array, place: Bytes | None, casting: Casting | None, path: str) -> Moved:
    row = item.row
    where = Where(path, row.key)
    if row.dtype != row.spec.dtype:
        import numpy as np

        assert casting is not None
        if place is None:
            wider = BY_NAME[row.dtype].itemsize > BY_NAME[row.spec.dtype].itemsize
            place = (
                np.empty(row.target.nbytes or 0, np.uint8)
                if wider
                else np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            )
        value = casting.cast(row.key, value, row.spec.dtype, place, where)
    stored = encode(value, BY_NAME[row.dtype], where)
    if stored.crc is None:
        stored = Stored(stored.data, crc32c(stored.data) if item.crc is None else item.crc)
    return Moved(row, value, stored)
