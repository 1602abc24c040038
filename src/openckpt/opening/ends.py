"""Where the tensors of each data file end, by the index: how long the files must be at least."""

from __future__ import annotations

from openckpt.errors import CheckpointError, Where
from openckpt.formats.bundle.entry import parse_entry, parse_tail, prefix_end
from openckpt.formats.sstable.table import Table
from openckpt.limits import Limits


def data_ends(table: Table, limits: Limits) -> dict[int, int] | None:
    """Return the end of the last tensor of each shard, about a microsecond a tensor; None where an entry does not parse.

    Raises:
        FormatError: a block of the index is damaged.
    """
    ends: dict[int, int] = {}
    try:
        for keys, values in table.blocks():
            for value in values if keys[:1] != [b""] else values[1:]:  # the header is no entry
                cut = prefix_end(value)
                place = parse_tail(value, cut) if cut else None
                if place is not None:
                    shard, offset, size, _ = place
                else:
                    entry = parse_entry(value, Where(table.path), limits)
                    shard, offset, size = entry.shard, entry.offset, entry.size
                if offset + size > ends.get(shard, 0):
                    ends[shard] = offset + size
    except CheckpointError as error:
        if error.code.startswith("table."):
            raise
        return None  # a broken entry is its reader's to report
    return ends
