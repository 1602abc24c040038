"""Retention under kills, failing calls and power cuts: the newest step is whole and listed, and nothing is left behind (P1, P2, P3, P9).

A run of a `CheckpointManager` that keeps few steps and the best of them; each save ends with a sweep, in which the power goes, a
call fails, or the process dies.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

import openckpt
from fault.judging import ABSENT, Judge, read_latest, read_state
from openckpt.errors import CheckpointError
from openckpt.formats.manifest import parse_manifest
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing import FaultyFS, Image, PowerLossFS, count_calls, run_killed
from openckpt.testing.record import Change
from openckpt.training import Checkpoint, CheckpointManager, Saver

Report = Callable[[str], None]
LOSSES = (0.5, 0.1, 0.7, 0.6, 0.4, 0.05, 0.3)


class Ticking:
    """A minute later each time."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = 1e9 + now

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


def manager_in(store: WritableStore, directory: str = "run", now: float = 0.0, name: str = "ckpt") -> CheckpointManager:
    """Return a manager that keeps the two newest steps and the best one, and one an hour for good."""
    return CheckpointManager(
        Checkpoint(w=np.zeros(700)), directory, 2, best="loss", checkpoint_name=name, clock=Ticking(now), store=store
    )  # fmt: skip


def save(manager: CheckpointManager, number: int) -> str:
    """Save a step whose values are its number."""
    manager.checkpoint.w[:] = number
    saved = manager.save(metrics={"loss": LOSSES[number % len(LOSSES)]})
    assert saved is not None
    return saved


def listed_in(store: WritableStore, directory: str) -> set[str]:
    with_manifest = store.open(store.join(directory, "checkpoint"))
    data = with_manifest.read_at(0, with_manifest.size)
    with_manifest.close()
    return set(parse_manifest(data, "").all_model_checkpoint_paths)


def names_in(store: WritableStore, directory: str) -> set[str]:
    return {stat.name for stat in store.scan(directory) if stat.kind == "file"}


def check_tidy(store: WritableStore, directory: str, replay: str, *, dead: str = "") -> None:
    """Assert that the files of a directory are those of the listed steps and the manifest, and nothing else.

    But for those of the step ``dead``: of a save that never returned a power cut may leave the files and take the notes in the
    locks, which are not synced. Nobody then knows whose they are; they stay, and the doctor names them (docs/decisions/0015).
    """
    listed = listed_in(store, directory)
    names = {name for name in names_in(store, directory) if not dead or not name.startswith(f"{dead}.")}
    assert {name.removesuffix(".index") for name in names if name.endswith(".index")} == listed, replay
    rest = names - {"checkpoint"} - {f"{step}.index" for step in listed}
    assert {name.partition(".data-")[0] for name in rest} == listed, f"{sorted(names)}: {replay}"


# ------------------------------------------------------------------------------------------------------------ power cuts


def history(count: int, name: str = "ckpt") -> tuple[PowerLossFS, dict[str, str], dict[str, set[str]]]:
    """Return a run of some saves, the states of its steps, and by note the steps that may not be there (any more)."""
    fs, states, gone = PowerLossFS(name="retention"), dict[str, str](), dict[str, set[str]]()
    manager = manager_in(fs, name=name)
    gone[""] = set()
    for number in range(1, count + 1):
        path = f"run/{name}-{number}"
        removed = {prefix for prefix in states if prefix not in manager.checkpoints}
        may_go = {prefix for prefix in manager.checkpoints if prefix != manager.latest_checkpoint}
        gone[f"begin {number}"] = removed | may_go | {path}
        fs.note(f"begin {number}")
        save(manager, number)
        # From the switch of the manifest on the one before may go too; that it was listed until then is judged by the manifest.
        gone[f"begin {number}"] |= {prefix for prefix in states if prefix not in manager.checkpoints}
        states[path] = read_state(fs, path)
        gone[f"saved {number}"] = {prefix for prefix in states if prefix not in manager.checkpoints}
        fs.note(f"saved {number}")
    return fs, states, gone


def judge(
    fs: PowerLossFS, states: dict[str, str], gone: dict[str, set[str]], *, limit: int, changes: Iterable[Change] | None = None
) -> tuple[int, list[str]]:  # fmt: skip
    """Return how many images were judged, and what was wrong with them."""
    reader, images, broken = Judge("run"), 0, list[str]()
    for cut in fs.cuts(changes):
        note = cut.notes[-1] if cut.notes else ""
        number = int(note.partition(" ")[2] or 0)
        for image in cut.images(limit, seed=images):
            images += 1
            why = _wrong(reader, image, states, gone[note], number, is_saved=note.startswith("saved"))
            if why:
                broken.append(f"{image.replay}: {why}")
    return images, broken


def _wrong(
    reader: Judge, image: Image, states: dict[str, str], gone: set[str], number: int, *, is_saved: bool
) -> str:  # fmt: skip
    found = {}
    for prefix, state in states.items():
        files = sorted((path, data) for path, data in image.files.items() if path.startswith(f"{prefix}."))
        found[prefix] = reader._state(image, prefix, files)
        at = int(prefix.rpartition("-")[2])
        may = {state} if at < number or (at == number and is_saved) else {state, ABSENT} if at == number else {ABSENT}
        if prefix in gone:
            may.add(ABSENT)
        if found[prefix] not in may:
            return f"{prefix} is {found[prefix]}, not in {sorted(may)}"
    latest = reader._latest(image)
    if latest == ABSENT:
        return "" if number < 2 and not is_saved else "there is no manifest"
    if found.get(latest) != states[latest]:
        return f"the manifest names {latest}, which is {found.get(latest)}"
    newest = number if is_saved else number - 1
    return "" if int(latest.rpartition("-")[2]) >= newest else f"the manifest names {latest}, though {newest} was saved"


def test_no_power_cut_takes_the_newest_step_or_leaves_half_a_step(report: Report) -> None:
    """Behind every call of seven saves with their sweeps: each step whole or gone, the manifest on a whole one, as new as was promised."""
    fs, states, gone = history(7)
    images, broken = judge(fs, states, gone, limit=12)
    assert not broken, broken[0]
    assert sum(change.name == "remove" and change.path.endswith(".index") for change in fs.changes) >= 4
    report(
        f"retention under power cuts: 7 saves with sweeps cut at {len(fs.changes) + 1} moments, {images} images, 0 broken"
    )


def test_every_sync_of_a_sweep_is_needed() -> None:
    """Without the one behind an index a power cut may leave it without its data; without the one behind the data it may come back
    when nothing lists it any more. These tests would see both."""
    fs, states, gone = history(5)
    changes = fs.changes
    behind_index = _syncs_behind(changes, ".index")
    assert len(behind_index) >= 2
    for number in behind_index:
        _, broken = judge(fs, states, gone, limit=40, changes=[*changes[:number], *changes[number + 1 :]])
        assert broken, f"nothing breaks without {changes[number]}"
    behind_data = _syncs_behind(changes, "-of-00001")
    assert len(behind_data) == len(behind_index)
    assert any(not _goes_on([*changes[:number], *changes[number + 1 :]], fs) for number in behind_data)
    assert _goes_on(changes, fs)


def _syncs_behind(changes: Sequence[Change], ending: str) -> list[int]:
    """Return the places of the directory's syncs that come next after a removal."""
    removals = [
        number for number, change in enumerate(changes) if change.name == "remove" and change.path.endswith(ending)
    ]
    return [
        next(n for n in range(number, len(changes)) if changes[n].name == "sync_directory" and changes[n].path == "run")
        for number in removals
    ]


def _goes_on(changes: Sequence[Change], fs: PowerLossFS) -> bool:
    """Return whether a manager goes on from every image that a cut in a manifest leaves, once steps go, and leaves nothing behind."""
    first = next(change.number for change in changes if change.name == "remove" and change.path.endswith(".index"))
    for cut in fs.cuts(changes):
        if cut.change is None or cut.change.number < first or not cut.change.path.startswith("run/checkpoint"):
            continue
        said, _, step = (cut.notes[-1] if cut.notes else "").partition(" ")
        for image in cut.images(12):
            again = PowerLossFS(image)
            try:
                go_on(again, image.replay, dead=f"ckpt-{step}" if said == "begin" else "")
            except AssertionError:
                return False
    return True


def go_on(fs: PowerLossFS, replay: str, *, dead: str) -> None:
    """Go on with a new manager, and look at what is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first save's directory without its manifest, said in other tests
        manager = manager_in(fs, now=1e6)
    for step in (11, 12, 13):
        save(manager, step)
    assert read_latest(fs, "run") == manager.latest_checkpoint, replay
    check_tidy(fs, "run", replay, dead=dead)


def test_after_a_power_cut_the_next_manager_goes_on_and_tidies_up(report: Report) -> None:
    """On any image: it finds a whole step, overwrites nothing, and three saves later there are the listed steps and nothing else."""
    fs, _, _ = history(5)
    restarts = 0
    for number, cut in enumerate(fs.cuts()):
        for image in list(cut.images(12, seed=number))[-2:]:
            said, _, step = (cut.notes[-1] if cut.notes else "").partition(" ")
            again = PowerLossFS(image, name=f"again-{number}")
            go_on(again, image.replay, dead=f"ckpt-{step}" if said == "begin" else "")
            restarts += 1
    report(f"retention after power cuts: {restarts} managers went on from an image, 0 files left over")


# ----------------------------------------------------------------------------------------------------------- failing calls


@pytest.mark.parametrize("name", ["ckpt", "sub/ckpt"])
def test_any_call_of_a_save_with_its_sweep_may_fail(report: Report, name: str) -> None:
    """It raises and nothing has changed, or it returns and the step is there; the next save works and leaves nothing behind."""
    template = PowerLossFS()
    manager = manager_in(template, name=name)
    for number in (1, 2, 3):
        save(manager, number)
    files = list(template.images(limit=2))[-1]
    raised = returned = 0
    for at in range(1, 500):
        fs = PowerLossFS(files)
        faulty = FaultyFS(fs, fail_at=1_000_000)
        manager = manager_in(faulty, now=1e6, name=name)
        listed, latest = manager.checkpoints, manager.latest_checkpoint
        faulty._fail_at = len(faulty.calls) + at
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                saved = save(manager, 4)
            except (OSError, CheckpointError):
                raised += 1
                assert (manager.checkpoints, manager.latest_checkpoint) == (listed, latest), faulty.replay
                assert manager.checkpoint.save_counter == 0, faulty.replay
                assert read_latest(fs, "run") == latest, faulty.replay
            else:
                if not faulty.fired:
                    break
                returned += 1
                assert manager.latest_checkpoint == saved == read_latest(fs, "run"), faulty.replay
                assert not read_state(fs, saved).startswith("broken"), faulty.replay
        assert len(said) <= 1, faulty.replay
        fs.kill_writers()
        for number in (5, 6):
            last = save(manager, number)
        assert read_latest(fs, "run") == last, faulty.replay
        directory = last.rpartition("/")[0]
        if directory == "run":
            check_tidy(fs, "run", faulty.replay)
        left = [name for where in {"run", directory} for name in names_in(fs, where) if "openckpt" in name]
        assert not left, faulty.replay
    report(
        f"failing calls of a save with its sweep, {name}: {raised} raised and changed nothing, {returned} were saved all the same"
    )
    assert raised > 20 and returned > 5


# ------------------------------------------------------------------------------------------------------------------- kills


def test_a_kill_at_any_call_of_a_save_with_its_sweep(quick_path: Path, report: Report) -> None:
    """The next program restores the step before or the new one; after its own save there are the listed steps and nothing else."""
    template, here = quick_path / "template", quick_path / "here"
    manager = manager_in(DISK, str(template))
    for number in (1, 2, 3, 4):
        save(manager, number)

    def one_more(store: WritableStore) -> None:
        manager = manager_in(store, str(here), now=1e6)
        manager.restore_or_initialize()
        save(manager, 5)

    shutil.copytree(template, here)
    calls = count_calls(one_more)
    restored = {4: 0, 5: 0}
    for at in range(1, calls + 2):  # before each; one more is never reached, and is the whole save
        shutil.rmtree(here)
        shutil.copytree(template, here)
        ending = run_killed(one_more, at)
        assert ending.how in ("killed", "finished"), ending.said
        fresh = manager_in(DISK, str(here), now=2e6)
        path = fresh.restore_or_initialize()
        value = int(fresh.checkpoint.w[0])
        assert path == f"{here}/ckpt-{value}", ending.replay
        restored[value] += 1
        last = save(fresh, 6)
        assert read_latest(DISK, str(here)) == last, ending.replay
        check_tidy(DISK, str(here), ending.replay)
        assert len(fresh.checkpoints) <= 3, ending.replay
    report(
        f"SIGKILL in a save with its sweep: {calls} calls, before each: {restored[4]} restored the step before, {restored[5]} the new one"
    )
    assert min(restored.values()) > 20


def test_a_kill_at_any_call_of_a_savers_save(quick_path: Path, report: Report) -> None:
    """The manifest names a whole checkpoint, the old one or the new; a saver that takes the list up leaves no half of one."""
    template, here = quick_path / "template", quick_path / "here"
    first = saver_in(DISK)
    for number in (1, 2):
        first.save(template / "m", number)

    def one_more(store: WritableStore) -> None:
        saver = saver_in(store)
        saver.recover_last_checkpoints([here / "m-1", here / "m-2"])
        saver.save(here / "m", 3)

    shutil.copytree(template, here)
    calls = count_calls(one_more)
    found = {"m-2": 0, "m-3": 0}
    for at in range(1, calls + 2):
        shutil.rmtree(here)
        shutil.copytree(template, here)
        ending = run_killed(one_more, at)
        assert ending.how in ("killed", "finished"), ending.said
        latest = openckpt.latest_checkpoint(here)
        assert latest is not None and not read_state(DISK, latest).startswith(("broken", ABSENT)), ending.replay
        found[Path(latest).name] += 1
        again = saver_in(DISK)
        again.recover_last_checkpoints([here / "m-1", here / "m-2", here / "m-3"])
        for number in (4, 5, 6):
            again.save(here / "m", number)
        names = names_in(DISK, str(here)) - {"checkpoint"}
        indexes = {name.removesuffix(".index") for name in names if name.endswith(".index")}
        assert {name.partition(".data-")[0] for name in names if ".data-" in name} == indexes, ending.replay
        assert not [name for name in names if "openckpt" in name], ending.replay
        # As TensorFlow's, one goes with each save: where three were found, three stay.
        assert {"m-5", "m-6"} <= indexes <= {"m-4", "m-5", "m-6"}, ending.replay
    report(
        f"SIGKILL in a saver's save with its deletion: {calls} calls: {found['m-2']} named the old, {found['m-3']} the new"
    )
    assert min(found.values()) > 5


def saver_in(store: WritableStore) -> Saver:
    return Saver({"w": np.zeros(3)}, max_to_keep=2, store=store, save_relative_paths=True)
