"""Writing checkpoints: a mapping, an opened checkpoint, or tensor by tensor - one commit for all of them.

`save` and `create` lay a checkpoint out, make its bytes with the encoders of `openckpt.formats` and put it in place with
`openckpt.storage.commit`; nothing else in openckpt writes a checkpoint.

Must not import opening, nor anything above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.writing.manifests import update_checkpoint_state
    from openckpt.writing.merging import merge_parts, part_prefix
    from openckpt.writing.removing import remove_checkpoint
    from openckpt.writing.result import SavedPath
    from openckpt.writing.saving import create, save
    from openckpt.writing.sharding import ByGroup, MaxShardSize, OneShard, Sharding
    from openckpt.writing.values import Sliced, Variant
    from openckpt.writing.writer import CheckpointWriter

_HOMES = {
    "ByGroup": "sharding",
    "CheckpointWriter": "writer",
    "MaxShardSize": "sharding",
    "OneShard": "sharding",
    "SavedPath": "result",
    "Sharding": "sharding",
    "Sliced": "values",
    "Variant": "values",
    "create": "saving",
    "merge_parts": "merging",
    "part_prefix": "merging",
    "remove_checkpoint": "removing",
    "save": "saving",
    "update_checkpoint_state": "manifests",
}

__all__ = [
    "ByGroup",
    "CheckpointWriter",
    "MaxShardSize",
    "OneShard",
    "SavedPath",
    "Sharding",
    "Sliced",
    "Variant",
    "create",
    "merge_parts",
    "part_prefix",
    "remove_checkpoint",
    "save",
    "update_checkpoint_state",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
