"""openckpt opens, proves, explains and writes TensorFlow checkpoints - without TensorFlow.

    import openckpt
    with openckpt.open("zoo/ssd_mobilenet.tar.gz") as ckpt:
        print(ckpt.format, ckpt.step, len(ckpt))
        kernel = ckpt["dense/kernel"]
    openckpt.save("run/ckpt-1", {"dense/kernel": kernel})

This module is the flat public face; nothing is computed here. Every name is imported when it is first used, so that
``import openckpt`` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

__version__ = "0.1.0"

_HOMES = {
    "ByGroup": "writing",
    "Checkpoint": "training",
    "CheckpointError": "errors",
    "CheckpointLoadStatus": "training",
    "CheckpointManager": "training",
    "CheckpointReader": "opening",
    "CheckpointView": "training",
    "CheckpointWarning": "errors",
    "CheckpointWriter": "writing",
    "ConflictError": "errors",
    "Conversion": "conversion",
    "CorruptionError": "errors",
    "Finding": "findings",
    "FormatError": "errors",
    "FoundCheckpoint": "finding",
    "InitializationOnlyStatus": "training",
    "LimitError": "errors",
    "Limits": "limits",
    "MaxShardSize": "writing",
    "MismatchError": "errors",
    "NameBasedStatus": "training",
    "NewCheckpointReader": "opening",
    "NotFoundError": "errors",
    "NotMatchedError": "errors",
    "PartialRestoreWarning": "errors",
    "PathNotFoundError": "errors",
    "Preemption": "training",
    "Report": "doctor",
    "RestoreReport": "training",
    "SaveHandle": "training",
    "SavedPath": "writing",
    "SavedStep": "training",
    "Saver": "training",
    "Sliced": "writing",
    "TensorSpec": "formats.spec",
    "UnsafeError": "errors",
    "UnsupportedError": "errors",
    "Variant": "writing",
    "ViewDiff": "training",
    "Where": "errors",
    "checkpoint_exists": "opening",
    "checkpoints_iterator": "opening",
    "convert": "conversion",
    "create": "writing",
    "diagnose": "doctor",
    "find": "finding",
    "get_checkpoint_mtimes": "opening",
    "get_checkpoint_state": "opening",
    "init_from_checkpoint": "training",
    "latest_checkpoint": "opening",
    "list_variables": "opening",
    "load": "opening",
    "load_checkpoint": "opening",
    "load_variable": "opening",
    "merge_parts": "writing",
    "open": "opening",
    "part_prefix": "writing",
    "remove_checkpoint": "writing",
    "restore": "training",
    "save": "writing",
    "save_on_preemption": "training",
    "update_checkpoint_state": "writing",
}

__all__ = [
    "ByGroup",
    "Checkpoint",
    "CheckpointError",
    "CheckpointLoadStatus",
    "CheckpointManager",
    "CheckpointReader",
    "CheckpointView",
    "CheckpointWarning",
    "CheckpointWriter",
    "ConflictError",
    "Conversion",
    "CorruptionError",
    "Finding",
    "FormatError",
    "FoundCheckpoint",
    "InitializationOnlyStatus",
    "LimitError",
    "Limits",
    "MaxShardSize",
    "MismatchError",
    "NameBasedStatus",
    "NewCheckpointReader",
    "NotFoundError",
    "NotMatchedError",
    "PartialRestoreWarning",
    "PathNotFoundError",
    "Preemption",
    "Report",
    "RestoreReport",
    "SaveHandle",
    "SavedPath",
    "SavedStep",
    "Saver",
    "Sliced",
    "TensorSpec",
    "UnsafeError",
    "UnsupportedError",
    "Variant",
    "ViewDiff",
    "Where",
    "__version__",
    "checkpoint_exists",
    "checkpoints_iterator",
    "convert",
    "create",
    "diagnose",
    "find",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "init_from_checkpoint",
    "latest_checkpoint",
    "list_variables",
    "load",
    "load_checkpoint",
    "load_variable",
    "merge_parts",
    "open",
    "part_prefix",
    "remove_checkpoint",
    "restore",
    "save",
    "save_on_preemption",
    "update_checkpoint_state",
]

if TYPE_CHECKING:
    from openckpt.conversion import Conversion, convert
    from openckpt.doctor import Report, diagnose
    from openckpt.errors import (
        CheckpointError,
        CheckpointWarning,
        ConflictError,
        CorruptionError,
        FormatError,
        LimitError,
        MismatchError,
        NotFoundError,
        NotMatchedError,
        PartialRestoreWarning,
        PathNotFoundError,
        UnsafeError,
        UnsupportedError,
        Where,
    )
    from openckpt.finding import FoundCheckpoint, find
    from openckpt.findings import Finding
    from openckpt.formats.spec import TensorSpec
    from openckpt.limits import Limits
    from openckpt.opening import (
        CheckpointReader,
        NewCheckpointReader,
        checkpoint_exists,
        checkpoints_iterator,
        get_checkpoint_mtimes,
        get_checkpoint_state,
        latest_checkpoint,
        list_variables,
        load,
        load_checkpoint,
        load_variable,
        open,
    )
    from openckpt.training import (
        Checkpoint,
        CheckpointLoadStatus,
        CheckpointManager,
        CheckpointView,
        InitializationOnlyStatus,
        NameBasedStatus,
        Preemption,
        RestoreReport,
        SavedStep,
        SaveHandle,
        Saver,
        ViewDiff,
        init_from_checkpoint,
        restore,
        save_on_preemption,
    )
    from openckpt.writing import (
        ByGroup,
        CheckpointWriter,
        MaxShardSize,
        SavedPath,
        Sliced,
        Variant,
        create,
        merge_parts,
        part_prefix,
        remove_checkpoint,
        save,
        update_checkpoint_state,
    )


__getattr__ = lazy_attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
