"""V1 checkpoints (formats 3): one table, or one per shard, that holds names, shapes and the values themselves.

`open_v1` opens one for reading, `encode_v1` makes TensorFlow's bytes. Listing imports neither numpy nor protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.formats.v1.encoder import encode_v1
    from openckpt.formats.v1.files import find_v1_files
    from openckpt.formats.v1.reader import V1Reader, open_v1

_HOMES = {
    "V1Reader": "reader",
    "encode_v1": "encoder",
    "find_v1_files": "files",
    "open_v1": "reader",
}

__all__ = ["V1Reader", "encode_v1", "find_v1_files", "open_v1"]

__getattr__ = lazy_attributes(__name__, _HOMES)
