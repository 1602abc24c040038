"""The manifest after a save, and `update_checkpoint_state`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointWarning, ConflictError
from openckpt.formats.manifest import parse_manifest
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS, FaultyFS
from openckpt.writing.manifests import advanced_manifest


def advanced(present: str | bytes | None, name: str, at: float = 9.5) -> str:
    data = present.encode() if isinstance(present, str) else present
    return advanced_manifest(data, name, "/run", clock=lambda: at).decode()


FIRST = 'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\nall_model_checkpoint_timestamps: 9.5\n'


AB = 'model_checkpoint_path: "b"\nall_model_checkpoint_paths: "a"\nall_model_checkpoint_paths: "b"\n'
ADVANCED: dict[str, tuple[str | bytes | None, str, str]] = {
    "none": (None, "a", FIRST),
    "empty": (b"", "a", FIRST),
    "second": (FIRST, "b", AB + "all_model_checkpoint_timestamps: 9.5\n" * 2),
    "again": (FIRST, "a", FIRST),
    "again, spelled otherwise": (
        'model_checkpoint_path: "/run/b" all_model_checkpoint_paths: ["../run/b", "a", "/run/b"]',
        "b",
        AB,
    ),
    "without times": ('model_checkpoint_path: "a"\n', "b", AB),
    "moves to the end": (
        'all_model_checkpoint_paths: "b"\nall_model_checkpoint_paths: "a"\nmodel_checkpoint_path: "b"\nlast_preserved_timestamp: 3',
        "b",
        AB + "last_preserved_timestamp: 3.0\n",
    ),
}


@pytest.mark.parametrize("case", ADVANCED)
def test_the_newest_comes_last(case: str) -> None:
    """Older entries keep their order and times; times are written where every entry has one."""
    present, name, expected = ADVANCED[case]
    assert advanced(present, name) == expected


@pytest.mark.parametrize("present", [b"\xff\xfe", b"model_checkpoint_path: 5", b"<html>", b"version https://git-lfs"])
def test_a_manifest_that_cannot_be_read_is_replaced(present: bytes) -> None:
    """With a warning: the checkpoints that it named are still there to be found."""
    with pytest.warns(CheckpointWarning, match="replaced"):
        assert advanced(present, "a") == FIRST


def test_a_clock_that_goes_backwards_changes_no_order() -> None:
    """The list is in the order of the saves, whatever the times say."""
    state = parse_manifest(advanced(advanced(advanced(None, "a", 5.0), "b", 3.0), "c", 4.0).encode(), "checkpoint")
    assert state.all_model_checkpoint_paths == ("a", "b", "c")
    assert state.all_model_checkpoint_timestamps == (5.0, 3.0, 4.0)


def test_saves_are_found_as_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `latest_checkpoint`, also in the current directory, and after the directory was moved."""
    for step in (1, 2):
        openckpt.save(tmp_path / "run" / f"ckpt-{step}", {"w": step}, update_manifest=True)
    assert openckpt.latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "ckpt-2")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert openckpt.latest_checkpoint(tmp_path / "moved") == str(tmp_path / "moved" / "ckpt-2")
    monkeypatch.chdir(tmp_path / "moved")
    openckpt.save("ckpt-3", {"w": 3}, update_manifest=True)
    with openckpt.create("ckpt-4", update_manifest=True) as writer:
        writer.add("w", 4)
    state = openckpt.get_checkpoint_state(".")
    assert state is not None and [Path(path).name for path in state.all_model_checkpoint_paths] == [
        "ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4",
    ]  # fmt: skip
    assert len(state.all_model_checkpoint_timestamps) == 4


@pytest.mark.parametrize("name", ["checkpoint", "run/checkpoint"])
def test_a_checkpoint_cannot_have_the_manifest_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where it is to be in the manifest; without it, it may."""
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: openckpt.save(name, {"w": 1}, update_manifest=True),
        lambda: openckpt.create(name, update_manifest=True),
        lambda: openckpt.merge_parts(name, update_manifest=True),
        lambda: openckpt.update_checkpoint_state(os.path.dirname(name), name),
        lambda: openckpt.update_checkpoint_state(os.path.dirname(name), os.path.abspath(name)),
    ):
        with pytest.raises(ConflictError) as caught:
            act()
        assert caught.value.code == "writing.manifest-name"
    assert list(tmp_path.iterdir()) == []
    openckpt.save(name, {"w": 1})
    assert openckpt.load(name) == {"w": 1}


def state_of(directory: Path, name: str = "checkpoint") -> Any:
    return parse_manifest((directory / name).read_bytes(), name)


def test_the_state_is_what_was_asked_for(tmp_path: Path) -> None:
    """Paths, times, another name; the newest is appended where the list does not end with it."""
    update = openckpt.update_checkpoint_state
    update(tmp_path, tmp_path / "b", [tmp_path / "a"], save_relative_paths=True)
    assert state_of(tmp_path).all_model_checkpoint_paths == ("a", "b")
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    update(str(tmp_path), paths[-1], paths, "other", [1, 2.5], 7)
    state = state_of(tmp_path, "other")
    assert (state.model_checkpoint_path, list(state.all_model_checkpoint_paths)) == (paths[-1], paths)
    assert (state.all_model_checkpoint_timestamps, state.last_preserved_timestamp) == ((1.0, 2.5), 7.0)
    assert paths == [str(tmp_path / "a"), str(tmp_path / "b")]  # TensorFlow changes its caller's list
    with pytest.raises(ValueError):
        update(tmp_path, paths[-1], paths, None, [1.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "other"]


def test_the_directory_is_made(tmp_path: Path) -> None:
    """As that of a save."""
    openckpt.update_checkpoint_state(tmp_path / "a" / "b", "ckpt-1", save_relative_paths=True)
    assert (tmp_path / "a" / "b" / "checkpoint").exists()


def test_the_state_is_durable_unless_asked(tmp_path: Path) -> None:
    """Bytes, then the name."""
    for durability, expected in (("power-loss", ["sync", "rename", "sync_directory"]), ("process-crash", ["rename"])):
        fs = CallFS(DISK)
        openckpt.update_checkpoint_state(tmp_path, "a", durability=durability, store=fs)  # type: ignore[arg-type]
        calls = [call.name for call in fs.calls]
        assert (
            calls[calls.index("write") + 1 :][: len(expected) + 3]
            and [name for name in calls[calls.index("write") :] if name in ("sync", "rename", "sync_directory")]
            == expected
        )


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """Whichever call fails."""
    openckpt.update_checkpoint_state(tmp_path, "a")
    before = (tmp_path / "checkpoint").read_bytes()
    failed = 0
    for at in range(1, 40):
        fs = FaultyFS(DISK, fail_at=at)
        try:
            openckpt.update_checkpoint_state(tmp_path, "b", store=fs)
        except OSError:
            failed += 1
            assert (tmp_path / "checkpoint").read_bytes() == before
        else:
            (tmp_path / "checkpoint").write_bytes(before)
            if not fs.fired:
                break
    assert failed > 8 and not [path for path in tmp_path.iterdir() if ".openckpt-" in path.name]


def test_a_directory_in_the_manifest_s_place(tmp_path: Path) -> None:
    """The save fails with the system's error and is taken back."""
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(IsADirectoryError):
        openckpt.save(tmp_path / "ckpt", {"w": np.ones(2)}, update_manifest=True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
