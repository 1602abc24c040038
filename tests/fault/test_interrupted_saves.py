"""Ctrl-C at any call of a live program's save, and the program goes on, as in a notebook: the next save works, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from fault.test_interrupts import Interrupted, When
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.training import Checkpoint, CheckpointManager

Save = Callable[[], Any]


def run_of(directory: Path, name: str, store: WritableStore) -> tuple[Checkpoint, Save]:
    """Return a program and what saves its steps: a manager, or the Checkpoint itself."""
    program = Checkpoint(w=np.arange(3.0))
    if name == "checkpoint":
        return program, lambda: program.save(directory / "ckpt", durability="process-crash", store=store)
    manager = CheckpointManager(program, directory, 1, checkpoint_name=name, durability="process-crash", store=store)
    return program, manager.save


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["ckpt", "below/ckpt", "checkpoint"])
def test_the_program_saves_on_after_an_interrupt(name: str, when: When, tmp_path: Path) -> None:
    """Whether the interrupt came before the commit point or after it: no number is in the way, no lock is held, nobody has overtaken."""
    interrupted = 0
    for at in range(1, 1000):
        directory = tmp_path / str(at)
        store = Interrupted(DISK, 0, when)
        program, save = run_of(directory, name, store)
        save()
        program.w[:] = 7.0
        store.at = len(store.calls) + at
        try:
            save()
            break
        except KeyboardInterrupt:
            interrupted += 1
        call = store.calls[store.at - 1]
        program.w[:] = 8.0
        assert save() == openckpt.latest_checkpoint(directory), call
        assert not [path for path in directory.rglob("*") if "openckpt" in path.name], call
        if name != "checkpoint":
            assert len(list(directory.rglob("*.index"))) == 1, call
        fresh = Checkpoint(w=np.zeros(3))
        fresh.restore(openckpt.latest_checkpoint(directory)).assert_consumed()
        assert fresh.w.tolist() == [8.0] * 3, call
    assert interrupted > 30
