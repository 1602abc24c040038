"""A training that is killed at any moment: saving every step in the background, in deltas, letting go of old steps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

import openckpt
from openckpt import Checkpoint
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing import Call, CallFS, run_killed
from openckpt.training import CheckpointManager

T = TypeVar("T")
_STEPS = 5
_KEPT = 2
_KILLS = 300 * int(os.environ.get("OPENCKPT_SOAK", "1"))
PHASES = ("data", "link", "index", "manifest", "sweep")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


class Counting(CallFS):
    """Remembers every call, and which of them the disk refused."""

    def __init__(self) -> None:
        super().__init__(DISK)
        self.refused: set[int] = set()

    def around(self, call: Call, do: Callable[[], T]) -> T:
        try:
            return do()
        except OSError:
            self.refused.add(call.number)
            raise


class Program:
    """All of its numbers are the step, but for what never changes."""

    def __init__(self) -> None:
        self.state = {"w": np.zeros(40), "constant": np.arange(300.0), "bias": np.zeros(3)}
        self.checkpoint = Checkpoint(state=self.state, step=0)

    def train(self) -> None:
        self.checkpoint.step += 1
        self.state["w"] += 1
        self.state["bias"] += 1

    def check(self) -> None:
        """Raise unless all is of one step."""
        step = self.checkpoint.step
        assert (self.state["w"] == step).all()
        assert (self.state["bias"] == step).all()
        assert (self.state["constant"] == np.arange(300.0)).all()


def say(done: Path, step: int) -> None:
    """Append, so that a kill in the middle leaves what was said before."""
    with done.open("a") as file:
        file.write(f"{step}\n")


def said(done: Path) -> int:
    lines = done.read_text().split("\n")[:-1] if done.exists() else []
    return int(lines[-1]) if lines else 0


def manager_of(program: Program, directory: Path, store: WritableStore = DISK) -> CheckpointManager:
    return CheckpointManager(program.checkpoint, directory, _KEPT, delta=True, store=store)


def train(directory: Path, done: Path) -> Callable[[WritableStore], None]:
    """Return a training that says in the file ``done`` after every save which step is safe for certain."""

    def run(store: WritableStore) -> None:
        program = Program()
        manager = manager_of(program, directory, store)
        manager.restore_or_initialize()
        for _ in range(_STEPS):
            program.train()
            handle = manager.save(blocking=False)  # waits for the step before
            assert handle is not None
            say(done, program.checkpoint.step - 1)
        manager.sync()
        say(done, program.checkpoint.step)

    return run


def phase_of(calls: list[Call]) -> Iterator[str]:
    """Yield of every call of a training what was being done."""
    phase = "data"
    for call in calls:
        if call.name == "link" and ".data-" in call.path:
            phase = "link"
        elif phase == "link" and call.name in ("write", "create", "sync"):
            phase = "index"
        elif call.name == "rename" and call.detail.endswith(".index"):
            yield "index"
            phase = "manifest"
            continue
        elif call.name == "rename" and call.detail.endswith("/checkpoint") and phase == "manifest":
            yield "manifest"
            phase = "sweep"
            continue
        elif call.name in ("try_lock", "try_claim") and phase == "sweep" and "ckpt-" in call.path:
            phase = "sweep"
        elif phase == "sweep" and call.name == "create" and ".openckpt-tmp" in call.path and "ckpt-" in call.path:
            phase = "data"
        yield phase


def points_of(calls: list[Call]) -> list[int]:
    """Return numbers of calls, as many in each phase, spread over the whole run."""
    numbers: dict[str, list[int]] = {phase: [] for phase in PHASES}
    for call, phase in zip(calls, phase_of(calls), strict=True):
        numbers[phase].append(call.number)
    each = -(-_KILLS // len(PHASES))
    return sorted(own[n * len(own) // each] for own in numbers.values() for n in range(each))


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path) -> None:
    """Whichever call it is killed at: the latest step is whole, no more than the save in flight is lost, nothing is leaked."""
    counting = Counting()
    train(tmp_path / "counted", tmp_path / "counted.step")(counting)
    names = dict(zip((call.number for call in counting.calls), phase_of(counting.calls), strict=True))
    landed: Counter[str] = Counter()
    for kill, at in enumerate(points_of(counting.calls)):
        directory, done = tmp_path / f"run{kill}", tmp_path / f"run{kill}.step"
        ending = run_killed(
            train(directory, done), at, "after" if kill % 2 and at not in counting.refused else "before"
        )
        assert ending.how == "killed", ending.replay
        if ending.said.split()[1] == counting.calls[at - 1].name:  # else two threads took turns in another order
            landed[names[at]] += 1
        safe = said(done)
        program = Program()
        manager = manager_of(program, directory)
        manager.restore_or_initialize()
        program.check()
        assert safe <= program.checkpoint.step <= safe + 2, ending.replay
        program.train()
        manager.save()
        files = {path.name for path in directory.iterdir()}
        listed = {Path(path).name for path in manager.checkpoints}
        assert len(listed) <= _KEPT, ending.replay
        assert {name.partition(".")[0] for name in files} == {"checkpoint", *listed}, ending.replay
        assert not [name for name in files if "openckpt" in name], ending.replay
        for path in manager.checkpoints:
            assert openckpt.diagnose(path).valid, ending.replay
    print(f"killed {kill + 1} times: {dict(landed)}")
    assert min(landed[phase] for phase in PHASES) >= 30
