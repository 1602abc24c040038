"""`openckpt.find`: a tree of files as a stream of checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import openckpt
from containers import tarred
from openckpt.finding import FoundCheckpoint, survey
from openckpt.finding.walking import _Walk
from openckpt.findings import Finding
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.v1 import encode_v1
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage import FileStat
from openckpt.storage.local import LocalStore
from openckpt.storage.memory import MemoryStore

W = {"w": np.arange(4, dtype=np.float32)}


def plant(root: Path, *prefixes: str, **others: bytes | str) -> None:
    """Write bundles, and other files whose names come as keywords with ``__`` for "/" and ``_`` for "."."""
    for prefix in prefixes:
        path = root / prefix
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, data in encode_bundle(W, path.name).items():
            (path.parent / file).write_bytes(data)
    for name, content in others.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def found(root: Path, **options: object) -> dict[str, FoundCheckpoint]:
    """Return what is found, by path relative to the root."""
    return {item.prefix[len(str(root)) + 1 :]: item for item in openckpt.find(root, **options)}  # type: ignore[arg-type]


def findings(root: Path, **options: object) -> list[tuple[str, str]]:
    return [
        (item.code, item.where.path[len(str(root)) + 1 :])
        for item in survey(root, **options)  # type: ignore[arg-type]
        if isinstance(item, Finding)
    ]


def test_every_checkpoint_of_a_tree_parents_first(tmp_path: Path) -> None:
    """Directories in order of name, steps in order of number, complete or not."""
    plant(tmp_path, "b/ckpt-2", "b/ckpt-10", "a/deep/er/model", "top")
    (tmp_path / "b/ckpt-10.data-00000-of-00001").unlink()
    items = list(openckpt.find(tmp_path))
    assert [item.prefix[len(str(tmp_path)) + 1 :] for item in items] == [
        "top",
        "a/deep/er/model",
        "b/ckpt-2",
        "b/ckpt-10",
    ]
    last = items[-1]
    assert (last.complete, last.missing, last.newest, items[-2].newest) == (
        False, ("ckpt-10.data-00000-of-00001",), False, True,
    )  # fmt: skip
    assert items[0].files == (f"{tmp_path}/top.index", f"{tmp_path}/top.data-00000-of-00001")
    assert items[0].bytes == sum(os.stat(file).st_size for file in items[0].files)
    assert items[0].run == str(tmp_path)


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    """The row that other programs read; everything in it is plain JSON."""
    plant(tmp_path, "ckpt-7", checkpoint='model_checkpoint_path: "ckpt-7"')
    (row,) = (json.loads(json.dumps(item.to_json())) for item in openckpt.find(tmp_path))
    size = sum(os.stat(file).st_size for file in row["files"])
    contract = {key: row[key] for key in ("prefix", "format", "step", "complete", "bytes", "listed")}
    assert contract == {
        "prefix": f"{tmp_path}/ckpt-7", "format": "bundle-v2", "step": 7, "complete": True, "bytes": size, "listed": True,
    }  # fmt: skip


def test_manifest_tells_listed_newest_and_forgotten(tmp_path: Path) -> None:
    """Listed wherever the manifest's paths lead inside; forgotten is complete and not listed."""
    plant(
        tmp_path, "ckpt-1", "ckpt-2", "ckpt-3", "sub/ckpt-4", "no-manifest/x",
        checkpoint='model_checkpoint_path: "/gone/ckpt-2"\nall_model_checkpoint_paths: "sub/ckpt-4"\n',
    )  # fmt: skip
    items = found(tmp_path)
    assert {name for name, item in items.items() if item.listed} == {"ckpt-2", "sub/ckpt-4"}
    assert {name for name, item in items.items() if item.newest} == {"ckpt-2", "sub/ckpt-4", "no-manifest/x"}
    assert {name for name, item in items.items() if item.forgotten} == {"ckpt-1", "ckpt-3"}


@pytest.mark.parametrize(
    ("prefix", "beside", "layout"),
    [
        ("m/variables/variables", "m__saved_model_dot_pb", "saved-model"),
        ("zoo/model.ckpt", "zoo__pipeline_dot_config", "model-zoo-tf1"),
        ("zoo/checkpoint/ckpt-0", "zoo__pipeline_dot_config", "model-zoo-tf2"),
        ("uncased/bert_model.ckpt", "uncased__vocab_dot_txt", "bert"),
        ("run/model.ckpt-7", "run__graph_dot_pbtxt", "estimator"),
        ("run/model.ckpt-7", "run__events_dot_out_dot_tfevents_dot_1_dot_host", "estimator"),
        ("tuner/trial_0a1b/checkpoints/epoch_0/checkpoint", "tuner__oracle_dot_json", "keras-tuner"),
        ("tuner/trial_03/checkpoint", "tuner__trial_03__trial_dot_json", "keras-tuner"),
        ("run/ckpt-7", "run__notes_dot_txt", None),
        ("trial_0a1b/other/ckpt-7", "x_dot_txt", None),
    ],
)
def test_known_layouts(tmp_path: Path, prefix: str, beside: str, layout: str | None) -> None:
    """The names around a checkpoint tell who wrote it."""
    plant(tmp_path, prefix, **{beside: b"x"})
    item = found(tmp_path)[prefix]
    assert item.layout == layout
    if layout == "saved-model":
        assert item.run == f"{tmp_path}/m"


def test_leftovers_and_orphans_are_findings(tmp_path: Path) -> None:
    """What interrupted saves leave is told, and never taken for a checkpoint."""
    plant(
        tmp_path, "ckpt-1", "ckpt-2_temp/part-00000-of-00001", "half/ckpt-3",
        ckpt__x=b"", lost_dot_meta=b"g", checkpoint_dot_tmp0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a=b"",
    )  # fmt: skip
    (tmp_path / "ckpt-1.data-00000-of-00009").write_bytes(b"old")
    (tmp_path / "ckpt-1.index.tempstate5").write_bytes(b"")
    (tmp_path / "half/ckpt-3.index").unlink()
    items = found(tmp_path)
    assert items.keys() == {"ckpt-1", "half/ckpt-3"}
    assert items["half/ckpt-3"].missing == ("ckpt-3.index",) and not items["half/ckpt-3"].complete
    assert sorted(findings(tmp_path)) == [
        ("run.leftover-file", "checkpoint.tmp" + "0a" * 16),
        ("run.leftover-file", "ckpt-1.index.tempstate5"),
        ("run.leftover-parts", "ckpt-2_temp"),
        ("run.meta-only", "lost.meta"),
        ("run.stale-shards", "ckpt-1.data-00000-of-00009"),
    ]
    seen: list[Finding] = []
    list(openckpt.find(tmp_path, on_finding=seen.append))
    assert len(seen) == 5


def test_archives_are_walked_like_directories(tmp_path: Path) -> None:
    """Members are listed as ARCHIVE!PREFIX, which opens; layouts and manifests work inside; one level of nesting."""
    zoo = {f"ssd/{name}": data for name, data in encode_bundle(W, "model.ckpt").items()}
    zoo |= {"ssd/pipeline.config": b"x", "ssd/checkpoint": b'model_checkpoint_path: "model.ckpt"'}
    plant(
        tmp_path,
        a_dot_tar_dot_gz=tarred(zoo),
        b_dot_tgz=tarred({"in.tar.gz": tarred(zoo), "again.tgz": tarred({"x.tgz": tarred(zoo)})}),
    )
    items = found(tmp_path)
    assert items.keys() == {"a.tar.gz!ssd/model.ckpt", "b.tgz!in.tar.gz!ssd/model.ckpt"}
    for item in items.values():
        assert (item.layout, item.listed, item.newest, item.complete) == ("model-zoo-tf1", True, True, True)
        with openckpt.open(item.prefix) as ckpt:
            assert ckpt["w"].size == 4
    assert found(tmp_path, archives=False) == {}
    (direct,) = openckpt.find(tmp_path / "a.tar.gz")
    assert direct.prefix == items["a.tar.gz!ssd/model.ckpt"].prefix


def test_archives_of_one_shape_are_all_walked(tmp_path: Path) -> None:
    """Two downloads of one layout have their folders at the same offsets; neither hides the other."""
    files = {f"zoo/checkpoint/{name}": data for name, data in encode_bundle(W, "ckpt-0").items()}
    zoo = tarred({"zoo": None, "zoo/checkpoint": None, **files}, "")
    plant(tmp_path, a_dot_tar=zoo, b_dot_tar=zoo, c_dot_tar=tarred({"a.tar": zoo}))
    assert found(tmp_path).keys() == {
        "a.tar!zoo/checkpoint/ckpt-0",
        "b.tar!zoo/checkpoint/ckpt-0",
        "c.tar!a.tar!zoo/checkpoint/ckpt-0",
    }


def test_a_small_archive_full_of_archives_costs_little(tmp_path: Path) -> None:
    """Packed twice, a kilobyte holds a thousand archives: four are looked into, the next one is named."""
    zoo = tarred(encode_bundle(W, "m"))
    plant(tmp_path, z_dot_tgz=tarred({f"{number}/in.tgz": zoo for number in range(9)}))
    assert len(found(tmp_path)) == 4
    (over,) = {item for item in survey(tmp_path) if isinstance(item, Finding) and item.where.path.endswith("!4")}
    assert (over.code, over.fix) == ("run.too-many", f"openckpt doctor '{tmp_path}/z.tgz!4/in.tgz'")
    report = openckpt.diagnose(tmp_path)
    assert len(report.checkpoints) == 4
    assert {finding.code for finding in report.findings} >= {"run.too-many"}


def test_magenta_bundle(tmp_path: Path) -> None:
    """A .mag holds a V1 checkpoint."""
    (name, data), *_ = encode_v1(W, "model.ckpt").items()
    field = bytes((0x12,)) + _varint(len(data)) + data
    plant(tmp_path, rnn_dot_mag=field + bytes((0x1A, 1)) + b"g")
    (item,) = openckpt.find(tmp_path)
    assert (item.prefix, item.format, item.layout) == (f"{tmp_path}/rnn.mag!{name}", "table-v1", "magenta")


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def test_archive_that_is_none_is_a_finding(tmp_path: Path) -> None:
    """An error page called .tar.gz, and a download that broke off, stop nothing."""
    whole = tarred({f"r/{name}": data for name, data in encode_bundle({"w": np.zeros(99999, np.float32)}, "m").items()})
    plant(tmp_path, "ok", a_dot_zip=b"<!DOCTYPE html><title>404</title>", b_dot_tar_dot_gz=whole[: len(whole) // 2])
    assert "ok" in found(tmp_path)
    codes = dict(findings(tmp_path))
    assert codes["detect.html-page"] == "a.zip"


def test_links_to_directories_are_not_followed(tmp_path: Path) -> None:
    """Neither a loop nor a second way to the same place is walked; links to files are followed and reported."""
    plant(tmp_path, "run/ckpt-1", "cache/blob")
    (tmp_path / "run/loop").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"linked{suffix}").symlink_to(tmp_path / f"cache/blob{suffix}")
    items = found(tmp_path)
    assert items.keys() == {"run/ckpt-1", "cache/blob", "linked"}
    assert items["linked"].links == items["linked"].files and items["cache/blob"].links == ()
    assert [item.prefix for item in openckpt.find(tmp_path / "alias")] == [f"{tmp_path}/alias/ckpt-1"]


def test_directory_that_comes_up_again_is_not_entered_twice() -> None:
    """A bind mount shows a directory below itself: device and inode give it away."""

    class Bound(MemoryStore):
        def stat(self, path: str) -> FileStat | None:
            stat = super().stat(path)
            return None if stat is None else stat._replace(identity=(1, len(path)))

        def scan(self, path: str) -> list[FileStat]:
            base = path.replace("/mount", "")
            stats = [stat._replace(path=f"{path}/{stat.name}") for stat in super().scan(base)]
            return [*stats, FileStat("mount", f"{path}/mount", "dir", 0, identity=(1, len("run")))]

    store = Bound({f"run/sub/{name}": data for name, data in encode_bundle(W, "ckpt-1").items()})
    walk = _Walk(DEFAULT_LIMITS, None, True)
    items = [item.prefix for item in walk.tree(store, "run", None) if isinstance(item, FoundCheckpoint)]
    assert items == ["memory:run/sub/ckpt-1"]


def test_directory_that_the_system_refuses_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the tree is still walked; only the root itself is an error."""
    plant(tmp_path, "a/ckpt-1", "locked/ckpt-1", "z/ckpt-1")
    scan = LocalStore.scan

    def refuse(self: LocalStore, path: str) -> list[FileStat]:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(self, path)

    monkeypatch.setattr(LocalStore, "scan", refuse)
    assert found(tmp_path).keys() == {"a/ckpt-1", "z/ckpt-1"}
    assert findings(tmp_path) == [("path.unreadable", "locked")]
    with pytest.raises(PermissionError):
        list(openckpt.find(tmp_path / "locked"))


def test_damaged_files_are_rows_not_errors(tmp_path: Path) -> None:
    """A pointer, an empty index and a damaged manifest stop nothing and are told."""
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    plant(tmp_path, "ok", "stub", a_dot_h5=lfs, b_dot_index=b"", checkpoint=b"\xff\xff")
    shard = tmp_path / "stub.data-00000-of-00001"
    shard.write_bytes(b"")
    items = found(tmp_path)
    assert (items["a.h5"].damage_code, items["a.h5"].complete, items["a.h5"].format) == (
        "detect.lfs-pointer",
        False,
        "hdf5",
    )
    assert items["b"].damage_code == "table.too-short"
    assert (items["stub"].damage_code, items["stub"].complete) == ("detect.empty", False)
    assert items["ok"].complete
    assert findings(tmp_path) == [("manifest.not-utf8", "checkpoint")]


def test_half_a_copy_is_not_complete(tmp_path: Path) -> None:
    """Data files that end before their last tensor, a damaged index and a cut HDF5 file are told without reading data."""
    plant(tmp_path, "cut", "bad", "ok")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["w"] = np.arange(1000)
    for name, size in {"cut.data-00000-of-00001": 15, "w.h5": 5000}.items():
        os.truncate(tmp_path / name, size)
    index = bytearray((tmp_path / "bad.index").read_bytes())
    index[20] ^= 1
    (tmp_path / "bad.index").write_bytes(index)
    items = found(tmp_path)
    assert {name: (item.complete, item.damage_code) for name, item in items.items()} == {
        "ok": (True, None),
        "cut": (False, "bundle.data-truncated"),
        "bad": (False, "table.block-crc"),
        "w.h5": (False, "hdf5.truncated"),
    }


def test_checkpoint_of_one_file_may_be_called_checkpoint(tmp_path: Path) -> None:
    """A V1 table or HDF5 file with the manifest's name is a checkpoint."""
    for file, data in encode_v1(W, "checkpoint").items():
        (tmp_path / file).write_bytes(data)
    (item,) = openckpt.find(tmp_path)
    assert (item.prefix, item.format) == (f"{tmp_path}/checkpoint", "table-v1")


def test_deep_trees_are_walked_to_the_limit(tmp_path: Path) -> None:
    """Depth costs no recursion; beyond the limit it is a finding."""
    deep = "/".join(["d"] * 150)
    plant(tmp_path, f"{deep}/ckpt-1")
    assert list(found(tmp_path)) == [f"{deep}/ckpt-1"]
    assert findings(tmp_path, limits=Limits(directory_depth=9)) == [("limits.exceeded", "/".join(["d"] * 10))]


def test_it_streams(tmp_path: Path) -> None:
    """The first checkpoint is there before the last directory was read; progress is told."""
    plant(tmp_path, *(f"run{i:03d}/ckpt-1" for i in range(40)))
    stream: Iterator[FoundCheckpoint] = openckpt.find(tmp_path)
    assert next(stream).prefix.endswith("run000/ckpt-1")
    (tmp_path / "run039/ckpt-1.index").unlink()
    assert [item.complete for item in stream][-1] is False
    steps: list[tuple[str, int, int | None]] = []
    for number in range(1000):
        (tmp_path / f"m-{number}.index").write_bytes(b"")
    list(openckpt.find(tmp_path, progress=lambda *step: steps.append(step)))
    assert steps == [("find", 1000, None)]


def test_root_may_be_one_file_or_nothing(tmp_path: Path) -> None:
    """One checkpoint file is found as itself; a path to nothing is an error."""
    for file, data in encode_v1(W, "model").items():
        (tmp_path / file).write_bytes(data)
    (item,) = openckpt.find(tmp_path / "model")
    assert (item.format, item.newest) == ("table-v1", True)
    with pytest.raises(openckpt.PathNotFoundError):
        openckpt.find(tmp_path / "nothing").__next__()


def test_tables_of_the_kernel_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search from the root does not meet every open file once more below /proc; named, it is searched."""
    tree = MemoryStore(
        {f"{root}/x/{name}": data for root in ("proc", "home") for name, data in encode_bundle(W, "m").items()}
    )
    monkeypatch.setattr("openckpt.finding.walking.home_of", lambda store, path: f"/{path}")
    walk = _Walk(DEFAULT_LIMITS, None, True)
    assert [item.prefix for item in walk.tree(tree, "", None) if isinstance(item, FoundCheckpoint)] == [
        "memory:home/x/m"
    ]
    assert len(list(walk.tree(tree, "proc", None))) == 1


def test_version_control_is_left_out(tmp_path: Path) -> None:
    """What git keeps in .git is nobody's run."""
    plant(tmp_path, ".git/lfs/ckpt-1", "run/ckpt-1")
    assert found(tmp_path).keys() == {"run/ckpt-1"}
