"""A trainer that is killed in the middle of a save, at another call each time, and starts again at once.

    python crasher.py DIRECTORY

It saves with openckpt, over one prefix and under fresh ones, and sweeps up nothing itself: the next save in the directory does,
its own or that of another trainer. Stops when its standard input is closed.
"""

from __future__ import annotations

import random
import select
import sys
from pathlib import Path

from generations import tensors

import openckpt
from openckpt.storage.writable import WritableStore
from openckpt.testing import run_killed

CALLS = 60  # of one save, about


def crash(directory: Path) -> None:
    """Save and be killed, for ever."""
    chance = random.Random(0)
    generation = killed = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        generation += 1
        prefix = str(directory / chance.choice(["again", "again", f"other{generation}"]))

        def save(store: WritableStore, prefix: str = prefix, generation: int = generation) -> None:
            openckpt.save(prefix, tensors(generation), overwrite=True, durability="process-crash", store=store)

        ending = run_killed(save, chance.randint(1, CALLS), chance.choice(["before", "after"]))
        if ending.how == "raised":
            raise SystemExit(ending.said)
        killed += ending.how == "killed"
        if generation == 1:
            print("ready", flush=True)
    print(killed, flush=True)


if __name__ == "__main__":
    crash(Path(sys.argv[1]))
