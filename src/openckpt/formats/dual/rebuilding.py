"""The index of a dual checkpoint, made again from the headers of its shards (docs/format/dual.md).

Every fact of an entry stands in the header of its shard: key, dtype, shape, size, slice and checksum in the metadata or the
header itself, the offset by the layout, the number of the shard by the name of its file. What was written by the same rules is
the same to the byte. The slices of a partitioned tensor are listed shard by shard, within a shard in the order of their extents,
and its own entry carries the number of the first shard that holds one: what a merge of parts makes of them, too (formats 2.11).
"""

from __future__ import annotations

from collections.abc import Sequence

from openckpt.errors import CorruptionError, UnsupportedError
from openckpt.formats.bundle.entry import BundleEntry, encode_entries, encode_entry
from openckpt.formats.bundle.header import encode_header
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual.parsing import DualShard, gather_pieces
from openckpt.formats.slicekeys import encode_slice_key
from openckpt.formats.sstable.builder import encode_table
from openckpt.limits import DEFAULT_LIMITS, Limits


def index_of_dual(shards: Sequence[DualShard], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of ``PREFIX.index``.

    Args:
        shards: what the header of every shard says, in the order of their numbers.
        limits: caps on numbers of slices.

    Raises:
        UnsupportedError: a delta checkpoint (``dual.superseded``): which of several values of a tensor counts, only its index
            says.
        CorruptionError: the shards are not of one checkpoint (``dual.duplicate-key``, ``dual.contradiction``).
    """
    delta = next((shard for shard in shards if shard.superseded), None)
    if delta is not None:
        message = (
            "the index of a delta checkpoint cannot be made again: linked data files hold values of earlier steps too"
        )
        raise UnsupportedError("dual.superseded", delta.path, message)
    pieces = gather_pieces(shards, limits)
    keys: list[bytes] = []
    rows: list[tuple[int, tuple[int, ...] | None, int, int, int, int]] = []
    for number, shard in enumerate(shards):
        for _, key, spec, offset, crc, extents, _ in shard.entries:
            keys.append(key if extents is None else encode_slice_key(key, extents))
            rows.append((BY_NAME[spec.dtype].enum, spec.shape, number, offset, spec.nbytes or 0, crc))
    entries = dict(zip(keys, encode_entries(rows), strict=True))
    for key, found in pieces.items():
        first = found[0].entry
        slices = tuple(piece.entry.slice for piece in found if piece.entry.slice is not None)
        entry = BundleEntry(BY_NAME[first.spec.dtype].enum, first.full_shape, found[0].shard, 0, 0, 0, slices)
        entries[key] = encode_entry(entry)
    if len(entries) != len(keys) + len(pieces):
        message = "the key of a tensor is the slice key of another"
        raise CorruptionError("dual.duplicate-key", shards[0].path, message)
    return encode_table([(b"", encode_header(len(shards))), *sorted(entries.items())])
