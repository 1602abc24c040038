"""`PowerLossFS` shows exactly what a weak file system may lose, no more and no less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage import read_whole
from openckpt.testing import Image, PowerLossFS
from together import together

BLOCK = 4096


def put(fs: PowerLossFS, path: str, data: bytes, *, sync: bool = True) -> None:
    """Create a file."""
    file = fs.create(path)
    fs.write(file, 0, [data])
    if sync:
        fs.sync(file)
    fs.close(file)


def replace(fs: PowerLossFS, path: str, data: bytes, *, sync: bool = True, sync_directory: bool = True) -> None:
    """Replace a file as it should be done, but for what is switched off."""
    put(fs, path + ".tmp", data, sync=sync)
    fs.rename(path + ".tmp", path)
    if sync_directory:
        fs.sync_directory("")


def trees(images: Iterator[Image]) -> list[dict[str, bytes]]:
    return [dict(image.files) for image in images]


def test_what_was_there_from_the_start_is_synced() -> None:
    """One image: everything."""
    fs = PowerLossFS({"run/a": b"1", "run/deep/b": b"22"})
    assert trees(fs.images()) == [{"run/a": b"1", "run/deep/b": b"22"}]


def test_an_unsynced_name_may_be_missing_and_an_unsynced_file_empty() -> None:
    """A created and written file: absent, empty under its name, or whole."""
    fs = PowerLossFS()
    put(fs, "a", b"data", sync=False)
    found = trees(fs.images())
    # The size may arrive without the block, which then is a hole.
    assert sorted(found, key=repr) == sorted([{}, {"a": b""}, {"a": b"\0\0\0\0"}, {"a": b"data"}], key=repr)


def test_syncing_a_file_does_not_make_its_name_last() -> None:
    """The trap that most writers step into: fsync of the file, none of the directory."""
    fs = PowerLossFS()
    put(fs, "a", b"data")
    assert trees(fs.images()) == [{}, {"a": b"data"}]
    fs.sync_directory("")
    assert trees(fs.images()) == [{"a": b"data"}]


def test_syncing_the_directory_does_not_make_bytes_last() -> None:
    """The name is there, its content may not be."""
    fs = PowerLossFS()
    put(fs, "a", b"data", sync=False)
    fs.sync_directory("")
    assert sorted(tree["a"] for tree in trees(fs.images())) == [b"", b"\0\0\0\0", b"data"]


def test_blocks_of_one_file_are_lost_independently() -> None:
    """Three blocks written over synced ones: eight contents, all of full size."""
    old = b"o" * (3 * BLOCK)
    fs = PowerLossFS()
    file = fs.create("a")
    fs.write(file, 0, [old])
    fs.sync(file)
    fs.sync_directory("")
    fs.write(file, 0, [b"n" * (3 * BLOCK)])
    found = trees(fs.images())
    assert len(found) == 8
    assert {bytes(tree["a"][::BLOCK]) for tree in found} == {
        bytes(x) for x in ([a, b, c] for a in b"on" for b in b"on" for c in b"on")
    }


def test_a_block_may_be_at_any_version_since_the_last_sync() -> None:
    """Not just the first and the last."""
    fs = PowerLossFS({})
    file = fs.create("a")
    fs.write(file, 0, [b"0"])
    fs.sync(file)
    fs.sync_directory("")
    for version in (b"1", b"2", b"3"):
        fs.write(file, 0, [version])
    assert sorted(tree["a"] for tree in trees(fs.images())) == [b"0", b"1", b"2", b"3"]
    fs.sync(file)
    assert trees(fs.images()) == [{"a": b"3"}]


def test_a_size_may_stop_at_any_block_in_between() -> None:
    """A file system that writes back block by block moves the size as it goes."""
    fs = PowerLossFS()
    put(fs, "a", b"x" * (2 * BLOCK + 5), sync=False)
    fs.sync_directory("")
    assert {len(tree["a"]) for tree in trees(fs.images())} == {0, BLOCK, 2 * BLOCK, 2 * BLOCK + 5}


def test_what_was_allocated_and_not_written_is_zeros_or_not_there() -> None:
    """Nothing of another file shows through."""
    fs = PowerLossFS()
    file = fs.create("a")
    fs.allocate(file, 0, 10)
    fs.write(file, 4, [b"x"])
    fs.sync_directory("")
    assert sorted(tree["a"] for tree in trees(fs.images())) == [b"", bytes(10), b"\0\0\0\0x\0\0\0\0\0"]


def test_the_two_names_of_a_rename_arrive_independently() -> None:
    """Old name, new name, both, or neither."""
    fs = PowerLossFS({"old": b"1"})
    fs.rename("old", "new")
    assert sorted(map(sorted, trees(fs.images()))) == [[], ["new"], ["new", "old"], ["old"]]


def test_a_rename_over_a_name_leads_to_one_of_the_two_files() -> None:
    """Never to nothing: POSIX promises that much."""
    fs = PowerLossFS({"a": b"old", "t": b"new"})
    fs.rename("t", "a")
    assert {tree["a"] for tree in trees(fs.images())} == {b"old", b"new"}


def test_a_removed_name_may_come_back_with_its_file() -> None:
    """Until the directory is synced."""
    fs = PowerLossFS({"a": b"1"})
    fs.remove("a")
    assert trees(fs.images()) == [{"a": b"1"}, {}]
    fs.sync_directory("")
    assert trees(fs.images()) == [{}]


def test_a_new_directory_is_lost_with_all_that_was_synced_in_it() -> None:
    """Its name lies in the parent."""
    fs = PowerLossFS()
    fs.make_directory("run")
    put(fs, "run/a", b"1")
    fs.sync_directory("run")
    assert [sorted(image.directories) for image in fs.images()] == [[], ["run"]]
    fs.sync_directory("")
    assert trees(fs.images()) == [{"run/a": b"1"}]


def test_a_link_is_a_second_name_of_the_same_file() -> None:
    """Bytes written through one handle show under both."""
    fs = PowerLossFS()
    put(fs, "a", b"1")
    fs.link("a", "b")
    fs.sync_directory("")
    assert trees(fs.images()) == [{"a": b"1", "b": b"1"}]


def test_the_durable_replacement_is_old_or_new_at_every_cut() -> None:
    """Write, sync, rename, sync of the directory: nothing else can be seen."""
    fs = PowerLossFS({"a": b"old"})
    replace(fs, "a", b"new" * BLOCK)
    seen = {image.files["a"] for cut in fs.cuts() for image in cut.images()}
    assert seen == {b"old", b"new" * BLOCK}
    assert trees(fs.images()) == [{"a": b"new" * BLOCK}]


@pytest.mark.parametrize("missing", ["sync", "sync_directory"])
def test_a_saver_that_forgets_a_sync_is_caught(missing: str) -> None:
    """Some image is torn, or the new file is gone after the save has returned."""
    fs = PowerLossFS({"a": b"old"})
    replace(fs, "a", b"new", **{missing: False})
    fs.note("saved")
    after = [image.files["a"] for cut in fs.cuts() if "saved" in cut.notes for image in cut.images()]
    assert set(after) != {b"new"}


def test_a_record_without_a_sync_can_be_played() -> None:
    """What `cuts` is given counts, not what the store did."""
    fs = PowerLossFS({"a": b"old"})
    replace(fs, "a", b"new")
    weaker = [change for change in fs.changes if change.name != "sync"]
    assert {image.files["a"] for cut in fs.cuts(weaker) for image in cut.images()} == {b"old", b"", b"\0\0\0", b"new"}


def test_every_image_can_be_made_again_from_its_line() -> None:
    """Of the same history, also where choices were drawn."""

    def history() -> PowerLossFS:
        fs = PowerLossFS({"a": b"old"}, name="replace")
        for n in range(3):
            replace(fs, "a", bytes([n]) * (5 * BLOCK), sync=False, sync_directory=False)
        return fs

    fs, again = history(), history()
    images = list(fs.images(limit=50, seed=7))
    assert len(images) == 50
    for image in images:
        assert again.image(image.replay).digest == image.digest
    assert images[9].replay.startswith("replace 9 ")
    assert [image.digest for image in again.images(limit=50, seed=7)] == [image.digest for image in images]


def test_no_image_comes_twice_and_equal_trees_have_equal_digests() -> None:
    """The digest stands for the tree."""
    fs = PowerLossFS({"a": b"1"})
    replace(fs, "a", b"2" * BLOCK * 3, sync=False, sync_directory=False)
    images = list(fs.images())
    assert len({image.digest for image in images}) == len(images)
    assert len({tuple(sorted(image.files.items())) for image in images}) == len(images)
    assert PowerLossFS({"x/y": b"1"}).images().__next__().digest == next(PowerLossFS({"x/y": b"1"}).images()).digest


def test_the_digest_tells_trees_apart_that_differ_in_a_directory_only() -> None:
    """Empty directories count."""
    fs = PowerLossFS()
    fs.make_directory("d")
    assert len({image.digest for image in fs.images()}) == 2


def test_a_limit_leaves_the_ends_and_draws_the_rest() -> None:
    """Everything lost and nothing lost are always among the images."""
    fs = PowerLossFS()
    for n in range(20):
        put(fs, f"f{n}", b"x" * 3 * BLOCK, sync=False)
    found = trees(fs.images(limit=60))
    assert len(found) == 60
    assert found[0] == {}
    assert len(found[1]) == 20


def test_an_image_is_a_store_and_the_start_of_the_next_history(tmp_path: Path) -> None:
    """Read from, written to a folder, saved upon."""
    fs = PowerLossFS({"run/a": b"1"})
    fs.make_directory("run/empty")
    fs.sync_directory("run")
    (image,) = fs.images()
    assert read_whole(image, "run/a", limits=DEFAULT_LIMITS, cap="manifest_bytes", what="it") == b"1"
    assert {stat.name: stat.kind for stat in image.scan("run")} == {"a": "file", "empty": "dir"}
    assert image.stat("run/none") is None
    image.write_to(str(tmp_path / "out"))
    assert (tmp_path / "out/run/a").read_bytes() == b"1"
    assert (tmp_path / "out/run/empty").is_dir()
    later = PowerLossFS(image)
    replace(later, "run/a", b"2", sync_directory=False)
    assert {image.files["run/a"] for image in later.images()} == {b"1", b"2"}


def test_calls_fail_as_those_of_the_system_do() -> None:
    """With the errors that a saver must handle, and nothing recorded."""
    fs = PowerLossFS({"d/a": b"1"})
    with pytest.raises(FileExistsError):
        fs.create("d/a")
    with pytest.raises(FileExistsError):
        fs.rename_new("d/a", "d/a")
    with pytest.raises(FileExistsError):
        fs.link("d/a", "d")
    with pytest.raises(FileExistsError):
        fs.make_directory("d")
    with pytest.raises(FileNotFoundError):
        fs.remove("none")
    with pytest.raises(FileNotFoundError):
        fs.create("none/a")
    with pytest.raises(FileNotFoundError):
        fs.rename("none", "d/a")
    with pytest.raises(NotADirectoryError):
        fs.scan("d/a")
    with pytest.raises(IsADirectoryError):
        fs.open("d")
    with pytest.raises(OSError, match="not empty"):
        fs.remove_directory("d")
    file = fs.create("b")
    fs.close(file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fs.write(file, 0, [b"1"])
    assert fs.history == ["1 create b"]


def test_a_lock_is_held_once_and_ends_with_the_writers() -> None:
    """By `close`, or by the death of the process."""
    fs = PowerLossFS()
    lock = fs.try_lock("l")
    assert lock is not None
    assert fs.try_lock("l") is None
    fs.close(lock)
    assert fs.try_lock("l") is not None
    fs.kill_writers()
    assert fs.try_lock("l") is not None


def test_threads_may_write_at_once() -> None:
    """Every call is one entry of the record, whoever made it."""
    fs = PowerLossFS()

    def work(n: int) -> None:
        put(fs, f"f{n}", bytes([n]) * 100)

    together(work, range(8))
    assert [change.number for change in fs.changes] == list(range(1, 25))
    assert fs.open("f7").read_at(0, 100) == b"\7" * 100


def test_a_moment_that_is_over_shows_nothing() -> None:
    """Its images would be those of another moment; better none."""
    fs = PowerLossFS({"a": b"1"})
    fs.remove("a")
    cuts = list(fs.cuts())
    assert trees(cuts[-1].images()) == [{"a": b"1"}, {}]
    with pytest.raises(RuntimeError, match="history 0"):
        cuts[0].images()
