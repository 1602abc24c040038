"""The step that a checkpoint holds inside, for prefixes whose name does not say it; read without numpy.

The save counter of an object-based checkpoint comes first (formats 6.3), then the global step of a name-based one.
"""

from __future__ import annotations

from openckpt.errors import CheckpointError
from openckpt.formats.bundle import BundleReader
from openckpt.formats.crc import crc32c
from openckpt.formats.spec import VALUE_SUFFIX, TensorReader

_KEYS = (
    "save_counter" + VALUE_SUFFIX,
    "save_counter",
    "global_step",
    "global_step" + VALUE_SUFFIX,
)


def read_stored_step(reader: TensorReader) -> int | None:
    """Return the save counter or the global step; None where there is none or it cannot be read."""
    for key in _KEYS:
        try:
            if key in reader:
                value = _read_integer(reader, key)
                if value is not None:
                    return value
        except (CheckpointError, OSError):
            continue  # the step is a convenience, and no reason to refuse the rest
    return None


def _read_integer(reader: TensorReader, key: str) -> int | None:
    spec = reader.spec(key)
    if spec.shape != () or spec.dtype not in ("int64", "int32"):
        return None
    if isinstance(reader, BundleReader):
        entry = reader.entry(key)
        if entry.size == (8 if spec.dtype == "int64" else 4) and not entry.slices:
            data = reader.shards.get(entry.shard, key).read_at(entry.offset, entry.size)
            if crc32c(data) != entry.crc:
                return None
            return int.from_bytes(data, "big" if reader.header.big_endian else "little", signed=True)
    return int(reader.read(key))
