"""The filters of chunked HDF5 datasets, decoded by our own code under a cap.

libhdf5 inflates a chunk for as long as the stream goes on, so 1 MiB in a file can ask for 1 GiB of memory; here the output
ends at the size that the chunk must have. lzf and szip are left to libhdf5: their output is bounded by their formats.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from openckpt.errors import CorruptionError, Where

DEFLATE, SHUFFLE, FLETCHER32, SZIP, LZF = 1, 2, 3, 4, 32000
OURS = frozenset((DEFLATE, SHUFFLE, FLETCHER32))


@dataclass(frozen=True, slots=True)
class Filter:
    """One step of the pipeline, in the order of writing: its number and its parameters."""

    number: int
    values: tuple[int, ...]


def decode_chunk(data: bytes, pipeline: Sequence[Filter], skipped: int, size: int, where: Where) -> bytes:
    """Undo ``pipeline`` on one stored chunk; the result has exactly ``size`` bytes.

    Args:
        data: the chunk as stored.
        pipeline: the filters in the order of writing, all of `OURS`.
        skipped: bit mask of the filters that the writer left out for this chunk.
        size: bytes of the chunk before filtering.
        where: the place for errors.

    Raises:
        CorruptionError: ``hdf5.chunk-checksum`` or ``hdf5.chunk-damaged``.
    """
    # a checksum of 4 bytes may still follow the data when an earlier step of the pipeline is undone
    cap = size + 4 * len(pipeline)
    for position in range(len(pipeline) - 1, -1, -1):
        if skipped >> position & 1:
            continue
        step = pipeline[position]
        if step.number == DEFLATE:
            data = _inflate(data, cap, where)
        elif step.number == FLETCHER32:
            data = _without_checksum(data, where)
        else:
            data = _unshuffle(data, step.values[0] if step.values else 1)
    if len(data) != size:
        raise CorruptionError(
            "hdf5.chunk-damaged",
            where,
            "the chunk has another size than it must",
            found=f"{len(data)} bytes",
            expected=f"{size} bytes",
        )
    return data


def _inflate(data: bytes, cap: int, where: Where) -> bytes:
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, cap + 1)
    except zlib.error as error:
        raise CorruptionError("hdf5.chunk-damaged", where, f"the compressed chunk is damaged: {error}") from None
    if len(result) > cap:
        raise CorruptionError(
            "hdf5.chunk-damaged", where, "the compressed chunk grows beyond its size", found=f"more than {cap} bytes"
        )
    if not stream.eof:
        raise CorruptionError("hdf5.chunk-damaged", where, "the compressed chunk ends early")
    return result


def _unshuffle(data: bytes, itemsize: int) -> bytes:
    import numpy as np

    count = len(data) // itemsize if itemsize > 1 else 0
    if count < 2:
        return data
    whole = count * itemsize
    planes = np.frombuffer(data, np.uint8, whole).reshape(itemsize, count)
    return planes.T.tobytes() + data[whole:]


def _without_checksum(data: bytes, where: Where) -> bytes:
    if len(data) < 4:
        raise CorruptionError("hdf5.chunk-damaged", where, "the chunk is too short for its checksum")
    body, stored = data[:-4], int.from_bytes(data[-4:], "little")
    high, low = fletcher32(body)
    # HDF5 keeps each half between 1 and 65,535, so 0 and 65,535 mean the same; a writer before 1.6.3 swapped the bytes
    found = (stored >> 16) % 65535, (stored & 0xFFFF) % 65535
    swapped = tuple((half >> 8 | (half & 0xFF) << 8) % 65535 for half in (stored >> 16, stored & 0xFFFF))
    if (high, low) not in (found, swapped):
        raise CorruptionError(
            "hdf5.chunk-checksum",
            where,
            "the checksum of the chunk does not match",
            expected=f"{stored:#010x}",
            found=f"{high << 16 | low:#010x}",
        )
    return body


def fletcher32(data: bytes) -> tuple[int, int]:
    """Return the two halves of HDF5's Fletcher-32 of ``data``: big-endian 16-bit words, sums modulo 65,535."""
    import numpy as np

    if len(data) % 2:
        data += b"\0"
    words = np.frombuffer(data, ">u2")
    low = high = 0
    step = 1 << 20  # 2**20 words: the inner product stays below 2**56
    for start in range(0, len(words), step):
        part = words[start : start + step].astype(np.int64)
        weights = np.arange(len(part), 0, -1, dtype=np.int64)
        high = (high + low * len(part) + int(part @ weights)) % 65535
        low = (low + int(part.sum())) % 65535
    return high, low
