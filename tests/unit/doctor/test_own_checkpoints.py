"""What openckpt writes is whole to openckpt: nothing above a note, in every way in which it can be saved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import openckpt
from openckpt.cli.program import run as run_program
from openckpt.formats.spec import TensorSpec
from openckpt.storage.disk import DISK
from openckpt.storage.temporary import lock_name
from openckpt.storage.writable import Durability
from runs import codes, only

CRASH: Durability = "process-crash"

KINDS: dict[str, object] = {
    "a/kernel": np.arange(24, dtype=np.float32).reshape(4, 6),
    "bfloat16": np.arange(7).astype(ml_dtypes.bfloat16),
    "bool": np.array([True, False, True]),
    "complex": np.array([1 + 2j, 3]),
    "empty": np.zeros((0, 3), np.float32),
    "int4": np.arange(-3, 4).astype(ml_dtypes.int4),
    "odd": np.arange(5, dtype=np.uint8),
    "scalar": np.array(3, np.int64),
    "strings": np.array([b"", b"a\0b", b"x" * 1000], dtype=object),
    "text": "ünïcode",
    "variant": openckpt.Variant(b"\x08\x01"),
    "w" * 300: np.zeros(3),
}


def plain(prefix: str) -> None:
    openckpt.save(prefix, KINDS, durability=CRASH)  # type: ignore[arg-type]


def as_tensorflow(prefix: str) -> None:
    openckpt.save(prefix, KINDS, layout="tensorflow", durability=CRASH)  # type: ignore[arg-type]


def quantised(prefix: str) -> None:
    openckpt.save(prefix, {"q": np.arange(5, dtype=np.int8)}, dtypes={"q": "qint8"}, durability=CRASH)


def over_once(prefix: str) -> None:
    plain(prefix)
    openckpt.save(prefix, KINDS, overwrite=True, durability=CRASH)  # type: ignore[arg-type]
    assert Path(f"{prefix}.data-00001-of-00002").exists(), "the second data file has no tensor"


def over_twice(prefix: str) -> None:
    over_once(prefix)
    openckpt.save(prefix, KINDS, overwrite=True, layout="tensorflow", durability=CRASH)  # type: ignore[arg-type]


def only_empty_tensors(prefix: str) -> None:
    openckpt.save(prefix, {"e": np.zeros(0), "f": np.zeros((2, 0), np.int32)}, durability=CRASH)


def limited(prefix: str) -> None:
    tensors = {f"w{number}": np.full((100, 7), number, np.float32) for number in range(5)}
    openckpt.save(prefix, tensors, sharding=openckpt.MaxShardSize(1000), durability=CRASH)


def limited_and_over(prefix: str) -> None:
    limited(prefix)
    tensors = {f"w{number}": np.full((100, 7), number, np.float32) for number in range(5)}
    openckpt.save(prefix, tensors, sharding=openckpt.MaxShardSize(1000), overwrite=True, durability=CRASH)


def grouped(prefix: str) -> None:
    policy = openckpt.ByGroup(lambda key, spec: len(key) % 3)
    openckpt.save(prefix, KINDS, sharding=policy, durability=CRASH)  # type: ignore[arg-type]


def in_slices(prefix: str) -> None:
    whole = np.arange(20.0).reshape(5, 4)
    pieces = {((0, 2), (0, -1)): whole[:2], ((2, 3), (0, -1)): whole[2:]}
    openckpt.save(prefix, {"w": openckpt.Sliced((5, 4), pieces), "b": np.zeros(3)}, durability=CRASH)


def streamed(prefix: str) -> None:
    specs = {"a": TensorSpec("float32", (3,), None), "b": TensorSpec("int64", (2, 2), None)}
    with openckpt.create(prefix, specs, durability=CRASH) as writer:
        writer.add("b", np.zeros((2, 2), np.int64))
        writer.add("a", np.ones(3, np.float32))


def streamed_without_specs(prefix: str) -> None:
    with openckpt.create(prefix, durability=CRASH) as writer:
        writer.add("a", np.ones(3, np.float32))
        writer.add("b", "text")


def copied(prefix: str) -> None:
    plain(prefix + "-source")
    with openckpt.open(prefix + "-source") as ckpt:
        openckpt.save(prefix, ckpt, durability=CRASH)


def merged(prefix: str) -> None:
    for part in range(3):
        openckpt.save(openckpt.part_prefix(prefix, part, 3), {f"w{part}": np.full(5, part)}, durability=CRASH)
    openckpt.merge_parts(prefix, durability=CRASH)


SAVES: tuple[Callable[[str], None], ...] = (
    plain,
    as_tensorflow,
    quantised,
    over_once,
    over_twice,
    only_empty_tensors,
    limited,
    limited_and_over,
    grouped,
    in_slices,
    streamed,
    streamed_without_specs,
    copied,
    merged,
)

QUIET = {"run.latest", "run.no-manifest", "run.name-based", "run.no-meta-graph", "bundle.safetensors-header", "bundle.padding"}  # fmt: skip


@pytest.mark.parametrize("save", SAVES)
def test_every_way_to_save_is_whole_to_the_doctor(save: Callable[[str], None], tmp_path: Path) -> None:
    """Every byte looked at; notes say what is normal, and nothing that saving leaves has a finding of its own."""
    save(str(tmp_path / "ckpt-7"))
    for path in (tmp_path, tmp_path / "ckpt-7"):
        report = openckpt.diagnose(path)
        assert report.valid
        assert codes(report) - QUIET == set(), [
            finding for finding in report.all_findings() if finding.code not in QUIET
        ]
        assert report.worst == "note"
    found = {Path(one.prefix).name: one for one in openckpt.find(tmp_path)}
    assert set(found) - {"ckpt-7-source"} == {"ckpt-7"}
    assert found["ckpt-7"].complete
    assert all(Path(name).exists() for name in found["ckpt-7"].files)


@pytest.mark.parametrize("save", SAVES)
def test_the_command_line_shows_every_way_to_save(
    save: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each tensor is listed and drawn once, whatever its data type and in whichever data file it lies."""
    prefix = str(tmp_path / "ckpt-7")
    save(prefix)
    with openckpt.open(prefix) as ckpt:
        keys = list(ckpt)
    for command in ("ls", "tree"):
        assert run_program([command, "--json", prefix]) == 0
        shown = capsys.readouterr().out
        assert "bundle-v2" in shown
        assert all(shown.count(f'"{key}"') >= 1 for key in keys if key.isascii()), command
    for key in keys:
        assert run_program(["show", prefix, key]) == 0
    assert capsys.readouterr().err == ""


def test_a_link_for_safetensors_is_no_second_checkpoint(tmp_path: Path) -> None:
    """A hard link, and a symbolic one: the same file, once found, once opened, and a note."""
    plain(str(tmp_path / "ckpt-7"))
    os.link(tmp_path / "ckpt-7.data-00000-of-00001", tmp_path / "hard.safetensors")
    (tmp_path / "soft.safetensors").symlink_to("ckpt-7.data-00000-of-00001")

    assert [Path(one.prefix).name for one in openckpt.find(tmp_path)] == ["ckpt-7"]
    report = openckpt.diagnose(tmp_path)
    assert report.worst == "note"
    assert [Path(checkpoint.prefix).name for checkpoint in report.checkpoints] == ["ckpt-7"]
    note = only(report, "run.alias")
    assert "'hard.safetensors', 'soft.safetensors'" in note.message
    with openckpt.open(tmp_path) as ckpt:
        assert ckpt.format == "bundle-v2"

    for name in ("hard.safetensors", "soft.safetensors"):  # named, it is opened as what it is
        report = openckpt.diagnose(tmp_path / name)
        assert report.worst == "note"
        assert only(report, "run.alias").where.path == str(tmp_path / name)
        with openckpt.open(tmp_path / name) as ckpt:
            assert ckpt.format == "safetensors"
            assert set(ckpt) == set(KINDS)


def test_a_copy_for_safetensors_is_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    """As is a link to a file of another directory, and one whose checkpoint is not whole."""
    plain(str(tmp_path / "ckpt-7"))
    data = tmp_path / "ckpt-7.data-00000-of-00001"
    (tmp_path / "copy.safetensors").write_bytes(data.read_bytes())
    (tmp_path / "elsewhere").mkdir()
    os.link(data, tmp_path / "elsewhere" / "link.safetensors")
    names = {Path(one.prefix).name for one in openckpt.find(tmp_path)}
    assert names == {"ckpt-7", "copy.safetensors", "link.safetensors"}

    os.link(data, tmp_path / "link.safetensors")
    (tmp_path / "ckpt-7.index").unlink()
    names = {Path(one.prefix).name for one in openckpt.find(tmp_path) if one.complete}
    assert names == {"copy.safetensors", "link.safetensors"}


def test_links_to_all_data_files_and_their_json_index_are_no_second_checkpoint(tmp_path: Path) -> None:
    """As safetensors programs know weights in several files."""
    grouped(str(tmp_path / "ckpt-7"))
    weight_map: dict[str, str] = {}
    for shard in sorted(tmp_path.glob("ckpt-7.data-*")):
        link = tmp_path / f"model-{len(weight_map):05d}.safetensors"
        os.link(shard, link)
        with openckpt.open(link) as ckpt:
            weight_map |= dict.fromkeys(ckpt, link.name)
    assert set(weight_map) == set(KINDS)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert {Path(one.prefix).name for one in openckpt.find(tmp_path)} == {"ckpt-7"}
    report = openckpt.diagnose(tmp_path)
    assert (report.worst, len(report.checkpoints)) == ("note", 1)
    assert only(report, "run.alias").where.path.endswith(".safetensors")


def test_parts_that_are_being_saved_are_no_leftovers(tmp_path: Path) -> None:
    """While a part, or the merge, holds its lock; a folder in which nobody works is what a save left."""
    prefix = str(tmp_path / "ckpt-7")
    part = openckpt.part_prefix(prefix, 0, 2)
    openckpt.save(part, {"w": np.zeros(3)}, durability=CRASH)
    assert "run.leftover-parts" in codes(openckpt.diagnose(tmp_path), "warning")
    for held in (openckpt.part_prefix(prefix, 1, 2), prefix):
        lock = DISK.try_lock(lock_name(held))
        assert lock is not None
        report = openckpt.diagnose(tmp_path)
        assert codes(report, "warning") == set()
        assert str(tmp_path / "ckpt-7_temp") in {
            finding.where.path for finding in report.all_findings() if finding.code == "run.saving"
        }
        DISK.remove(lock.path)
        DISK.close(lock)
