"""``openckpt find``: rows as they come, states, and what else was met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.schema import faults, schemas
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.manifest import Manifest, encode_manifest
from openckpt.storage.writing import write_folder
from unit.cli.running import Runner


@pytest.fixture
def tree(tmp_path: Path, run_folder: Path) -> Path:
    """Three runs: a whole one with a forgotten third step, one with a missing shard, one with only leftovers."""
    write_folder(str(run_folder), encode_bundle({"w": np.zeros(1, "f4")}, "ckpt-3"))
    broken = encode_bundle({"a": np.zeros(1, "f4"), "b": np.zeros(1, "f4")}, "model", shards=2)
    del broken["model.data-00001-of-00002"]
    write_folder(str(tmp_path / "broken"), broken)
    write_folder(str(tmp_path / "killed"), {"ckpt-1_temp/part-00000-of-00001.index": b""})
    damaged = encode_bundle({"a": np.zeros(1, "f4")}, "model")
    write_folder(str(tmp_path / "page"), {**damaged, "model.index": b"<!DOCTYPE html><html></html>"})
    return tmp_path


def test_json_follows_the_documented_schema(openckpt_cli: Runner, tree: Path) -> None:
    """One document for the root, the contract's fields with their meaning."""
    (document,) = openckpt_cli("find", "--json", tree).documents
    assert faults(document, schemas()["find"]) == []
    assert document["root"] == str(tree)
    rows = {Path(row["prefix"]).relative_to(tree).as_posix(): row for row in document["checkpoints"]}
    assert sorted(rows) == ["broken/model", "page/model", "run/ckpt-1", "run/ckpt-2", "run/ckpt-3"]
    assert [rows[f"run/ckpt-{step}"]["listed"] for step in (1, 2, 3)] == [True, True, False]
    assert [rows[f"run/ckpt-{step}"]["forgotten"] for step in (1, 2, 3)] == [False, False, True]
    assert (rows["broken/model"]["complete"], rows["broken/model"]["missing"]) == (False, ["model.data-00001-of-00002"])
    assert rows["run/ckpt-2"]["step"] == 2
    assert rows["run/ckpt-2"]["bytes"] == sum(Path(name).stat().st_size for name in rows["run/ckpt-2"]["files"])
    assert "run.leftover-parts" in [finding["code"] for finding in document["findings"]]


def test_the_table_marks_states(openckpt_cli: Runner, tree: Path) -> None:
    """newest, listed, forgotten, incomplete and damaged, with what is missing below."""
    answer = openckpt_cli("find", tree)
    assert answer.code == 0
    states = {}
    for line in answer.out.splitlines():
        words = line.split()
        if words[0] == "bundle-v2":
            states[Path(words[-1]).relative_to(tree).as_posix()] = words[-2]
    assert states == {
        "run/ckpt-1": "listed", "run/ckpt-2": "newest", "run/ckpt-3": "forgotten", "broken/model": "incomplete",
        "page/model": "damaged",
    }  # fmt: skip
    assert "    missing: model.data-00001-of-00002" in answer.out.splitlines()
    assert "[run.leftover-parts]" in answer.out
    assert answer.out.splitlines()[-1].startswith("5 checkpoints in 3 runs, 3 complete, 1 forgotten, ")


def test_nothing_found_is_1(openckpt_cli: Runner, tmp_path: Path) -> None:
    """An empty tree is an answer."""
    (tmp_path / "empty").mkdir()
    answer = openckpt_cli("find", tmp_path / "empty")
    assert (answer.code, answer.out) == (1, f"no checkpoint below {tmp_path / 'empty'}\n")
    answer = openckpt_cli("find", "--json", tmp_path / "empty")
    assert (answer.code, answer.documents[0]["checkpoints"]) == (1, [])


def test_without_a_root_it_searches_here(
    openckpt_cli: Runner, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`openckpt find` in a run lists it, with prefixes that work from there."""
    monkeypatch.chdir(run_folder)
    (document,) = openckpt_cli("find", "--json").documents
    for row in document["checkpoints"]:
        assert openckpt_cli("ls", row["prefix"]).code == 0


def test_archives_are_looked_into_unless_not_wanted(openckpt_cli: Runner, run_folder: Path, tmp_path: Path) -> None:
    """A packed run is found in its archive, and its prefix works as a path."""
    import tarfile

    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "run.tar.gz", "w:gz") as archive:
        archive.add(run_folder, "run")
    (document,) = openckpt_cli("find", "--json", tmp_path / "packed").documents
    prefixes = [row["prefix"] for row in document["checkpoints"]]
    assert prefixes == [f"{tmp_path / 'packed' / 'run.tar.gz'}!run/ckpt-{step}" for step in (1, 2)]
    assert openckpt_cli("ls", prefixes[0]).code == 0
    assert openckpt_cli("find", "--no-archives", tmp_path / "packed").code == 1


def test_rows_come_as_they_are_found(openckpt_cli: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of hours shows its first row at once: nothing waits for the end."""
    import openckpt
    from openckpt.finding import FoundCheckpoint

    seen = []

    def search(_root: str, **_options: object):  # type: ignore[no-untyped-def]
        for number in range(3):
            seen.append(f"found {number}")
            yield FoundCheckpoint(f"p-{number}", "bundle-v2", number, True, 1, (), False)

    from openckpt.cli import find as module

    def add(self: object, found: FoundCheckpoint) -> None:
        seen.append(f"printed {found.step}")

    monkeypatch.setattr(openckpt, "find", search)
    monkeypatch.setattr(module._Table, "add", add)
    openckpt_cli("find", "x")
    assert seen == ["found 0", "printed 0", "found 1", "printed 1", "found 2", "printed 2"]


def test_a_manifest_that_lists_only_what_is_gone_forgets_the_rest(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Forgotten means not listed where there is a manifest, whatever that names."""
    files = encode_bundle({"w": np.zeros(1, "f4")}, "ckpt-1")
    write_folder(str(tmp_path), {**files, "checkpoint": encode_manifest(Manifest("ckpt-9", ("ckpt-9",)))})
    (document,) = openckpt_cli("find", "--json", tmp_path).documents
    assert [row["forgotten"] for row in document["checkpoints"]] == [True]
