"""A trainer that saves with openckpt: fresh steps, one prefix over and over, the manifest; until it is told to stop.

    python saver.py DIRECTORY

What it saves: generations.py. Layout, shard count and durability change from save to save. Stops when its input is closed.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from pathlib import Path

from generations import KEPT, sweep, tensors

import openckpt


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
