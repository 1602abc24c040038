"""Many index entries decoded at once: those of equal dtype, shape and length differ only in their place and checksum.

    head: dtype, shape | 18 shard | 20 offset | 28 size | 35 crc
    equal in a group   | varints that are 0 are left out; the size follows from the head | 4 bytes

A large model has tens of thousands of small tensors, and then the loop over entries costs more than reading the bytes. Rows of
a group are compared with the one canonical layout as columns of a matrix; whatever does not match goes the slow way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openckpt.formats.wire import encode_field

_SHARD, _OFFSET, _CRC = 0x18, 0x20, 0x35
_MOST_OFFSET_BYTES = 8  # 56 bits: more is no file, and fits into int64 whatever the bytes are
_DELTA = np.uint32(0xA282EAD8)  # of the masking of checksums (formats 0.1)


class Places(NamedTuple):
    """What the entries of a group say, one element per entry; where ``canonical`` is false the others mean nothing."""

    canonical: np.ndarray[tuple[int], np.dtype[np.bool_]]
    shard: np.ndarray[tuple[int], np.dtype[np.int64]]
    offset: np.ndarray[tuple[int], np.dtype[np.int64]]
    crc: np.ndarray[tuple[int], np.dtype[np.uint32]]
    """unmasked"""


def parse_tails(values: list[bytes], cut: int, nbytes: int) -> Places:
    """Return the places in many entries.

    Args:
        values: entries of equal length whose first ``cut`` bytes (dtype and shape) are equal.
        cut: where the tail begins.
        nbytes: the size that dtype and shape demand; an entry that states another is not canonical.
    """
    rows = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)[:, cut:]
    fixed = np.frombuffer((encode_field(5, nbytes) if nbytes else b"") + bytes((_CRC,)), np.uint8)
    start = rows.shape[1] - 4 - len(fixed)
    shards = np.zeros(len(rows), np.int64)
    offsets = np.zeros(len(rows), np.int64)
    if start < 0:
        return Places(np.zeros(len(rows), np.bool_), shards, offsets, np.zeros(len(rows), np.uint32))
    canonical = (rows[:, start:-4] == fixed).all(axis=1)
    place = rows[:, :start]
    if start:
        sharded = place[:, 0] == _SHARD
        for mask, begin in ((~sharded, 0), (sharded, 2)):
            part = place[mask]
            if not len(part):
                continue
            if start < begin:
                canonical[mask] = False
                continue
            if begin:
                shards[mask] = part[:, 1]
                canonical[mask] &= part[:, 1] < 0x80
            offsets[mask], right = _parse_offsets(part[:, begin:])
            canonical[mask] &= right
    masked = rows[:, -4:].copy().view("<u4").reshape(-1) - _DELTA
    return Places(canonical, shards, offsets, (masked >> np.uint32(17)) | (masked << np.uint32(15)))


def _parse_offsets(
    fields: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Return ``(offsets, whether the row is right)`` of rows that hold the offset field and nothing else."""
    count, width = fields.shape
    offsets = np.zeros(count, np.int64)
    if width == 0:
        return offsets, np.ones(count, np.bool_)
    if not 2 <= width <= 1 + _MOST_OFFSET_BYTES:
        return offsets, np.zeros(count, np.bool_)
    right = (fields[:, 0] == _OFFSET) & (fields[:, 1:-1] >= 0x80).all(axis=1) & (fields[:, -1] < 0x80)
    for index in range(1, width):
        offsets |= (fields[:, index].astype(np.int64) & 0x7F) << (7 * (index - 1))
    return offsets, right
