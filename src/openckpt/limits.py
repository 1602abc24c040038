"""Caps against hostile input, one frozen record.

Every size that a file states is compared first with the bytes that exist and then with the cap here, before anything is
allocated (promise P6). The defaults are far above any honest checkpoint; a caller with an extraordinary one passes
``Limits(...)`` with the one cap raised, as the `LimitError` tells.
"""

from __future__ import annotations

from typing import NamedTuple

from openckpt.errors import LimitError, Where

MIB, GIB = 1 << 20, 1 << 30
FREE_BYTES = 64 * MIB
"""what may come out of anything, however small, before `Limits.archive_ratio` counts"""
OBJECT_BYTES = 64
"""about what one string costs as a Python object"""


class Limits(NamedTuple):
    """How much openckpt is willing to take from one file. Sizes are bytes unless the name says otherwise."""

    # Table format (formats 1). TensorFlow writes 256 KiB blocks; one entry may be larger (a V1 tensor up to 2 GiB).
    block_bytes: int = 2 * GIB
    """largest stored or uncompressed table block"""
    key_bytes: int = 1 * MIB
    """longest key of a table"""
    tensor_bytes: int = 1 << 46
    """largest tensor that will be allocated for one read"""
    tensor_rank: int = 254
    """most dimensions of a shape (TensorFlow's own maximum)"""
    shards: int = 100_000
    """most data shards of a checkpoint"""
    key_expansion: int = 32
    """most times that shared prefixes may make the keys of a block longer than the block"""
    slices: int = 50_000
    """most slices of one partitioned tensor"""
    graph_bytes: int = 1 * GIB
    """largest object graph, meta graph or saved model that will be parsed"""
    graph_nodes: int = 20_000_000
    """most nodes and edges of an object graph"""
    graph_paths: int = 1_000_000
    """most paths that `ObjectGraph.paths` yields for one key (shared nodes can multiply without end)"""
    manifest_bytes: int = 64 * MIB
    """largest `checkpoint` state file"""
    header_bytes: int = 100_000_000
    """largest safetensors header (the reference reader's cap)"""
    json_bytes: int = 256 * MIB
    """largest JSON document (Keras config)"""
    archive_members: int = 1_000_000
    """most members of one archive"""
    archive_bytes: int = 16 * GIB
    """most bytes held in memory for the members of one compressed archive"""
    archive_ratio: int = 200
    """most times that compressed data may grow, beyond the first 64 MiB"""
    archive_header_bytes: int = 1 * MIB
    """largest extended header or long name of a tar member"""
    archive_dictionary_bytes: int = 128 * MIB
    """most memory that an xz or LZMA decoder may take (``xz -9`` needs 65 MiB)"""
    archive_nesting: int = 1
    """archives inside archives"""
    hdf5_objects: int = 1_000_000
    """most groups and datasets of one HDF5 file"""
    hdf5_depth: int = 64
    """deepest nesting of HDF5 groups"""
    directory_depth: int = 200
    """deepest directory that `find` enters"""

    def check(self, name: str, value: int, where: Where | str, what: str) -> None:
        """Raise `LimitError` when ``value`` exceeds the limit called ``name``; ``what`` names the value in the message."""
        cap: int = getattr(self, name)
        if value > cap:
            raised = max(value, 2 * cap)  # what is counted on the way stops right above the cap, and would again
            raise LimitError(
                "limits.exceeded",
                where,
                f"{what} is {value}, above the limit {name}={cap}",
                fix=f"if you trust this file, pass limits=openckpt.Limits({name}={raised}) or --limit {name}={raised}",
            )


def growth_of(size: int, stored: int) -> int:
    """Return how many times ``stored`` bytes grow to ``size``, the free 64 MiB not counted: what `Limits.archive_ratio` caps."""
    return -(-(size - FREE_BYTES) // max(stored, 1)) if size > FREE_BYTES else 0


def no_memory(where: Where | str, what: str) -> LimitError:
    """Make the error for what has enough bytes in the file and this process not enough memory for."""
    return LimitError("limits.no-memory", where, f"there is not enough memory to read {what}")


DEFAULT_LIMITS = Limits()
