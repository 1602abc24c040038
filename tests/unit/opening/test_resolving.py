"""From a path to the checkpoint it means."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import openckpt
from containers import tarred, zipped
from openckpt.errors import CheckpointError, PathNotFoundError, UnsafeError
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.v1 import encode_v1
from openckpt.limits import Limits
from openckpt.opening import Target, resolve
from openckpt.storage import LOCAL, FileStat
from openckpt.storage.local import LocalStore
from openckpt.storage.memory import MemoryStore

W = {"w": np.arange(4, dtype=np.float32)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


def manifest(*names: str) -> bytes:
    lines = [f"model_checkpoint_path: {names[-1]!r}", *(f"all_model_checkpoint_paths: {name!r}" for name in names)]
    return "\n".join(lines).encode()


def bundles(*prefixes: str, shards: int = 1) -> dict[str, bytes]:
    files = {}
    for prefix in prefixes:
        directory, slash, name = prefix.rpartition("/")
        files |= {directory + slash + file: data for file, data in encode_bundle(W, name, shards=shards).items()}
    return files


def target(files: dict[str, bytes], path: str, **limits: int) -> Target:
    return resolve(MemoryStore(files, name=""), path, limits=Limits(**limits))


def seen(files: dict[str, bytes], path: str) -> tuple[str, str, str]:
    found = target(files, path)
    return found.path, found.format, found.how.kind


def code(files: dict[str, bytes], path: str, **limits: int) -> str:
    with pytest.raises(CheckpointError) as caught:
        target(files, path, **limits)
    return caught.value.code


def message(files: dict[str, bytes], path: str) -> str:
    with pytest.raises(PathNotFoundError) as caught:
        target(files, path)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------- prefixes and members


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("run/ckpt-7", "prefix"),
        ("run/ckpt-7.index", "member"),
        ("run/ckpt-7.data-00001-of-00002", "member"),
        ("run/ckpt-7.meta", "member"),
        ("run/checkpoint", "manifest-file"),
        ("run", "manifest"),
        ("run/", "manifest"),
    ],
)
def test_every_member_and_the_directory_lead_to_the_prefix(path: str, kind: str) -> None:
    """Prefix, index, shard, meta graph, manifest and directory all mean the same checkpoint."""
    files = {**bundles("run/ckpt-7", shards=2), "run/ckpt-7.meta": b"g", "run/checkpoint": manifest("ckpt-7")}
    assert seen(files, path) == ("run/ckpt-7", "bundle-v2", kind)


@pytest.mark.parametrize("name", ["a[1]b", "x*", "a b", ".hidden", "-dash", "q?", "back\\slash", "e!f", "ünï", "a]"])
def test_names_are_literal(tmp_path: Path, name: str) -> None:
    """Characters that mean something to a shell or to TensorFlow's glob mean themselves."""
    for file, data in encode_bundle(W, name).items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "' + name.replace("\\", "\\\\").encode() + b'"')
    for path in (tmp_path / name, tmp_path / f"{name}.index", os.fsencode(tmp_path / name), tmp_path):
        with openckpt.open(path) as ckpt:
            assert ckpt.prefix == str(tmp_path / name)
            assert ckpt["w"].tolist() == [0, 1, 2, 3]


def test_bytes_that_are_not_utf8_are_a_name_too(tmp_path: Path) -> None:
    """A name of any bytes opens."""
    for file, data in encode_bundle(W, "x").items():
        (tmp_path / os.fsdecode(b"\xff" + file.encode())).write_bytes(data)
    with openckpt.open(os.fsencode(tmp_path) + b"/\xffx") as ckpt:
        assert "w" in ckpt


def test_empty_basename_opens_by_directory_and_slash() -> None:
    """``run/`` means ``run/.index`` where that is there, manifest or not."""
    files = bundles("run/")
    assert seen(files, "run/") == ("run/", "bundle-v2", "prefix")
    assert seen(files, "run") == ("run/", "bundle-v2", "scan")
    assert seen(files, "run/.index") == ("run/", "bundle-v2", "member")


def test_v1_file_shard_prefix_and_pattern() -> None:
    """A V1 checkpoint opens by its file; a sharded one by shard, prefix, pattern and meta graph."""
    files = {**encode_v1(W, "one"), "one.meta": b"g", **encode_v1(W, "two", shards=2), "two.meta": b"g"}
    assert seen(files, "one") == ("one", "table-v1", "file")
    assert seen(files, "one.meta") == ("one", "table-v1", "member")
    for path in ("two", "two-?????-of-00002", "two.meta"):
        assert seen(files, path) == ("two-?????-of-00002", "table-v1", "pattern")
    assert seen(files, "two-00001-of-00002")[1] == "table-v1"


def test_literal_file_wins_over_a_prefix_of_its_name() -> None:
    """The HDF5 file opens by its name, the prefix by its index; each names the other."""
    files = {**bundles("a.h5f"), "a.h5f": b"\x89HDF\r\n\x1a\n" + bytes(600)}
    by_name, by_index = target(files, "a.h5f"), target(files, "a.h5f.index")
    assert (by_name.format, by_name.siblings) == ("hdf5", ("a.h5f.index",))
    assert (by_index.format, by_index.siblings) == ("bundle-v2", ("a.h5f",))


def test_file_that_is_no_checkpoint_does_not_hide_a_prefix() -> None:
    """Notes called like the prefix give way; a pointer file that stands for a checkpoint does not."""
    assert seen({**bundles("best"), "best": b"my best run"}, "best") == ("best", "bundle-v2", "prefix")
    assert code({**bundles("best"), "best": LFS}, "best") == "detect.lfs-pointer"


def test_directory_without_a_checkpoint_does_not_hide_a_prefix() -> None:
    """``best/`` with logs beside ``best.index``: the prefix is meant; with a checkpoint in it the directory is."""
    assert seen({**bundles("best"), "best/log.txt": b"x"}, "best") == ("best", "bundle-v2", "prefix")
    found = target({**bundles("best", "best/ckpt-1")}, "best")
    assert (found.path, found.siblings) == ("best/ckpt-1", ("best.index",))


def test_prefix_called_checkpoint() -> None:
    """The manifest is the literal file; it names the prefix of its own name."""
    files = {**bundles("checkpoint"), "checkpoint": manifest("checkpoint")}
    assert seen(files, "checkpoint") == ("checkpoint", "bundle-v2", "manifest-file")
    other = {**bundles("checkpoint", "ckpt-2"), "checkpoint": manifest("ckpt-2")}
    found = target(other, "checkpoint")
    assert (found.path, found.siblings) == ("ckpt-2", ("checkpoint.index",))
    assert target(bundles("checkpoint"), "checkpoint").path == "checkpoint"


# ------------------------------------------------------------------------------------------------------------ directories


def test_directory_by_its_manifest_even_when_steps_are_higher() -> None:
    """The manifest decides what the newest is: a restarted run counts from 0 again."""
    files = {**bundles("ckpt-0", "ckpt-4"), "checkpoint": manifest("ckpt-4", "ckpt-0")}
    assert seen(files, "") == ("ckpt-0", "bundle-v2", "manifest")


@pytest.mark.parametrize(
    "text",
    [manifest("ckpt-9"), b"", b"\xff\xfe", LFS, b"garbage{", b'all_model_checkpoint_paths: "ckpt-4"\n'],
)
def test_directory_whose_manifest_does_not_hold_is_scanned(text: bytes) -> None:
    """A manifest that is stale, empty or damaged leaves the latest complete checkpoint, and `how` says so."""
    files = {**bundles("ckpt-4", "ckpt-10", "ckpt-11"), "checkpoint": text}
    del files["ckpt-11.data-00000-of-00001"]
    found = target(files, "")
    assert (found.path, found.how.kind) == ("ckpt-10", "scan")
    assert "manifest" in found.how.reason


def test_latest_by_step_then_by_time(tmp_path: Path) -> None:
    """Steps count before times; where no name has a step the newest file is the latest."""
    for age, name in enumerate(["ckpt-20", "ckpt-3", "b", "a"]):
        for file, data in encode_bundle(W, name).items():
            (tmp_path / file).write_bytes(data)
            os.utime(tmp_path / file, ns=(10**18 + age, 10**18 + age))
    assert resolve(LOCAL, str(tmp_path)).path == str(tmp_path / "ckpt-20")
    for file in tmp_path.glob("ckpt-*"):
        file.unlink()
    assert resolve(LOCAL, str(tmp_path)).path == str(tmp_path / "a")


def test_directory_with_only_incomplete_checkpoints_can_still_be_listed() -> None:
    """Where nothing is complete the newest index is opened, and `how` says what is missing."""
    files = bundles("ckpt-1", "ckpt-2")
    del files["ckpt-1.data-00000-of-00001"], files["ckpt-2.data-00000-of-00001"]
    found = target(files, "")
    assert (found.path, found.how.kind) == ("ckpt-2", "incomplete")
    assert "ckpt-2.data-00000-of-00001 missing" in found.how.reason


def test_saved_model_is_its_variables() -> None:
    """A SavedModel's directory, and its saved_model.pb, open as variables/variables."""
    files = {**bundles("m/variables/variables"), "m/saved_model.pb": b"x"}
    assert seen(files, "m") == ("m/variables/variables", "bundle-v2", "saved-model")
    assert seen(files, "m/saved_model.pb") == ("m/variables/variables", "bundle-v2", "saved-model")
    assert code({"m/saved_model.pb": b"x"}, "m") == "path.no-variables"


def test_the_only_run_below_a_directory_is_found() -> None:
    """A model zoo's folder means its training checkpoint, not the export beside it."""
    zoo = {
        **bundles("zoo/checkpoint/ckpt-0", "zoo/saved_model/variables/variables"),
        "zoo/saved_model/saved_model.pb": b"x",
        "zoo/pipeline.config": b"x",
    }
    assert seen(zoo, "zoo") == ("zoo/checkpoint/ckpt-0", "bundle-v2", "below")
    assert code({**bundles("runs/a/ckpt-1", "runs/b/ckpt-1")}, "runs") == "path.several"
    assert code({"logs/a.txt": b"x"}, "logs") == "path.no-checkpoint"
    assert "below" in seen(bundles("runs/1/2/3/ckpt-1"), "runs")
    assert code(bundles("runs/1/2/3/4/ckpt-1"), "runs") == "path.no-checkpoint"  # `find`, its fix, has no such bound
    assert code({"stubs/a.index": LFS}, "stubs") == "path.no-complete"


def test_a_part_that_was_never_merged_is_not_taken_for_the_checkpoint() -> None:
    """A third of the tensors would pass for all of them; named, a part opens."""
    parts = bundles(*(f"run/ckpt-1_temp/part-0000{n}-of-00003" for n in range(3)))
    assert code(parts, "run") == "path.no-complete"
    assert code(bundles("run/ckpt-1_temp/part-00000-of-00003"), "run") == "path.no-complete"
    whole = {**parts, **bundles("run/export/model")}
    assert seen(whole, "run") == ("run/export/model", "bundle-v2", "below")
    assert seen(parts, "run/ckpt-1_temp/part-00001-of-00003")[0] == "run/ckpt-1_temp/part-00001-of-00003"


# ---------------------------------------------------------------------------------------------------- manifests are data


@pytest.mark.parametrize(
    "entry",
    [
        "/gone/elsewhere/ckpt-1",
        "C:\\run\\ckpt-1",
        "../other/ckpt-1",
        "gs://bucket/run/ckpt-1",
        "sub/ckpt-1",
        "./ckpt-1",
    ],
)
def test_entry_that_leads_elsewhere_is_looked_for_by_its_last_name(entry: str) -> None:
    """A moved folder works: what the manifest names elsewhere is taken from this directory."""
    files = {**bundles("run/ckpt-1", "other/ckpt-2"), "run/checkpoint": manifest(entry)}
    assert target(files, "run").path == "run/ckpt-1"
    assert target(files, "run/checkpoint").path == "run/ckpt-1"


def test_entry_never_opens_what_lies_outside() -> None:
    """A manifest does not decide which files outside its directory are opened (promise P5)."""
    files = {**bundles("secret/ckpt-9", "run/ckpt-1"), "run/checkpoint": manifest("../secret/ckpt-9")}
    assert seen(files, "run") == ("run/ckpt-1", "bundle-v2", "scan")
    assert code(files, "run/checkpoint") == "path.manifest-target"


def test_entry_in_a_subdirectory_is_followed_but_not_through_a_link(tmp_path: Path) -> None:
    """CheckpointManager may name ``sub/ckpt``; a linked directory is followed only when the user names it."""
    for directory in ("run/sub", "elsewhere"):
        (tmp_path / directory).mkdir(parents=True)
        for file, data in encode_bundle(W, "ckpt-1").items():
            (tmp_path / directory / file).write_bytes(data)
    (tmp_path / "run/checkpoint").write_bytes(manifest("sub/ckpt-1"))
    assert resolve(LOCAL, str(tmp_path / "run")).path == str(tmp_path / "run/sub/ckpt-1")
    (tmp_path / "run/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/checkpoint").write_bytes(manifest("link/ckpt-1"))
    with pytest.raises(PathNotFoundError):
        resolve(LOCAL, str(tmp_path / "run/checkpoint"))
    (tmp_path / "named").symlink_to(tmp_path / "elsewhere")
    assert resolve(LOCAL, str(tmp_path / "named")).path == str(tmp_path / "named/ckpt-1")


def test_absolute_entry_into_this_very_directory_is_followed(tmp_path: Path) -> None:
    """TensorFlow 1 wrote absolute paths; here they are right."""
    for file, data in encode_bundle(W, "ckpt-1").items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / "checkpoint").write_bytes(manifest(str(tmp_path / "ckpt-1")))
    found = resolve(LOCAL, str(tmp_path))
    assert (found.how.kind, "not followed" in found.how.reason) == ("manifest", False)


def test_manifest_means_the_prefix_where_a_file_has_the_name_too() -> None:
    """TensorFlow looks for NAME.index first, so an entry is a prefix before it is a file."""
    files = {**bundles("a.h5f"), "a.h5f": b"\x89HDF\r\n\x1a\n" + bytes(600), "checkpoint": manifest("a.h5f")}
    assert target(files, "").format == "bundle-v2"
    assert target(files, "").siblings == ("a.h5f",)


# --------------------------------------------------------------------------------------------------------------- archives


ZOO = {
    **bundles("ssd/model.ckpt-1", "ssd/model.ckpt-12", "ssd/saved_model/variables/variables"),
    "ssd/saved_model/saved_model.pb": b"x",
    "ssd/checkpoint": manifest("/home/somebody/model.ckpt-12"),
    "ssd/pipeline.config": b"model {}",
}


@pytest.mark.parametrize("make", [tarred, zipped, lambda files: tarred(files, ""), lambda files: tarred(files, "xz")])
def test_archive_means_its_latest_checkpoint(tmp_path: Path, make: object) -> None:
    """A download opens as it is, by its manifest, in place; a path after ``!`` names anything inside."""
    path = tmp_path / "zoo.archive"
    path.write_bytes(make(ZOO))  # type: ignore[operator]
    with openckpt.open(path) as ckpt:
        assert (ckpt.prefix, ckpt.step) == (f"{path}!ssd/model.ckpt-12", 12)
        assert ckpt["w"].tolist() == [0, 1, 2, 3]
    for inner in ("ssd/model.ckpt-1", "ssd/model.ckpt-1.index", "/ssd/model.ckpt-1"):
        with openckpt.open(f"{path}!{inner}") as ckpt:
            assert ckpt.step == 1
    with openckpt.open(f"{path}!ssd/saved_model") as ckpt:
        assert ckpt.how.kind == "saved-model"
    with pytest.raises(PathNotFoundError) as caught:
        openckpt.open(f"{path}!ssd/model.ckpt")
    assert f"{path}!ssd/model.ckpt-12" in str(caught.value)


def test_compressed_archive_is_read_in_two_passes(tmp_path: Path) -> None:
    """Opening and reading every tensor of a compressed tar unpacks it twice, however many there are."""
    many = {f"layer{i}": np.full(1000, i, np.float32) for i in range(50)}
    files = {f"run/{name}": data for name, data in encode_bundle(many, "ckpt-1", shards=3).items()}
    path = tmp_path / "run.tar.gz"
    path.write_bytes(tarred(files))
    with openckpt.open(path) as ckpt:
        assert all((array == float(key[5:])).all() for key, array in ckpt.items())
        assert ckpt._target.store.passes <= 2  # type: ignore[attr-defined]


def test_literal_exclamation_mark_wins_over_an_archive(tmp_path: Path) -> None:
    """``a.tar!b`` is a file before it is a member of a.tar; the rest of the name is looked for inside."""
    (tmp_path / "a.tar").write_bytes(tarred(bundles("b"), ""))
    assert resolve(LOCAL, f"{tmp_path}/a.tar!b").how.kind == "prefix"
    for file, data in encode_v1({"v": np.float32([9])}, "a.tar!b").items():
        (tmp_path / file).write_bytes(data)
    assert resolve(LOCAL, f"{tmp_path}/a.tar!b").format == "table-v1"


def test_archive_in_an_archive_once(tmp_path: Path) -> None:
    """One archive inside another opens, by ``!`` twice; a third is refused by the limit."""
    once = tarred(bundles("ckpt-3"))
    twice = zipped({"in.tar.gz": once})
    (tmp_path / "out.zip").write_bytes(twice)
    (tmp_path / "deep.zip").write_bytes(zipped({"out.zip": twice}))
    with openckpt.open(tmp_path / "out.zip!in.tar.gz!ckpt-3") as ckpt:
        assert ckpt["w"].size == 4
    with openckpt.open(tmp_path / "out.zip!in.tar.gz") as ckpt:
        assert ckpt.step == 3
    with pytest.raises(openckpt.LimitError):
        openckpt.open(tmp_path / "deep.zip!out.zip!in.tar.gz")


def test_something_behind_a_file_that_is_no_archive() -> None:
    """``notes.txt!x`` says that notes.txt is no archive."""
    assert code({"notes.txt": b"hello"}, "notes.txt!x") == "path.not-an-archive"


# ----------------------------------------------------------------------------------------------------------------- misses


def test_miss_names_the_nearest_prefixes() -> None:
    """A missing step, a typing error, a pattern, a trailing slash and a wrong directory each get their suggestion."""
    files = bundles("run/ckpt-7", "run/ckpt-10", "run/best_model", "old/final")
    assert "nearest: 'run/ckpt-10', 'run/ckpt-7'" in message(files, "run/ckpt")
    assert "'run/best_model'" in message(files, "run/best_modle")
    assert "nearest: 'run/ckpt-10', 'run/ckpt-7'" in message(files, "run/ckpt-*")
    assert "nearest: 'run/ckpt-7'" in message(files, "run/ckpt-7/")
    assert "nearest: 'old/final'" in message(files, "run/final")
    assert "'run/ckpt-7'" in message(files, "run/ckpt-8.index")
    assert "there is no directory 'nowhere'" in message(files, "nowhere/zzz")
    assert "none near it" in message(files, "run/qqqqqqq")


def test_fix_of_a_miss_searches_a_directory_that_exists(tmp_path: Path) -> None:
    """Where several directories of a path are missing, the search starts at the first that is there."""
    for path in (tmp_path / "no/such/qqqqqqq", tmp_path / "no/qqqqqqq", tmp_path / "qqqqqqq"):
        with pytest.raises(openckpt.PathNotFoundError) as caught:
            openckpt.open(path)
        assert caught.value.fix == f"openckpt find {tmp_path}"


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("gs://bucket/run/ckpt-1", "gsutil cp"),
        ("https://example.org/model.h5", "curl -fLO"),
        ("file:///data/run", "openckpt doctor /data/run"),
        ("file://localhost/data/a b", "openckpt doctor '/data/a b'"),
    ],
)
def test_a_url_is_told_from_a_path(url: str, fix: str) -> None:
    """Whoever passes a URL is told to download, in every function; a file that is really called so is opened."""
    for function in (openckpt.open, lambda path: list(openckpt.find(path))):
        with pytest.raises(openckpt.PathNotFoundError) as caught:
            function(url)
        assert caught.value.code == "path.url" and fix in (caught.value.fix or "")
    (finding,) = openckpt.diagnose(url).findings
    assert (finding.code, finding.severity) == ("path.url", "error")


def test_directory_that_the_system_refuses_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a file in it that nobody has heard of."""
    (tmp_path / "closed").mkdir()
    real = LocalStore.stat

    def refuse(self: LocalStore, path: str) -> FileStat | None:
        if "/closed/" in path:
            raise PermissionError(13, "Permission denied", path)
        return real(self, path)

    def refuse_scan(self: LocalStore, path: str) -> list[FileStat]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(LocalStore, "stat", refuse)
    monkeypatch.setattr(LocalStore, "scan", refuse_scan)
    with pytest.raises(PermissionError) as caught:
        openckpt.open(tmp_path / "closed")
    assert caught.value.filename == str(tmp_path / "closed")


def test_empty_name_in_the_current_directory_is_called_by_a_path_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model saved to "./" is .index and .data-...; its prefix is shown as one that can be passed again."""
    for name, data in bundles("").items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for path in (".index", "./", ".", ".data-00000-of-00001"):
        with openckpt.open(path) as ckpt:
            assert ckpt.prefix == "./"
        assert [item.prefix for item in openckpt.diagnose(path).checkpoints] == ["./"]


def test_miss_is_a_file_not_found_error_and_a_key_error(tmp_path: Path) -> None:
    """Whoever catches FileNotFoundError, KeyError or openckpt's own error catches it."""
    for kind in (FileNotFoundError, KeyError, openckpt.NotFoundError, openckpt.CheckpointError):
        with pytest.raises(kind):
            openckpt.open(tmp_path / "nothing")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "run/" + "y" * 300])
def test_impossible_names_are_misses(path: str) -> None:
    """No name makes anything but a miss."""
    with pytest.raises(PathNotFoundError):
        openckpt.open(path)


def test_what_is_left_of_a_checkpoint_is_said() -> None:
    """Data files without an index, a lone meta graph and an unfinished file are no mere misses."""
    shards = bundles("m", shards=2)
    del shards["m.index"]
    assert code(shards, "m") == "path.index-missing"
    assert code(shards, "m.data-00000-of-00002") == "path.index-missing"
    assert code({"m.meta": b"graph"}, "m") == "path.meta-only"
    assert code({"m.meta": b"graph"}, "m.meta") == "path.meta-only"
    assert code({"m.index.tempstate77": b"x"}, "m.index.tempstate77") == "path.unfinished"
    assert code({"m.idx": bundles("m")["m.index"]}, "m.idx") == "path.renamed-index"
    assert code({"checkpoint": manifest("m")}, "") == "path.manifest-target"


def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path: Path) -> None:
    """A pointer, a page, text and a pickle are each refused with their own code."""
    assert code({"a.h5": LFS}, "a.h5") == "detect.lfs-pointer"
    assert code({"a.mag": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"}, "a.mag") == (
        "detect.xml-error-page"
    )
    assert code({"a.txt": b"just some words\n"}, "a.txt") == "detect.text"
    assert code({"a": b""}, "a") == "detect.empty"
    (tmp_path / "m.index").write_bytes(LFS)
    with pytest.raises(openckpt.CorruptionError) as caught:
        openckpt.open(tmp_path / "m")
    assert caught.value.code == "detect.lfs-pointer"


def test_pickles_are_unsafe() -> None:
    """What could only be read by running code is an UnsafeError."""
    import pickle

    torch = zipped({"archive/data.pkl": pickle.dumps({}), "archive/data/0": b""})
    for data in (torch, pickle.dumps({"a": 1})):
        with pytest.raises(UnsafeError):
            target({"model.ckpt": data}, "model.ckpt")


def test_broken_link_and_pipe_are_no_files(tmp_path: Path) -> None:
    """A link to nothing and a pipe are refused at once, not waited for."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(openckpt.UnsupportedError) as caught:
            openckpt.open(tmp_path / name)
        assert caught.value.code == "path.not-a-file"
    os.mkfifo(tmp_path / "ckpt.index")
    with pytest.raises(PathNotFoundError):
        openckpt.open(tmp_path / "ckpt")


# --------------------------------------------------------------------------------------------------------- whole or not


def test_cut_data_file_makes_the_next_older_the_latest() -> None:
    """A copy that broke off is not complete although every name is there; a pointer in place of data neither."""
    shard = "ckpt-2.data-00000-of-00001"
    for instead in (b"", bytes(15), LFS[:15]):
        files = {**bundles("ckpt-1", "ckpt-2"), shard: instead, "checkpoint": manifest("ckpt-1", "ckpt-2")}
        found = target(files, "")
        assert (found.path, found.how.kind) == ("ckpt-1", "scan")
        assert shard in found.how.reason
    del files["checkpoint"]
    found = target(files, "")
    assert (found.path, found.how.kind) == ("ckpt-1", "scan")
    assert shard in found.how.reason


def test_directory_of_cut_checkpoints_can_still_be_listed() -> None:
    """Where every checkpoint is cut short the newest opens, and `how` says so."""
    found = target({**bundles("ckpt-2"), "ckpt-2.data-00000-of-00001": b"x"}, "")
    assert (found.path, found.how.kind) == ("ckpt-2", "incomplete")


def test_longer_data_files_are_whole() -> None:
    """Bytes after the last tensor are no reason to pass a checkpoint over."""
    files = bundles("ckpt-2")
    files["ckpt-2.data-00000-of-00001"] += b"more"
    assert target(files, "").how.kind == "scan"
