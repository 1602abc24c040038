"""Two writers, dead writers, and file systems that promise less."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import openckpt
from fault.histories import History, Save, Tally, judge
from fault.judging import read_latest, read_state
from openckpt.errors import CheckpointWarning, ConflictError
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.writable import OutputFile, WritableStore
from openckpt.testing import CallFS, FaultyFS, OrderFS, PowerLossFS, run_killed
from together import together

NEW = Save("run/b", 2)


# ------------------------------------------------------------------------------------------------------- who is first


class Rendezvous(CallFS):
    """Calls `meanwhile` once, in the middle of a save: behind its first write."""

    def __init__(self, store: WritableStore, meanwhile: object) -> None:
        super().__init__(store)
        self.meanwhile = meanwhile

    def write(self, file, offset, buffers):  # type: ignore[no-untyped-def]
        taken = super().write(file, offset, buffers)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()  # type: ignore[operator]
        return taken


def save_at(path: Path, seed: int = 1) -> Save:
    return Save(str(path / "ckpt"), seed, manifest=True)


def check_second_is_refused(path: Path, second: object) -> None:
    """One writer holds the prefix; ``second()`` must return a text with the code of the refusal, and change nothing."""
    said: list[str] = []
    first = save_at(path)
    first.run(Rendezvous(OrderFS(DISK), lambda: said.append(second())))  # type: ignore[operator]
    assert said and "commit.locked" in said[0], said
    assert read_state(DISK, first.prefix) == first.state
    assert not [entry for entry in path.iterdir() if ".openckpt-" in entry.name]


def refused(path: Path) -> str:
    """Try to save the same prefix, and return the code of the refusal."""
    try:
        save_at(path, 2).run(DISK)
    except ConflictError as error:
        return error.code
    return "nothing"


def test_a_second_thread_gets_a_conflict(tmp_path: Path) -> None:
    """The lock belongs to the open file, not to the process."""

    def in_thread() -> str:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(refused(tmp_path)))
        thread.start()
        thread.join()
        return found[0]

    check_second_is_refused(tmp_path, in_thread)


def test_a_second_process_gets_a_conflict(tmp_path: Path) -> None:
    """As two jobs that were started twice."""
    program = (
        "import sys, numpy, openckpt\n"
        "try: openckpt.save(sys.argv[1], {'w': numpy.zeros(3)})\n"
        "except openckpt.ConflictError as error: print(error.code)\n"
    )

    def in_process() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "ckpt")],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    check_second_is_refused(tmp_path, in_process)


def test_a_forked_child_of_the_writer_gets_a_conflict(tmp_path: Path) -> None:
    """It has inherited the descriptor, and not the right."""
    check_second_is_refused(tmp_path, lambda: run_killed(lambda store: save_at(tmp_path, 2).run(store), 10_000).said)


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A data loader that was forked during a save, and the trainer is killed: the prefix is free."""
    reading, writing = os.pipe()

    def save_and_fork(store: WritableStore) -> None:
        def leave_a_child_behind() -> None:
            if os.fork() == 0:
                os.read(reading, 1)  # until the test lets it go
                os._exit(0)

        save_at(tmp_path).run(Rendezvous(store, leave_a_child_behind))

    # The harness reads what the child says until everybody has closed the pipe: the grandchild must not hold it.
    ending = _killed_with_grandchild(save_and_fork)
    assert ending == "killed"
    save_at(tmp_path, 3).run(OrderFS(DISK))
    assert read_state(DISK, str(tmp_path / "ckpt")) == save_at(tmp_path, 3).state
    os.write(writing, b"x")
    os.close(reading)
    os.close(writing)


def _killed_with_grandchild(save: object) -> str:
    pid = os.fork()
    if pid == 0:
        from openckpt.testing.killing import _KillingFS

        null = os.open(os.devnull, os.O_WRONLY)
        try:
            save(_KillingFS(DISK, 16, "after", null))  # type: ignore[operator]
        finally:
            os._exit(3)
    return "killed" if os.waitpid(pid, 0)[1] == 9 else "ended"


def test_two_prefixes_of_one_directory_are_saved_side_by_side() -> None:
    """Both update the manifest, one after the other; neither sees the other's temporary files."""
    fs = PowerLossFS({"d/checkpoint": b'model_checkpoint_path: "old"\n'})
    watched = OrderFS(fs)
    with Commit(watched, "d", "a") as first, Commit(watched, "d", "b") as second:
        first.follow("checkpoint", lambda present: (present or b"") + b"# a\n")
        second.follow("checkpoint", lambda present: (present or b"") + b"# b\n")
    watched.check_end()
    assert fs.open("d/checkpoint").read_at(0, 37) == b'model_checkpoint_path: "old"\n# a\n# b\n'
    assert [stat.name for stat in fs.scan("d")] == ["checkpoint"]


def test_a_save_does_not_sweep_what_another_one_still_needs() -> None:
    """A writer that lives has its lock; one whose lock is free is dead."""
    fs = PowerLossFS()
    with Commit(fs, "d", "a") as living:
        file = living.put(b"1")
        Save("d/b", 1).run(fs)
        living.publish({file: "a.data-00000-of-00001"})
        Save("d/c", 1).run(fs)
    assert {stat.name for stat in fs.scan("d")} >= {"a.data-00000-of-00001", "b.index", "c.index"}
    assert not [stat.name for stat in fs.scan("d") if ".openckpt-" in stat.name]


def test_threads_that_save_different_prefixes_all_succeed(tmp_path: Path) -> None:
    """Eight at once, one directory, one manifest."""
    saves = [Save(str(tmp_path / f"ckpt-{n}"), n, manifest=True) for n in range(8)]
    together(lambda save: save.run(DISK), saves)
    assert [read_state(DISK, save.prefix) for save in saves] == [save.state for save in saves]
    state = openckpt.get_checkpoint_state(tmp_path)
    assert state is not None
    assert sorted(state.all_model_checkpoint_paths) == [save.prefix for save in saves]
    assert not [entry for entry in tmp_path.iterdir() if ".openckpt-" in entry.name]


class Overtaken(CallFS):
    """Refuses the sync behind the manifest's rename, and lets another save update the manifest as soon as its lock is free."""

    refused = False

    def sync_directory(self, path: str) -> bool:
        if not self.refused and self.calls[-1].name == "rename" and self.calls[-1].detail.endswith("/checkpoint"):
            self.refused = True
            raise OSError(errno.EIO, "Input/output error", path)
        return super().sync_directory(path)

    def close(self, file: OutputFile) -> None:
        super().close(file)
        if self.refused and file.path.endswith("checkpoint.openckpt-lock"):
            Save("run/b", 2, manifest=True).run(self.store)


def test_a_manifest_that_is_undone_takes_nobody_elses_with_it() -> None:
    """The old one comes back while the lock is held, and not over what another save wrote behind it."""
    fs = PowerLossFS()
    Save("run/old", 1, manifest=True).run(fs)
    with pytest.raises(OSError):
        Save("run/a", 1, manifest=True).run(Overtaken(fs))
    assert read_state(fs, "run/a") == "absent"
    assert read_latest(fs, "run") == "run/b"
    assert b'"a"' not in fs.open("run/checkpoint").read_at(0, fs.open("run/checkpoint").size)


class Intruder(CallFS):
    """Puts a foreign file under the very name that a data file is about to get."""

    def rename_new(self, source: str, target: str) -> None:
        if self.store.stat(target) is None:
            file = self.store.create(target)
            self.store.write(file, 0, [b"of somebody else"])
            self.store.close(file)
        super().rename_new(source, target)


def test_a_file_that_appears_meanwhile_is_neither_replaced_nor_removed() -> None:
    """By a program that knows nothing of our lock; the save is refused, and what it made is gone."""
    fs = PowerLossFS()
    with pytest.raises(ConflictError) as caught:
        Save("run/a", 1, groups=2).run(Intruder(fs))
    assert caught.value.code == "commit.exists"
    assert [stat.name for stat in fs.scan("run")] == ["a.data-00000-of-00002"]
    assert fs.open("run/a.data-00000-of-00002").read_at(0, 16) == b"of somebody else"


# ------------------------------------------------------------------------------------------------------- dead writers


def test_a_writer_that_dies_making_the_directory_costs_the_next_one_nothing() -> None:
    """It may have died between making the directory and syncing its name; the next save finds it there."""
    for dies_at in range(1, 14):
        save = Save("deep/run/x", 1)
        tally = Tally(set(), [])
        judge(
            History(f"dies-at-{dies_at}", [replace(save, dies_at=dies_at), replace(save, seed=2, overwrite=True)]),
            tally,
            limit=40,
        )
        assert not tally.broken, tally.broken[0]


def test_what_a_dead_writer_left_at_another_prefix_is_swept() -> None:
    """Temporary files, its lock, and the data that it had named and nothing else does."""
    dead = Save("run/a", 1, groups=2)
    calls = FaultyFS(PowerLossFS(), fail_at=10_000)
    dead.run(calls)
    for at in range(1, len(calls.calls) + 1):
        fs = PowerLossFS()
        with pytest.raises(OSError) if at < 30 else _nothing():
            dead.run(FaultyFS(fs, fail_at=at, forever=True))
        state = read_state(fs, "run/a")
        NEW.run(fs)
        assert read_state(fs, "run/a") == state
        names = sorted(stat.name for stat in fs.scan("run"))
        assert not [name for name in names if ".openckpt-" in name]
        if state == "absent":
            assert names == ["b.data-00000-of-00001", "b.index"]


class _nothing:
    """A save that dies this late may have returned."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError)


# ------------------------------------------------------------------------------------------- file systems that promise less


class NoDirectorySync(CallFS):
    """A file system that cannot sync a directory."""

    def sync_directory(self, path: str) -> bool:
        super().sync_directory(path)
        return False


def test_a_directory_sync_that_is_refused_is_reported() -> None:
    """The save succeeds, warns once, and its result says what holds."""
    fs = PowerLossFS()
    with pytest.warns(CheckpointWarning, match="cannot sync a directory") as caught:
        saved = Save("run/a", 1, manifest=True).run(NoDirectorySync(fs))
    assert len(caught) == 1
    assert saved.durability == "process-crash"
    assert read_state(fs, "run/a") == Save("run/a", 1).state
    assert read_latest(fs, "run") == "run/a"
    assert Save("run/b", 1).run(fs).durability == "power-loss"
    assert Save("run/c", 1, durability="process-crash").run(fs).durability == "process-crash"


def test_process_crash_syncs_nothing() -> None:
    """That is what it is for."""
    fs = PowerLossFS()
    watched = OrderFS(fs, durability="process-crash")
    Save("run/a", 1, groups=4, manifest=True, durability="process-crash").run(watched)
    watched.check_end()
    assert not [change for change in fs.changes if change.name.startswith("sync")]
