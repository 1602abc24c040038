"""Ctrl-C at any call, before or after it took effect: old or new, never a mixture, and the next save works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from fault.histories import Save
from fault.judging import read_state
from fault.test_failing_calls import SCENES, after, check_next_save, count_calls_of, states
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing import Call, CallFS, OrderFS, PowerLossFS

T = TypeVar("T")
When = Literal["before", "after"]


class Interrupted(CallFS):
    """Raises KeyboardInterrupt at one call, as Python does between two steps of a program."""

    def __init__(self, store: WritableStore, at: int, when: When) -> None:
        super().__init__(store)
        self.at, self.when = at, when

    def around(self, call: Call, do: Callable[[], T]) -> T:
        if call.number == self.at and self.when == "before":
            raise KeyboardInterrupt
        result = do()
        if call.number == self.at:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", SCENES)
def test_an_interrupt_leaves_old_or_new(name: str, when: When) -> None:
    """Also between a rename and the note of it, and while old data is removed."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    wanted = after(scene, before)
    interrupted = 0
    for at in range(1, count_calls_of(scene) + 1):
        disk = PowerLossFS(scene.files)
        watched = OrderFS(disk)
        fs = Interrupted(watched, at, when)
        try:
            scene.save.run(fs)
        except KeyboardInterrupt:
            interrupted += 1
        call = fs.calls[at - 1]
        assert states(disk, scene) in (before, wanted), call
        watched.check()
        disk.kill_writers()  # locks that nobody has a handle of any more; a descriptor closes itself
        check_next_save(scene, disk, str(call))
    assert interrupted > 20


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_an_interrupt_no_lock_stays_in_the_process(when: When, tmp_path: Path) -> None:
    """On a real disk: whatever was interrupted, the same program can save the same prefix again."""
    first = Save(f"{tmp_path}/run/a", 1, manifest=True)
    second = replace(first, seed=2, overwrite=True)
    first.run(DISK)
    counting = CallFS(DISK)
    second.run(counting)
    for at in range(1, len(counting.calls) + 1):
        fs = Interrupted(DISK, at, when)
        with suppress(KeyboardInterrupt):
            replace(second, seed=at + 2).run(fs)
        assert read_state(DISK, first.prefix) in (second.state, replace(second, seed=at + 2).state)
        second.run(DISK)
        assert read_state(DISK, first.prefix) == second.state
    assert not [path for path in (tmp_path / "run").iterdir() if ".openckpt-" in path.name]
