"""A save between any two calls of a reader, and a reader between any two calls of a save: every point, one after the other.

The race with a real second process is in `test_reading_while_training`; here nothing depends on luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

import openckpt
from openckpt.opening import group_directory
from openckpt.storage import LOCAL, LocalStore
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore
from openckpt.testing import Call, CallFS

T = TypeVar("T")

CRASH: Durability = "process-crash"
POLICY = openckpt.MaxShardSize(4096)  # several data files


def tensors(value: int, size: int = 500) -> dict[str, np.ndarray]:
    weights = {f"w{number}": np.full(size, value, np.float32) for number in range(4)}
    return {**weights, "save_counter": np.array(value, np.int64)}


def save(
    directory: Path, name: str, value: int, *, store: WritableStore = DISK, several: bool = False, size: int = 500
) -> None:
    """Save one checkpoint, over what has its name."""
    openckpt.save(
        str(directory / name),
        tensors(value, size),
        sharding=POLICY if several else None,
        overwrite=True,
        update_manifest=name != "best",
        durability=CRASH,
        store=store,
    )


def begin(directory: Path) -> Path:
    """Make a directory with one step, and a prefix that is saved over again and again."""
    directory.mkdir()
    save(directory, "ckpt-1", 1)
    save(directory, "best", 1)
    return directory


def value_of(path: Path | str) -> int:
    """Return which save a checkpoint is; it is one throughout."""
    with openckpt.open(path) as ckpt:
        assert set(ckpt.specs) == set(tensors(0))
        (value,) = {float(number) for array in ckpt.read_many().values() for number in array.flat}
        assert ckpt["save_counter"] == value
        return int(value)


# ------------------------------------------------------------------------------------------------------------- readers


def open_directory(directory: Path) -> None:
    assert value_of(directory) in (1, 2)


def open_prefix(directory: Path) -> None:
    assert value_of(directory / "best") in (1, 2)


def open_latest(directory: Path) -> None:
    prefix = openckpt.latest_checkpoint(directory)
    assert prefix is not None
    assert value_of(prefix) in (1, 2)


def list_directory(directory: Path) -> None:
    assert len(openckpt.list_variables(directory)) == len(tensors(0))


def find_all(directory: Path) -> None:
    found = {Path(one.prefix).name: one for one in openckpt.find(directory)}
    assert {"best", "ckpt-1"} <= set(found) <= {"best", "ckpt-1", "ckpt-2"}
    assert all(one.complete and one.damage is None for one in found.values()), found
    assert sum(one.newest for one in found.values()) == 1


def group(directory: Path) -> None:
    listing = group_directory(LOCAL, str(directory))
    assert all(one.complete and one.header_shards is None for one in listing.groups if not one.uncommitted), listing


def diagnose(directory: Path) -> None:
    for path in (directory, directory / "best"):
        report = openckpt.diagnose(path)
        assert (report.valid, report.worst) == (True, "note"), report
        assert not any(finding.code in ("run.stale-shards", "run.broken-off") for finding in report.all_findings())


READERS: tuple[Callable[[Path], None], ...] = (
    open_directory,
    open_prefix,
    open_latest,
    list_directory,
    find_all,
    group,
    diagnose,
)


# -------------------------------------------------------------------------------------------- a save between two calls


class Interruption:
    """Runs something before the n-th call of a reader."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.left, self._act = at, act

    def tick(self) -> None:
        """Count one call."""
        self.left -= 1
        if self.left == 0:
            self._act()


@contextmanager
def interrupted(interruption: Interruption, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every stat, scan and open of a reader tick; those of a writer do not."""

    def ticking(method: Callable[..., T]) -> Callable[..., T]:
        def call(self: LocalStore, *arguments: object) -> T:
            if type(self) is LocalStore:
                interruption.tick()
            return method(self, *arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("stat", "scan", "open"):
            patch.setattr(LocalStore, name, ticking(getattr(LocalStore, name)))
        yield


def save_over_once(directory: Path) -> None:
    save(directory, "best", 2, several=True)


def save_over_twice(directory: Path) -> None:
    save(directory, "best", 2, several=True)
    save(directory, "best", 2)


def save_over_twice_with_more(directory: Path) -> None:
    """The count of data files is the old one again, and they are longer."""
    save(directory, "best", 2, several=True)
    save(directory, "best", 2, size=5000)


def save_over_twice_with_less(directory: Path) -> None:
    save(directory, "best", 2, several=True)
    save(directory, "best", 2, size=5)


def save_a_step(directory: Path) -> None:
    save(directory, "ckpt-2", 2, several=True)


SAVES = (save_over_once, save_over_twice, save_over_twice_with_more, save_over_twice_with_less, save_a_step)


@pytest.mark.parametrize("saves", SAVES)
@pytest.mark.parametrize("read", READERS)
def test_a_save_between_any_two_calls_of_a_reader(
    read: Callable[[Path], None], saves: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader sees the old state or the new one, whenever the whole save happens."""
    at, happened = 0, True
    while happened:
        at += 1
        directory = begin(tmp_path / str(at))
        interruption = Interruption(at, lambda directory=directory: saves(directory))  # type: ignore[misc]
        with interrupted(interruption, monkeypatch):
            read(directory)
        happened = interruption.left <= 0
    assert at > 3


# ------------------------------------------------------------------------------------------ a reader between two calls


class Watched(CallFS):
    """Lets somebody look before every call of a save."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__(DISK)
        self._look = look

    def around(self, call: Call, do: Callable[[], T]) -> T:
        try:
            self._look()
        except AssertionError as error:
            error.add_note(f"before call {call}")
            raise
        return do()


@pytest.mark.parametrize("saved", ["best", "ckpt-2"])
@pytest.mark.parametrize("read", READERS)
def test_a_reader_between_any_two_calls_of_a_save(read: Callable[[Path], None], saved: str, tmp_path: Path) -> None:
    """Whatever is half done, the reader sees the state before the save or the one after it."""
    directory = begin(tmp_path / "run")
    store = Watched(lambda: read(directory))
    save(directory, saved, 2, store=store, several=True)
    assert len(store.calls) > 10
    assert value_of(directory / saved) == 2
