"""A trainer whose manager keeps one step, saving as fast as it can until its standard input is closed.

python manager.py DIRECTORY
"""

from __future__ import annotations

import select
import sys

import numpy as np

import openckpt


def train(directory: str) -> None:
    """Save steps whose every value is their number."""
    w = np.zeros(2000)
    manager = openckpt.CheckpointManager(openckpt.Checkpoint(w=w), directory, 1, durability="process-crash")
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        w[:] = number
        manager.save(blocking=number % 2 == 0)
        if number == 1:
            manager.sync()
            print("ready", flush=True)
    manager.save()
    print(number, flush=True)


if __name__ == "__main__":
    train(sys.argv[1])
