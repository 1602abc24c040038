"""Checkpoints inside archives: read in place, in two passes however many tensors, and never chosen from a broken download."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import openckpt
from attacks import craft_archive as make
from openckpt.formats.bundle import encode_bundle
from openckpt.storage.archive import streams
from openckpt.storage.archive.packed import KEPT_BYTES

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar.gz": lambda data: gzip.compress(data, 1),
    "tar.xz": lambda data: lzma.compress(data, preset=0),
}
BIG = {f"layer{i}/kernel": np.full((256, 1024), i, np.float32) for i in range(40)}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every decompressor that unpacks an archive from its start beyond the look at its first block."""
    started: list[str] = []

    class Counted(streams.PackedStream):
        counted = False

        def take(self, size: int) -> memoryview:
            if not self.counted and self.offset >= 4096:
                self.counted = True
                started.append(self._source.path)
            return super().take(size)

    monkeypatch.setattr("openckpt.storage.archive.packed.PackedStream", Counted)
    return started


def tar_of(files: dict[str, bytes]) -> bytes:
    return make.tar(*(make.tar_file(name.encode(), data) for name, data in files.items()))


def steps(*numbers: int, tensors: dict[str, np.ndarray] = BIG) -> dict[str, bytes]:
    """Checkpoints of several steps in two shards each, data before index as TensorFlow's names sort."""
    files: dict[str, bytes] = {}
    for number in numbers:
        files |= {
            f"run/{name}": data for name, data in sorted(encode_bundle(tensors, f"ckpt-{number}", shards=2).items())
        }
    return files


@pytest.mark.parametrize("suffix", COMPRESS)
def test_two_passes_however_many_tensors(tmp_path: Path, passes: list[str], suffix: str) -> None:
    """Every tensor of a 40 MiB checkpoint, one by one, backwards and again: two passes over the archive."""
    assert sum(array.nbytes for array in BIG.values()) > 2 * KEPT_BYTES
    path = tmp_path / f"zoo.{suffix}"
    path.write_bytes(COMPRESS[suffix](tar_of(steps(1))))

    with openckpt.open(path) as ckpt:
        assert len(passes) == 1  # listed
        for key in [*ckpt, *reversed(list(ckpt)), *ckpt]:
            assert ckpt[key][0, 0] == int(key[5:].partition("/")[0])

    assert len(passes) == 2


@pytest.mark.parametrize("inner", ["", "!run", "!run/ckpt-2", "!run/ckpt-2.index", "!run/ckpt-2.data-00000-of-00002"])
def test_every_way_to_name_it_takes_two_passes(tmp_path: Path, passes: list[str], inner: str) -> None:
    """Prefix, member, directory, archive: the other steps around cost nothing."""
    path = tmp_path / "zoo.tgz"
    path.write_bytes(gzip.compress(tar_of(steps(1, 2)), 1))

    with openckpt.open(f"{path}{inner}") as ckpt:
        assert ckpt.step == 2
        assert {key: ckpt[key][0, 0] for key in ckpt} == {key: array[0, 0] for key, array in BIG.items()}

    assert len(passes) == 2


def test_listing_takes_one_pass(tmp_path: Path, passes: list[str]) -> None:
    """Keys, dtypes and shapes come from the index, which the first pass keeps."""
    path = tmp_path / "zoo.tar.gz"
    path.write_bytes(gzip.compress(tar_of(steps(1, 2, 3)), 1))

    with openckpt.open(path) as ckpt:
        assert {key: spec.shape for key, spec in ckpt.specs.items()} == {key: array.shape for key, array in BIG.items()}

    assert len(passes) == 1


@pytest.fixture
def small() -> Iterator[dict[str, bytes]]:
    yield steps(1, 2, tensors={"w": np.arange(6.0)})


def test_archives_in_a_place_without_a_checkpoint_are_named(tmp_path: Path, small: dict[str, bytes]) -> None:
    """A folder of downloads, and an archive of archives: which one is meant is the user's choice, and the way is told."""
    inner = gzip.compress(tar_of(small))
    outer = tmp_path / "downloads" / "outer.tar"
    outer.parent.mkdir()
    outer.write_bytes(tar_of({"zoo.tar.gz": inner}))
    for path, fix in ((outer.parent, f"openckpt ls {outer}"), (outer, f"openckpt ls '{outer}!zoo.tar.gz'")):
        with pytest.raises(openckpt.PathNotFoundError) as caught:
            openckpt.open(path)
        assert (caught.value.code, caught.value.fix) == ("path.no-checkpoint", fix)
    with openckpt.open(f"{outer}!zoo.tar.gz") as ckpt:
        assert ckpt.step == 2


def test_nothing_is_written(tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the archive, the working folder and the temporary folder stay as they were."""
    path = tmp_path / "zoo.tar.gz"
    path.write_bytes(gzip.compress(tar_of(small)))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "empty"))

    with openckpt.open(path) as ckpt:
        assert ckpt["w"].tolist() == [0, 1, 2, 3, 4, 5]

    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["empty", "zoo.tar.gz"]


def test_a_broken_download_is_not_chosen_from(tmp_path: Path, small: dict[str, bytes]) -> None:
    """The latest step may be the one that is missing; what is whole can be named, and the message names it."""
    whole = tar_of(small)
    cut = whole.index(b"run/ckpt-2.index")
    path = tmp_path / "zoo.tar"
    path.write_bytes(whole[: cut + 600])

    for name in (str(path), f"{path}!run", f"{path}!run/ckpt-2", f"{path}!run/ckpt-3"):
        with pytest.raises(openckpt.CorruptionError) as caught:
            openckpt.open(name)
        assert caught.value.code == "archive.truncated"
    with pytest.raises(openckpt.CorruptionError, match=r"zoo\.tar!run/ckpt-1"):
        openckpt.open(path)
    with openckpt.open(f"{path}!run/ckpt-1") as ckpt:
        assert ckpt["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_doctor_on_a_broken_download(tmp_path: Path, small: dict[str, bytes]) -> None:
    """An error to the archive and to what is cut, a warning to a checkpoint that is whole."""
    whole = tar_of(small)
    path = tmp_path / "zoo.tar"
    path.write_bytes(whole[: whole.index(b"run/ckpt-2.index") + 600])

    archive, folder = openckpt.diagnose(path), openckpt.diagnose(f"{path}!run")
    first, second = openckpt.diagnose(f"{path}!run/ckpt-1"), openckpt.diagnose(f"{path}!run/ckpt-2")

    assert [report.valid for report in (archive, folder, first, second)] == [False, False, True, False]
    for report in (archive, folder):
        assert [f.severity for f in report.findings if f.code == "archive.truncated"] == ["error"]
    assert [f.severity for f in first.findings if f.code == "archive.truncated"] == ["warning"]


def test_views_into_a_stored_archive(tmp_path: Path, small: dict[str, bytes]) -> None:
    """A view of a tensor in an uncompressed tar or zip lies over the archive's own bytes and outlives the reader."""
    archives = {"zoo.tar": tar_of(small), "zoo.zip": make.plain_zip(list(small.items()))}
    for name, data in archives.items():
        (tmp_path / name).write_bytes(data)
        with openckpt.open(tmp_path / name) as ckpt:
            view = ckpt.view("w")
        assert view.tolist() == [0, 1, 2, 3, 4, 5]
        assert not view.flags.owndata
