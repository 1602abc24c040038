"""`save_on_preemption`: one save, whole, in time - and then what the signal would have done anyway."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import openckpt
from interrupting import AtCall
from openckpt import Checkpoint, save_on_preemption
from openckpt.errors import CheckpointWarning
from openckpt.storage.disk import DISK
from openckpt.testing import FaultyFS
from openckpt.training import CheckpointManager

T = TypeVar("T")
KEY = "w/.ATTRIBUTES/VARIABLE_VALUE"

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")


class Ended:
    """The handler that a program has of its own."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.event = threading.Event()

    def __call__(self, number: int, frame: object) -> None:
        self.calls.append(number)
        self.event.set()


@pytest.fixture
def ended() -> Iterator[Ended]:
    """What is called where the program would end."""
    handler = Ended()
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield handler
    for number, previous in before.items():
        signal.signal(number, previous)


def indexes(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.index"))


def value(directory: Path) -> Any:
    return openckpt.load(openckpt.latest_checkpoint(directory) or "")[KEY].tolist()


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_signal_saves_and_goes_on_to_the_handler_before(tmp_path: Path, ended: Ended) -> None:
    """Once, with the values of that moment; every signal that was named."""
    w = np.zeros(2)
    with save_on_preemption(Checkpoint(w=w), tmp_path / "ckpt", signals=(signal.SIGTERM, signal.SIGUSR1)) as preemption:
        w += 3
        assert not preemption.is_announced
        signal.raise_signal(signal.SIGUSR1)
        assert preemption.is_announced
        assert ended.calls == [signal.SIGUSR1]
        assert value(tmp_path) == [3, 3]
    assert indexes(tmp_path) == ["ckpt-1"]
    assert signal.getsignal(signal.SIGTERM) is ended


def test_without_a_signal_nothing_happens(tmp_path: Path, ended: Ended) -> None:
    """And the handlers are those that were there, behind an error too."""
    with pytest.raises(KeyError), save_on_preemption(Checkpoint(w=1), tmp_path / "ckpt"):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is ended
    assert not ended.calls
    assert not list(tmp_path.iterdir())


def test_a_save_under_way_is_finished_and_no_other_made(tmp_path: Path, ended: Ended) -> None:
    """The background's: the signal comes while its thread writes."""
    gate = threading.Event()
    checkpoint = Checkpoint(w=np.ones(2))
    with save_on_preemption(checkpoint, tmp_path / "ckpt"):
        checkpoint.save(tmp_path / "ckpt", blocking=False, store=AtCall(3, lambda: gate.wait(60)))
        threading.Timer(0.05, gate.set).start()
        terminate()
        assert ended.calls == [signal.SIGTERM]
    assert indexes(tmp_path) == ["ckpt-1"]


def test_a_signal_in_the_middle_of_a_save_waits_for_its_end(tmp_path: Path, ended: Ended) -> None:
    """Of the main thread's own: the handler runs in the middle of it, and must not save what is being saved."""
    checkpoint = Checkpoint(w=np.ones(2))
    manager = CheckpointManager(checkpoint, tmp_path, 3, store=AtCall(12, terminate))
    with save_on_preemption(manager):
        manager.save()
        assert ended.calls == [signal.SIGTERM]
    assert indexes(tmp_path) == ["ckpt-1"]


def test_a_failing_save_under_way_is_made_up_for(tmp_path: Path, ended: Ended) -> None:
    """By another one; its error is told."""
    checkpoint = Checkpoint(w=np.ones(2))
    with save_on_preemption(checkpoint, tmp_path / "ckpt"):
        handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=FaultyFS(DISK, fail_at=9, error=errno.ENOSPC))
        assert handle.wait(60)
        with pytest.warns(CheckpointWarning, match="No space"):
            terminate()
    assert indexes(tmp_path) == ["ckpt-2"]


def test_a_signal_in_the_middle_of_a_restore_waits_for_its_end(tmp_path: Path, ended: Ended) -> None:
    """Half of the values would be old, half new."""

    class Late(dict):  # type: ignore[type-arg]
        def __setitem__(self, key: str, item: object) -> None:
            terminate() if not ended.calls else None
            super().__setitem__(key, item)
            assert not ended.calls or item == 9

    path = Checkpoint(state={"a": 1, "b": 2}).write(tmp_path / "old")
    checkpoint = Checkpoint(state=Late(a=5, b=6))
    with save_on_preemption(checkpoint, tmp_path / "new"):
        checkpoint.restore(path)
    assert ended.calls == [signal.SIGTERM]
    assert dict(checkpoint.state) == {"a": 1, "b": 2}
    saved = openckpt.load(tmp_path / "new-1")
    assert saved["state/a/.ATTRIBUTES/VARIABLE_VALUE"] == 1


def test_safe_points_are_waited_for(tmp_path: Path, ended: Ended) -> None:
    """Nothing is saved in the middle of a step; the end of the block is a safe point too."""
    w = np.zeros(2)
    with save_on_preemption(Checkpoint(w=w), tmp_path / "a", at_safe_points=True) as preemption:
        preemption.safe_point()
        w[0] = 1
        terminate()
        terminate()  # again: the scheduler is impatient
        w[1] = 1
        assert not list(tmp_path.iterdir())
        preemption.safe_point()
        assert ended.calls == [signal.SIGTERM]
    assert value(tmp_path) == [1, 1]
    with save_on_preemption(Checkpoint(w=w), tmp_path / "b", at_safe_points=True):
        terminate()
    assert indexes(tmp_path) == ["a-1", "b-1"]
    assert ended.calls == [signal.SIGTERM] * 2


def test_an_error_before_the_safe_point_swallows_no_signal(tmp_path: Path, ended: Ended) -> None:
    """A program that catches it would otherwise go on, and be killed; what the error has left in between is not saved."""
    checkpoint = Checkpoint(w=np.zeros(2))
    with pytest.raises(ZeroDivisionError), save_on_preemption(checkpoint, tmp_path / "ckpt", at_safe_points=True):
        terminate()
        assert not ended.calls
        raise ZeroDivisionError
    assert ended.calls == [signal.SIGTERM]
    assert not list(tmp_path.iterdir())


def test_a_safe_point_that_never_comes_is_not_waited_for(tmp_path: Path, ended: Ended) -> None:
    """The time is over, and nothing saved: half a step is no state."""
    with save_on_preemption(Checkpoint(w=1), tmp_path / "ckpt", within=0.05, at_safe_points=True):
        terminate()
        assert ended.event.wait(60)
        assert ended.calls == [signal.SIGTERM]
    assert not list(tmp_path.iterdir())


def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, ended: Ended) -> None:
    """The program ends in time, and says that it has not saved."""
    gate = threading.Event()
    checkpoint = Checkpoint(w=np.ones(2))
    with save_on_preemption(checkpoint, tmp_path / "ckpt", within=0.05):
        handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=AtCall(3, lambda: gate.wait(60)))
        try:
            with pytest.warns(CheckpointWarning, match="not ended"):
                terminate()
            assert ended.calls == [signal.SIGTERM]
            assert not handle.done
        finally:
            gate.set()
        handle.result(60)


def test_what_cannot_be_saved_keeps_nobody_alive(tmp_path: Path, ended: Ended) -> None:
    """Not even where warnings are errors, as here."""
    with save_on_preemption(Checkpoint(lock=threading.Lock()), tmp_path / "ckpt"):
        terminate()
    assert ended.calls == [signal.SIGTERM]


def test_a_manager_saves_its_next_step_once(tmp_path: Path, ended: Ended) -> None:
    """Whatever its interval; not a step that it has saved."""
    checkpoint = Checkpoint(w=np.ones(2), step=10)
    manager = CheckpointManager(checkpoint, tmp_path, 3, step_counter="step", checkpoint_interval=100)
    manager.save()
    with save_on_preemption(manager):
        terminate()
    assert indexes(tmp_path) == ["ckpt-1"]
    checkpoint.step = 11
    with save_on_preemption(manager):
        terminate()
    assert indexes(tmp_path) == ["ckpt-1", "ckpt-2"]
    assert ended.calls == [signal.SIGTERM] * 2


def test_blocks_lie_in_each_other(tmp_path: Path, ended: Ended) -> None:
    """The inner one goes on to the outer."""
    with (
        save_on_preemption(Checkpoint(w=1), tmp_path / "outer"),
        save_on_preemption(Checkpoint(w=2), tmp_path / "inner"),
    ):
        terminate()
    assert indexes(tmp_path) == ["inner-1", "outer-1"]
    assert ended.calls == [signal.SIGTERM]


def test_where_and_what_is_checked() -> None:
    """Before anything is done."""
    with pytest.raises(ValueError, match="under a prefix"):
        save_on_preemption(Checkpoint(w=1))


def test_a_program_ends_by_the_signal(tmp_path: Path) -> None:
    """As its parent expects; its forks, as workers of data loaders are, save nothing."""
    program = """
import os, signal, warnings, numpy as np, openckpt
warnings.simplefilter("ignore")
with openckpt.save_on_preemption(openckpt.Checkpoint(w=np.ones(2)), "run/ckpt"):
    pid = os.fork()
    if pid == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert not os.path.exists("run")
    signal.raise_signal(signal.SIGTERM)
    print("still here")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
    assert value(tmp_path / "run") == [1, 1]
    assert not list((tmp_path / "run").glob("*openckpt*"))
