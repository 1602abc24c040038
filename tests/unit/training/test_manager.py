"""`CheckpointManager`: numbers, lists, fallbacks, conflicts, leases, pins, ranks. Beside TensorFlow's: tests/interop/test_manager.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointWarning, ConflictError, CorruptionError, PathNotFoundError
from openckpt.formats.manifest import parse_manifest
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS, OrderFS
from openckpt.training import Checkpoint, CheckpointManager, SavedStep


class Clock:
    """Says what it is told to, one value after the other, then the last one for ever."""

    def __init__(self, *values: float) -> None:
        self._values = list(values)

    def __call__(self) -> float:
        return self._values.pop(0) if len(self._values) > 1 else self._values[0]


class Ticking:
    """A second later each time."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)


def manager_of(directory: Path, keep: int | None = 2, value: float = 0.0, **options: Any) -> CheckpointManager:
    options = {"clock": Ticking(), "durability": "process-crash", **options}
    return CheckpointManager(Checkpoint(w=np.full(3, value)), directory, keep, **options)


def names(paths: Any) -> list[str]:
    return [Path(path).name for path in paths]


def steps_on_disk(directory: Path) -> list[str]:
    found = [path.name for path in directory.rglob("*")]
    assert not [name for name in found if "openckpt" in name]
    indexes = {name.removesuffix(".index") for name in found if name.endswith(".index")}
    assert indexes == {name.partition(".data-")[0] for name in found if ".data-" in name}
    return sorted(indexes)


def code_of(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(openckpt.CheckpointError) as caught:
        call(*arguments, **options)
    return caught.value.code


# -- saving and keeping --------------------------------------------------------------------------------------------------


def test_the_newest_steps_stay_and_the_next_manager_goes_on(tmp_path: Path) -> None:
    """Lists, files, counters and values."""
    first = manager_of(tmp_path, value=7.0)
    assert (first.latest_checkpoint, first.checkpoints, first.directory) == (None, [], str(tmp_path))
    saved = [first.save() for _ in range(3)]
    assert [path and path.step for path in saved] == [1, 2, 3]
    assert names(first.checkpoints) == steps_on_disk(tmp_path) == ["ckpt-2", "ckpt-3"]
    second = manager_of(tmp_path)
    assert second.checkpoints == first.checkpoints
    assert second.restore_or_initialize() == second.latest_checkpoint == saved[2]
    assert second.checkpoint.w.tolist() == [7.0, 7.0, 7.0]
    assert second.checkpoint.save_counter == 3
    second.save()
    assert names(second.checkpoints) == steps_on_disk(tmp_path) == ["ckpt-3", "ckpt-4"]


def test_every_save_keeps_the_order_of_a_commit(tmp_path: Path) -> None:
    """The lock of the run, the checkpoint, the manifest, the removals: one store watches all of it."""
    store = OrderFS(DISK)
    manager = manager_of(tmp_path / "a" / "b", 1, store=store, durability="power-loss")
    for _ in range(3):
        manager.save()
    store.check_end()


def test_a_program_that_did_not_restore_never_overwrites(tmp_path: Path) -> None:
    """Its numbers go on behind the highest one, whatever is listed; TensorFlow's begin again at 1 and replace."""
    first = manager_of(tmp_path, value=1.0)
    for _ in range(3):
        first.save()
    openckpt.save(tmp_path / "ckpt-9", {"w": np.zeros(1)})  # somebody's copy
    fresh = manager_of(tmp_path, value=2.0)
    saved = fresh.save()
    assert saved is not None and saved.step == 10 and fresh.checkpoint.save_counter == 10
    assert steps_on_disk(tmp_path) == ["ckpt-10", "ckpt-3", "ckpt-9"]


def test_a_number_that_is_there_is_refused_unless_this_manager_wrote_it(tmp_path: Path) -> None:
    """With the code, and nothing changed; its own it replaces, and that goes to the end of the list."""
    first = manager_of(tmp_path, 3)
    for number in (10, 20, 10):
        first.save(checkpoint_number=number)
    assert names(first.checkpoints) == ["ckpt-20", "ckpt-10"]
    second = manager_of(tmp_path, 3)
    counter = second.checkpoint.save_counter
    assert code_of(second.save, checkpoint_number=20) == "training.exists"
    assert second.checkpoint.save_counter == counter
    assert names(second.checkpoints) == ["ckpt-20", "ckpt-10"]
    assert steps_on_disk(tmp_path) == ["ckpt-10", "ckpt-20"]


def test_a_save_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Not the lists, nor the counter, nor the step of the interval."""
    step = [0]
    manager = manager_of(tmp_path, step_counter=lambda: step[0], checkpoint_interval=5)
    manager.save()
    step[0] = 5
    manager.checkpoint.bad = object()
    before = (manager.checkpoints, manager.latest_checkpoint, manager.checkpoint.save_counter)
    assert code_of(manager.save) == "training.not-trackable"
    assert before == (manager.checkpoints, manager.latest_checkpoint, manager.checkpoint.save_counter)
    del manager.checkpoint.bad
    assert names([manager.save() or ""]) == ["ckpt-2"]


def test_a_failed_first_save_leaves_no_directory(tmp_path: Path) -> None:
    """Not even those above."""
    manager = manager_of(tmp_path / "a" / "b")
    manager.checkpoint.bad = object()
    code_of(manager.save)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model", "sub/model", "sub/er/model", "a[b]*"])
def test_names_of_checkpoints(tmp_path: Path, name: str) -> None:
    """With a path in them; the manifest stays in the manager's directory, and brackets do not stop a sweep."""
    manager = manager_of(tmp_path / "r[0-9]", checkpoint_name=name)
    for _ in range(4):
        saved = manager.save()
    assert openckpt.latest_checkpoint(tmp_path / "r[0-9]") == saved == manager.latest_checkpoint
    assert steps_on_disk(tmp_path) == [f"{Path(name).name}-3", f"{Path(name).name}-4"]
    again = manager_of(tmp_path / "r[0-9]", checkpoint_name=name)
    assert again.checkpoints == manager.checkpoints
    assert again.restore_or_initialize() == saved


def test_a_manifest_that_cannot_be_written_takes_a_step_in_a_subdirectory_back(tmp_path: Path) -> None:
    """As in one directory, where both are one commit."""
    manager = manager_of(tmp_path, checkpoint_name="sub/x")
    manager.save()
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(OSError):
        manager.save()
    assert steps_on_disk(tmp_path) == ["x-1"]
    assert manager.checkpoint.save_counter == 1


def test_a_relative_directory_is_left_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In paths; in the manifest only names stand."""
    monkeypatch.chdir(tmp_path)
    manager = CheckpointManager(Checkpoint(w=np.zeros(1)), "run", 1)
    assert manager.save() == "run/ckpt-1"
    assert parse_manifest(Path("run/checkpoint").read_bytes(), "").model_checkpoint_path == "ckpt-1"
    here = CheckpointManager(Checkpoint(w=np.zeros(1)), "", 1)
    assert here.save() == "ckpt-1"
    assert steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-1"] or (tmp_path / "ckpt-1.index").is_file()


def test_options_of_tensorflow_are_refused(tmp_path: Path) -> None:
    """By name, instead of being ignored."""
    with pytest.raises(ValueError, match="CheckpointOptions"):
        manager_of(tmp_path).save(options=object())  # type: ignore[arg-type]


# -- counters and intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "function", "name"])
def test_what_may_count_steps(tmp_path: Path, kind: str) -> None:
    """A variable, a function, a child that is a number."""
    box = np.array(0)
    counter: Any = {"array": box, "function": lambda: box, "name": "epoch"}[kind]
    manager = manager_of(tmp_path, None, step_counter=counter, checkpoint_interval=3)
    manager.checkpoint.epoch = 0
    saved = []
    for step in range(8):
        box[...] = step
        manager.checkpoint.epoch = step
        if manager.save() is not None:
            saved.append(step)
    assert saved == [0, 3, 6]
    assert [step.step for step in manager.steps] == [0, 3, 6]
    assert manager.checkpoint_interval == 3


def test_the_interval_goes_on_after_a_restart(tmp_path: Path) -> None:
    """From the step that was restored."""
    manager = manager_of(tmp_path, step_counter="step", checkpoint_interval=10)
    manager.checkpoint.step = 7
    manager.save()
    again = manager_of(tmp_path, step_counter="step", checkpoint_interval=10)
    again.checkpoint.step = 0
    again.restore_or_initialize()
    again.checkpoint.step = 16
    assert again.save() is None
    again.checkpoint.step = 17
    assert again.save() is not None
    assert again.save(check_interval=False) is None


# -- metrics and other rules -----------------------------------------------------------------------------------------------


def test_the_best_stay_beside_the_newest_across_restarts(tmp_path: Path) -> None:
    """The metrics lie in the checkpoints themselves; numbers of any library."""
    for loss in (0.5, np.float32(0.125), 0.7, 0.6, float("nan")):
        manager = manager_of(tmp_path, 1, best="loss", clock=Ticking(1000.0 + 100 * len(list(tmp_path.iterdir()))))
        manager.restore_or_initialize()
        manager.save(metrics={"loss": loss, "other": -math.inf})
    assert names([manager.best_checkpoint or ""]) == ["ckpt-2"]
    assert steps_on_disk(tmp_path) == names(manager.checkpoints) == ["ckpt-2", "ckpt-5"]
    assert manager.steps[0].metrics == {"loss": 0.125, "other": -math.inf}
    manager.save(metrics={"loss": 0.01})
    assert steps_on_disk(tmp_path) == ["ckpt-6"]


def test_steps_without_metrics_and_notes_that_are_none(tmp_path: Path) -> None:
    """Are never the best, and stop nobody."""
    manager = manager_of(tmp_path, 2, best="loss")
    manager.save()
    manager.save(metrics={"accuracy": 1.0})
    assert manager.best_checkpoint is None
    notes: list[Any] = [
        b'{"step": "x"', 1.5, [b"{}", b"{}"], b'{"step": null, "metrics": {"loss": [1]}}', b" " * (1 << 20) + b"{}",
        b'{"step": null, "metrics": 7}', b"[" * 100_000,
    ]  # fmt: skip
    for number, note in enumerate(notes, 3):
        openckpt.save(tmp_path / f"ckpt-{number}", {"_OPENCKPT_METRICS": note}, update_manifest=True)
    again = manager_of(tmp_path, 2, best="loss", clock=Ticking(1e10))
    assert [dict(step.metrics) for step in again.steps] == [{}, {"accuracy": 1.0}, *({} for _ in notes)]
    assert again.best_checkpoint is None


def test_round_steps_are_kept_for_good(tmp_path: Path) -> None:
    """By the number, or by the step counter where there is one, and also when a later manager decides."""
    step = [0]
    manager = manager_of(tmp_path, 2, step_counter=lambda: step[0], keep_every_n_steps=100)
    for step[0] in (50, 100, 150, 200):
        manager.save()
    again = manager_of(tmp_path, 1, step_counter=lambda: step[0], keep_every_n_steps=100, clock=Ticking(2000.0))
    for step[0] in (250, 300, 350):
        again.save()
    assert steps_on_disk(tmp_path) == ["ckpt-2", "ckpt-4", "ckpt-6", "ckpt-7"]
    assert names(again.checkpoints) == ["ckpt-7"]


def test_a_policy_gets_plain_values(tmp_path: Path) -> None:
    """Steps, times, metrics and bytes, also of steps of an earlier manager."""
    seen: list[tuple[SavedStep, ...]] = []

    def policy(found: Any) -> list[str]:
        seen.append(found)
        return [found[0].path]

    manager_of(tmp_path, 1, policy=policy).save(metrics={"a": 1})
    manager = manager_of(tmp_path, 1, policy=policy, clock=Ticking(2000.0))
    manager.save(metrics={"a": 2})
    manager.save(metrics={"a": 3})
    assert steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-3"]
    (last,) = [steps for steps in seen if len(steps) == 3]
    assert [(step.step, dict(step.metrics)) for step in last] == [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": 3})]
    sizes = [sum(file.stat().st_size for file in tmp_path.glob(f"ckpt-{n}.*")) for n in (1, 3)]
    assert [last[0].nbytes, last[2].nbytes] == sizes


def test_pinned_steps_stay_for_good(tmp_path: Path) -> None:
    """Also the newest, also with a later manager; and not what is not there."""
    manager = manager_of(tmp_path, 1)
    manager.save()
    manager.pin(1)
    manager.pin(tmp_path / "ckpt-1")
    again = manager_of(tmp_path, 1, clock=Ticking(2000.0))
    for _ in range(3):
        again.save()
    assert steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-4"]
    assert code_of(again.pin, 3) == "training.no-such-step"
    with pytest.raises(PathNotFoundError):
        again.pin("nowhere")


# -- what others do --------------------------------------------------------------------------------------------------------


def test_what_a_reader_has_open_goes_at_the_next_save(tmp_path: Path) -> None:
    """It stays listed meanwhile."""
    manager = manager_of(tmp_path, 1)
    manager.save()
    with openckpt.open(manager.checkpoints[0]) as reader:
        manager.save()
        assert names(manager.checkpoints) == steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-2"]
        assert reader["w/.ATTRIBUTES/VARIABLE_VALUE"].tolist() == [0.0, 0.0, 0.0]
    manager.save()
    assert names(manager.checkpoints) == steps_on_disk(tmp_path) == ["ckpt-3"]


def test_two_managers_that_save_in_turns_conflict(tmp_path: Path) -> None:
    """The second one to notice is told, with its rank; a new manager goes on."""
    one, other = manager_of(tmp_path), manager_of(tmp_path)
    one.save()
    assert code_of(other.save) == "training.overtaken"
    assert other.checkpoints == [] and other.checkpoint.save_counter == 0
    one.save()
    later = manager_of(tmp_path, clock=Ticking(2000.0))
    later.save()
    assert code_of(one.save) == "training.overtaken"
    assert steps_on_disk(tmp_path) == ["ckpt-2", "ckpt-3"]


def test_two_saves_at_once_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the rank."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    manager = manager_of(tmp_path, is_primary=True)
    lock = DISK.try_lock(str(tmp_path / "checkpoint.run.openckpt-lock"))
    assert lock is not None
    with pytest.raises(ConflictError, match="rank 3 of 8") as caught:
        manager.save()
    assert caught.value.code == "training.busy-run"
    DISK.close(lock)
    assert manager.save() is not None
    assert steps_on_disk(tmp_path) == ["ckpt-1"]


@pytest.mark.parametrize("primary", [None, False])
def test_only_the_primary_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, primary: bool | None) -> None:
    """The others get the same paths and lists, and touch nothing."""
    manager = manager_of(tmp_path / "run", 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    other = manager_of(tmp_path / "run", 1, is_primary=primary)
    assert (manager.is_primary, other.is_primary) == (True, False)
    before = None
    for number in (None, 10, None):
        mine = manager.save(number)
        before = sorted((tmp_path / "run").iterdir())
        theirs = other.save(number)
        assert mine == theirs and theirs is not None and theirs.nbytes == 0
        assert mine.step == theirs.step  # type: ignore[union-attr]
        assert sorted((tmp_path / "run").iterdir()) == before
        assert names(manager.checkpoints) == names(other.checkpoints)
        assert manager.checkpoint.save_counter == other.checkpoint.save_counter


def test_a_step_that_cannot_be_removed_is_a_warning_and_goes_later(tmp_path: Path) -> None:
    """The save is done; it returns."""
    manager = manager_of(tmp_path, 1)
    manager.save()
    lock = DISK.try_lock(str(tmp_path / "ckpt-1.openckpt-lock"))
    assert lock is not None
    with pytest.warns(CheckpointWarning, match="ckpt-2 is saved") as said:
        saved = manager.save()
    assert said[0].filename == __file__
    DISK.close(lock)
    assert names(manager.checkpoints) == ["ckpt-1", "ckpt-2"]
    assert manager.latest_checkpoint == saved
    manager.save()
    assert steps_on_disk(tmp_path) == ["ckpt-3"]


# -- what is found -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Path]:
    """A run of three listed steps, whose values are their numbers."""
    manager = manager_of(tmp_path, 3)
    for value in (1.0, 2.0, 3.0):
        manager.checkpoint.w[:] = value
        manager.save()
    yield tmp_path


@pytest.mark.parametrize(
    "fault",
    ["no index", "no data", "short data", "no manifest", "empty manifest", "binary manifest", "named elsewhere"],
)
def test_the_latest_is_the_latest_whole_one_and_the_fallback_is_said(three: Path, fault: str) -> None:
    """A warning that names what it came to; and a save behind it overwrites nothing."""
    data, manifest = three / "ckpt-3.data-00000-of-00001", three / "checkpoint"
    expected = "ckpt-2"
    match fault:
        case "no index":
            (three / "ckpt-3.index").unlink()
        case "no data":
            data.unlink()
        case "short data":
            data.write_bytes(data.read_bytes()[:-1])
        case "no manifest":
            manifest.unlink()
            expected = "ckpt-3"
        case "empty manifest":
            manifest.write_bytes(b"")
            expected = "ckpt-3"
        case "binary manifest":
            manifest.write_bytes(b"\xff\xfe\x00")
            expected = "ckpt-3"
        case "named elsewhere":
            manifest.write_bytes(manifest.read_bytes().replace(b'_path: "ckpt-3"', b'_path: "../x/ckpt-3"'))
            expected = "ckpt-3"
    with pytest.warns(CheckpointWarning, match=expected) as said:
        manager = CheckpointManager(Checkpoint(w=np.zeros(3)), three, 3, clock=Ticking(2000.0))
    assert said[0].filename == __file__
    assert names([manager.latest_checkpoint or ""]) == [expected]
    restored = manager.restore_or_initialize()
    assert manager.checkpoint.w.tolist() == [float(expected[-1])] * 3
    if "manifest" in fault or fault == "named elsewhere":
        return
    assert restored is not None and names([manager.save() or ""]) == ["ckpt-4"]


def test_damaged_bytes_are_passed_over_when_it_restores(three: Path) -> None:
    """Names and sizes do not tell; the checksum does, before anything is assigned."""
    damage(three, 3)
    manager = manager_of(three, 3, clock=Ticking(2000.0))
    with pytest.warns(CheckpointWarning, match="passed over"):
        assert names([manager.restore_or_initialize() or ""]) == ["ckpt-2"]
    assert manager.checkpoint.w.tolist() == [2.0, 2.0, 2.0]
    for number in (1, 2):
        for path in three.glob(f"ckpt-{number}.*"):
            path.unlink()
    with pytest.warns(CheckpointWarning), pytest.raises(CorruptionError):
        manager_of(three, 3, clock=Ticking(2000.0)).restore_or_initialize()


def damage(directory: Path, number: int) -> None:
    """Change a bit of a step's tensor, which only its checksum tells."""
    data = directory / f"ckpt-{number}.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[raw.find(np.full(3, float(number)).tobytes())] ^= 1
    data.write_bytes(raw)


def test_a_damaged_step_takes_no_whole_ones_place(three: Path) -> None:
    """Two are to stay, and two that can be restored do: the damaged one goes when it is older than these."""
    damage(three, 3)
    manager = manager_of(three, 2, clock=Ticking(2000.0))
    with pytest.warns(CheckpointWarning, match="passed over"):
        manager.restore_or_initialize()
    manager.save()
    assert steps_on_disk(three) == ["ckpt-2", "ckpt-3", "ckpt-4"]
    manager.save()
    assert steps_on_disk(three) == ["ckpt-4", "ckpt-5"]


def test_steps_that_were_kept_for_good_are_restored_too_where_the_newest_is_damaged(tmp_path: Path) -> None:
    """They are listed no more; newer ones that nobody lists are not taken for older."""
    manager = manager_of(tmp_path, 1, keep_every_n_steps=2)
    for number in range(1, 6):
        manager.checkpoint.w[:] = number
        manager.save()
    openckpt.save(tmp_path / "ckpt-9", {"w": np.zeros(1)})
    assert steps_on_disk(tmp_path) == ["ckpt-2", "ckpt-4", "ckpt-5", "ckpt-9"]
    damage(tmp_path, 5)
    damage(tmp_path, 4)
    again = manager_of(tmp_path, 1)
    with pytest.warns(CheckpointWarning, match="passed over"):
        assert names([again.restore_or_initialize() or ""]) == ["ckpt-2"]
    assert again.checkpoint.w.tolist() == [2.0] * 3


def test_init_fn_is_called_where_there_is_nothing(tmp_path: Path) -> None:
    """And only there."""
    calls = []
    manager = manager_of(tmp_path, init_fn=lambda: calls.append(1))
    assert manager.restore_or_initialize() is None
    assert calls == [1]
    manager.save()
    assert manager.restore_or_initialize() is not None
    assert manager_of(tmp_path, init_fn=lambda: calls.append(2)).restore_or_initialize() is not None
    assert calls == [1]


def test_what_a_manifest_lists_elsewhere_is_never_removed(tmp_path: Path) -> None:
    """Neither absolute paths, nor those that climb out, nor those that lead through a link; it is said."""
    for where in ("other", "run/linked-to"):
        (tmp_path / where).mkdir(parents=True)
        openckpt.save(tmp_path / where / "ckpt-1", {"w": np.zeros(1)})
    openckpt.save(tmp_path / "run" / "ckpt-5", {"w": np.zeros(1)})
    (tmp_path / "run" / "link").symlink_to(tmp_path / "run" / "linked-to")
    openckpt.update_checkpoint_state(
        tmp_path / "run",
        "ckpt-5",
        ["../other/ckpt-1", f"{tmp_path}/other/ckpt-1", "link/ckpt-1", "..", "ckpt-5"],
        all_model_checkpoint_timestamps=[1000.1, 1000.2, 1000.3, 1000.4, 1000.5],
    )
    with pytest.warns(CheckpointWarning, match="4 checkpoints that the manifest lists lie elsewhere") as said:
        manager = CheckpointManager(Checkpoint(w=np.zeros(3)), tmp_path / "run", 1, clock=Ticking(2000.0))
    assert said[0].filename == __file__
    for _ in range(2):
        manager.save()
    assert (tmp_path / "other" / "ckpt-1.index").is_file()
    assert (tmp_path / "run" / "linked-to" / "ckpt-1.index").is_file()
    assert names(manager.checkpoints) == ["ckpt-7"]
    assert not (tmp_path / "run" / "ckpt-5.index").exists()


def test_only_listed_and_own_steps_are_ever_removed(tmp_path: Path) -> None:
    """A manifest without times lists nothing that may go, as with TensorFlow; nor may strangers of the same name."""
    for number in (1, 2):
        openckpt.save(tmp_path / f"ckpt-{number}", {"w": np.zeros(3)}, update_manifest=True)
    openckpt.update_checkpoint_state(tmp_path, "ckpt-2", ["ckpt-1", "ckpt-2"])
    manager = manager_of(tmp_path, 1)
    assert manager.checkpoints == []
    for _ in range(3):
        manager.save()
    assert steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-2", "ckpt-5"]


# -- clocks --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [(5000.0, 4000.0, 3000.0), (math.nan,), (math.inf,), (-1.0, -2.0), (0.0,), (1e300, 5.0)], ids=str
)
def test_the_clock_may_do_anything(tmp_path: Path, values: tuple[float, ...]) -> None:
    """Steps are kept and removed by their order, also by the manager of the next program."""
    first = manager_of(tmp_path, 2, clock=Clock(*values))
    for _ in range(3):
        first.save()
    assert names(first.checkpoints) == ["ckpt-2", "ckpt-3"]
    second = manager_of(tmp_path, 2, clock=Clock(*values))
    second.restore_or_initialize()
    for _ in range(3):
        second.save()
    assert names(second.checkpoints) == ["ckpt-5", "ckpt-6"]
    assert set(steps_on_disk(tmp_path)) >= {"ckpt-5", "ckpt-6"}
    assert not {"ckpt-1", "ckpt-4"} & set(steps_on_disk(tmp_path))


# -- in the background ----------------------------------------------------------------------------------------------------------


def test_saves_in_the_background_are_listed_and_swept_there(tmp_path: Path) -> None:
    """The values are those of the call; the lists are right once it is waited for, and a restore waits itself."""
    manager = manager_of(tmp_path, 2)
    for value in (1.0, 2.0, 3.0):
        manager.checkpoint.w[:] = value
        handle = manager.save(blocking=False, metrics={"loss": value})
        assert handle is not None
        manager.checkpoint.w[:] = -1.0
    assert manager.restore_or_initialize() == handle.result() == manager.latest_checkpoint
    assert manager.checkpoint.w.tolist() == [3.0] * 3
    assert names(manager.checkpoints) == steps_on_disk(tmp_path) == ["ckpt-2", "ckpt-3"]
    manager.sync()


def test_a_failure_in_the_background_is_raised_by_the_next_save(tmp_path: Path) -> None:
    """Its number is not used again, and the run goes on behind it."""
    manager = manager_of(tmp_path, 2)
    manager.save()
    (tmp_path / "ckpt-2.index").mkdir()
    manager.save(blocking=False)
    with pytest.raises((OSError, openckpt.CheckpointError)):
        manager.save()
    assert names(manager.checkpoints) == ["ckpt-1"]
    assert manager.save() == str(tmp_path / "ckpt-3")


def test_other_processes_get_a_handle_that_is_done(tmp_path: Path) -> None:
    """Of the same path."""
    other = manager_of(tmp_path, 1, is_primary=False)
    handle = other.save(blocking=False)
    assert handle is not None and handle.done and handle.result() == str(tmp_path / "ckpt-1")
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_knows_a_managers_save_that_runs_or_died(tmp_path: Path) -> None:
    """A note, and the directory is valid; the next save sweeps."""
    manager = manager_of(tmp_path)
    manager.save()
    lock = DISK.try_lock(str(tmp_path / "checkpoint.run.openckpt-lock"))
    assert lock is not None
    for code in ("run.saving", "run.broken-off"):
        report = openckpt.diagnose(tmp_path)
        assert report.valid
        (finding,) = [found for found in report.all_findings() if found.code == code]
        assert "manager" in finding.message
        DISK.close(lock)
    manager.save()
    assert steps_on_disk(tmp_path) == ["ckpt-1", "ckpt-2"]


def test_a_manager_may_say_what_the_program_is_made_from(tmp_path: Path) -> None:
    """Beside the weights of every step."""
    saved = manager_of(tmp_path, config={"layers": 3}).save()
    assert saved is not None
    assert b'"layers"' in openckpt.load(saved)["_OPENCKPT_CONFIG"].item()


def test_what_is_listed_and_gone_takes_nobodys_place(tmp_path: Path) -> None:
    """Somebody removed a step without saying so in the manifest: the newest that are there stay."""
    manager = manager_of(tmp_path, 3)
    for _ in range(3):
        manager.save()
    openckpt.remove_checkpoint(manager.checkpoints[1])
    again = manager_of(tmp_path, 3, clock=Ticking(2000.0))
    assert names(again.checkpoints) == ["ckpt-1", "ckpt-3"]
    again.save()
    assert steps_on_disk(tmp_path) == names(again.checkpoints) == ["ckpt-1", "ckpt-3", "ckpt-4"]


def test_making_a_manager_writes_nothing(tmp_path: Path) -> None:
    """Not in an empty place, nor in a run: an evaluation may do it anywhere."""
    manager_of(tmp_path / "run").save()
    store = CallFS(DISK)
    for directory in (tmp_path / "run", tmp_path / "none"):
        manager_of(directory, store=store, best="loss")
    assert {call.name for call in store.calls} <= {"open", "stat", "scan"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("note", "is_taken_up"),
    [
        (b'{"saves": "ckpt", "numbers": [3]}\n', True),
        (b'{"saves": "ckpt", "numbers": [3]}', False),
        (b'{"saves": "other", "numbers": [3]}\n', False),
        (b'{"saves": "ckpt", "numbers": ["../elsewhere/ckpt-3", 1.0, true, null, 7, -4]}\n', False),
        (b'{"saves": "ckpt", "numbers": 3}\n', False),
        (b"[" * 4000 + b"\n", False),
        (b"\xff\n", False),
        (b"", False),
    ],
    ids=str,
)
def test_what_a_dead_manager_had_committed_is_taken_up(tmp_path: Path, note: bytes, is_taken_up: bool) -> None:
    """By the number in its lock, of this name, that is whole and newer than the manifest; whatever else stands there is nothing."""
    first = manager_of(tmp_path, 2)
    for _ in range(2):
        first.save()
    first.checkpoint.w[:] = 3.0
    first.checkpoint.write(tmp_path / "ckpt-3")
    (tmp_path / "checkpoint.run.openckpt-lock").write_bytes(note)
    again = manager_of(tmp_path, 2, clock=Ticking(2000.0))
    assert names([again.restore_or_initialize() or ""]) == ["ckpt-3" if is_taken_up else "ckpt-2"]
    assert names(again.checkpoints) == ["ckpt-1", "ckpt-2", *(["ckpt-3"] if is_taken_up else [])]
    again.save()
    assert steps_on_disk(tmp_path) == (["ckpt-3", "ckpt-4"] if is_taken_up else ["ckpt-2", "ckpt-3", "ckpt-4"])


def test_a_note_of_what_others_have_gone_past_is_old(tmp_path: Path) -> None:
    """TensorFlow's manager went on in the directory since: its newest stays the newest."""
    first = manager_of(tmp_path, 9)
    for _ in range(3):
        first.save()
    (tmp_path / "checkpoint.run.openckpt-lock").write_bytes(b'{"saves": "ckpt", "numbers": [2]}\n')
    openckpt.update_checkpoint_state(
        tmp_path, "ckpt-3", ["ckpt-1", "ckpt-3"], all_model_checkpoint_timestamps=[1002.0, 1005.0]
    )
    assert names(manager_of(tmp_path, 9, clock=Ticking(2000.0)).checkpoints) == ["ckpt-1", "ckpt-3"]
