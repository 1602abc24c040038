"""`Commit`: several files and one moment at which they count; what is undone, what is swept, what is waited for.

What happens when any of its calls fails, is interrupted or is the last one is proved in tests/fault.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from openckpt.errors import CheckpointWarning, ConflictError
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.sweeping import sweep
from openckpt.storage.temporary import lock_name, temporary_name
from openckpt.storage.writable import WritableStore
from openckpt.testing import CallFS, PowerLossFS


def names(store: WritableStore, directory: str = "run") -> list[str]:
    return sorted(stat.name for stat in store.scan(directory))


def read(store: WritableStore, path: str) -> bytes:
    stat = store.stat(path)
    assert stat is not None
    return store.open(path).read_at(0, stat.size)


def write(store: WritableStore, path: str, data: bytes = b"") -> None:
    file = store.create(path)
    if data:
        store.write(file, 0, [data])
    store.close(file)


def save(store: WritableStore, data: bytes = b"data", index: bytes = b"index", **options: Any) -> Commit:
    """A checkpoint of one data file, named after its bytes."""
    with Commit(store, "run", "ckpt", **options) as commit:
        commit.publish({commit.put(data): f"ckpt.{data.decode()}"}, record=b"record")
        commit.switch(commit.put(index), "ckpt.index")
    return commit


@pytest.fixture
def fs() -> PowerLossFS:
    return PowerLossFS()


def test_files_have_their_names_when_it_is_over(fs: PowerLossFS) -> None:
    """And nothing else lies beside them."""
    commit = save(fs)
    assert names(fs) == ["ckpt.data", "ckpt.index"] and commit.durability == "power-loss"
    assert (read(fs, "run/ckpt.data"), read(fs, "run/ckpt.index")) == (b"data", b"index")


def test_a_name_that_is_taken_is_not_replaced(fs: PowerLossFS) -> None:
    """Only the switch replaces."""
    save(fs)
    with pytest.raises(ConflictError) as caught:
        save(fs, index=b"other")
    assert caught.value.code == "commit.exists"
    assert names(fs) == ["ckpt.data", "ckpt.index"] and read(fs, "run/ckpt.index") == b"index"


@pytest.mark.parametrize("steps", range(4))
def test_an_error_in_the_block_undoes_every_step(fs: PowerLossFS, steps: int) -> None:
    """Whatever had been done: the old index is back, new data is gone."""
    save(fs, b"old", b"old index")
    with pytest.raises(LookupError), Commit(fs, "run", "ckpt") as commit:
        data, index = commit.put(b"new"), commit.put(b"new index")
        if steps > 0:
            commit.publish({data: "ckpt.new"})
        if steps > 1:
            commit.switch(index, "ckpt.index")
            assert read(fs, "run/ckpt.index") == b"new index"
        if steps > 2:
            commit.follow("list", lambda present: b"new list")
        raise LookupError
    assert names(fs) == ["ckpt.index", "ckpt.old"] and read(fs, "run/ckpt.index") == b"old index"


def test_behind_the_removal_of_the_old_there_is_no_way_back(fs: PowerLossFS) -> None:
    """An interrupt then leaves the new one, whole."""
    save(fs, b"old", b"old index")
    with pytest.raises(KeyboardInterrupt), Commit(fs, "run", "ckpt") as commit:
        commit.publish({commit.put(b"new"): "ckpt.new"})
        commit.switch(commit.put(b"new index"), "ckpt.index")
        commit.retire(["ckpt.old", "not there"])
        raise KeyboardInterrupt
    assert names(fs) == ["ckpt.index", "ckpt.new"] and read(fs, "run/ckpt.index") == b"new index"


def test_an_interrupt_among_the_removals_leaves_the_note(fs: PowerLossFS) -> None:
    """With which the next save in the directory removes the rest."""

    class Interrupted(CallFS):
        def remove(self, path: str) -> None:
            if path.endswith("ckpt.old"):
                raise KeyboardInterrupt
            super().remove(path)

    def settle(store: WritableStore, directory: str, stem: str, record: bytes) -> None:
        assert (stem, record) == ("ckpt", b"note")
        store.remove("run/ckpt.old")

    save(fs, b"old", b"old index")
    with pytest.raises(KeyboardInterrupt), Commit(Interrupted(fs), "run", "ckpt") as commit:
        commit.publish({commit.put(b"new"): "ckpt.new"}, record=b"note")
        commit.switch(commit.put(b"new index"), "ckpt.index")
        commit.retire(["ckpt.old"])
    assert names(fs) == ["ckpt.index", "ckpt.new", "ckpt.old", "ckpt.openckpt-lock"]
    with Commit(fs, "run", "another", settle=settle):
        assert names(fs) == ["another.openckpt-lock", "ckpt.index", "ckpt.new"]


def test_the_index_is_checked_as_it_lies_on_the_disk(fs: PowerLossFS) -> None:
    """Read again before it counts; what the check raises undoes the save."""
    seen: list[bytes] = []
    with Commit(fs, "run", "ckpt") as commit:
        commit.switch(commit.put(b"index"), "ckpt.index", check=seen.append)
    assert seen == [b"index"]

    def refuse(data: bytes) -> None:
        raise LookupError

    with pytest.raises(LookupError), Commit(fs, "run", "ckpt") as commit:
        commit.switch(commit.put(b"other"), "ckpt.index", check=refuse)
    assert read(fs, "run/ckpt.index") == b"index"


def test_followers_see_what_is_there(fs: PowerLossFS) -> None:
    """The present bytes, or None; saves of the directory follow one another."""
    seen: list[bytes | None] = []

    def grow(present: bytes | None) -> bytes:
        seen.append(present)
        return (present or b"") + b"x"

    for stem in ("a", "b"):
        with Commit(fs, "run", stem) as commit:
            commit.follow("list", grow)
    assert seen == [None, b"x"] and read(fs, "run/list") == b"xx" and names(fs) == ["list"]


def test_one_writer_per_stem(fs: PowerLossFS) -> None:
    """Another stem of the directory is free."""
    with Commit(fs, "run", "ckpt"), Commit(fs, "run", "other"):
        with pytest.raises(ConflictError) as caught, Commit(fs, "run", "ckpt"):
            pass
        assert caught.value.code == "commit.locked"
    assert names(fs) == []


def test_room_is_asked_for_before_it_is_used() -> None:
    """A store that does not know says None."""

    class Full(CallFS):
        free: int | None = 10

        def free_bytes(self, path: str) -> int | None:
            return self.free

    store = Full(PowerLossFS())
    with Commit(store, "run", "ckpt") as commit:
        commit.require_space(10)
        with pytest.raises(OSError) as caught:
            commit.require_space(11)
        assert caught.value.errno == errno.ENOSPC and "11 bytes" in str(caught.value)
        assert caught.value.filename and "free space" in caught.value.__notes__[0]
        store.free = None
        commit.require_space(1 << 60)


def test_a_file_system_that_cannot_sync_a_directory_is_reported() -> None:
    """Once, as a warning, and in what holds."""

    class Weak(CallFS):
        def sync_directory(self, path: str) -> bool:
            return False

    with pytest.warns(CheckpointWarning, match="cannot sync a directory") as caught:
        commit = save(Weak(PowerLossFS()))
    assert len(caught) == 1 and commit.durability == "process-crash"


def test_a_process_crash_needs_no_syncs() -> None:
    """None is made, and nothing is promised."""
    store = CallFS(PowerLossFS())
    assert save(store, durability="process-crash").durability == "process-crash"
    assert not [call for call in store.calls if call.name.startswith("sync")]
    assert names(store) == ["ckpt.data", "ckpt.index"]


def test_directories_that_a_failed_save_made_go_again(fs: PowerLossFS) -> None:
    """Another save that was about to use them makes them anew."""

    class Vanishing(CallFS):
        times = 2

        def try_lock(self, path: str) -> Any:
            if self.times:
                self.times -= 1
                self.store.remove_directory("a/b")
            return super().try_lock(path)

    with pytest.raises(LookupError), Commit(fs, "a/b", "ckpt"):
        raise LookupError
    assert fs.stat("a") is None
    with Commit(Vanishing(fs), "a/b", "ckpt") as commit:
        commit.switch(commit.put(b"1"), "index")
    assert names(fs, "a/b") == ["index"]
    never = Vanishing(fs)
    never.times = 99
    with pytest.raises(OSError), Commit(never, "x/a/b", "ckpt"):
        pass


# ----------------------------------------------------------------------------------------------------- taking files over


def test_files_that_are_taken_over_get_a_second_name(fs: PowerLossFS) -> None:
    """And lose it again where the save fails."""
    fs.make_directory("parts")
    write(fs, "parts/one", b"1")
    with pytest.raises(LookupError), Commit(fs, "run", "ckpt") as commit:
        commit.publish({}, adopted={"parts/one": "ckpt.one"})
        assert read(fs, "run/ckpt.one") == b"1"
        raise LookupError
    assert fs.stat("run") is None and names(fs, "parts") == ["one"]
    with Commit(fs, "run", "ckpt") as commit:
        commit.publish({}, adopted={"parts/one": "ckpt.one"})
    assert (names(fs), names(fs, "parts")) == (["ckpt.one"], ["one"])
    write(fs, "parts/two", b"2")
    with pytest.raises(ConflictError), Commit(fs, "run", "ckpt") as commit:
        commit.publish({}, adopted={"parts/two": "ckpt.one"})
    assert names(fs) == ["ckpt.one"] and read(fs, "run/ckpt.one") == b"1"


# ------------------------------------------------------------------------------------------------------------- sweeping


def leave(fs: PowerLossFS, stem: str, record: bytes = b"", files: int = 2) -> None:
    """What a dead writer leaves: its lock, that nobody holds, and temporary files."""
    write(fs, f"run/{lock_name(stem)}", record)
    for number in range(files):
        write(fs, f"run/{temporary_name(stem, number)}", b"half")


def test_dead_writers_are_swept_and_living_ones_are_not(fs: PowerLossFS) -> None:
    """By any save in the directory."""
    fs.make_directory("run")
    with Commit(fs, "run", "living") as living:
        file = living.put(b"1")
        leave(fs, "dead")
        leave(fs, "ckpt", files=12)
        write(fs, "run/dead.bak")
        save(fs)
        assert names(fs) == ["ckpt.data", "ckpt.index", "dead.bak", "living.0.openckpt-tmp", "living.openckpt-lock"]
        living.switch(file, "living.index")
    assert names(fs) == ["ckpt.data", "ckpt.index", "dead.bak", "living.index"]


def test_temporary_files_without_a_lock_are_swept(fs: PowerLossFS) -> None:
    """After a power cut either name may be all that is left."""
    fs.make_directory("run")
    write(fs, f"run/{temporary_name('dead', 0)}")
    write(fs, f"run/{lock_name('other')}")
    sweep(fs, "run")
    assert names(fs) == []


def test_what_only_looks_like_a_leftover_stays(fs: PowerLossFS) -> None:
    """A directory, another suffix, a number that is none."""
    fs.make_directory("run")
    fs.make_directory("run/a.0.openckpt-tmp")
    kept = ["a.0.openckpt-tmp", "a.x.openckpt-tmp", "a.openckpt-tmp", "a.0.openckpt-tmp.bak", "openckpt-lock"]
    for name in kept[1:]:
        write(fs, f"run/{name}")
    sweep(fs, "run")
    assert names(fs) == sorted(kept)


@pytest.mark.parametrize(
    ("record", "settled"), [(b"note\nrest", [b"note"]), (b"note", []), (b"", []), (b"\nnote\n", [])]
)
def test_the_record_of_a_dead_writer_is_settled_once(fs: PowerLossFS, record: bytes, settled: list[bytes]) -> None:
    """A torn one says nothing."""
    seen: list[tuple[str, str, bytes]] = []

    def settle(store: WritableStore, directory: str, stem: str, line: bytes) -> None:
        seen.append((directory, stem, line))

    fs.make_directory("run")
    leave(fs, "dead", record)
    sweep(fs, "run", settle=settle)
    sweep(fs, "run", settle=settle)
    assert seen == [("run", "dead", line) for line in settled]
    assert names(fs) == []


def test_what_cannot_be_swept_does_not_stop_a_save(fs: PowerLossFS) -> None:
    """Somebody else's leftovers; one's own must go, or the temporary names would be taken."""

    class Stuck(CallFS):
        def remove(self, path: str) -> None:
            if path.endswith("dead.0.openckpt-tmp"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            super().remove(path)

    fs.make_directory("run")
    leave(fs, "dead")
    save(Stuck(fs))
    assert set(names(fs)) >= {"ckpt.data", "ckpt.index", "dead.0.openckpt-tmp"}
    save(fs, b"more")
    assert names(fs) == ["ckpt.data", "ckpt.index", "ckpt.more"]


def test_a_writer_that_ends_while_a_sweep_looks(fs: PowerLossFS) -> None:
    """Its files are gone when they are to be removed: no lock of the sweep may stay behind."""
    fs.make_directory("run")
    leave(fs, "other")

    class Ending(CallFS):
        def scan(self, path: str) -> Any:
            found = super().scan(path)
            for name in [stat.name for stat in found]:
                fs.remove(f"run/{name}")
            return found

    sweep(Ending(fs), "run")
    assert names(fs) == []


def test_links_are_nobody_s_leftovers(tmp_path: Path) -> None:
    """A link called like a temporary file is not followed."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / temporary_name("dead", 0)).symlink_to("precious")
    (tmp_path / lock_name("ckpt")).symlink_to("precious")
    sweep(DISK, str(tmp_path))
    assert (tmp_path / "precious").read_text() == "x" and len(list(tmp_path.iterdir())) == 3
    with pytest.raises(OSError) as caught, Commit(DISK, str(tmp_path), "ckpt"):
        pass
    assert caught.value.errno == errno.ELOOP and (tmp_path / "precious").read_text() == "x"
