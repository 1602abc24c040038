"""What a manager is told wrongly it says at once; what is wrong with a rule of the caller's costs no checkpoint."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointWarning, UnsupportedError
from openckpt.storage.disk import DISK
from openckpt.testing import Call, CallFS
from openckpt.training import Checkpoint, CheckpointManager, SavedStep

T = TypeVar("T")


def manager_of(directory: str | Path, keep: Any = 1, **options: Any) -> CheckpointManager:
    return CheckpointManager(Checkpoint(w=np.zeros(3)), directory, keep, durability="process-crash", **options)


def on_disk(directory: Path) -> list[str]:
    return sorted(path.name.removesuffix(".index") for path in directory.rglob("*.index"))


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://bucket", Path("s3://bucket/run")])
def test_a_url_is_refused_before_the_first_step(
    url: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the form that pathlib makes of it, and by a preflight: nothing is made in a directory called "s3:"."""
    monkeypatch.chdir(tmp_path)
    for call in (lambda: manager_of(url), lambda: Checkpoint(w=np.zeros(1)).preflight(url)):
        with pytest.raises(UnsupportedError) as caught:
            call()
        assert caught.value.code == "writing.prefix"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep": 2.5}, TypeError),
        ({"keep": "3"}, TypeError),
        ({"keep_every_n_steps": 0}, ValueError),
        ({"checkpoint_name": ""}, ValueError),
        ({"checkpoint_name": "below/"}, ValueError),
        ({"checkpoint_name": ".."}, ValueError),
        ({"checkpoint_name": "../other/ckpt"}, ValueError),
        ({"checkpoint_name": "below/../../ckpt"}, ValueError),
        ({"checkpoint_name": "/tmp/ckpt"}, ValueError),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_when_the_manager_is_made(
    options: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    """Not at the first save, nor at the first removal."""
    with pytest.raises(error):
        manager_of(tmp_path, **options)


def test_a_checkpoint_of_another_library_is_refused_by_its_name(tmp_path: Path) -> None:
    """As of TensorFlow, in a program that is being moved."""
    theirs: Any = object()
    with pytest.raises(TypeError, match=r"not a builtins\.object"):
        CheckpointManager(theirs, tmp_path, 1)


def test_a_name_is_spelled_in_one_way(tmp_path: Path) -> None:
    """So that its checkpoints are the same ones after a restart."""
    first = manager_of(tmp_path, checkpoint_name="./below//ckpt")
    saved = first.save()
    assert saved == os.fspath(tmp_path / "below" / "ckpt-1")
    assert manager_of(tmp_path, checkpoint_name="./below//ckpt").checkpoints == [saved]


@pytest.mark.parametrize(
    "spelling", ["run/ckpt-1", "./run/ckpt-1", "run//ckpt-1", "{here}/run/ckpt-1", Path("run/ckpt-1"), 1, np.int64(1)]
)
def test_a_step_is_pinned_however_it_is_spelled(spelling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number or its path, relative or absolute."""
    monkeypatch.chdir(tmp_path)
    manager = manager_of("run")
    manager.save()
    manager.pin(spelling.format(here=tmp_path) if isinstance(spelling, str) else spelling)
    manager.save()
    manager.save()
    assert on_disk(tmp_path) == ["ckpt-1", "ckpt-3"]


def no_answer(steps: Sequence[SavedStep]) -> Any:
    return None


def one_text(steps: Sequence[SavedStep]) -> Any:
    return steps[0].path


def numbers(steps: Sequence[SavedStep]) -> Any:
    return [step.step for step in steps]


def fails(steps: Sequence[SavedStep]) -> Any:
    raise LookupError("no such metric")


@pytest.mark.parametrize("policy", [no_answer, one_text, numbers, fails])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_policy_that_fails_costs_no_checkpoint(
    policy: Callable[[Sequence[SavedStep]], Any], blocking: bool, tmp_path: Path
) -> None:
    """The step is saved and listed, nothing is removed, the counter goes on, and the error says what was asked of the policy."""
    manager = manager_of(tmp_path, policy=policy)
    manager.save()
    for number in (2, 3):
        with pytest.raises((TypeError, LookupError)) as caught:
            saved: Any = manager.save(blocking=blocking)
            saved.result()
        assert any("policy" in note for note in caught.value.__notes__)
        assert manager.checkpoint.save_counter == number
        assert manager.latest_checkpoint == openckpt.latest_checkpoint(tmp_path) == str(tmp_path / f"ckpt-{number}")
    assert on_disk(tmp_path) == ["ckpt-1", "ckpt-2", "ckpt-3"]


@pytest.mark.parametrize(
    "named",
    [lambda step: step, lambda step: step.path, lambda step: Path(step.path), lambda step: os.fsencode(step.path)],
    ids=["a step", "text", "a Path", "bytes"],
)
def test_a_policy_names_steps_or_paths(named: Callable[[SavedStep], Any], tmp_path: Path) -> None:
    """Whatever it was handed it may hand back; paths of others say nothing."""
    manager = manager_of(tmp_path, policy=lambda steps: [named(steps[0]), "elsewhere/ckpt-1"])
    for _ in range(4):
        manager.save()
    assert on_disk(tmp_path) == ["ckpt-1", "ckpt-4"]


def test_a_metric_that_no_step_has_is_said_once(tmp_path: Path) -> None:
    """When the first step goes: "los" for "loss" would keep none of the best without a word."""
    manager = manager_of(tmp_path, best="los")
    manager.save(metrics={"loss": 1.0})
    with pytest.warns(CheckpointWarning, match="'los'"):
        manager.save(metrics={"loss": 2.0})
    manager.save(metrics={"loss": 3.0})
    assert on_disk(tmp_path) == ["ckpt-3"]


def test_a_pin_from_another_thread_waits_for_the_save(tmp_path: Path) -> None:
    """Beside one that is under way it is no conflict of two managers."""
    pinned: list[object] = []
    pin = threading.Thread(target=lambda: pinned.append(manager.pin(1)), daemon=True)

    class Pinning(CallFS):
        def around(self, call: Call, do: Callable[[], T]) -> T:
            if call.name == "rename" and "ckpt-2" in call.path and not pin.is_alive() and not pinned:
                pin.start()
                pin.join(0.25)  # where it does not wait for the save, it gives up by then
            return do()

    manager = manager_of(tmp_path, 2, store=Pinning(DISK))
    manager.save()
    manager.save()
    pin.join()
    assert pinned == [None]
