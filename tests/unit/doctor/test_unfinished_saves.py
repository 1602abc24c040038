"""Saves by openckpt that run or were killed: one note per prefix, never an error, and nothing that counts as a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import openckpt
from openckpt.cli.program import run as run_program
from openckpt.errors import CheckpointError, PathNotFoundError
from openckpt.findings import Finding
from openckpt.opening import group_directory
from openckpt.opening.saves import save_findings, stale_shards
from openckpt.storage import LOCAL
from openckpt.storage.disk import DISK
from openckpt.storage.temporary import lock_name, temporary_name
from openckpt.storage.writable import Durability, WritableStore
from openckpt.testing import count_calls, run_killed
from runs import Run, codes, only

CRASH: Durability = "process-crash"  # a SIGKILL takes no file away, and syncs would only take time
OURS = {"run.saving", "run.broken-off"}


def tensors(value: int) -> dict[str, np.ndarray]:
    return {"w": np.full(100, value, np.float32), "name": np.array(f"save {value}")}


def value_of(path: Path) -> int:
    with openckpt.open(path) as ckpt:
        (value,) = set(ckpt["w"].tolist())
        assert ckpt["name"].item() == f"save {int(value)}".encode()
        return int(value)


def fresh(run: Run, store: WritableStore) -> None:
    """Save a second step beside a first."""
    openckpt.save(str(run / "ckpt-2"), tensors(2), update_manifest=True, durability=CRASH, store=store)


def over(run: Run, store: WritableStore) -> None:
    """Save over the only step."""
    openckpt.save(str(run / "ckpt-1"), tensors(2), update_manifest=True, overwrite=True, durability=CRASH, store=store)


def begun(run: Run) -> None:
    openckpt.save(str(run / "ckpt-1"), tensors(1), update_manifest=True, durability=CRASH)


def names(run: Run) -> set[str]:
    return {path.name for path in run.directory.iterdir()}


def unfinished(run: Run) -> set[str]:
    return {name for name in names(run) if ".openckpt-" in name}


def removed_by(finding: Finding) -> list[Path]:
    """Return the files that the command of a finding removes."""
    _, _, command = (finding.fix or "").rpartition("rm ")
    return [Path(word) for word in command.split()]


@contextmanager
def saving(run: Run, stem: str, *parts: str) -> Iterator[None]:
    """Hold the lock of a prefix, and have made some files of it."""
    lock = DISK.try_lock(str(run / lock_name(stem)))
    assert lock is not None
    for number in range(len(parts)):
        (run / temporary_name(stem, number)).write_bytes(b"x" * 10)
    try:
        yield
    finally:
        DISK.close(lock)


@pytest.mark.parametrize("save", [fresh, over])
def test_a_save_killed_anywhere_leaves_one_note(save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Before and after each of its calls: the directory is valid, nothing is worse than a note, and find shows no stump."""
    calls = count_calls(lambda store: save(_begin(tmp_path / "count"), store))
    seen = set()
    for at in range(1, calls + 1):
        for when in ("before", "after"):
            run = _begin(tmp_path / f"{at}-{when}")
            ending = run_killed(lambda store, run=run: save(run, store), at, when)
            assert ending.how == "killed", ending.replay
            left = unfinished(run)

            report = run.diagnose()
            assert report.valid
            # One that was committed and not yet listed is whole, and TensorFlow would restore the older: worth a warning.
            assert codes(report, "error") | codes(report, "warning") <= {"run.newer-unlisted"}, ending.replay
            notes = [finding for finding in report.findings if finding.code == "run.broken-off"]
            assert bool(notes) == bool(left), ending.replay
            assert len({note.where.path for note in notes}) == len(notes)
            assert "run.stale-shards" not in codes(report), ending.replay  # they are in the one note
            prefixes = {found.prefix for found in openckpt.find(run.directory)}
            assert prefixes <= {str(run / "ckpt-1"), str(run / "ckpt-2")}
            assert all(found.complete for found in openckpt.find(run.directory)), ending.replay
            assert value_of(run.directory) in (1, 2)
            for prefix in prefixes:
                assert run.diagnose(Path(prefix).name).worst == "note", ending.replay

            for note in notes:  # its command removes what is left, and nothing that counts
                seen.add(len(removed_by(note)))
                for path in removed_by(note):
                    path.unlink()
            assert unfinished(run) == set()
            again = run.diagnose()
            assert codes(again, "error") | codes(again, "warning") <= {"run.newer-unlisted"}, ending.replay
            assert codes(again) & {*OURS, "run.stale-shards", "run.index-missing"} == set(), ending.replay
            assert {found.prefix for found in openckpt.find(run.directory)} == prefixes
    assert seen >= {1, 2, 3}, "a lock alone, with temporary files, with data files"


def _begin(directory: Path) -> Run:
    directory.mkdir()
    run = Run(directory)
    begun(run)
    return run


def test_the_next_save_in_the_directory_removes_what_is_left(run: Run) -> None:
    """As the fix says, of another prefix too."""
    begun(run)
    _kill_at(run, "rename", fresh)
    assert "ckpt-2.data-00000-of-00001" in names(run)

    openckpt.save(str(run / "ckpt-3"), tensors(3), update_manifest=True)

    assert names(run) == {
        "checkpoint", *(f"ckpt-{n}.{end}" for n in (1, 3) for end in ("index", "data-00000-of-00001"))
    }  # fmt: skip
    assert run.diagnose().worst == "note"


def _kill_at(run: Run, call: str, save) -> None:  # type: ignore[no-untyped-def]
    """Kill a save right after its first call of this name."""
    for at in range(1, 100):
        ending = run_killed(lambda store: save(run, store), at, "before")
        assert ending.how == "killed"
        if call in ending.said:
            assert run_killed(lambda store: save(run, store), at, "after").how == "killed"
            return
    raise AssertionError(call)


def test_data_without_its_index_is_no_checkpoint_while_the_lock_says_why(run: Run) -> None:
    """A first save that died after its data got its name: said so, instead of an index that was lost."""
    _kill_at(run, "rename", fresh)
    assert {"ckpt-2.data-00000-of-00001", "ckpt-2.openckpt-lock"} <= names(run)
    assert "ckpt-2.index" not in names(run)

    report = run.diagnose("ckpt-2")
    assert not report.valid
    assert codes(report, "error") == {"path.not-committed"}
    assert "broke off" in only(report, "path.not-committed").message
    assert only(report, "run.broken-off").severity == "note"
    with pytest.raises(PathNotFoundError) as caught:
        openckpt.open(run / "ckpt-2")
    assert caught.value.code == "path.not-committed"
    assert codes(run.diagnose(), "error") == {"run.none"}  # nothing else is here
    assert list(openckpt.find(run.directory)) == []


def test_without_lock_and_leftovers_the_index_is_missing(run: Run) -> None:
    """Then nobody knows that it was never there."""
    _kill_at(run, "rename", fresh)
    for name in unfinished(run):
        run.remove(name)
    assert "run.index-missing" in codes(run.diagnose("ckpt-2"), "error")


def test_data_that_was_committed_since_the_listing_is_not_for_removal(run: Run) -> None:
    """A writer that committed and died between our look at the names and our look at the lock has left a checkpoint."""
    _kill_at(run, "rename", fresh)
    listing = group_directory(LOCAL, str(run.directory))
    (before,) = save_findings(LOCAL, listing)
    assert "ckpt-2.data-00000-of-00001" in (before.fix or "")

    (temporary,) = run.directory.glob("ckpt-2.*.openckpt-tmp")  # the index, on its way
    temporary.rename(run / "ckpt-2.index")
    (after,) = save_findings(LOCAL, listing)
    assert [path.name for path in removed_by(after)] == ["ckpt-2.openckpt-lock"]
    assert value_of(run.directory) == 2


def test_stale_data_is_asked_of_the_present_index(run: Run) -> None:
    """What the listing called stale is the data, once a save over it has switched the index."""
    begun(run)
    openckpt.save(str(run / "other"), tensors(2), overwrite=True, durability=CRASH)
    run.write({f"ckpt-1.data-0000{number}-of-00002": b"" for number in (0, 1)})
    listing = group_directory(LOCAL, str(run.directory))
    assert {stat.name for stat in stale_shards(LOCAL, listing)} == {
        "ckpt-1.data-00000-of-00002", "ckpt-1.data-00001-of-00002"
    }  # fmt: skip
    (run / "other.index").replace(run / "ckpt-1.index")
    assert stale_shards(LOCAL, listing) == []


def test_older_data_whose_index_was_lost_is_not_the_dead_saves(run: Run) -> None:
    """The record in the lock says which count the save wrote: other data files are not among what may be removed."""
    begun(run)
    run.remove("ckpt-1.index", "checkpoint")
    ending = run_killed(lambda store: openckpt.save(str(run / "ckpt-1"), tensors(2), store=store), 1, "after")
    assert ending.how == "killed"
    run.write({lock_name("ckpt-1"): b'{"writes": 2, "replaces": []}\n'})
    report = run.diagnose("ckpt-1")
    assert "run.index-missing" in codes(report, "error")
    assert str(run / "ckpt-1.data-00000-of-00001") not in map(str, removed_by(only(report, "run.broken-off")))


def test_a_running_save_is_a_note_and_its_files_are_no_leftovers(run: Run) -> None:
    """The lock is held: nothing is to be removed."""
    begun(run)
    with saving(run, "ckpt-2", "a", "b"):
        note = only(run.diagnose(), "run.saving")
        assert (note.severity, note.where.path, note.fix) == ("note", str(run / "ckpt-2"), None)
        assert "3 files, 20 B" in note.message
        assert codes(run.diagnose()) & {"run.broken-off", "run.leftover-file"} == set()
        held = names(run)
    assert only(run.diagnose(), "run.broken-off").severity == "note"
    assert names(run) == held, "the doctor writes nothing"


def test_a_save_over_a_checkpoint_that_runs_has_no_stale_shards(run: Run) -> None:
    """Its data lies there under another count already, or the old data still."""
    begun(run)
    with saving(run, "ckpt-1"):
        run.write({"ckpt-1.data-00000-of-00002": b"new", "ckpt-1.data-00001-of-00002": b"new"})
        for name in ("", "ckpt-1"):
            report = run.diagnose(name)
            assert report.valid
            assert codes(report) & {"run.stale-shards", "run.broken-off"} == set()
            assert only(report, "run.saving").where.path == str(run / "ckpt-1")


def test_the_first_save_of_a_prefix_that_runs_is_not_there_yet(run: Run) -> None:
    """Neither for the doctor, nor to be opened, nor to be found."""
    with saving(run, "ckpt-7", "a"):
        assert codes(run.diagnose("ckpt-7")) == {"path.not-found", "run.saving"}
        run.write({"ckpt-7.data-00000-of-00001": b"data"})
        report = run.diagnose("ckpt-7")
        assert codes(report) == {"path.not-committed", "run.saving"}
        assert "is running" in only(report, "path.not-committed").message
        with pytest.raises(PathNotFoundError):
            openckpt.open(run / "ckpt-7")
        assert list(openckpt.find(run.directory)) == []


def test_an_update_of_the_manifest_is_called_one(run: Run) -> None:
    """The manifest has a lock of its own."""
    begun(run)
    with saving(run, "checkpoint", "a"):
        assert "the manifest" in only(run.diagnose(), "run.saving").message
    assert "the manifest" in only(run.diagnose(), "run.broken-off").message


def test_a_lock_that_may_not_be_asked_is_not_called_dead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock on this file system, or somebody else's file: nobody is told to remove anything."""

    def refuse(path: str) -> bool:
        raise PermissionError(13, "Permission denied", path)

    begun(run)
    with saving(run, "ckpt-2"):
        pass
    monkeypatch.setattr("openckpt.storage.disk.lock_is_held", refuse)
    note = only(run.diagnose(), "run.saving")
    assert note.fix is None
    assert "does not say" in note.message


def test_in_an_archive_every_save_is_over(run: Run, tmp_path: Path) -> None:
    """A backup taken during a save has its lock; nobody holds that one."""
    import tarfile

    begun(run)
    with saving(run, "ckpt-2", "a"), tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(run.directory, "run")
    report = openckpt.diagnose(tmp_path / "run.tar")
    assert report.worst == "note"
    assert "run.broken-off" in codes(report)


@pytest.mark.parametrize("name", ["ckpt-2.openckpt-lock", "ckpt-2.0.openckpt-tmp"])
def test_a_file_of_an_unfinished_save_is_no_checkpoint(run: Run, name: str) -> None:
    """Opening it says what it is."""
    with saving(run, "ckpt-2", "a"):
        pass
    with pytest.raises(CheckpointError) as caught:
        openckpt.open(run / name)
    assert caught.value.code == "path.unfinished"


def test_find_and_the_command_line_say_it_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The program ends as if nothing were left, since nothing is broken."""
    begun(run)
    with saving(run, "ckpt-2", "a", "b"):
        pass
    heard: list[Finding] = []
    assert len(list(openckpt.find(run.directory, on_finding=heard.append))) == 1
    assert [finding.code for finding in heard] == ["run.broken-off"]
    assert run_program(["doctor", str(run.directory)]) == 0
    assert capsys.readouterr().out.count("broke off") == 1
