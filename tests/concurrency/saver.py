"""A trainer that saves with openckpt: fresh steps, one prefix over and over, the manifest; until it is told to stop.

    python saver.py DIRECTORY

Every tensor of a save holds its generation, so that any mixture of two saves shows. Layout, shard count and durability change
from save to save. Stops when its standard input is closed.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from pathlib import Path

import numpy as np

import openckpt

TENSORS = 300
KEPT = 6


def tensors(generation: int) -> dict[str, np.ndarray]:
    """Return what generation ``generation`` of the training saves: every value is the generation."""
    weights = {f"layer_{i:03d}/kernel": np.full((4, 8), generation, np.float32) for i in range(TENSORS)}
    return {**weights, "save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.array(generation, np.int64)}


def sweep(directory: Path, name: str) -> None:
    """Delete one checkpoint: the index, then the data."""
    (directory / f"{name}.index").unlink()
    for shard in directory.glob(f"{name}.data-*"):
        shard.unlink()


def train(directory: Path) -> None:
    """Save and sweep ``ckpt-N`` and save over ``best``, for ever."""
    kept: deque[str] = deque()
    generation = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        generation += 1
        name = f"ckpt-{generation}"
        openckpt.save(
            str(directory / name),
            tensors(generation),
            layout="tensorflow" if generation % 3 == 0 else "dual",
            sharding=openckpt.MaxShardSize(20_000) if generation % 2 else None,
            durability="power-loss" if generation % 8 == 0 else "process-crash",
            update_manifest=True,
        )
        kept.append(name)
        if len(kept) > KEPT:
            sweep(directory, kept.popleft())
            openckpt.update_checkpoint_state(str(directory), kept[-1], list(kept), durability="process-crash")
        openckpt.save(str(directory / "best"), tensors(generation), overwrite=True, durability="process-crash")
        if generation == 1:
            print("ready", flush=True)
    print(generation, flush=True)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
