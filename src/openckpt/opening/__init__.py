"""From anything a user may pass to one opened checkpoint; and one directory's names grouped into checkpoints.

`group_directory` says what lies in a directory, `open` resolves a path - prefix, member file, directory, archive - and
returns a `CheckpointReader`. TensorFlow's own functions over the same (`latest_checkpoint` ...) are here too.
Must not import finding, doctor or the command line.
"""

from __future__ import annotations

from openckpt.opening.grouping import Group, Listing, group_directory
from openckpt.opening.opener import open, open_target
from openckpt.opening.reader import CheckpointReader
from openckpt.opening.resolving import How, Target, resolve
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

__all__ = [
    "CheckpointReader",
    "Group",
    "How",
    "Listing",
    "NewCheckpointReader",
    "Target",
    "TensorFlowReader",
    "checkpoint_exists",
    "get_checkpoint_state",
    "group_directory",
    "latest_checkpoint",
    "list_variables",
    "load_checkpoint",
    "load_variable",
    "open",
    "open_target",
    "resolve",
]
