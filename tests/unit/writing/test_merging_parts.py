"""`part_prefix` and `merge_parts`: several writers, one merge; missing, mixed and damaged parts; merges that died."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import ByGroup, Sliced, Variant
from openckpt.errors import CheckpointError, ConflictError, CorruptionError, MismatchError, PathNotFoundError
from openckpt.formats.bundle import encode_bundle
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS

WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)
MERGED = {"a": [0.0, 1.0], "b": [b"text"], "w": WHOLE.tolist(), "z": 5}


def parts_of(count: int = 2) -> list[dict[str, Any]]:
    """What each of several writers has; a partitioned tensor lies in two of them."""
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    parts[-1].update(a=np.arange(2.0), w=Sliced((4, 3), {((2, 2), (0, -1)): WHOLE[2:]}))
    parts[0].update(z=5)
    if count > 1:
        parts[0].update(w=Sliced((4, 3), {((0, 2), (0, -1)): WHOLE[:2]}))
    parts[0].update(b=["text"])
    return parts


def save_parts(prefix: Path, parts: list[dict[str, Any]], layout: Any = "dual") -> None:
    for number, tensors in enumerate(parts):
        openckpt.save(openckpt.part_prefix(prefix, number, len(parts)), tensors, layout=layout)


def write_tensorflow_parts(prefix: Path, parts: list[dict[str, np.ndarray]]) -> None:
    """Parts as TensorFlow names and lays them out."""
    directory = Path(f"{prefix}_temp")
    directory.mkdir()
    for number, tensors in enumerate(parts):
        for name, data in encode_bundle(tensors, f"part-{number:05d}-of-{len(parts):05d}").items():
            (directory / name).write_bytes(data)


def values(prefix: Path) -> dict[str, Any]:
    return {key: value.tolist() for key, value in openckpt.load(prefix).items()}


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def code_of(prefix: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        openckpt.merge_parts(prefix, **options)
    return caught.value.code


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_parts_become_one_checkpoint(tmp_path: Path, layout: Any) -> None:
    """And nothing else is left; no byte of a tensor is copied."""
    prefix = tmp_path / "ckpt-3"
    save_parts(prefix, parts_of(), layout)
    inodes = {path.stat().st_ino for path in Path(f"{prefix}_temp").glob("*.data-*")}
    saved = openckpt.merge_parts(prefix, update_manifest=True)
    assert values(prefix) == MERGED and saved == str(prefix)
    assert (saved.step, saved.durability) == (3, "power-loss")
    assert saved.nbytes == sum(path.stat().st_size for path in tmp_path.glob("ckpt-3.*"))
    assert {path.stat().st_ino for path in tmp_path.glob("*.data-*")} == inodes
    assert names(tmp_path) == ["checkpoint", "ckpt-3.data-00000-of-00002", "ckpt-3.data-00001-of-00002", "ckpt-3.index"]
    assert openckpt.latest_checkpoint(tmp_path) == str(prefix) and openckpt.diagnose(prefix).valid


def test_part_prefixes_are_tensorflow_s() -> None:
    """Five digits each; a number that no writer has is a mistake of the caller."""
    assert openckpt.part_prefix("run/ckpt-1", 2, 12) == "run/ckpt-1_temp/part-00002-of-00012"
    assert openckpt.part_prefix(Path("a"), 0, 1) == "a_temp/part-00000-of-00001"
    for part, parts in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError):
            openckpt.part_prefix("a", part, parts)


def test_parts_of_several_data_files(tmp_path: Path) -> None:
    """A writer may shard its own part; a part may be in either layout, or TensorFlow's own."""
    prefix = tmp_path / "ckpt"
    tensors = {f"{n}/w": np.full(3, n) for n in range(3)}
    openckpt.save(openckpt.part_prefix(prefix, 0, 2), tensors, sharding=ByGroup(lambda key, spec: key[0]))
    openckpt.save(openckpt.part_prefix(prefix, 1, 2), {"v": Variant(b"x")}, layout="tensorflow")
    openckpt.merge_parts(prefix)
    assert len(list(tmp_path.glob("ckpt.data-*"))) == 4
    assert values(prefix) == {**{key: value.tolist() for key, value in tensors.items()}, "v": b"x"}


@pytest.mark.parametrize("count", [1, 5])
def test_tensorflow_s_parts_are_merged(tmp_path: Path, count: int) -> None:
    """As its own merge would have done, had it not died (formats 2.11, window a)."""
    parts = [{f"{n}": np.arange(n + 1.0)} for n in range(count)]
    write_tensorflow_parts(tmp_path / "ckpt", parts)
    openckpt.merge_parts(tmp_path / "ckpt")
    assert values(tmp_path / "ckpt") == {str(n): list(range(n + 1)) for n in range(count)}
    assert not Path(tmp_path / "ckpt_temp").exists()


def test_a_part_that_was_saved_again_counts_as_it_is(tmp_path: Path) -> None:
    """A writer that was restarted overwrites its part."""
    prefix = tmp_path / "ckpt"
    save_parts(prefix, parts_of())
    openckpt.save(openckpt.part_prefix(prefix, 1, 2), {**parts_of()[1], "a": np.ones(2)}, overwrite=True)
    openckpt.merge_parts(prefix)
    assert values(prefix) == {**MERGED, "a": [1, 1]}
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_a_writer_may_have_nothing_to_save(tmp_path: Path, layout: Any) -> None:
    """There are more writers than tensors; where none has any, there is no checkpoint."""
    save_parts(tmp_path / "ckpt", [{}, {"w": 1}, {}], layout)
    openckpt.merge_parts(tmp_path / "ckpt")
    assert values(tmp_path / "ckpt") == {"w": 1} and len(names(tmp_path)) == 2
    save_parts(tmp_path / "none", [{}, {}], layout)
    assert code_of(tmp_path / "none") == "writing.no-tensors"


def test_only_a_part_may_have_some_of_the_pieces(tmp_path: Path) -> None:
    """Of a partitioned tensor, and no two of them the same; the merge wants them all."""
    some = Sliced((4, 3), {((0, 2), (0, -1)): WHOLE[:2]})
    with pytest.raises(MismatchError) as caught:
        openckpt.save(tmp_path / "part-00000-of-00002", {"w": some})
    assert caught.value.code == "writing.slices"
    twice = Sliced((4, 3), {((0, 2), (0, -1)): WHOLE[:2], ((1, 1), (0, -1)): WHOLE[1:2]})
    with pytest.raises(MismatchError) as caught:
        openckpt.save(openckpt.part_prefix(tmp_path / "ckpt", 0, 2), {"w": twice})
    assert caught.value.code == "writing.slices"
    save_parts(tmp_path / "ckpt", [{"w": some}, {"b": 1}])
    assert code_of(tmp_path / "ckpt") == "slices.gap"


# --------------------------------------------------------------------------------------------------------------- refusals


def test_parts_that_are_missing_are_named(tmp_path: Path) -> None:
    """All of them, or the directory; nothing changes."""
    prefix = tmp_path / "ckpt"
    assert code_of(prefix) == "writing.parts-missing"
    save_parts(prefix, parts_of(3))
    Path(f"{prefix}_temp/part-00001-of-00003.index").unlink()
    before = names(tmp_path)
    with pytest.raises(PathNotFoundError) as caught:
        openckpt.merge_parts(prefix)
    assert caught.value.code == "writing.parts-missing" and "part-00001-of-00003" in str(caught.value)
    assert names(tmp_path) == before


def test_parts_of_two_saves_are_not_mixed(tmp_path: Path) -> None:
    """A run of two writers died, and was begun again with three."""
    save_parts(tmp_path / "ckpt", parts_of(2))
    save_parts(tmp_path / "ckpt", parts_of(3))
    assert code_of(tmp_path / "ckpt") == "writing.parts-mixed"


def test_two_parts_with_one_tensor(tmp_path: Path) -> None:
    """Nobody knows which is meant; the parts stay."""
    save_parts(tmp_path / "ckpt", [{"a": 1}, {"a": 2}])
    before = names(tmp_path)
    assert code_of(tmp_path / "ckpt") == "bundle.merge-duplicate"
    assert names(tmp_path) == before


def test_a_part_whose_data_ends_early_is_found_before_the_switch(tmp_path: Path) -> None:
    """By the sizes that its index states; the parts are as they were."""
    prefix = tmp_path / "ckpt"
    save_parts(prefix, parts_of())
    (data,) = Path(f"{prefix}_temp").glob("part-00001-of-00002.data-*")
    data.write_bytes(data.read_bytes()[:-1])
    before = names(tmp_path)
    with pytest.raises(CorruptionError) as caught:
        openckpt.merge_parts(prefix)
    assert caught.value.code == "bundle.data-truncated" and names(tmp_path) == before


def test_a_part_whose_data_is_missing(tmp_path: Path) -> None:
    """The system's error; the parts are as they were."""
    prefix = tmp_path / "ckpt"
    save_parts(prefix, parts_of())
    next(Path(f"{prefix}_temp").glob("part-00001-of-00002.data-*")).unlink()
    before = names(tmp_path)
    with pytest.raises(FileNotFoundError):
        openckpt.merge_parts(prefix)
    assert names(tmp_path) == before


def test_an_existing_checkpoint_is_kept_unless_asked(tmp_path: Path) -> None:
    """And then replaced in one moment, under another number of data files."""
    prefix = tmp_path / "ckpt"
    openckpt.save(prefix, {"old": np.ones(2)}, sharding=ByGroup(lambda key, spec: 1))
    save_parts(prefix, parts_of())
    assert code_of(prefix) == "commit.exists" and values(prefix) == {"old": [1, 1]}
    openckpt.merge_parts(prefix, overwrite=True)
    assert values(prefix) == MERGED and len(names(tmp_path)) == 3
    save_parts(prefix, parts_of())
    openckpt.merge_parts(prefix, overwrite=True)
    assert values(prefix) == MERGED
    assert len(list(tmp_path.glob("ckpt.data-*-of-00003"))) == 3 and len(names(tmp_path)) == 4
    assert openckpt.diagnose(prefix).valid


def test_somebody_else_is_saving(tmp_path: Path) -> None:
    """The prefix has one writer."""
    save_parts(tmp_path / "ckpt", parts_of())
    with openckpt.create(tmp_path / "ckpt") as writer:
        writer.add("w", 1)
        with pytest.raises(ConflictError) as caught:
            openckpt.merge_parts(tmp_path / "ckpt", overwrite=True)
        assert caught.value.code == "commit.locked"


# ------------------------------------------------------------------------------------------------- merges that had died


def tensorflow_merge(prefix: Path, count: int, renamed: int) -> None:
    """What TensorFlow's merge had done before it died: some data renamed, no index (formats 2.11, window b)."""
    for number in range(renamed):
        part = Path(f"{prefix}_temp/part-{number:05d}-of-{count:05d}.data-00000-of-00001")
        part.rename(f"{prefix}.data-{number:05d}-of-{count:05d}")


@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
def test_data_that_was_already_renamed_is_taken(tmp_path: Path, renamed: int) -> None:
    """The merge is simply run again."""
    prefix = tmp_path / "ckpt"
    write_tensorflow_parts(prefix, [{str(n): np.full(2, n)} for n in range(3)])
    tensorflow_merge(prefix, 3, renamed)
    openckpt.merge_parts(prefix)
    assert values(prefix) == {str(n): [n, n] for n in range(3)} and len(names(tmp_path)) == 4


def test_an_index_that_was_cut_short_is_replaced_when_asked(tmp_path: Path) -> None:
    """TensorFlow writes it in place (formats 2.11, window c); it says nothing that the parts do not."""
    prefix = tmp_path / "ckpt"
    write_tensorflow_parts(prefix, [{str(n): np.full(2, n)} for n in range(2)])
    saved = shutil.copytree(f"{prefix}_temp", tmp_path / "copy")
    openckpt.merge_parts(prefix)
    whole = Path(f"{prefix}.index").read_bytes()
    for number in range(2):
        Path(f"{prefix}.data-{number:05d}-of-00002").unlink()
    shutil.copytree(saved, f"{prefix}_temp")
    Path(f"{prefix}.index").write_bytes(whole[: len(whole) // 2])
    assert code_of(prefix) == "commit.exists"
    openckpt.merge_parts(prefix, overwrite=True)
    assert values(prefix) == {"0": [0, 0], "1": [1, 1]}


def test_a_directory_of_parts_that_is_empty_is_no_merge(tmp_path: Path) -> None:
    """Only its removal was missed (formats 2.11, window d); the checkpoint stays as it is."""
    openckpt.save(tmp_path / "ckpt", {"w": 1})
    Path(tmp_path / "ckpt_temp").mkdir()
    assert code_of(tmp_path / "ckpt", overwrite=True) == "writing.parts-missing"
    assert values(tmp_path / "ckpt") == {"w": 1}


class NoLinks(CallFS):
    """A file system without hard links."""

    def link(self, source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", target)


def test_without_hard_links_the_data_is_renamed(tmp_path: Path) -> None:
    """The result is the same."""
    save_parts(tmp_path / "ckpt", parts_of())
    openckpt.merge_parts(tmp_path / "ckpt", store=NoLinks(DISK))
    assert values(tmp_path / "ckpt") == MERGED and len(names(tmp_path)) == 3


def test_without_hard_links_a_failure_moves_the_data_back(tmp_path: Path) -> None:
    """The parts are whole again, and the next merge works."""
    prefix = tmp_path / "ckpt"
    save_parts(prefix, parts_of())
    before = names(tmp_path)

    class Failing(NoLinks):
        def rename(self, source: str, target: str) -> None:
            raise OSError(5, "Input/output error", target)

    with pytest.raises(OSError):
        openckpt.merge_parts(prefix, store=Failing(DISK))
    assert names(tmp_path) == before
    openckpt.merge_parts(prefix)
    assert values(prefix) == MERGED
