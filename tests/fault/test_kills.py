"""SIGKILL before and after every call of a save, on a real file system: old or new, never mixed, and the next save sweeps (P2).

A kill loses nothing that was written, so what is left is what the calls before it made; all of them are tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

import openckpt
from fault.histories import Save, is_part, merge_of
from fault.judging import ABSENT, read_latest, read_state
from openckpt.storage.disk import DISK
from openckpt.testing import count_calls, run_killed

OLD, OTHER = Save("run/a", 1, manifest=True), Save("run/b", 2, manifest=True)

*PARTS, MERGE = merge_of("run/b", 5, 2, manifest=True)

SCENES: dict[str, tuple[tuple[Save, ...], Save]] = {
    "one-shard": ((), Save("new/run/a", 3)),
    "four-shards": ((OLD,), Save("run/b", 4, groups=4)),
    "overwrite": ((OLD, OTHER), replace(OTHER, seed=5, overwrite=True, manifest=False)),
    "overwrite-four-shards": (
        (replace(OLD, groups=4),),
        replace(OLD, seed=6, groups=4, overwrite=True, layout="tensorflow"),
    ),
    "manifest": ((OLD,), OTHER),
    "overwrite-manifest": ((OTHER, OLD), replace(OTHER, seed=7, overwrite=True)),
    "merge": ((OLD, *PARTS), MERGE),
    "process-crash": ((OLD, OTHER), replace(OTHER, seed=8, overwrite=True, durability="process-crash")),
}


def at(path: Path, save: Save) -> Save:
    return replace(save, prefix=f"{path}/{save.prefix}", parts=tuple(at(path, part) for part in save.parts))


@pytest.mark.parametrize("name", SCENES)
def test_a_kill_at_any_call_leaves_old_or_new(name: str, quick_path: Path, report: Callable[[str], None]) -> None:
    """A fresh reader finds each prefix whole and the manifest naming one that is; then the save is made again, and sweeps."""
    before, save = SCENES[name]
    template, here = quick_path / "template", quick_path / "here"
    template.mkdir()
    for old in before:
        at(template, old).run(DISK)
    shutil.copytree(template, here)
    calls = count_calls(at(here, save).run)
    seen = [old for old in before if not is_part(old)]
    was = {old.prefix: read_state(DISK, f"{template}/{old.prefix}") for old in seen} | {
        save.prefix: read_state(DISK, f"{template}/{save.prefix}")
    }
    latest = {seen[-1].prefix if seen else ABSENT, *([save.prefix] if save.manifest else [])}
    killed = {"old": 0, "new": 0}
    ways: tuple[Literal["before", "after"], ...] = ("before", "after")
    for number in range(1, calls + 1):
        for when in ways:
            shutil.rmtree(here)
            shutil.copytree(template, here)
            ending = run_killed(at(here, save).run, number, when)
            assert ending.how in ("killed", "finished"), ending.said  # threads: it may have had a call less
            for prefix, state in was.items():
                found = read_state(DISK, f"{here}/{prefix}")
                assert found == state or (prefix == save.prefix and found == save.state), ending.replay
            killed["new" if read_state(DISK, f"{here}/{save.prefix}") == save.state else "old"] += 1
            directory = (here / save.prefix).parent
            newest = read_latest(DISK, str(directory)).removeprefix(f"{here}/")
            assert newest in latest, ending.replay
            assert newest == ABSENT or read_state(DISK, f"{here}/{newest}") != ABSENT, ending.replay
            again = at(here, replace(save, seed=99, overwrite=True, manifest=True))
            for part in again.parts:
                part.run(DISK)
            again.run(DISK)
            assert read_state(DISK, again.prefix) == again.state, ending.replay
            assert openckpt.latest_checkpoint(directory) == again.prefix, ending.replay
            names = [path.name for path in directory.iterdir()]
            assert not [left for left in names if ".openckpt-" in left], ending.replay
            stem = Path(save.prefix).name
            assert len({left.rpartition("-of-")[2] for left in names if left.startswith(f"{stem}.data-")}) == 1, (
                ending.replay
            )
    report(
        f"SIGKILL, {name}: {calls} calls, before and after each: {killed['old']} left the old, {killed['new']} the new, 0 a mixture"
    )
    assert min(killed.values()) > 0
