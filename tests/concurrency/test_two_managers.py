"""Several processes save into one directory by mistake: each save is whole or a conflict that says so, and nothing is mixed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openckpt
from openckpt.formats.manifest import parse_manifest

PROGRAM = """
import sys
import numpy as np
import openckpt
from openckpt.training import Checkpoint, CheckpointManager

directory, mine = sys.argv[1], float(sys.argv[2])
saved = conflicts = 0
while saved < 12:
    manager = CheckpointManager(Checkpoint(w=np.full(5000, mine)), directory, 3, durability="process-crash")
    for _ in range(3):
        try:
            manager.save()
            saved += 1
        except openckpt.ConflictError as error:
            assert error.code in ("training.busy-run", "training.overtaken", "training.exists"), error.code
            conflicts += 1
            break
print(saved, conflicts)
"""


def test_processes_that_save_into_one_directory(tmp_path: Path) -> None:
    """Three of them, each with new managers after a conflict: every listed step is whole and of one writer."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    results = [program.communicate(timeout=120)[0].split() for program in programs]
    assert [program.returncode for program in programs] == [0, 0, 0]
    assert all(int(saved) >= 12 for saved, _ in results)
    manifest = parse_manifest((tmp_path / "checkpoint").read_bytes(), "")
    names = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in names if "openckpt" in name]
    steps = {name.removesuffix(".index") for name in names if name.endswith(".index")}
    assert set(manifest.all_model_checkpoint_paths) <= steps
    numbers = sorted(int(step.partition("-")[2]) for step in steps)
    assert numbers[-1] == sum(int(saved) for saved, _ in results)  # no number was used twice, and none left out
    for step in steps:
        values = set(openckpt.load(tmp_path / step)["w/.ATTRIBUTES/VARIABLE_VALUE"].tolist())
        assert len(values) == 1, step
