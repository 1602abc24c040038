"""`CheckpointManager` beside TensorFlow's: the same directories, byte for byte where it counts, and each takes over from the other."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import openckpt
from clocks import Clock, stop_clock_of
from openckpt.training import CheckpointManager

pytestmark = pytest.mark.interop

HOUR = 3600.0


@pytest.fixture
def clock(tf: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One clock for both sides."""
    from tensorflow.python.checkpoint import checkpoint_management

    return stop_clock_of(checkpoint_management, monkeypatch)


class Sides:
    """A TensorFlow manager and ours, each in a directory of its own, that are told the same."""

    def __init__(self, tf: Any, root: Path, clock: Clock, **options: Any) -> None:
        self.tf, self.clock, self.options = tf, clock, options
        self.directories = [root / "a", root / "b"]
        self.theirs_checkpoint: Any = None
        self.restart(swap=False)

    def restart(self, *, swap: bool, **options: Any) -> None:
        """Begin new programs that restore the latest step; with ``swap`` each in the other's directory."""
        self.options |= options
        if swap:
            self.directories.reverse()
        a, b = map(str, self.directories)
        self.theirs_checkpoint = self.tf.train.Checkpoint(w=self.tf.Variable([0.0, 0.0]))
        self.ours_checkpoint = openckpt.Checkpoint(w=np.zeros(2, np.float32))
        self.theirs = self.tf.train.CheckpointManager(self.theirs_checkpoint, a, **self.options)
        self.ours = CheckpointManager(
            self.ours_checkpoint, b, **self.options, clock=self.clock.time, durability="process-crash"
        )
        assert name_of(self.theirs.restore_or_initialize()) == name_of(self.ours.restore_or_initialize())

    def save(self, number: int | None) -> None:
        """Save on both sides."""
        theirs, ours = self.theirs.save(checkpoint_number=number), self.ours.save(checkpoint_number=number)
        assert name_of(theirs) == name_of(ours)

    def compare(self) -> None:
        """Assert that both hold the same: lists, manifests to the byte, checkpoints on the disk, counters."""
        assert [name_of(path) for path in self.theirs.checkpoints] == [name_of(path) for path in self.ours.checkpoints]
        assert name_of(self.theirs.latest_checkpoint) == name_of(self.ours.latest_checkpoint)
        assert int(self.theirs_checkpoint.save_counter) == self.ours_checkpoint.save_counter
        a, b = (on_disk(directory) for directory in self.directories)
        assert a == b


def name_of(path: str | None) -> str | None:
    return None if path is None else Path(path).name


def on_disk(directory: Path) -> tuple[bytes, set[str], set[str]]:
    """Return the manifest, and the prefixes that have an index, and those that have data."""
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*")] if directory.is_dir() else []
    assert not [name for name in names if "openckpt" in name]
    manifest = (directory / "checkpoint").read_bytes() if "checkpoint" in names else b""
    return (
        manifest,
        {name.removesuffix(".index") for name in names if name.endswith(".index")},
        {name.partition(".data-")[0] for name in names if ".data-" in name},
    )


KEEP = st.sampled_from([1, 2, 3, None])
HOURS = st.sampled_from([None, 0.5, 1.0, 2.0])
EVENTS = st.one_of(
    st.tuples(st.just("save"), st.sampled_from([1.0, 60.0, HOUR / 2, HOUR, 2.5 * HOUR])),
    st.tuples(st.just("save"), st.sampled_from([1.0, 60.0, HOUR / 2, HOUR, 2.5 * HOUR])),
    st.tuples(st.just("restart"), st.tuples(st.booleans(), KEEP, HOURS)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    KEEP,
    HOURS,
    st.sampled_from(["ckpt", "below/it/ckpt"]),
    st.lists(EVENTS, min_size=3, max_size=14),
    st.data(),
)
def test_random_schedules_leave_what_tensorflow_leaves(
    tf: Any,
    clock: Clock,
    numbered: bool,
    keep: int | None,
    hours: float | None,
    name: str,
    events: list[Any],
    data: st.DataObject,
) -> None:
    """Saves at any distance, restarts with other rules, numbers of the caller's with repetitions, directories exchanged."""
    with tempfile.TemporaryDirectory() as root:
        sides = Sides(
            tf, Path(root), clock, max_to_keep=keep, keep_checkpoint_every_n_hours=hours, checkpoint_name=name
        )
        step, since_restart = 0, list[int]()
        for what, how in events:
            clock.now += how if what == "save" else 1.0
            if what == "save":
                number = None
                if numbered:
                    again = bool(since_restart) and data.draw(st.integers(0, 4)) == 0
                    step += 10
                    number = data.draw(st.sampled_from(since_restart)) if again else step
                    since_restart.append(number)
                sides.save(number)
            else:
                swap, keep, hours = how
                sides.restart(swap=swap, max_to_keep=keep, keep_checkpoint_every_n_hours=hours)
                since_restart = []
            sides.compare()


def test_tensorflow_restores_a_step_with_metrics_whole(tf: Any, tmp_path: Path) -> None:
    """What the manager was told of a step lies in its checkpoint, and assert_consumed does not mind."""
    manager = CheckpointManager(openckpt.Checkpoint(w=np.arange(3.0)), tmp_path, 2, best="loss")
    manager.save(metrics={"loss": 0.25})
    w = tf.Variable(np.zeros(3))
    theirs = tf.train.Checkpoint(w=w)
    theirs.restore(tf.train.latest_checkpoint(tmp_path)).assert_consumed()
    assert w.numpy().tolist() == [0.0, 1.0, 2.0]


def test_a_pinned_step_is_safe_from_tensorflows_manager(tf: Any, clock: Clock, tmp_path: Path) -> None:
    """Its time in the manifest says that it was preserved, also while it is the newest."""
    ours = CheckpointManager(openckpt.Checkpoint(w=np.arange(3.0)), tmp_path, 2, clock=clock.time)
    for _ in range(2):
        clock.now += 1
        pinned = ours.save()
    assert pinned is not None
    ours.pin(pinned)
    clock.now += 1
    theirs = tf.train.CheckpointManager(tf.train.Checkpoint(w=tf.Variable(np.zeros(3))), str(tmp_path), 1)
    theirs.restore_or_initialize()
    for _ in range(3):
        clock.now += 1
        theirs.save()
    assert on_disk(tmp_path)[1] == {"ckpt-2", "ckpt-5"}


def test_a_missing_newest_step_is_replaced_by_an_older_one_where_tensorflow_stumbles(tf: Any, tmp_path: Path) -> None:
    """TensorFlow's manager names what is not there and raises; ours warns, and names the latest that is whole."""
    theirs = tf.train.CheckpointManager(tf.train.Checkpoint(w=tf.Variable(np.zeros(3))), str(tmp_path), 3)
    for _ in range(3):
        theirs.save()
    (tmp_path / "ckpt-3.index").unlink()
    fresh = tf.train.CheckpointManager(tf.train.Checkpoint(w=tf.Variable(np.zeros(3))), str(tmp_path), 3)
    with pytest.raises(tf.errors.NotFoundError):
        fresh.restore_or_initialize()
    with pytest.warns(openckpt.CheckpointWarning, match="ckpt-2"):
        ours = CheckpointManager(openckpt.Checkpoint(w=np.zeros(3)), tmp_path, 3)
    assert name_of(ours.restore_or_initialize()) == "ckpt-2"


def test_errors_of_arguments_are_tensorflows(tf: Any, tmp_path: Path) -> None:
    """ValueError where TensorFlow raises it."""
    ours, theirs = openckpt.Checkpoint(w=np.zeros(1)), tf.train.Checkpoint(w=tf.Variable([0.0]))
    wrong: list[dict[str, Any]] = [
        {"max_to_keep": 0},
        {"max_to_keep": -1},
        {"max_to_keep": 1, "checkpoint_interval": 2},
    ]
    for options in wrong:
        with pytest.raises(ValueError):
            tf.train.CheckpointManager(theirs, str(tmp_path), **options)
        with pytest.raises(ValueError):
            CheckpointManager(ours, tmp_path, **options)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
def test_the_interval_lets_pass_what_tensorflow_lets_pass(
    tf: Any, interval: int, calls: list[tuple[int, bool]]
) -> None:
    """Steps that move by any number, and saves that do not check the interval."""
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        step = tf.Variable(0, dtype=tf.int64)
        options: dict[str, Any] = {"step_counter": step, "checkpoint_interval": interval}
        theirs = tf.train.CheckpointManager(tf.train.Checkpoint(step=step), f"{root}/a", 2, **options)
        ours = CheckpointManager(
            openckpt.Checkpoint(w=np.zeros(1)), f"{root}/b", 2, **options, durability="process-crash"
        )
        for forward, check in calls:
            step.assign_add(forward)
            assert name_of(theirs.save(check_interval=check)) == name_of(ours.save(check_interval=check))
