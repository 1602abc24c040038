"""A power cut at any moment of delta saves: each prefix is old, new or absent, also while the files that it shares lose names."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openckpt
from fault.judging import ABSENT, read_state
from openckpt import Checkpoint
from openckpt.storage.disk import DISK
from openckpt.testing import FaultyFS, PowerLossFS
from openckpt.writing import remove_checkpoint

Report = Callable[[str], None]
PREFIXES = ("run/a", "run/b", "run/c")


class History:
    """Saves and removals, and what may be found under each prefix after each note."""

    def __init__(self) -> None:
        self.fs = PowerLossFS(name="delta")
        self.state = {"constant": np.arange(50.0), "w": np.zeros(9), "bias": np.zeros(2)}
        self.checkpoint = Checkpoint(state=self.state)
        self.allowed: dict[str, dict[str, set[str]]] = {"": {prefix: {ABSENT} for prefix in PREFIXES}}

    def _now(self) -> dict[str, set[str]]:
        return {prefix: set(states) for prefix, states in list(self.allowed.values())[-1].items()}

    def _note(self, text: str, allowed: dict[str, set[str]]) -> None:
        self.allowed[text] = allowed
        self.fs.note(text)

    def _state_after(self, prefix: str) -> str:
        """Return the state that a save will leave, from a save of the same elsewhere."""
        other = PowerLossFS(name="other")
        self.checkpoint.write(prefix, store=other)
        return read_state(other, prefix)

    def save(self, prefix: str) -> None:
        self.state["w"] += 1
        new, during = self._state_after(prefix), self._now()
        during[prefix].add(new)
        self._note(f"begin {len(self.allowed)}", during)
        saved = self.checkpoint.write(prefix, delta=True, store=self.fs)
        assert bool(saved.linked_nbytes) == (len(self.allowed) > 2)
        self._note(f"saved {len(self.allowed)}", {**during, prefix: {new}})

    def restart(self, prefix: str) -> None:
        """Go on as a process that has restored a step; `restore` itself reads the local disk."""
        self.checkpoint = Checkpoint(state=self.state)
        self.checkpoint._saves.restored(prefix)

    def remove(self, prefix: str) -> None:
        during = self._now()
        during[prefix].add(ABSENT)
        self._note(f"begin {len(self.allowed)}", during)
        remove_checkpoint(prefix, store=self.fs)
        self._note(f"removed {len(self.allowed)}", {**during, prefix: {ABSENT}})


def test_no_power_cut_breaks_a_delta_step(report: Report) -> None:
    """New steps, a step over an old one, removals of those whose files are shared, a restart."""
    history = History()
    history.save("run/a")
    history.save("run/b")
    history.save("run/b")
    history.remove("run/a")
    history.save("run/c")
    history.remove("run/b")
    history.restart("run/c")
    history.save("run/b")
    images = 0
    seen: dict[str, set[str]] = {prefix: set() for prefix in PREFIXES}
    for cut in history.fs.cuts():
        allowed = history.allowed[cut.notes[-1] if cut.notes else ""]
        for image in cut.images(limit=12, seed=images):
            images += 1
            for prefix in PREFIXES:
                found = read_state(image, prefix)
                assert found in allowed[prefix], image.replay
                seen[prefix].add(found)
    report(f"delta saves: {images} images of a power cut, each prefix old, new or absent")
    assert [len(seen[prefix]) for prefix in PREFIXES] == [2, 4, 2]


@pytest.mark.parametrize("at", range(1, 35))
def test_a_call_that_fails_leaves_what_is_shared_alone(at: int) -> None:
    """The step before is as it was, whichever call of the next is refused; and a save behind it links again, or says why not."""
    history = History()
    history.save("run/a")
    before = read_state(history.fs, "run/a")
    history.state["w"] += 1
    faulty = FaultyFS(history.fs, fail_at=at)
    with_fault = Checkpoint(state=history.state)
    with_fault._saves._delta = history.checkpoint._saves._delta
    base = with_fault._saves._delta._base
    assert base is not None
    object.__setattr__(base, "store", faulty)
    try:
        with_fault.write("run/b", delta=True, store=faulty)
    except OSError:
        assert read_state(history.fs, "run/b") == ABSENT
    assert read_state(history.fs, "run/a") == before
    assert faulty.fired
    saved = with_fault.write("run/c", delta=True, store=faulty)
    assert saved.linked_nbytes or saved.why_full
    assert read_state(history.fs, "run/a") == before
    assert read_state(history.fs, "run/c") not in (ABSENT, before)


def test_a_call_that_fails_behind_a_restore_harms_neither_step(quick_path: Path, report: Report) -> None:
    """Whichever it is, of those that look at the restored step too: the save is done, or nothing of it is there."""
    outcomes: Counter[str] = Counter()
    for at in itertools.count(1):
        directory = quick_path / str(at)
        state = {"constant": np.arange(500.0), "w": np.zeros(9)}
        first = Checkpoint(state=state).save(directory / "ckpt")
        checkpoint = Checkpoint(state=state)
        checkpoint.restore(first)
        state["w"] += 1
        faulty = FaultyFS(DISK, fail_at=at)
        try:
            saved = checkpoint.save(directory / "ckpt", delta=True, store=faulty)
        except OSError:
            outcomes["refused"] += 1
            assert read_state(DISK, str(directory / "ckpt-2")) == ABSENT
        else:
            outcomes["linked" if saved.linked_nbytes else "full"] += 1
            assert openckpt.load(saved)["state/w/.ATTRIBUTES/VARIABLE_VALUE"].tolist() == [1.0] * 9
            assert openckpt.diagnose(saved).valid
        assert openckpt.diagnose(first).valid
        if not faulty.fired:
            break
    report(f"delta saves behind a restore: call by call refused, {dict(outcomes)}")
    assert min(outcomes[how] for how in ("refused", "linked", "full")) > 3
