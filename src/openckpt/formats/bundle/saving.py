"""Whether a prefix is being saved right now (formats 2.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.formats.names import TEMP_SUFFIX

if TYPE_CHECKING:
    from openckpt.storage.reading import Store


def is_being_saved(store: Store, prefix: str) -> bool:
    """Return whether the save of this prefix still runs, or died: TensorFlow works in the directory ``PREFIX_temp``."""
    stat = store.stat(prefix + TEMP_SUFFIX)
    return stat is not None and stat.kind == "dir"
