"""Weights in several files that an index in JSON lists: ``{"weight_map": {NAME: FILE, ...}}`` (formats 8.3, 8.4).

Keras 3 and safetensors share the form. File names in it are data: plain names in the index's own directory, or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, UnsafeError, Where
from openckpt.formats.strictjson import Json, parse_json
from openckpt.storage.reading import read_whole

if TYPE_CHECKING:
    from openckpt.limits import Limits
    from openckpt.storage.reading import Store

MISSING = "unknown-missing-shard"
"""the dtype under which a tensor is listed whose file is not there"""


def read_index(store: Store, path: str, limits: Limits) -> bytes:
    """Return the text of an index; raises LimitError above ``limits.json_bytes``, OSError."""
    return read_whole(store, path, limits=limits, cap="json_bytes", what="the size of the index")


def parse_map(
    data: bytes, path: str, *, code: str, text_code: str | None = None, duplicate_code: str | None = None
) -> dict[str, Json]:
    """Return the ``weight_map`` of an index, its file names as they stand there.

    Raises:
        CorruptionError: no JSON (``text_code``, else ``code``), or no such object in it (``code``).
    """
    document = parse_json(data, path, code=text_code or code, duplicate_code=duplicate_code)
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        raise CorruptionError(code, path, "the index has no object called weight_map")
    return weight_map


def plain_name(name: Json, where: Where, *, code: str, unsafe_code: str) -> str:
    """Return the name of a file of the checkpoint, read from its index.

    Raises:
        CorruptionError: not a name at all (``code``).
        UnsafeError: not a plain name in the index's own directory (``unsafe_code``).
    """
    if not isinstance(name, str) or not name:
        raise CorruptionError(code, where, "the file name is not a string")
    if name in (".", "..") or any(c in name for c in "/\\\0!") or (len(name) > 1 and name[1] == ":"):
        raise UnsafeError(
            unsafe_code, where, "a file of this checkpoint is named by a path, not by a plain name", found=repr(name)
        )
    return name
