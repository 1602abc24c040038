"""`save` and `load`: prefixes and directories, opened checkpoints of every format, overwriting, free space, forks and threads."""

from __future__ import annotations

import errno
import os
import pickle
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import ByGroup, MaxShardSize, SavedPath
from openckpt.errors import ConflictError, UnsupportedError
from openckpt.formats.bundle import Sliced, Strings
from openckpt.formats.v1 import encode_v1
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS, FaultyFS, PowerLossFS
from together import together
from trees import differences, everything, objects, same, save_tree

W = {"w": np.arange(6.0), "s": np.array(["text"], object)}


def names(directory: Path) -> list[str]:
    """The names of all files, in order."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def values(prefix: Any) -> dict[str, Any]:
    """What a fresh reader finds."""
    return {key: value.tolist() for key, value in openckpt.load(prefix).items()}


# --------------------------------------------------------------------------------------------------------------- results


def test_the_result_is_the_prefix_with_facts(tmp_path: Path) -> None:
    """For any function that takes a path; it travels between processes."""
    saved = openckpt.save(tmp_path / "run" / "ckpt-7", W)
    assert saved == str(tmp_path / "run" / "ckpt-7") and isinstance(saved, str)
    assert (saved.step, saved.durability) == (7, "power-loss")
    assert saved.nbytes == sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    for other in (pickle.loads(pickle.dumps(saved)), copy(saved), deepcopy(saved)):
        assert type(other) is SavedPath
        assert (other, other.step, other.durability, other.nbytes) == (saved, 7, "power-loss", saved.nbytes)
    assert openckpt.save(saved, W, overwrite=True, durability="process-crash").durability == "process-crash"
    assert openckpt.save(tmp_path / "final", W).step is None


def test_nothing_but_the_checkpoint_is_left(tmp_path: Path) -> None:
    """No lock, no temporary file; no manifest unless it is asked for."""
    openckpt.save(tmp_path / "ckpt-1", W)
    assert names(tmp_path) == ["ckpt-1.data-00000-of-00001", "ckpt-1.index"]
    openckpt.save(tmp_path / "ckpt-2", W, update_manifest=True)
    assert names(tmp_path)[0] == "checkpoint" and openckpt.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-2")


def test_load_gives_everything_in_the_order_of_the_file(tmp_path: Path) -> None:
    """A dictionary of arrays; scalars are 0-d, strings objects."""
    openckpt.save(tmp_path / "ckpt", {"b": 1, "a": "x", "c": [True]})
    loaded = openckpt.load(tmp_path / "ckpt")
    assert list(loaded) == ["a", "b", "c"] and type(loaded) is dict
    assert loaded["b"].shape == () and loaded["a"].dtype == object and loaded["c"].dtype == bool
    data = tmp_path / "ckpt.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[-1] ^= 1
    data.write_bytes(raw)
    with pytest.raises(openckpt.CorruptionError):
        openckpt.load(tmp_path / "ckpt")
    assert set(openckpt.load(tmp_path / "ckpt", verify=False)) == set(loaded)


# -------------------------------------------------------------------------------------------------------------- prefixes


class Text(str):
    """A str of somebody's own."""


class Somewhere:
    """A path that is not a pathlib.Path, and whose text is not its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


def test_a_prefix_is_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, in the current directory, below directories that are not there, a PathLike, a str of its own."""
    monkeypatch.chdir(tmp_path)
    for prefix in (
        "here",
        "a/b/c/deep",
        "./dot",
        Somewhere("b/like"),
        Text("b/text"),
        Path("b/path"),
        np.str_("b/np"),
        b"b/raw",
    ):
        saved = openckpt.save(prefix, W)  # type: ignore[arg-type]
        assert values(str(saved)) == {"w": [0, 1, 2, 3, 4, 5], "s": [b"text"]}
        assert openckpt.save(str(saved), W, overwrite=True) == saved
    assert not [name for name in names(tmp_path) if ".openckpt-" in name]


@pytest.mark.parametrize("prefix", ["run/", "", "/", ".", "run/..", "run/.", "a\0b", "s3://b/ckpt-1", "file:///ckpt"])
def test_what_is_no_prefix_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """It must say what to call the files, on a disk: a URL would become a directory of that name."""
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: openckpt.save(prefix, W),
        lambda: openckpt.create(prefix),
        lambda: openckpt.merge_parts(prefix),
    ):
        with pytest.raises(UnsupportedError) as caught:
            act()
        assert caught.value.code == "writing.prefix"
    with pytest.raises(UnsupportedError):
        openckpt.update_checkpoint_state("gs://bucket/run", "gs://bucket/run/ckpt-1")
    assert names(tmp_path) == []


def test_a_name_that_is_too_long_leaves_nothing(tmp_path: Path) -> None:
    """Where only the data file's name is too long, too."""
    for length in (240, 236, 300):
        with pytest.raises(OSError) as caught:
            openckpt.save(tmp_path / "run" / ("n" * length), W)
        assert caught.value.errno == errno.ENAMETOOLONG and names(tmp_path) == []


def test_links_to_directories_are_followed(tmp_path: Path) -> None:
    """A run that lies on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    openckpt.save(tmp_path / "run" / "ckpt", W)
    openckpt.save(tmp_path / "run" / "ckpt", {"w": 1}, overwrite=True)
    assert values(tmp_path / "disk" / "ckpt") == {"w": 1}


def test_directories_are_made_and_their_names_synced(tmp_path: Path) -> None:
    """Each before anything is put into it."""
    fs = CallFS(DISK)
    openckpt.save(tmp_path / "a" / "b" / "ckpt", W, store=fs)
    calls = [
        (call.name, call.path) for call in fs.calls if call.name in ("make_directory", "sync_directory", "try_lock")
    ]
    at = calls.index(("make_directory", str(tmp_path / "a")))
    assert calls[at : at + 5] == [
        ("make_directory", str(tmp_path / "a")),
        ("sync_directory", str(tmp_path)),
        ("make_directory", str(tmp_path / "a" / "b")),
        ("sync_directory", str(tmp_path / "a")),
        ("try_lock", str(tmp_path / "a" / "b" / "ckpt.openckpt-lock")),
    ]


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    """The system's error, with the call and the path."""
    (tmp_path / "run").write_text("a file")
    with pytest.raises(NotADirectoryError) as caught:
        openckpt.save(tmp_path / "run" / "ckpt", W)
    assert any("the call that failed" in note for note in caught.value.__notes__)
    assert names(tmp_path) == ["run"]


def test_a_save_that_fails_takes_its_directories_away(tmp_path: Path) -> None:
    """Only those it made, and only where nobody has put anything else there."""
    (tmp_path / "old").mkdir()
    with pytest.raises(OSError):
        openckpt.save(tmp_path / "old" / "a" / "b" / "ckpt", W, store=FaultyFS(DISK, fail_at=30, forever=False))
    with pytest.raises(UnsupportedError), openckpt.create(tmp_path / "old" / "x" / "ckpt"):
        pass
    assert names(tmp_path) == ["old"]
    with pytest.raises(KeyError), openckpt.create(tmp_path / "old" / "x" / "ckpt"):
        (tmp_path / "old" / "x" / "mine").write_text("")
        raise KeyError
    assert names(tmp_path) == ["old", "old/x", "old/x/mine"]


# ------------------------------------------------------------------------------------------------------------ what is saved


@pytest.mark.parametrize("tensors", [[1, 2], np.ones(2), "text", None, {1, 2}, [("a", 1)]], ids=repr)
def test_only_a_mapping_or_a_checkpoint_is_saved(tmp_path: Path, tensors: Any) -> None:
    """A list must not become an empty checkpoint."""
    with pytest.raises(TypeError):
        openckpt.save(tmp_path / "ckpt", tensors)
    assert names(tmp_path) == []


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, layout: Any) -> None:
    """Stock TensorFlow cannot read one."""
    with pytest.raises(UnsupportedError) as caught:
        openckpt.save(tmp_path / "run" / "ckpt", {}, layout=layout)
    assert caught.value.code == "writing.no-tensors" and names(tmp_path) == []


def test_words_that_are_misspelt_are_refused(tmp_path: Path) -> None:
    """Layout and durability, before anything is written."""
    for options in ({"layout": "tf"}, {"durability": "none"}):
        with pytest.raises(ValueError):
            openckpt.save(tmp_path / "ckpt", W, **options)  # type: ignore[arg-type]
    assert names(tmp_path) == []


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
@pytest.mark.parametrize(
    "sharding", [None, ByGroup(lambda key, spec: key[0]), MaxShardSize(4096)], ids=["1", "groups", "max"]
)
def test_an_opened_checkpoint_is_saved_as_it_is(tmp_path: Path, layout: Any, sharding: Any) -> None:
    """Types that numpy does not know stay; slices become whole tensors; from either layout to either."""
    tree = everything()
    save_tree(tmp_path / "a", tree, layout="tensorflow" if layout == "dual" else "dual")
    with openckpt.open(tmp_path / "a") as ckpt:
        openckpt.save(tmp_path / "b", ckpt, layout=layout, sharding=sharding)
    assert differences(tmp_path / "b", tree) == []


def write_neighbours(directory: Path) -> dict[str, tuple[Path, set[str]]]:
    """One file of every other format; the path to open, and the keys in it."""
    import h5py
    from safetensors.numpy import save_file

    arrays = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "i": np.array([1, 2], np.int64),
        "z": np.empty((0, 2), np.int8),
    }
    np.savez(directory / "x.npz", **arrays)  # type: ignore[arg-type]
    save_file(arrays, directory / "x.safetensors")
    with h5py.File(directory / "x.h5", "w") as file:
        for key, value in arrays.items():
            file[key] = value
        file["text"] = "text"
    return {suffix: (directory / f"x.{suffix}", set(arrays) | ({"text"} if suffix == "h5" else set())) for suffix in ("npz", "safetensors", "h5")}  # fmt: skip


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
@pytest.mark.parametrize("suffix", ["npz", "safetensors", "h5"])
def test_checkpoints_of_other_formats_are_saved_with_their_types(tmp_path: Path, suffix: str, layout: Any) -> None:
    """Keys, types, shapes and values of npz, safetensors and HDF5."""
    path, keys = write_neighbours(tmp_path)[suffix]
    with openckpt.open(path) as ckpt:
        assert set(ckpt) >= keys
        openckpt.save(tmp_path / "out" / "ckpt", ckpt, layout=layout)
        with openckpt.open(tmp_path / "out" / "ckpt") as out:
            assert set(out) == set(ckpt)
            for key in ckpt:
                assert (out.specs[key].dtype, out.specs[key].shape) == (ckpt.specs[key].dtype, ckpt.specs[key].shape)
                assert same(out[key], ckpt[key])


def test_an_opened_checkpoint_takes_no_dtypes(tmp_path: Path) -> None:
    """It has its own."""
    openckpt.save(tmp_path / "a", W)
    with openckpt.open(tmp_path / "a") as ckpt, pytest.raises(ValueError):
        openckpt.save(tmp_path / "b", ckpt, dtypes={"w": "float32"})


def test_no_text_may_be_stored_as_nothing(tmp_path: Path) -> None:
    """A string tensor without elements takes four bytes or none, by whoever wrote it (formats 2.7)."""
    openckpt.save(tmp_path / "a", {"none": objects(shape=(0,)), "w": 1}, layout="tensorflow")
    with openckpt.open(tmp_path / "a") as ckpt:
        assert ckpt.specs["none"].nbytes == 4
        for layout in ("dual", "tensorflow"):
            openckpt.save(tmp_path / layout, ckpt, layout=layout)  # type: ignore[arg-type]
            assert values(tmp_path / layout) == {"none": [], "w": 1}


def test_a_checkpoint_is_saved_over_itself(tmp_path: Path) -> None:
    """Read from while it is replaced."""
    tree = everything()
    save_tree(tmp_path / "ckpt", tree, layout="tensorflow")
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        openckpt.save(tmp_path / "ckpt", ckpt, overwrite=True, sharding=ByGroup(lambda key, spec: spec.dtype))
    assert differences(tmp_path / "ckpt", tree) == []


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, layout: Any) -> None:
    """In another directory, another process's order of saving; in the dual layout whatever the order of the mapping."""
    tree = everything()
    save_tree(tmp_path / "a" / "ckpt", tree, layout=layout)
    save_tree(tmp_path / "b" / "ckpt", dict(reversed(tree.items())) if layout == "dual" else tree, layout=layout)
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# ------------------------------------------------------------------------------------------------------------ overwriting


def test_what_is_there_is_kept_unless_asked(tmp_path: Path) -> None:
    """And asked about before anything is written."""
    openckpt.save(tmp_path / "ckpt", {"w": 1})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(ConflictError) as caught:
        openckpt.save(tmp_path / "ckpt", {"w": 2})
    assert caught.value.code == "commit.exists"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_overwriting_changes_the_number_of_data_files(tmp_path: Path) -> None:
    """1 -> 2 -> 1, and with groups the smallest other number; nothing of the old stays."""
    counts = []
    for step in range(4):
        openckpt.save(tmp_path / "ckpt", {"w": step}, overwrite=True)
        counts.append(len(list(tmp_path.glob("ckpt.data-*"))))
        assert values(tmp_path / "ckpt") == {"w": step}
    assert counts == [1, 2, 1, 2]
    groups = {f"{group}/w": group for group in range(3)}
    for expected in (3, 4, 3):
        openckpt.save(tmp_path / "ckpt", groups, overwrite=True, sharding=ByGroup(lambda key, spec: key[0]))
        assert len(list(tmp_path.glob("ckpt.data-*"))) == expected
        assert values(tmp_path / "ckpt") == groups
        assert openckpt.diagnose(tmp_path / "ckpt").valid
    assert len(names(tmp_path)) == 4


def test_data_of_a_lost_index_is_not_touched(tmp_path: Path) -> None:
    """It may be all that is left of a run; only who asks for it overwrites it."""
    openckpt.save(tmp_path / "ckpt", {"w": 1})
    (tmp_path / "ckpt.index").unlink()
    old = (tmp_path / "ckpt.data-00000-of-00001").read_bytes()
    openckpt.save(tmp_path / "ckpt", {"w": 2})
    assert names(tmp_path) == [
        "ckpt.data-00000-of-00001", "ckpt.data-00000-of-00002", "ckpt.data-00001-of-00002", "ckpt.index",
    ]  # fmt: skip
    assert (tmp_path / "ckpt.data-00000-of-00001").read_bytes() == old
    assert values(tmp_path / "ckpt") == {"w": 2}
    openckpt.save(tmp_path / "ckpt", {"w": 3}, overwrite=True)
    assert values(tmp_path / "ckpt") == {"w": 3}
    assert len(names(tmp_path)) == 4 and not (tmp_path / "ckpt.data-00000-of-00001").exists()


def test_other_checkpoints_and_files_are_none_of_its_business(tmp_path: Path) -> None:
    """Whose names begin alike, or look like data."""
    strangers = [
        "ckpt.data-00000-of-00001.bak",
        "ckpt.data-x-of-00001",
        "ckpt-1.data-00000-of-00001",
        "ckpt.meta",
        "ckpt",
    ]
    for name in strangers:
        (tmp_path / name).write_text(name)
    openckpt.save(tmp_path / "ckpt", {"w": 1})
    openckpt.save(tmp_path / "ckpt", {"w": 2}, overwrite=True)
    for name in strangers:
        assert (tmp_path / name).read_text() == name


def test_readers_of_the_old_one_keep_it(tmp_path: Path) -> None:
    """What was opened and read from stays what it was; a fresh reader finds the new one."""
    openckpt.save(tmp_path / "ckpt", {"a": 1, "b": 2})
    with openckpt.open(tmp_path / "ckpt") as old:
        assert old["a"] == 1
        openckpt.save(tmp_path / "ckpt", {"a": 3}, overwrite=True)
        assert old["b"] == 2
    assert values(tmp_path / "ckpt") == {"a": 3}


# ---------------------------------------------------------------------------------------------------- space, forks, threads


class Small(CallFS):
    """A disk on which so many bytes are free."""

    def __init__(self, free: int) -> None:
        super().__init__(DISK)
        self.free = free

    def free_bytes(self, path: str) -> int | None:
        return self.free


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_a_disk_that_is_too_small_is_told_before_the_first_byte(tmp_path: Path, layout: Any) -> None:
    """Not after an hour of writing."""
    fs = Small(10_000)
    with pytest.raises(OSError) as caught:
        openckpt.save(tmp_path / "run" / "ckpt", {"w": np.ones(1250)}, layout=layout, store=fs)
    assert caught.value.errno == errno.ENOSPC and "10000 are free" in str(caught.value)
    assert not [call for call in fs.calls if call.name in ("create", "write", "allocate")]
    assert names(tmp_path) == []
    openckpt.save(tmp_path / "run" / "ckpt", {"w": np.ones(1000)}, layout=layout, store=fs)


def test_threads_save_at_once(tmp_path: Path) -> None:
    """Different prefixes of one directory and one manifest, which names all of them in the end."""

    def save(number: int) -> None:
        for _ in range(3):
            openckpt.save(tmp_path / f"ckpt-{number}", {"w": number}, overwrite=True, update_manifest=True)

    together(save, range(4))
    state = openckpt.get_checkpoint_state(tmp_path)
    assert state is not None
    assert {Path(path).name for path in state.all_model_checkpoint_paths} == {f"ckpt-{number}" for number in range(4)}
    assert [values(tmp_path / f"ckpt-{number}") for number in range(4)] == [{"w": number} for number in range(4)]
    assert not [name for name in names(tmp_path) if ".openckpt-" in name]


def in_child(act: Any) -> int:
    """Run ``act`` in a fork and return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = act() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_save_of_its_parent_alone(tmp_path: Path) -> None:
    """A data loader that is forked while the trainer saves: however it leaves the block, the save is the parent's."""
    with openckpt.create(tmp_path / "ckpt") as writer:
        writer.add("a", np.ones(3))

        def leave() -> int:
            try:
                with pytest.raises(ConflictError):
                    writer.add("b", 1)
                writer.__exit__(SystemExit, SystemExit(), None)
                with pytest.raises(ConflictError):
                    writer.__exit__(None, None, None)
            except BaseException:
                return 1
            return 0

        assert in_child(leave) == 0
        with pytest.raises(ConflictError):
            openckpt.save(tmp_path / "ckpt", W, overwrite=True)
        writer.add("c", 2)
    assert values(tmp_path / "ckpt") == {"a": [1, 1, 1], "c": 2}
    assert len(names(tmp_path)) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_saves_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    """Also while its parent is saving another one."""
    with openckpt.create(tmp_path / "parent") as writer:
        writer.add("w", 1)
        assert in_child(lambda: openckpt.save(tmp_path / "child", {"w": 2}) and 0) == 0
    assert (values(tmp_path / "parent"), values(tmp_path / "child")) == ({"w": 1}, {"w": 2})


def test_any_store_will_do(tmp_path: Path) -> None:
    """Nothing but the store is asked for anything."""
    fs = PowerLossFS()
    openckpt.save("run/ckpt", W, store=fs, update_manifest=True)
    assert sorted(stat.name for stat in fs.scan("run")) == ["checkpoint", "ckpt.data-00000-of-00001", "ckpt.index"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_v1_checkpoints_are_saved_with_their_types(tmp_path: Path, layout: Any) -> None:
    """V1 states neither sizes nor checksums, and knows quantised types, text and slices."""
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensors = {
        "f": whole,
        "q": np.array([1, -2], np.int8),
        "text": Strings((b"a\0", b""), (2,)),
        "cut": Sliced((4, 3), {((0, 1), (0, -1)): whole[:1], ((1, 3), (0, -1)): whole[1:]}),
    }
    for name, data in encode_v1(tensors, "model.ckpt-3", dtypes={"q": "qint8"}).items():
        (tmp_path / name).write_bytes(data)
    with openckpt.open(tmp_path / "model.ckpt-3") as ckpt:
        assert ckpt.format == "table-v1"
        saved = openckpt.save(tmp_path / "v2" / "model.ckpt-3", ckpt, layout=layout)
    assert saved.step == 3
    tree = {
        "f": ("float32", whole),
        "q": ("qint8", tensors["q"]),
        "cut": ("float32", whole),
        "text": ("string", objects(b"a\0", b"")),
    }
    assert differences(saved, tree) == []  # type: ignore[arg-type]


def test_an_interrupt_leaves_nothing_but_what_it_kept_from_being_removed(tmp_path: Path) -> None:
    """Ctrl-C in any call of a first save: no file, no directory; in a removal, only what was to be removed."""

    class Interrupted(CallFS):
        hit: Any = None

        def around(self, call: Any, do: Any) -> Any:
            if call.number == at:
                self.hit = call
                raise KeyboardInterrupt
            return do()

    interrupted = 0
    for at in range(1, 100):
        fs = Interrupted(DISK)
        directory = tmp_path / str(at)
        directory.mkdir()
        try:
            openckpt.save(directory / "run" / "ckpt", W, update_manifest=True, store=fs)
        except KeyboardInterrupt:
            interrupted += 1
        if fs.hit is None:
            break
        left = [name for name in names(directory) if ".openckpt-" in name]
        assert left == ([os.path.relpath(fs.hit.path, directory)] if fs.hit.name == "remove" else []), fs.hit
        assert names(directory) == [] or fs.hit.name in ("remove", "close"), fs.hit
    assert interrupted > 30 and fs.hit is None
