"""Opening, listing and finding beside a trainer at full speed: an old or a new answer, never a mixture or a stray error.

Beside a trainer that saves as TensorFlow does, beside one that saves with openckpt, and beside that one and another which is killed
in the middle of a save again and again; six seconds each, ``OPENCKPT_SOAK_SECONDS=60`` makes it a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import openckpt
from openckpt.errors import PathNotFoundError
from openckpt.opening import group_directory
from openckpt.storage import LOCAL

SECONDS = float(os.environ.get("OPENCKPT_SOAK_SECONDS", "6"))
TENSORS = 301


@contextmanager
def running(script: str, directory: Path) -> Iterator[None]:
    """Run a trainer in a process of its own; when the block ends it must still run, and have done some work."""
    command = [sys.executable, str(Path(__file__).with_name(script)), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None and trainer.stdin is not None
        assert trainer.stdout.readline() == "ready\n"
        yield
        assert trainer.poll() is None, "the trainer must have run to the end"
        trainer.stdin.close()
        count = int(trainer.stdout.readline())
    assert trainer.returncode == 0
    assert count > 5, "so few saves, or crashes, prove nothing"


@pytest.fixture(params=[("trainer.py",), ("saver.py",), ("saver.py", "crasher.py")], ids=["tf", "openckpt", "crashes"])
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory in which others train: with TensorFlow's system calls, with openckpt, and one that is killed all the time."""
    directory = tmp_path / "run"
    directory.mkdir()
    with ExitStack() as stack:
        for script in request.param:
            stack.enter_context(running(script, directory))
        yield directory
    if "crasher.py" in request.param:
        openckpt.save(directory / "last", {"w": [1.0]})
        listing = group_directory(LOCAL, str(directory))
        assert listing.unfinished == {}, "a save in the directory sweeps up after the dead"
        assert all(group.complete for group in listing.groups)
        assert listing.stale_shards == ()


def check_whole(ckpt: openckpt.CheckpointReader) -> int:
    """Assert that a checkpoint is one generation throughout, and return which."""
    keys = list(ckpt)
    assert len(keys) == TENSORS
    assert [spec.nbytes for spec in ckpt.specs.values()] == [128] * (TENSORS - 1) + [8]
    arrays = ckpt.read_many(keys)
    values = {float(array.min()) for array in arrays.values()} | {float(array.max()) for array in arrays.values()}
    assert len(values) == 1, f"a mixture of generations {values} in {ckpt.prefix}"
    (generation,) = values
    return int(generation)


def read_directory(directory: Path) -> None:
    with openckpt.open(directory) as ckpt:
        assert ckpt.how.kind in ("manifest", "scan")
        assert check_whole(ckpt) == ckpt.step


def read_one_by_one(directory: Path) -> None:
    with openckpt.open(directory) as ckpt:
        values = {float(ckpt[key].max()) for key in list(ckpt)[::10]}
        assert values == {float(ckpt.step or -1)}


def read_overwritten_prefix(directory: Path) -> None:
    with openckpt.open(directory / "best") as ckpt:
        generation = check_whole(ckpt)
        assert ckpt.step == generation  # the save counter inside


def list_latest(directory: Path) -> None:
    prefix = openckpt.latest_checkpoint(directory)
    assert prefix is not None
    try:
        names = openckpt.list_variables(prefix)
    except PathNotFoundError:
        return  # swept between the two calls: the caller's own race
    assert len(names) == TENSORS


def find_all(directory: Path) -> None:
    found = list(openckpt.find(directory))
    best = [checkpoint for checkpoint in found if checkpoint.prefix.endswith("/best")]
    assert len(best) == 1 and best[0].complete and len(best[0].files) in (2, 3)
    assert all(checkpoint.damage is None for checkpoint in found), found
    assert all(checkpoint.complete or not checkpoint.prefix.endswith("/again") for checkpoint in found)
    steps = [checkpoint.step for checkpoint in found if checkpoint.complete and checkpoint.step is not None]
    assert steps and steps == sorted(set(steps))


def group(directory: Path) -> None:
    listing = group_directory(LOCAL, str(directory))
    assert all(group.damage is None for group in listing.groups)


def diagnose(directory: Path) -> None:
    report = openckpt.diagnose(directory)
    assert report.valid, report
    assert [finding for finding in report.all_findings() if finding.severity == "error"] == []


def diagnose_overwritten_prefix(directory: Path) -> None:
    report = openckpt.diagnose(directory / "best")
    assert report.valid, report
    assert {finding.code for finding in report.all_findings() if finding.severity != "note"} <= BESIDE_TENSORFLOW


def open_newest_by_name(directory: Path) -> None:
    prefix = openckpt.latest_checkpoint(directory)
    assert prefix is not None
    try:
        with openckpt.open(prefix) as ckpt:
            assert check_whole(ckpt) == ckpt.step
    except PathNotFoundError:
        pass  # swept between the two calls: the caller's own race


BESIDE_TENSORFLOW = {"run.leftover-parts", "run.leftover-file"}
"""The doctor cannot tell whether TensorFlow still works in PREFIX_temp."""

JOBS: tuple[Callable[[Path], None], ...] = (
    read_directory,
    read_one_by_one,
    read_overwritten_prefix,
    list_latest,
    find_all,
    group,
    diagnose,
    diagnose_overwritten_prefix,
    open_newest_by_name,
)


def test_readers_beside_a_trainer_see_an_old_or_a_new_checkpoint(run: Path) -> None:
    """No reader meets a mixture of two saves or an error, whatever the trainer does meanwhile."""
    stop = time.monotonic() + SECONDS

    def repeat(job: Callable[[Path], None]) -> tuple[str, int]:
        count = 0
        while time.monotonic() < stop:
            job(run)
            count += 1
        return job.__name__, count

    with ThreadPoolExecutor(len(JOBS)) as pool:
        done = Counter(dict(pool.map(repeat, JOBS)))
    assert min(done.values()) > 5, done
