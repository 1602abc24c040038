"""The table format (formats 1): the sorted string -> string map under ``.index`` files and V1 checkpoints.

`Table` reads one, block by block, every block's CRC checked; `encode_table` writes TensorFlow's bytes.
Knows nothing of what keys and values mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.formats.sstable.builder import encode_table
    from openckpt.formats.sstable.format import MAGIC_BYTES, Handle
    from openckpt.formats.sstable.table import Table

_HOMES = {
    "MAGIC_BYTES": "format",
    "Handle": "format",
    "Table": "table",
    "encode_table": "builder",
}

__all__ = ["MAGIC_BYTES", "Handle", "Table", "encode_table"]

__getattr__ = lazy_attributes(__name__, _HOMES)
