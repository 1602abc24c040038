"""Live programs: `Checkpoint` saves and restores objects as ``tf.train.Checkpoint`` does, for every framework.

An adapter turns a live object into a `openckpt.training.tracking.View`; everything else here knows only views.

Must not import the other capabilities, nor anything above them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.training.background import SaveHandle
    from openckpt.training.byname import NameBasedStatus
    from openckpt.training.checkpoint import Checkpoint
    from openckpt.training.checkpointview import CheckpointView, ViewDiff
    from openckpt.training.manager import CheckpointManager
    from openckpt.training.preemption import Preemption, save_on_preemption
    from openckpt.training.report import RestoreReport
    from openckpt.training.retention import SavedStep
    from openckpt.training.saver import Saver
    from openckpt.training.status import CheckpointLoadStatus, InitializationOnlyStatus
    from openckpt.training.trees import restore
    from openckpt.training.warmstart import init_from_checkpoint

_HOMES = {
    "Checkpoint": "checkpoint",
    "CheckpointLoadStatus": "status",
    "CheckpointManager": "manager",
    "CheckpointView": "checkpointview",
    "InitializationOnlyStatus": "status",
    "NameBasedStatus": "byname",
    "Preemption": "preemption",
    "RestoreReport": "report",
    "SaveHandle": "background",
    "SavedStep": "retention",
    "Saver": "saver",
    "ViewDiff": "checkpointview",
    "init_from_checkpoint": "warmstart",
    "restore": "trees",
    "save_on_preemption": "preemption",
}

__all__ = [
    "Checkpoint",
    "CheckpointLoadStatus",
    "CheckpointManager",
    "CheckpointView",
    "InitializationOnlyStatus",
    "NameBasedStatus",
    "Preemption",
    "RestoreReport",
    "SaveHandle",
    "SavedStep",
    "Saver",
    "ViewDiff",
    "init_from_checkpoint",
    "restore",
    "save_on_preemption",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
