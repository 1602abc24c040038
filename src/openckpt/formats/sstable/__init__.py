"""The table format (formats 1): the sorted string -> string map under ``.index`` files and V1 checkpoints.

`Table` reads one, block by block, every block's CRC checked; `encode_table` writes TensorFlow's bytes.
Knows nothing of what keys and values mean.
"""

from openckpt.formats.sstable.builder import TableBuilder, encode_table
from openckpt.formats.sstable.format import MAGIC_BYTES, Handle
from openckpt.formats.sstable.table import Table

__all__ = ["MAGIC_BYTES", "Handle", "Table", "TableBuilder", "encode_table"]
