"""The index of a dual checkpoint, made again from the headers of its shards (docs/format/dual.md).

Every fact of an entry stands in the header of its shard: key, dtype, shape, size, slice and checksum in the metadata or the
header itself, the offset by the layout, the number of the shard by the name of its file. What was written by the same rules is
the same to the byte. The slices of a partitioned tensor are listed in the order of their extents.
"""

from __future__ import annotations

from collections.abc import Sequence

from openckpt.formats.bundle.entry import BundleEntry, encode_entry
from openckpt.formats.bundle.header import encode_header
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual.parsing import DualShard, gather_pieces, twice
from openckpt.formats.slicing import encode_slice_key
from openckpt.formats.sstable.builder import encode_table
from openckpt.limits import DEFAULT_LIMITS, Limits


def index_of_dual(shards: Sequence[DualShard], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of ``PREFIX.index``.

    Args:
        shards: what the header of every shard says, in the order of their numbers.
        limits: caps on numbers of slices.

    Raises:
        CorruptionError: the shards are not of one checkpoint (``dual.duplicate-key``, ``dual.contradiction``).
    """
    pieces = gather_pieces(shards, limits)
    entries: dict[bytes, bytes] = {b"": encode_header(len(shards))}
    for number, shard in enumerate(shards):
        for name, key, spec, offset, crc, piece, _ in shard.entries:
            stored = key if piece is None else encode_slice_key(key, piece)
            if stored in entries:  # a key that looks like the slice key of another tensor
                raise twice(shard, name, offset)
            entry = BundleEntry(BY_NAME[spec.dtype].enum, spec.shape, number, offset, spec.nbytes or 0, crc)
            entries[stored] = encode_entry(entry)
    for key, found in pieces.items():
        whole = found[0]
        slices = tuple(entry.slice for entry in found if entry.slice is not None)
        if key in entries:
            raise twice(shards[0], whole.name, whole.offset)
        entries[key] = encode_entry(BundleEntry(BY_NAME[whole.spec.dtype].enum, whole.full_shape, 0, 0, 0, 0, slices))
    return encode_table(sorted(entries.items()))
