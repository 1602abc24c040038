"""Random runs of a manager - restarts, deaths in the middle of a save, pins, metrics - against a dict of what must be there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fault.judging import ABSENT, read_latest, read_state
from openckpt.testing import FaultyFS, PowerLossFS
from openckpt.training import Checkpoint, CheckpointManager

EVENTS = st.one_of(
    st.tuples(st.just("save"), st.integers(0, 9)),
    st.tuples(st.just("save"), st.integers(0, 9)),
    st.tuples(st.just("restart"), st.integers(1, 3)),
    st.tuples(st.just("die"), st.integers(1, 90)),
    st.tuples(st.just("pin"), st.integers(0, 3)),
)


class Machine:
    """A run in memory, and what is known of it.

    Attributes:
        saved: path -> state of every step whose save returned.
        losses: path -> metric, of the same.
        pinned: those that may never go.
    """

    def __init__(self) -> None:
        self.fs = PowerLossFS()
        self.time = 1e9
        self.keep = 2
        self.saved: dict[str, str] = {}
        self.losses: dict[str, float] = {}
        self.pinned: set[str] = set()
        self.manager = self.fresh()

    def clock(self) -> float:
        self.time += 1.0
        return self.time

    def fresh(self, store: Any = None) -> CheckpointManager:
        return CheckpointManager(
            Checkpoint(w=np.zeros(3)), "run", self.keep, best="loss", clock=self.clock, store=store or self.fs
        )

    def save(self, loss: int) -> None:
        """Save, and look at all that must hold when a save has returned."""
        manager = self.manager
        manager.checkpoint.w[:] = len(self.saved) + 1
        path = manager.save(metrics={"loss": loss})
        assert path is not None and path not in self.saved, "a number is never used twice"
        self.saved[path], self.losses[path] = read_state(self.fs, path), float(loss)
        assert manager.latest_checkpoint == path == read_latest(self.fs, "run")
        listed = manager.checkpoints
        newest = listed[-self.keep :]
        best = min(step.metrics["loss"] for step in manager.steps)
        assert manager.best_checkpoint is not None
        assert self.losses.get(manager.best_checkpoint, best) == best
        assert len(listed) <= len(set(newest) | {manager.best_checkpoint})
        self.check(listed)
        kept = {*listed, *self.pinned}
        names = {stat.name for stat in self.fs.scan("run")} - {"checkpoint"}
        assert {f"run/{name.partition('.')[0]}" for name in names} == kept, "nothing is left behind"
        assert not [name for name in names if "openckpt" in name]

    def check(self, must: Any) -> None:
        """Assert that these steps and the pinned ones are there as they were saved, and every other one too, or not at all."""
        for path, state in self.saved.items():
            found = read_state(self.fs, path)
            assert found == state or (found == ABSENT and path not in must and path not in self.pinned), path

    def restart(self, keep: int) -> None:
        self.keep = keep
        before = self.manager
        self.manager = self.fresh()
        assert self.manager.latest_checkpoint == before.latest_checkpoint
        assert set(self.manager.checkpoints) == set(before.checkpoints) - self.pinned

    def die(self, at: int) -> None:
        """Die at some call of a save, and go on with a new program."""
        before = self.manager.latest_checkpoint
        dying = self.fresh(FaultyFS(self.fs, fail_at=1_000_000, forever=True))
        faulty: Any = dying._store
        faulty._fail_at = len(faulty.calls) + at
        dying.checkpoint.w[:] = -1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of its end
            try:
                died = dying.save(metrics={"loss": 99})
            except OSError:
                died = None
            self.fs.kill_writers()
            self.manager = self.fresh()  # which says where there is no manifest yet
        latest = self.manager.latest_checkpoint
        if died is not None:
            self.saved[died], self.losses[died] = read_state(self.fs, died), 99.0
            assert latest == died
        elif latest != before:  # it came to its index: whole, as it was
            assert latest is not None
            self.saved[latest], self.losses[latest] = read_state(self.fs, latest), 99.0
            assert not self.saved[latest].startswith("broken")
        self.check([latest])

    def pin(self, number: int) -> None:
        if number < len(self.manager.checkpoints):
            path = self.manager.checkpoints[number]
            self.manager.pin(path)
            self.pinned.add(path)


@example([("die", 37), ("die", 7)])  # the second death comes before the second note
@example([("die", 37), ("pin", 0)])  # a pin is what lists the step of a dead manager
@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, min_size=2, max_size=14))
def test_every_run_keeps_what_it_must_and_nothing_else(events: list[tuple[str, int]]) -> None:
    """Numbers never repeat, the newest and the best stay, the pinned stay for ever, the dead leave nothing."""
    machine = Machine()
    for what, how in events:
        getattr(machine, what)(how)
    machine.save(5)
