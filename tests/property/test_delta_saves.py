"""Random runs of delta saves: every step that is kept is whole, and all of them take little more room than full saves would."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

import openckpt
from openckpt import Checkpoint

SIZES = (1, 1, 2, 3, 5, 8, 13, 21)
"""of the tensors, in KiB"""
_SOME = st.sets(st.integers(0, len(SIZES) - 1))
_EVENTS = st.one_of(
    st.tuples(st.just("change"), _SOME),
    st.tuples(st.just("change"), _SOME),
    st.tuples(st.just("freeze"), _SOME.filter(bool)),
    st.tuples(st.just("thaw"), st.none()),
    st.tuples(st.just("resize"), st.integers(0, len(SIZES) - 1)),
    st.tuples(st.just("leave out"), st.integers(1, len(SIZES) - 1)),
    st.tuples(st.just("plain save"), st.none()),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("restore"), st.integers(0, 9)),
    st.tuples(st.just("restart"), st.none()),
)


class Machine:
    """A program, the steps that are kept, and what each must hold."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.w: dict[str, Any] = {f"t{n}": np.full(size << 7, float(n)) for n, size in enumerate(SIZES)}
        self.frozen: list[str] = []
        self.steps: dict[str, dict[str, Any]] = {}
        self.changed: set[str] = set()  # since the last save: a promise about these would be a lie
        self.highest = 0
        self.checkpoint = Checkpoint(w=self.w)

    def do(self, what: str, how: Any) -> None:
        names = list(self.w)
        if what == "change":
            for n in how:
                if n < len(names) and f"w/{names[n]}" not in self.frozen:
                    self.w[names[n]][n] += 1
                    self.changed.add(names[n])
        elif what == "freeze":
            self.frozen = [f"w/{names[n]}" for n in how if n < len(names) and names[n] not in self.changed]
        elif what == "thaw":
            self.frozen = []
        elif what == "resize":
            name = names[how % len(names)]
            self.w[name] = np.append(self.w[name], np.full(128, 7.0))
            self.changed.add(name)
        elif what == "leave out" and len(names) > 3:
            del self.w[names[how % len(names)]]
            self.frozen = []
        elif what == "plain save":
            self.checkpoint.write(self.directory / "plain", durability="process-crash")
        elif what == "delete" and len(self.steps) > 1:
            self.delete(list(self.steps)[how % len(self.steps)])
        elif what == "restore" and self.steps:
            path = list(self.steps)[how % len(self.steps)]
            self.w = {name: np.zeros_like(value) for name, value in self.steps[path].items()}
            self.checkpoint.w, self.frozen = self.w, []
            self.checkpoint.restore(path).assert_consumed()
            assert self.values_are(self.steps[path])
            self.checkpoint._count_to(self.highest)
        elif what == "restart":
            self.checkpoint = Checkpoint(w=self.w)
            self.checkpoint._count_to(self.highest)

    def values_are(self, expected: dict[str, Any]) -> bool:
        return self.w.keys() == expected.keys() and all(np.array_equal(self.w[name], expected[name]) for name in self.w)

    def save(self, *, blocking: bool) -> None:
        handle: Any = self.checkpoint.save(
            self.directory / "ckpt", delta=True, frozen=self.frozen, blocking=blocking, durability="process-crash"
        )
        saved = handle if blocking else handle.result(60)
        event("linked" if saved.linked_nbytes else saved.why_full)
        self.highest += 1
        self.changed = set()
        self.steps[saved] = {name: value.copy() for name, value in self.w.items()}
        while len(self.steps) > 4:
            self.delete(next(iter(self.steps)))
        assert len(list(self.directory.glob(f"{Path(saved).name}.data*"))) <= 8

    def delete(self, path: str) -> None:
        openckpt.remove_checkpoint(path, durability="process-crash")
        del self.steps[path]

    def check_room(self) -> None:
        full = sum(value.nbytes for values in self.steps.values() for value in values.values())
        files = {path.stat().st_ino: path.stat().st_size for path in self.directory.glob("ckpt-*")}
        assert sum(files.values()) <= 2.5 * full

    def check_steps(self) -> None:
        for path, values in self.steps.items():
            stored = openckpt.load(path)
            found = {key.split("/")[1]: value for key, value in stored.items() if key.startswith("w/")}
            assert found.keys() == values.keys()
            assert all(np.array_equal(found[name], values[name]) for name in values)
            with openckpt.open(path) as checkpoint:
                codes = {finding.code for finding in checkpoint.validate()}
            assert codes <= {"bundle.safetensors-header", "dual.superseded"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(_EVENTS, max_size=3), st.booleans()), min_size=2, max_size=14))
def test_every_step_of_any_run_is_whole_and_all_take_little_room(run: list[tuple[list[tuple[str, Any]], bool]]) -> None:
    """Changes, declarations, other shapes, tensors that go, saves of other kinds, restores, restarts, deletions, in any order."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        machine = Machine(Path(folder))
        for events, blocking in run:
            for what, how in events:
                machine.do(what, how)
            machine.save(blocking=blocking)
            machine.check_room()
        machine.check_steps()
