"""What the trainers of these tests save: every value of a checkpoint is its generation, so that a mixture of two saves shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TENSORS = 300
KEPT = 6


def tensors(generation: int) -> dict[str, np.ndarray]:
    """Return what generation ``generation`` of the training saves: every value is the generation."""
    weights = {f"layer_{i:03d}/kernel": np.full((4, 8), generation, np.float32) for i in range(TENSORS)}
    return {**weights, "save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.array(generation, np.int64)}


def sweep(directory: Path, name: str) -> None:
    """Delete one checkpoint as TensorFlow does: the index, then the data."""
    (directory / f"{name}.index").unlink()
    for shard in directory.glob(f"{name}.data-*"):
        shard.unlink()
