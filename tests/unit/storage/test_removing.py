"""Removing files in order, under the writers' lock and the readers' leases."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import openckpt
from openckpt.errors import ConflictError
from openckpt.storage import LOCAL
from openckpt.storage.disk import DISK
from openckpt.storage.leases import lease
from openckpt.testing import CallFS, FaultyFS, OrderFS, PowerLossFS
from openckpt.writing import remove_checkpoint


def save(prefix: object, value: int = 1, **options: object) -> str:
    return openckpt.save(str(prefix), {"w": np.full(4, value)}, **options)  # type: ignore[arg-type]


def test_the_index_goes_first_and_its_absence_is_synced_before_data_goes(tmp_path: Path) -> None:
    """The order that a power cut cannot turn into an index without data; a test store watches it."""
    prefix = save(tmp_path / "ckpt-1")
    store = OrderFS(DISK)
    assert remove_checkpoint(prefix, store=store)
    store.check_end()
    calls = [(call.name, Path(call.path).name) for call in store.calls if call.name in ("remove", "sync_directory")]
    assert calls == [
        ("remove", "ckpt-1.index"),
        ("sync_directory", tmp_path.name),
        ("remove", "ckpt-1.data-00000-of-00001"),
        ("remove", "ckpt-1.openckpt-lock"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_without_durability_nothing_is_synced(tmp_path: Path) -> None:
    """The order stays."""
    store = CallFS(DISK)
    assert remove_checkpoint(save(tmp_path / "x"), durability="process-crash", store=store)
    assert [call.name for call in store.calls if "sync" in call.name] == []


def test_names_are_literal(tmp_path: Path) -> None:
    """Brackets, stars and question marks in a path are characters; what they would match stays."""
    (tmp_path / "run[1]*?").mkdir()
    (tmp_path / "run1").mkdir()
    prefix, other = save(tmp_path / "run[1]*?" / "ckpt-[7]"), save(tmp_path / "run1" / "ckpt-7")
    neighbours = [save(tmp_path / "run[1]*?" / name) for name in ("ckpt-7", "ckpt-[7]-1", "ckpt-[7]7")]
    assert remove_checkpoint(prefix)
    assert not openckpt.checkpoint_exists(prefix)
    assert all(map(openckpt.checkpoint_exists, [other, *neighbours]))


def test_every_data_file_and_the_meta_graph_go(tmp_path: Path) -> None:
    """Of any number of files, stale ones of other counts too; nothing else of the directory."""
    prefix = save(tmp_path / "x")
    for name in ("x.data-00001-of-00003", "x.meta", "x.txt", "xy.data-00000-of-00001", "checkpoint"):
        (tmp_path / name).write_bytes(b"?")
    assert remove_checkpoint(prefix)
    assert {path.name for path in tmp_path.iterdir()} == {"x.txt", "xy.data-00000-of-00001", "checkpoint"}


def test_where_there_is_none_nothing_happens(tmp_path: Path) -> None:
    """In an empty directory, and in none."""
    store = CallFS(DISK)
    assert remove_checkpoint(tmp_path / "x", store=store)
    assert remove_checkpoint(tmp_path / "no" / "x", store=store)
    assert {call.name for call in store.calls} <= {"scan", "stat"}


def test_what_a_reader_has_open_stays(tmp_path: Path) -> None:
    """Until it is closed; nothing is written by the reader."""
    prefix = save(tmp_path / "x")
    before = {path.name for path in tmp_path.iterdir()}
    with openckpt.open(prefix) as reader:
        assert {path.name for path in tmp_path.iterdir()} == before
        assert not remove_checkpoint(prefix)
        assert {path.name for path in tmp_path.iterdir()} == before
        assert reader["w"].tolist() == [1, 1, 1, 1]
    assert remove_checkpoint(prefix)
    assert list(tmp_path.iterdir()) == []


def test_readers_share_a_lease(tmp_path: Path) -> None:
    """The last one ends it."""
    prefix = save(tmp_path / "x")
    with openckpt.open(prefix):
        with openckpt.open(prefix):
            pass
        assert not remove_checkpoint(prefix)
    assert remove_checkpoint(prefix)


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    """However that ends: a killed reader keeps nothing."""
    prefix = save(tmp_path / "x")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        reader = openckpt.open(prefix)
        os.write(writing, b"open")
        signal.pause()
        reader.close()
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 4) == b"open"
    os.close(reading)
    assert not remove_checkpoint(prefix)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert remove_checkpoint(prefix)


def test_who_comes_while_it_is_being_removed_gets_no_lease(tmp_path: Path) -> None:
    """And an open that meets it does not return a checkpoint that is going."""
    prefix = save(tmp_path / "x")
    claim = DISK.try_claim(f"{prefix}.index")
    assert claim is not None
    with closing(LOCAL.open(f"{prefix}.index")) as source:
        assert not lease(source)
        DISK.close(claim)
        assert lease(source)


def test_a_file_system_without_locks_has_no_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then readers read and sweepers sweep, as ever."""
    import fcntl

    prefix = save(tmp_path / "x")

    def refuse(number: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with openckpt.open(prefix) as reader:
        assert len(reader) == 1
    claim = DISK.try_claim(f"{prefix}.index")
    assert claim is not None
    DISK.close(claim)


def test_what_is_being_saved_is_not_removed(tmp_path: Path) -> None:
    """The writer's lock says so."""
    prefix = save(tmp_path / "x")
    lock = DISK.try_lock(f"{prefix}.openckpt-lock")
    assert lock is not None
    with pytest.raises(ConflictError) as caught:
        remove_checkpoint(prefix)
    assert caught.value.code == "commit.locked"
    DISK.close(lock)
    assert openckpt.checkpoint_exists(prefix)


def test_any_call_may_fail_and_the_next_save_sweeps() -> None:
    """Old and whole, or gone; and nothing of it is left when somebody saves in the directory again."""
    seen = set()
    for number in range(1, 100):
        fs = PowerLossFS()
        save("run/x", store=fs)
        faulty = FaultyFS(fs, fail_at=number, error=errno.EIO)
        try:
            remove_checkpoint("run/x", store=faulty)
        except OSError as error:
            assert any("the call that failed" in note for note in error.__notes__), faulty.replay
            seen.add("raised")
        if not faulty.fired:
            break
        there = fs.stat("run/x.index") is not None
        seen.add("there" if there else "gone")
        if there:
            assert fs.stat("run/x.data-00000-of-00001") is not None, faulty.replay
        fs.kill_writers()
        save("run/y", store=fs)
        left = {stat.name for stat in fs.scan("run")} - {"y.index", "y.data-00000-of-00001"}
        assert left == ({"x.index", "x.data-00000-of-00001"} if there else set()), faulty.replay
    assert seen == {"raised", "there", "gone"}


def test_a_damaged_checkpoint_is_removed_too(tmp_path: Path) -> None:
    """Its index need not be readable."""
    prefix = save(tmp_path / "x")
    Path(f"{prefix}.index").write_bytes(b"not an index")
    assert remove_checkpoint(prefix)
    assert list(tmp_path.iterdir()) == []
