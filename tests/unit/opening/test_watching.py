"""Looking at a run from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import openckpt
from openckpt.errors import CheckpointWarning
from openckpt.opening.watching import checkpoints_iterator, get_checkpoint_mtimes


class World:
    """A clock that goes on when somebody sleeps, and what happens meanwhile."""

    def __init__(self, *events: tuple[float, Callable[[], object]]) -> None:
        self.now = 100.0
        self._events = [(100.0 + at, do) for at, do in events]

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._events and self._events[0][0] <= self.now:
            self._events.pop(0)[1]()


def save(directory: Path, number: int) -> str:
    return openckpt.save(directory / f"ckpt-{number}", {"w": [1.0]}, update_manifest=True, durability="process-crash")


def test_every_newer_checkpoint_is_yielded_once(tmp_path: Path) -> None:
    """From a directory that is not there yet, until the time is over."""
    run = tmp_path / "run"
    world = World((3, lambda: save(run, 1)), (4, lambda: save(run, 2)), (20, lambda: save(run, 3)))
    found = list(checkpoints_iterator(run, timeout=10, clock=world.clock, sleep=world.sleep))
    assert found == [str(run / "ckpt-1"), str(run / "ckpt-2")]
    assert world.now == 114.0


def test_an_interval_passes_over_what_came_meanwhile(tmp_path: Path) -> None:
    """The newest is what counts."""
    world = World((1, lambda: save(tmp_path, 2)), (5, lambda: save(tmp_path, 3)), (6, lambda: save(tmp_path, 4)))
    save(tmp_path, 1)
    found = list(checkpoints_iterator(tmp_path, 8, 3, clock=world.clock, sleep=world.sleep))
    assert found == [str(tmp_path / "ckpt-1"), str(tmp_path / "ckpt-4")]


def test_a_timeout_may_be_overruled(tmp_path: Path) -> None:
    """By a function that says whether it is really over."""
    answers = iter([False, False, True])
    world = World((12, lambda: save(tmp_path, 1)))
    found = list(
        checkpoints_iterator(
            tmp_path, timeout=5, timeout_fn=lambda: next(answers), clock=world.clock, sleep=world.sleep
        )
    )
    assert found == [str(tmp_path / "ckpt-1")]
    assert next(answers, None) is None


def test_what_the_manifest_names_and_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """With the warning of `latest_checkpoint`."""
    save(tmp_path, 1)
    (tmp_path / "ckpt-1.index").unlink()
    world = World((1, lambda: save(tmp_path, 2)))
    looked = checkpoints_iterator(tmp_path, timeout=3, clock=world.clock, sleep=world.sleep)
    with pytest.warns(CheckpointWarning, match="ckpt-1"):
        assert next(looked) == str(tmp_path / "ckpt-2")


def test_times_are_those_of_the_index(tmp_path: Path) -> None:
    """Of V1 files the file's own, of a sharded one the first shard's; what is not there is left out."""
    paths = [save(tmp_path, 1), tmp_path / "nothing", tmp_path / "v1", tmp_path / "s-?????-of-00002"]
    (tmp_path / "v1").write_bytes(b"")
    (tmp_path / "s-00000-of-00002").write_bytes(b"")
    for number, name in enumerate(("ckpt-1.index", "v1", "s-00000-of-00002")):
        os.utime(tmp_path / name, (1000.5 + number, 1000.5 + number))
    assert get_checkpoint_mtimes(paths) == [1000.5, 1001.5, 1002.5]


@pytest.mark.interop
def test_times_are_tensorflows(tf: object, tmp_path: Path) -> None:
    """Which cuts them to whole seconds."""
    paths = [save(tmp_path, 1), str(tmp_path / "nothing"), save(tmp_path, 2)]
    assert list(map(int, get_checkpoint_mtimes(paths))) == tf.compat.v1.train.get_checkpoint_mtimes(paths)  # type: ignore[attr-defined]
