"""A trainer as TensorFlow would run it: saves, sweeps and overwrites in one directory until it is told to stop.

The order of system calls is TensorFlow's (formats 2.11, 7.1): parts in PREFIX_temp, rename the data, write the index in place,
unlink the part, remove the directory; the manifest by rename; sweep index first, then data. Nothing is synced.

    python trainer.py DIRECTORY

What it saves: generations.py. Stops when its standard input is closed.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from pathlib import Path

from generations import KEPT, sweep, tensors

from openckpt.formats.bundle import encode_bundle


def save(directory: Path, name: str, generation: int, shards: int) -> None:
    """Save one checkpoint as MergeV2 does."""
    files = encode_bundle(tensors(generation), name, shards=shards)
    temp = directory / f"{name}_temp"
    temp.mkdir(exist_ok=True)
    index = files.pop(f"{name}.index")
    parts = {}
    for shard, (file_name, data) in enumerate(files.items()):
        part = f"part-{shard:05d}-of-{shards:05d}"
        parts[f"{part}.data-00000-of-00001"] = file_name
        for part_name, content in ((f"{part}.data-00000-of-00001", data), (f"{part}.index", index)):
            (temp / f"{part_name}.tempstate1234567").write_bytes(content)
            (temp / f"{part_name}.tempstate1234567").rename(temp / part_name)
    for part_name, file_name in parts.items():
        (temp / part_name).rename(directory / file_name)
    with (directory / f"{name}.index").open("wb", buffering=0) as file:
        file.write(index[: len(index) // 3])  # in place, in pieces: a reader may see any of them
        file.write(index[len(index) // 3 :])
    for part in temp.glob("part-*.index"):
        part.unlink()
    temp.rmdir()


def write_manifest(directory: Path, names: deque[str]) -> None:
    """Write the manifest as update_checkpoint_state does."""
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    temp = directory / f"checkpoint.tmp{os.urandom(16).hex()}"
    temp.write_text("\n".join(lines) + "\n")
    temp.rename(directory / "checkpoint")


def train(directory: Path) -> None:
    """Save and sweep ``ckpt-N`` and save over ``best``, for ever."""
    kept: deque[str] = deque()
    generation = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        generation += 1
        shards = 1 + generation % 2
        name = f"ckpt-{generation}"
        save(directory, name, generation, shards)
        kept.append(name)
        write_manifest(directory, kept)
        if len(kept) > KEPT:
            sweep(directory, kept.popleft())
            write_manifest(directory, kept)
        save(directory, "best", generation, 1)
        if generation == 1:
            print("ready", flush=True)
    print(generation, flush=True)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
