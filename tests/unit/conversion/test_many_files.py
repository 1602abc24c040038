"""Safetensors in many files: laid out, resumed after a kill, replaced without a mixture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import openckpt
from openckpt.conversion.many_files import plan_files
from openckpt.conversion.planning import Row
from openckpt.errors import CheckpointError
from openckpt.formats.spec import TensorSpec
from trees import differences, numbers, objects, save_tree

TREE = {f"layer{n}/kernel": ("float32", numbers("float32", (10, 10), n)) for n in range(6)}
TREE["text"] = "string", objects(b"a\0b", b"c")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return save_tree(tmp_path / "source", TREE)


def convert(source: str, target: Path, **options: Any) -> openckpt.Conversion:
    return openckpt.convert(source, target, **{"max_shard_size": 900, **options})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def row(key: str, nbytes: int) -> Row:
    return Row(key, TensorSpec("uint8", (nbytes,), nbytes), "uint8")


@pytest.mark.parametrize(
    ("sizes", "files"),
    [
        ({"a": 4, "b": 4, "c": 4}, ["ab", "c"]),
        ({"c": 4, "a": 4, "b": 4}, ["ab", "c"]),
        ({"a": 4, "b": 100, "c": 4, "d": 4}, ["a", "b", "cd"]),
        ({"a": 0, "b": 8, "c": 0}, ["abc"]),
        ({"a": 9}, ["a"]),
    ],
)
def test_files_are_filled_in_the_order_of_keys(sizes: dict[str, int], files: list[str]) -> None:
    """As many tensors as fit, a larger one alone."""
    planned = plan_files([row(key, size) for key, size in sizes.items()], 8)
    assert ["".join(row.key for row in group) for group in planned] == files


def test_the_files_and_their_index(tmp_path: Path, source: str) -> None:
    """Names and index are those that Hugging Face's libraries write and read."""
    done = convert(source, tmp_path / "out" / "model.safetensors")

    assert done.target == str(tmp_path / "out" / "model.safetensors.index.json")
    expected = {f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)}
    assert names(tmp_path / "out") == {"model.safetensors.index.json", *expected}
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(TREE)
    assert set(index["weight_map"].values()) == expected
    assert index["metadata"]["total_size"] == 6 * 400 + len(b"\3\1" + b"crc." + b"a\0bc")
    assert differences(done.target, TREE) == []
    assert differences(tmp_path / "out", TREE) == []


def test_one_file_when_everything_fits(tmp_path: Path, source: str) -> None:
    """The index is there all the same: it is what was asked for."""
    openckpt.convert(source, tmp_path / "out" / "m.safetensors.index.json")
    assert names(tmp_path / "out") == {"m.safetensors.index.json", "m-00001-of-00001.safetensors"}


def test_finished_files_are_kept_and_the_rest_is_made(tmp_path: Path, source: str) -> None:
    """What a kill leaves: some files in place, no index."""
    target = tmp_path / "out" / "m.safetensors"
    done = convert(source, target)
    first, second, third = sorted(name for name in done.files if name.endswith(".safetensors"))
    whole = {path: Path(path).read_bytes() for path in done.files}
    os.unlink(done.target)
    os.unlink(second)
    before = os.stat(first).st_mtime_ns
    again = convert(source, target)

    assert again.kept == (first, third)
    assert os.stat(first).st_mtime_ns == before
    assert {path: Path(path).read_bytes() for path in again.files} == whole
    assert differences(again.target, TREE) == []


@pytest.mark.parametrize("fault", ["bytes", "header", "other source", "garbage", "other types"])
def test_a_file_that_is_not_the_finished_one_is_refused_or_made_again(tmp_path: Path, source: str, fault: str) -> None:
    """Another step's file has the same header but for its checksums: it must never be taken for ours."""
    target = tmp_path / "out" / "m.safetensors"
    done = convert(source, target)
    os.unlink(done.target)
    path = Path(done.files[1])
    data = bytearray(path.read_bytes())
    if fault == "bytes":
        data[-1] ^= 1
    elif fault == "header":
        data = bytearray(data.replace(b"layer0", b"laber0"))
    elif fault == "garbage":
        data = bytearray(b"not safetensors at all")
    else:
        other = {key: (dtype, -value if dtype == "float32" else value) for key, (dtype, value) in TREE.items()}
        if fault == "other types":
            other = {
                key: (dtype, value.view("i4") if dtype == "float32" else value) for key, (dtype, value) in TREE.items()
            }
            other = {key: ("int32" if dtype == "float32" else dtype, value) for key, (dtype, value) in other.items()}
        convert(save_tree(tmp_path / "other", other), tmp_path / "elsewhere" / "m.safetensors")
        data = bytearray((tmp_path / "elsewhere" / path.name).read_bytes())
    path.write_bytes(bytes(data))

    with pytest.raises(CheckpointError) as caught:
        convert(source, target)
    assert caught.value.code == "convert.exists"
    assert path.read_bytes() == bytes(data)
    again = convert(source, target, overwrite=True)
    assert len(again.kept) == 2
    assert differences(again.target, TREE) == []


def test_a_replaced_checkpoint_is_old_until_it_is_new(tmp_path: Path, source: str) -> None:
    """New files have names that the old index does not know; afterwards the old ones are gone."""
    target = tmp_path / "out" / "m.safetensors"
    convert(source, target)
    done = convert(source, target, cast="float16", max_shard_size=450, overwrite=True)
    assert names(tmp_path / "out") == {Path(path).name for path in done.files}
    assert all(".2-0000" in name or name.endswith(".json") for name in names(tmp_path / "out"))
    third = convert(source, target, overwrite=True)
    assert {Path(path).name for path in third.files} == names(tmp_path / "out")
    assert not any(".2-0000" in name for name in names(tmp_path / "out"))
    assert differences(third.target, TREE) == []


def test_keys_that_need_other_names_may_not_meet(tmp_path: Path) -> None:
    """``key-0`` in one file and the renamed key of another would be one entry of the index."""
    tree = {"key-0": ("uint8", numbers("uint8", (90,))), "odd\udcff": ("uint8", numbers("uint8", (90,)))}
    source = save_tree(tmp_path / "odd", tree)
    with pytest.raises(CheckpointError) as caught:
        openckpt.convert(source, tmp_path / "out" / "m.safetensors", max_shard_size=100)
    assert caught.value.code == "convert.shard-names"
    assert not (tmp_path / "out").exists()
    openckpt.convert(source, tmp_path / "out" / "m.safetensors")
    assert differences(tmp_path / "out" / "m.safetensors", tree) == []


@pytest.mark.parametrize("name", ["notes.txt", "precious.safetensors", "m.safetensors", "m-1-of-2.safetensors"])
def test_an_index_cannot_have_foreign_files_removed(tmp_path: Path, source: str, name: str) -> None:
    """Replacing a checkpoint takes what is called after its index, whatever else a stranger's index names."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_bytes(b"somebody's")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"w": name}}))
    done = convert(source, folder / "m.safetensors.index.json", overwrite=True)
    assert (folder / name).read_bytes() == b"somebody's"
    assert names(folder) == {name, *(Path(path).name for path in done.files)}


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("number", [1, 2])
def test_a_file_of_the_target_is_no_source(tmp_path: Path, source: str, index: bool, number: int) -> None:
    """One file of what would be replaced would be gone when its tensors are cast, and the others with it."""
    done = convert(source, tmp_path / "out" / "m.safetensors")
    if not index:
        Path(done.target).unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(CheckpointError) as caught:
        convert(done.files[number], Path(done.target), cast="float16", overwrite=True, max_shard_size=None)
    assert caught.value.code == "convert.same"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_directory_of_the_program_is_looked_at_too(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target without a directory in its name."""
    monkeypatch.chdir(tmp_path)
    done = convert(source, Path("m.safetensors"))
    with pytest.raises(CheckpointError) as caught:
        convert(done.files[1], Path("m.safetensors"), cast="float16", overwrite=True)
    assert caught.value.code == "convert.same"
