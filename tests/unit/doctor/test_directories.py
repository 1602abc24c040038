"""Directories, trees and archives: which checkpoint is meant, what the steps say of each other, what lies beside."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import openckpt
from containers import zipped
from openckpt.doctor.mixing import difference
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.spec import TensorSpec
from openckpt.storage import FileStat
from openckpt.storage.local import LocalStore
from runs import Run, codes, only, weights


def test_healthy_directory_has_notes_only(run: Run) -> None:
    """Three steps and their manifest: nothing above a note, all three looked at, the newest first."""
    run.whole(5, 6, 7)
    report = run.diagnose()
    assert report.valid
    assert report.worst == "note"
    assert [(checkpoint.prefix, checkpoint.step) for checkpoint in report.checkpoints] == [
        (str(run / f"ckpt-{step}"), step) for step in (7, 6, 5)
    ]


def test_report_is_json_of_the_documented_form(run: Run) -> None:
    """The keys other programs rely on, in a form that json takes."""
    run.whole(7)
    run.remove("ckpt-7.data-00000-of-00001")
    form = json.loads(json.dumps(run.diagnose().to_json()))
    assert list(form) == ["path", "valid", "findings", "checkpoints"]
    (checkpoint,) = form["checkpoints"]
    assert list(checkpoint) == ["prefix", "format", "step", "valid", "findings"]
    missing = checkpoint["findings"][0]
    assert list(missing) == ["code", "severity", "where", "message", "found", "expected", "cause", "lost", "fix"]
    assert list(missing["where"]) == ["path", "key", "offset"]
    assert list(missing["lost"]) == ["tensors", "parameters", "of_parameters"]


def test_older_damage_does_not_make_a_directory_invalid(run: Run) -> None:
    """valid is about the newest checkpoint; the older one is reported all the same."""
    run.whole(6, 7)
    run.remove("ckpt-6.data-00000-of-00001")
    report = run.diagnose()
    assert report.valid
    assert report.worst == "error"
    assert [checkpoint.valid for checkpoint in report.checkpoints] == [True, False]


def test_newest_by_the_manifest_decides(run: Run) -> None:
    """A damaged newest makes the directory invalid, and the newest whole one is named."""
    run.whole(6, 7)
    run.write({"ckpt-7.data-00000-of-00001": b""})
    report = run.diagnose()
    assert not report.valid
    assert only(report, "run.latest").where.path == str(run / "ckpt-6")


def test_older_entries_that_were_swept_are_a_note(run: Run) -> None:
    """A manifest that still lists removed checkpoints is normal life."""
    run.save(7)
    run.manifest("ckpt-7", "ckpt-5", "ckpt-6")
    report = run.diagnose()
    assert report.worst == "note"
    assert "'ckpt-5', 'ckpt-6'" in only(report, "run.older-missing").message


def test_restarted_run_is_a_note(run: Run) -> None:
    """The newest by the manifest has a lower step than listed ones: a training that was restarted, nothing is unlisted."""
    for step in (0, 4):
        run.save(step)
    run.manifest("ckpt-0", "ckpt-4")
    assert run.diagnose().worst == "note"


def test_two_models_in_one_directory(run: Run) -> None:
    """Steps of one name whose tensors have other shapes: a warning that names the tensors."""
    run.whole(7)
    run.write(encode_bundle({"dense/kernel": np.zeros((4, 9), np.float32)}, "ckpt-6"))
    report = run.diagnose()
    finding = only(report, "run.mixed-models")
    assert report.valid
    assert finding.severity == "warning"
    assert "dense/kernel" in finding.message


def test_models_of_other_names_do_not_mix(run: Run) -> None:
    """An actor and a critic side by side are two runs."""
    run.write(encode_bundle({"w": np.zeros((4, 9), np.float32)}, "actor-7"))
    run.write(encode_bundle({"w": np.zeros((3, 2), np.float32)}, "critic-7"))
    assert run.diagnose().worst == "note"


def test_slots_that_appear_are_a_note(run: Run) -> None:
    """The first save has no optimizer slots yet: the run has grown, not changed."""
    run.save(2)
    run.write(encode_bundle({"dense/bias": weights()["dense/bias"]}, "ckpt-1"))
    report = run.diagnose()
    assert report.worst == "note"
    assert only(report, "run.grown").where.path == str(run / "ckpt-1")


def test_object_based_keys_that_move_are_the_same_model() -> None:
    """Keras 3 variables get other keys once the optimizer is built (formats 6.5): same shapes, more of them."""
    graph = {"_CHECKPOINTABLE_OBJECT_GRAPH": TensorSpec("string", (), 10)}
    before = graph | {"model/kernel": TensorSpec("float32", (2, 3), 24)}
    after = graph | {"opt/0": TensorSpec("float32", (2, 3), 24), "opt/m": TensorSpec("float32", (2, 3), 24)}
    assert not difference(after, before).other_model
    assert difference(after, graph | {"model/kernel": TensorSpec("float32", (9,), 36)}).other_model


def test_lookup_tables_may_grow() -> None:
    """Tensors of lookup tables have no fixed shape."""
    key = "table/.ATTRIBUTES/table-keys"
    assert not difference({key: TensorSpec("int64", (5,), 40)}, {key: TensorSpec("int64", (9,), 72)}).other_model


def test_same_bytes_are_a_note(run: Run) -> None:
    """Two steps that hold the same values."""
    run.write(encode_bundle(weights(1), "ckpt-1") | encode_bundle(weights(1), "ckpt-2"))
    report = run.diagnose()
    assert report.worst == "note"
    assert only(report, "run.same-bytes").where.path == str(run / "ckpt-2")


def test_file_and_prefix_of_one_name(run: Run) -> None:
    """The literal file is judged under its name, and a note names the other."""
    run.write(encode_bundle(weights(), "model.npz"))
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(3))
    run.write({"model.npz": buffer.getvalue()})
    report = run.diagnose("model.npz")
    assert [checkpoint.format for checkpoint in report.checkpoints] == ["npz"]
    assert only(report, "run.same-name").severity == "note"
    assert [checkpoint.format for checkpoint in run.diagnose("model.npz.index").checkpoints] == ["bundle-v2"]


def test_directory_and_prefix_of_one_name(run: Run) -> None:
    """A directory without checkpoints beside a prefix of its name: the prefix is meant."""
    run.save(7)
    (run / "ckpt-7").mkdir()
    assert [checkpoint.prefix for checkpoint in run.diagnose("ckpt-7").checkpoints] == [str(run / "ckpt-7")]
    Run(run / "ckpt-7").whole(3)
    assert [checkpoint.step for checkpoint in run.diagnose("ckpt-7").checkpoints] == [3]


def test_prefix_called_checkpoint(run: Run) -> None:
    """The manifest's own name as a prefix: the directory is whole, the note says that one name means two things."""
    run.write(encode_bundle(weights(), "checkpoint"))
    run.manifest("checkpoint")
    report = run.diagnose()
    assert report.worst == "note"
    assert only(report, "run.manifest-is-prefix")
    assert [checkpoint.prefix for checkpoint in report.checkpoints] == [str(run / "checkpoint")]


def test_empty_directory_has_nothing(run: Run) -> None:
    """No checkpoint here or below is an error."""
    (run / "empty").mkdir()
    report = run.diagnose()
    assert not report.valid
    finding = only(report, "run.none")
    assert finding.severity == "error"
    assert finding.fix == f"openckpt find {run.directory.parent}"  # below it everything has been looked at


def test_graphs_without_values(run: Run) -> None:
    """Only .meta files and a manifest."""
    run.write({"ckpt-7.meta": b"\x0a\x00"})
    run.manifest("ckpt-7")
    report = run.diagnose()
    assert not report.valid
    assert {"run.meta-only", "run.newest-missing"} <= codes(report, "error")


def test_tree_is_examined_directory_by_directory(run: Run) -> None:
    """A folder of runs: each is judged on its own, and the worst decides."""
    for name in ("a", "b/c"):
        inner = Run(run / name)
        inner.directory.mkdir(parents=True)
        inner.whole(7)
    assert run.diagnose().valid
    (run / "a/ckpt-7.index").unlink()
    report = run.diagnose()
    assert not report.valid
    assert [checkpoint.valid for checkpoint in report.checkpoints] == [False, True]
    assert "2 checkpoints in 2 directories" in only(report, "run.below").message


def test_checkpoints_below_a_run_are_mentioned(run: Run) -> None:
    """A directory with checkpoints of its own is not a tree: what lies below is only mentioned."""
    run.whole(7)
    Run(run / "best").directory.mkdir()
    Run(run / "best").whole(3)
    report = run.diagnose()
    assert len(report.checkpoints) == 1
    assert only(report, "run.not-entered").where.path == str(run / "best")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archive_is_examined_in_place(run: Run, tmp_path: Path, kind: str) -> None:
    """The same findings inside an archive, and nothing is unpacked."""
    run.whole(6, 7)
    run.remove("ckpt-6.data-00000-of-00001")
    archive = tmp_path / f"zoo.{kind}"
    if kind == "zip":
        archive.write_bytes(zipped({f"zoo/{path.name}": path.read_bytes() for path in run.directory.iterdir()}))
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as packed_tar:
            packed_tar.add(run.directory, "zoo")
    before = sorted(tmp_path.rglob("*"))
    report = openckpt.diagnose(archive)
    assert report.valid
    assert [checkpoint.prefix for checkpoint in report.checkpoints] == [
        f"{archive}!zoo/ckpt-7",
        f"{archive}!zoo/ckpt-6",
    ]
    assert only(report, "bundle.shard-missing").lost is not None
    assert openckpt.diagnose(f"{archive}!zoo/ckpt-7").valid
    assert not openckpt.diagnose(f"{archive}!zoo/ckpt-6").valid
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_beside_are_told_from_error_pages(run: Run) -> None:
    """A download that is an error page counts as a broken checkpoint; real archives are only mentioned."""
    run.write({"model.mag": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"})
    report = run.diagnose()
    assert not report.valid
    assert only(report, "detect.xml-error-page")
    run.save(7)
    run.write({"whole.zip": zipped({"a": b"b"})})
    assert only(run.diagnose(), "run.archives").severity == "note"


def test_folder_of_downloads_is_looked_into(run: Run) -> None:
    """With nothing but archives in it, a directory stands for what they hold."""
    for name, step in (("a.zip", 6), ("b.zip", 7)):
        files = encode_bundle(weights(step), f"ckpt-{step}")
        kept = {file: data if step == 7 or file.endswith(".index") else data[:50] for file, data in files.items()}
        run.write({name: zipped({f"inside/{file}": data for file, data in kept.items()})})
    report = run.diagnose()
    assert not report.valid
    assert [(checkpoint.prefix, checkpoint.valid) for checkpoint in report.checkpoints] == [
        (f"{run / 'a.zip'}!inside/ckpt-6", False),
        (f"{run / 'b.zip'}!inside/ckpt-7", True),
    ]


def test_archives_inside_an_archive_are_looked_into(run: Run) -> None:
    """One level of nesting, as everywhere; the archive inside need not be named."""
    inner = zipped({f"zoo/{file}": data for file, data in encode_bundle(weights(7), "ckpt-7").items()})
    run.write({"outer.zip": zipped({"inner.zip": inner})})
    for path in (run / "outer.zip", f"{run / 'outer.zip'}!inner.zip", run.directory):
        report = openckpt.diagnose(path)
        assert report.valid and report.worst == "note", path
        assert [item.prefix for item in report.checkpoints] == [f"{run / 'outer.zip'}!inner.zip!zoo/ckpt-7"]


def test_downloads_and_unpacked_ones_side_by_side(run: Run) -> None:
    """Archives and directories of one folder are both looked into; an archive of something else is no fault."""
    run.write({"dataset.zip": zipped({"images/1.txt": b"x"})})
    assert codes(run.diagnose(), "error") == {"run.none"}
    run.write({"model.zip": zipped(encode_bundle(weights(6), "ckpt-6"))})
    inner = Run(run / "unpacked")
    inner.directory.mkdir()
    inner.whole(7)
    report = run.diagnose()
    assert report.valid and report.worst == "note"
    assert [checkpoint.step for checkpoint in report.checkpoints] == [6, 7]


def test_a_saved_model_hides_nothing(run: Run) -> None:
    """Its own variables were looked at, and the note about directories that were not leaves them out."""
    run.write({f"variables/{name}": data for name, data in encode_bundle(weights(), "variables").items()})
    run.write({"saved_model.pb": b"\x08\x01"})
    assert "run.not-entered" not in codes(run.diagnose())
    for name in ("old", "older"):
        run.write({f"{name}/{file}": data for file, data in encode_bundle(weights(), "ckpt-1").items()})
    assert "'old', 'older'" in only(run.diagnose(), "run.not-entered").message


def test_directory_of_a_tree_that_the_system_refuses_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be looked at is a warning, not a silence; one that is removed meanwhile is none."""
    for name in ("open", "closed", "removed"):
        inner = Run(run / name)
        inner.directory.mkdir()
        inner.whole(7)
    real = LocalStore.scan

    def scan(self: LocalStore, path: str) -> list[FileStat]:
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied", path)
        if path.endswith("/removed"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return real(self, path)

    monkeypatch.setattr(LocalStore, "scan", scan)
    report = run.diagnose()
    assert report.valid and len(report.checkpoints) == 1
    (finding,) = [finding for finding in report.findings if finding.severity == "warning"]
    assert (finding.code, finding.where.path) == ("path.unreadable", str(run / "closed"))
    assert finding.message == "the system refused: Permission denied"


def test_leftovers_alone_are_no_checkpoint(run: Run) -> None:
    """A directory with nothing but what an interrupted first save left is not valid; one with runs below is a tree."""
    run.write({"ckpt-1_temp/part-00000-of-00001.data-00000-of-00001": b"abc"})
    report = run.diagnose()
    assert not report.valid
    assert {"run.none", "run.leftover-parts"} <= codes(report)
    inner = Run(run / "inner")
    inner.directory.mkdir()
    inner.whole(7)
    report = run.diagnose()
    assert report.valid
    assert [checkpoint.step for checkpoint in report.checkpoints] == [7]


def test_progress_is_told(run: Run) -> None:
    """Long work calls back with what, done and total."""
    run.whole(6, 7)
    said: list[tuple[str, int, int | None]] = []
    run.diagnose(progress=lambda what, done, total: said.append((what, done, total)))
    assert said
    assert all(total is None or done <= total for _, done, total in said)


def test_quick_reads_no_data_and_imports_no_numpy(run: Run) -> None:
    """A quick look at a directory stays in the standard library and the index."""
    run.whole(6, 7)
    program = (
        "import sys, openckpt; r = openckpt.diagnose(sys.argv[1], quick=True); print(r.valid, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.directory)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_absent_and_refused_paths_are_findings(tmp_path: Path) -> None:
    """Nothing is raised: no such directory, an empty name, a name that cannot be one."""
    for path in (tmp_path / "no/such/ckpt-1", "", "a\0b", tmp_path / ("x" * 300)):
        report = openckpt.diagnose(path)
        assert not report.valid
        assert codes(report, "error") == {"path.not-found"}, path


def test_saved_model_is_examined_with_its_variables(run: Run) -> None:
    """An empty saved_model.pb is an error; the variables inside are whole all the same."""
    run.write({f"variables/{name}": data for name, data in encode_bundle(weights(), "variables").items()})
    run.write({"saved_model.pb": b""})
    report = run.diagnose()
    assert not report.valid
    assert codes(report, "error") == {"savedmodel.empty"}
    assert [(checkpoint.prefix, checkpoint.valid) for checkpoint in report.checkpoints] == [
        (str(run / "variables/variables"), True)
    ]


def test_saved_model_without_its_graph(run: Run) -> None:
    """fingerprint.pb gives it away: a warning, since the variables can be read."""
    run.write({f"variables/{name}": data for name, data in encode_bundle(weights(), "variables").items()})
    run.write({"fingerprint.pb": b"\x08\x01"})
    report = run.diagnose()
    assert report.valid
    assert only(report, "run.no-saved-model").severity == "warning"


def test_damaged_meta_graph_is_a_warning(run: Run) -> None:
    """No tensor depends on the .meta file."""
    run.whole(7)
    run.write({"ckpt-7.meta": b"\xff\xff\xff"})
    report = run.diagnose()
    assert report.valid
    assert codes(report, "warning") == {"meta.does-not-parse"}
