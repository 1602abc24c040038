"""`run_killed` ends a child process in the call that it is told, and what it left is on the disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from openckpt.storage.writable import WritableStore
from openckpt.testing import count_calls, run_killed


def save(path: Path, store: WritableStore) -> None:
    """Four calls."""
    file = store.create(f"{path}/t")
    store.write(file, 0, [b"abc"])
    store.close(file)
    store.rename(f"{path}/t", f"{path}/a")


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_calls_are_counted(tmp_path: Path) -> None:
    """In a child, whose save really happens."""
    assert count_calls(partial(save, tmp_path)) == 4
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("at", "when", "left"),
    [(1, "before", []), (1, "after", ["t"]), (4, "before", ["t"]), (4, "after", ["a"])],
)
def test_a_kill_comes_before_or_after_its_call(tmp_path: Path, at: int, when: str, left: list[str]) -> None:
    """And nothing is cleaned up."""
    ending = run_killed(partial(save, tmp_path), at, when)  # type: ignore[arg-type]
    assert ending.how == "killed"
    assert ending.said.startswith(f"{at} {'create' if at == 1 else 'rename'} ")
    assert ending.replay.startswith(f"run_killed(save, at={at}, when='{when}'): {at} ")
    assert names(tmp_path) == left


def test_a_save_with_fewer_calls_finishes(tmp_path: Path) -> None:
    """So a loop over all calls knows where to end."""
    assert run_killed(partial(save, tmp_path), 5).how == "finished"
    assert names(tmp_path) == ["a"]


def test_a_lock_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    """The next one gets it at once."""
    from openckpt.storage.disk import DISK

    def lock_and_write(store: WritableStore) -> None:
        assert store.try_lock(f"{tmp_path}/l") is not None
        store.create(f"{tmp_path}/t")

    assert run_killed(lock_and_write, 2).how == "killed"
    lock = DISK.try_lock(f"{tmp_path}/l")
    assert lock is not None
    DISK.close(lock)


def test_a_save_that_raises_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    """With its traceback, and its length does not matter."""
    (tmp_path / "a").mkdir()
    ending = run_killed(partial(save, tmp_path), 9)
    assert ending.how == "raised"
    assert "IsADirectoryError" in ending.said
    with pytest.raises(RuntimeError, match="FileExistsError"):
        count_calls(partial(save, tmp_path))

    def complain(store: WritableStore) -> None:
        raise ValueError("x" * 1_000_000)

    assert len(run_killed(complain, 1).said) > 1_000_000
