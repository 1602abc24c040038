"""From anything a user may pass to one opened checkpoint; and one directory's names grouped into checkpoints.

`group_directory` says what lies in a directory, `open` resolves a path - prefix, member file, directory, archive - and
returns a `CheckpointReader`. TensorFlow's own functions over the same (`latest_checkpoint` ...) are here too.
Must not import finding, doctor or the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.opening.grouping import group_directory
    from openckpt.opening.listing import Group, Listing
    from openckpt.opening.loading import load
    from openckpt.opening.opener import open, open_target
    from openckpt.opening.reader import CheckpointReader
    from openckpt.opening.resolving import resolve
    from openckpt.opening.target import How, Target
    from openckpt.opening.tensorflow_api import (
        NewCheckpointReader,
        TensorFlowReader,
        checkpoint_exists,
        get_checkpoint_state,
        latest_checkpoint,
        list_variables,
        load_checkpoint,
        load_variable,
    )
    from openckpt.opening.watching import checkpoints_iterator, get_checkpoint_mtimes

_HOMES = {
    "CheckpointReader": "reader",
    "Group": "listing",
    "How": "target",
    "Listing": "listing",
    "NewCheckpointReader": "tensorflow_api",
    "Target": "target",
    "TensorFlowReader": "tensorflow_api",
    "checkpoint_exists": "tensorflow_api",
    "checkpoints_iterator": "watching",
    "get_checkpoint_mtimes": "watching",
    "get_checkpoint_state": "tensorflow_api",
    "group_directory": "grouping",
    "latest_checkpoint": "tensorflow_api",
    "list_variables": "tensorflow_api",
    "load": "loading",
    "load_checkpoint": "tensorflow_api",
    "load_variable": "tensorflow_api",
    "open": "opener",
    "open_target": "opener",
    "resolve": "resolving",
}

__all__ = [
    "CheckpointReader",
    "Group",
    "How",
    "Listing",
    "NewCheckpointReader",
    "Target",
    "TensorFlowReader",
    "checkpoint_exists",
    "checkpoints_iterator",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "group_directory",
    "latest_checkpoint",
    "list_variables",
    "load",
    "load_checkpoint",
    "load_variable",
    "open",
    "open_target",
    "resolve",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
