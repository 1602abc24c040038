"""Whoever sweeps up after a dead writer sweeps all of it, or leaves the note that says what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openckpt
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS, count_calls, run_killed

DATA, LOCK = "ckpt-1.data-00000-of-00001", "ckpt-1.openckpt-lock"


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A directory in which a save died right before its index got its name, its data having it already."""

    def save(directory: Path) -> Callable[[object], object]:
        return lambda store: openckpt.save(str(directory / "ckpt-1"), {"w": np.arange(3)}, store=store)  # type: ignore[arg-type]

    directory = tmp_path / "run"
    directory.mkdir()
    for at in range(count_calls(save(tmp_path / "count")), 0, -1):
        ending = run_killed(save(directory), at)
        if ending.said.endswith("ckpt-1.index") and " rename " in ending.said:
            break
        for path in directory.iterdir():
            path.unlink()
    assert {DATA, LOCK} < {path.name for path in directory.iterdir()}
    return directory


def test_an_update_of_the_manifest_sweeps_published_data_too(dead: Path) -> None:
    """Not the lock alone: without it nobody would know whose the data is, and it would stay for ever."""
    openckpt.update_checkpoint_state(str(dead), "ckpt-0")
    assert [path.name for path in dead.iterdir()] == ["checkpoint"]


def test_a_commit_that_cannot_judge_the_data_leaves_the_record(dead: Path) -> None:
    """A file of another format is put beside it; the next save of a checkpoint sweeps."""
    with Commit(CallFS(DISK), str(dead), "weights.npz") as commit:  # OrderFS would have the other lock gone too
        commit.switch(commit.put(b"bytes"), "weights.npz")
    assert {DATA, LOCK, "weights.npz"} <= {path.name for path in dead.iterdir()}

    openckpt.save(str(dead / "ckpt-2"), {"w": np.arange(3)})

    names = {path.name for path in dead.iterdir()}
    assert names == {"weights.npz", "ckpt-2.index", "ckpt-2.data-00000-of-00001"}
