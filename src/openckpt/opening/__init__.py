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

__all__ = ["CheckpointReader", "Group", "How", "Listing", "Target", "group_directory", "open", "open_target", "resolve"]
