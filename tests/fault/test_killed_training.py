"""A training that is killed at any moment: saving every step in the background, in deltas, letting go of old steps.

The loop over NumPy arrays runs everywhere; those of torch and of Keras on JAX are five deaths each, and 30 times
``OPENCKPT_SOAK`` in ``make soak``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fault.killed import Phases, die_often, digest_of
from openckpt import Checkpoint
from openckpt.testing import Call

_SOAK = int(os.environ.get("OPENCKPT_SOAK", "1"))
_CHILD = Path(__file__).parents[1] / "killed_child.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
Report = Callable[[str], None]


class Arrays:
    """Arrays of which one never changes."""

    frozen = ()

    def __init__(self) -> None:
        self.state = {"w": np.zeros(40), "constant": np.arange(300.0), "bias": np.zeros(3)}
        self.checkpoint = Checkpoint(state=self.state, step=0)

    def train(self, steps: int, after_each: Callable[[], None]) -> None:
        for _ in range(steps):
            self.checkpoint.step += 1
            self.state["w"] *= 0.9
            self.state["w"] += self.checkpoint.step
            self.state["bias"] += 1
            after_each()

    def digest(self) -> str:
        return digest_of(self.state.values())


def test_a_killed_training_goes_on_where_it_was(quick_path: Path, report: Report) -> None:
    """Whichever call it is killed at: the latest step is whole, no more than the saves in flight is lost, nothing is leaked."""
    report(f"NumPy: {die_often(Arrays, quick_path, 300 * _SOAK)}")


@pytest.mark.parametrize(
    "framework",
    [
        pytest.param("torch", marks=pytest.mark.torch),
        pytest.param("keras", marks=[pytest.mark.interop, pytest.mark.jax]),
    ],
)
def test_a_killed_training_of_a_framework_goes_on_where_it_was(
    framework: str, quick_path: Path, report: Report
) -> None:
    """Weights, slots, schedule and random numbers are those of the training that never died, bit by bit."""
    deaths = 30 * _SOAK if _SOAK > 1 else 5
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(_CHILD), framework, str(quick_path), str(deaths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report(f"{framework}: {done.stdout.strip()}")


SAVES = """
-         stat run
data      create ckpt-1.0.openckpt-tmp
data      rename_new ckpt-1.data-00000-of-00001
data      sync_directory run
index     sync ckpt-1.1.openckpt-tmp
index     rename ckpt-1.index
manifest  stat checkpoint
data      create ckpt-2.0.openckpt-tmp
data      write ckpt-2.0.openckpt-tmp
data      rename_new ckpt-2.data-00000-of-00002
link      link ckpt-2.data-00001-of-00002
link      sync_directory run
index     sync ckpt-2.1.openckpt-tmp
index     rename ckpt-2.index
manifest  create ckpt-2.2.openckpt-tmp
manifest  rename checkpoint
manifest  close ckpt-2.openckpt-lock
sweep     remove ckpt-1.index
manifest  try_lock checkpoint.openckpt-lock
manifest  create checkpoint.0.openckpt-tmp
manifest  close checkpoint.run.openckpt-lock
-         stat run
"""


def test_the_phases_of_a_save() -> None:
    """A full save that breaks off behind its index, and one with a link and a sweep."""
    tell = Phases()
    for number, line in enumerate(SAVES.strip().split("\n"), 1):
        phase, name, path = line.split()
        assert tell.of(Call(number, name, f"run/{path}", f"-> run/{path}")) == phase.strip("-"), line
