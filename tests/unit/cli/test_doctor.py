"""``openckpt doctor``: verdicts, exit codes and the three renderings of a report. What it finds is tested with the doctor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.schema import faults, schemas
from openckpt.cli.doctor import exit_code_of_report
from openckpt.doctor import CheckpointReport, Report
from openckpt.errors import Where
from openckpt.findings import Finding, Severity
from openckpt.formats.bundle import encode_bundle
from openckpt.storage.writing import write_folder
from unit.cli.conftest import EVIL
from unit.cli.running import Runner


def finding(severity: Severity, code: str = "run.latest") -> Finding:
    return Finding(code, severity, Where("p"), "message", "Cause.")


@pytest.mark.parametrize(
    ("own", "inner", "code"),
    [
        ([], [], 0),
        (["note"], ["note"], 0),
        (["warning"], [], 1),
        ([], ["warning"], 1),
        ([], ["error"], 1),
        (["error"], [], 1),
    ],
)
def test_exit_code_follows_the_worst_finding(own: list[Severity], inner: list[Severity], code: int) -> None:
    """Notes never count; errors and warnings do, wherever they stand."""
    checkpoint = CheckpointReport("p", "bundle-v2", 1, True, tuple(finding(severity) for severity in inner))
    report = Report("p", True, tuple(finding(severity) for severity in own), (checkpoint,))
    assert exit_code_of_report(report) == code


@pytest.mark.parametrize("code", ["path.not-found", "path.url", "storage.refused"])
def test_a_path_that_is_not_there_or_refused_is_4(code: str) -> None:
    """The doctor answers, and the exit code tells that there was nothing to examine."""
    assert exit_code_of_report(Report("p", False, (finding("error", code),), ())) == 4


def test_an_absent_path_still_has_its_json(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Programs get a document for any path."""
    answer = openckpt_cli("doctor", "--json", tmp_path / "absent")
    (document,) = answer.documents
    assert (answer.code, document["valid"]) == (4, False)
    assert faults(document, schemas()["doctor"]) == []
    assert [found["code"] for found in document["findings"]] == ["path.not-found"]


def test_the_contract_of_json(openckpt_cli: Runner, run_folder: Path, damaged: Path, tmp_path: Path) -> None:
    """One document per path and line, in order, whole and broken alike."""
    page = tmp_path / "model.ckpt.index"
    page.write_text("<html></html>" * 20)
    answer = openckpt_cli("doctor", "--json", run_folder / "ckpt-1", damaged, page, run_folder)
    assert [document["path"] for document in answer.documents] == [
        str(run_folder / "ckpt-1"), str(damaged), str(page), str(run_folder),
    ]  # fmt: skip
    for document in answer.documents:
        assert faults(document, schemas()["doctor"]) == []
    assert [document["valid"] for document in answer.documents] == [True, False, False, False]
    assert answer.code == 1


def test_damage_names_key_place_loss_and_fix(openckpt_cli: Runner, damaged: Path) -> None:
    """What was found, expected, lost, and the next command."""
    (document,) = openckpt_cli("doctor", "--json", damaged).documents
    findings = [found for checkpoint in document["checkpoints"] for found in checkpoint["findings"]]
    (found,) = [found for found in findings if found["code"] == "bundle.crc-mismatch"]
    assert found["severity"] == "error"
    assert found["where"]["key"] in ("dense/kernel", "dense/bias")
    assert found["where"]["path"].endswith("ckpt-2.data-00000-of-00002")
    assert found["found"] and found["expected"] and found["fix"] and found["cause"]
    assert found["lost"]["of_parameters"] == 17


def test_quick_reads_no_data(openckpt_cli: Runner, damaged: Path) -> None:
    """A flipped byte in the data is beyond --quick, and only there."""
    assert openckpt_cli("doctor", damaged).code == 1
    answer = openckpt_cli("doctor", "--quick", damaged)
    assert answer.code == 0
    assert answer.out.splitlines()[0].endswith("tensor data was not read")


def test_text_says_all_of_an_error(openckpt_cli: Runner, damaged: Path) -> None:
    """Verdict, severity, code, place, cause, loss and fix."""
    out = openckpt_cli("doctor", damaged).out
    assert out.splitlines()[0].startswith(f"{damaged}  not valid (1 error")
    assert "  error    " in out
    assert "[bundle.crc-mismatch]" in out
    for label in ("where", "cause", "lost", "fix"):
        assert f"\n    {label}" in out


def test_a_whole_checkpoint_is_one_word(openckpt_cli: Runner, run_folder: Path) -> None:
    """Nothing wrong, nothing to read."""
    answer = openckpt_cli("doctor", run_folder / "ckpt-1")
    assert answer.code == 0
    assert answer.out.splitlines()[0].startswith(f"{run_folder / 'ckpt-1'}  valid")
    assert "error" not in answer.out and "warning" not in answer.out


def test_many_findings_of_one_code_are_told_once(openckpt_cli: Runner, tmp_path: Path) -> None:
    """A shard of garbage is one story with a count, not a hundred; --verbose tells each."""
    files = encode_bundle({f"w{number:02d}": np.ones(8, "f4") for number in range(20)}, "m")
    files["m.data-00000-of-00001"] = bytes(b ^ 0xFF for b in files["m.data-00000-of-00001"])
    write_folder(str(tmp_path), files)
    out = openckpt_cli("doctor", tmp_path / "m").out
    assert out.count("[bundle.crc-mismatch]") == 1
    assert "and 16 more of this code; --verbose shows all" in out
    assert openckpt_cli("doctor", "--verbose", tmp_path / "m").out.count("[bundle.crc-mismatch]") == 20


def test_each_finding_of_a_code_has_its_own_next_step(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Two manifests that lie are mended by two commands, and both are told."""
    for name in ("a", "b"):
        files = encode_bundle({"w": np.ones(8, "f4")}, "m-1")
        write_folder(str(tmp_path / name), {**files, "checkpoint": b'model_checkpoint_path: "m-2"'})
    out = openckpt_cli("doctor", tmp_path).out
    assert out.count("[run.newest-missing]") == 1
    for name in ("a", "b"):
        assert f"> {tmp_path / name / 'checkpoint'}" in out


def test_notes_that_all_steps_share_are_said_once(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Hundreds of steps of one run do not drown the point; --verbose says all."""
    for step in (1, 2, 3):
        write_folder(str(tmp_path), encode_bundle({"w": np.full(8, step, "f4")}, f"m-{step}"))
    out = openckpt_cli("doctor", tmp_path).out
    assert out.count("[run.name-based]") == 1
    assert out.count("notes as above") == 2
    assert out.count(" whole") == 3
    assert openckpt_cli("doctor", "-v", tmp_path).out.count("[run.name-based]") == 3


def test_names_from_files_are_escaped(openckpt_cli: Runner, tmp_path: Path) -> None:
    """A damaged tensor with a hostile name is told without obeying it."""
    files = encode_bundle({EVIL: np.ones(8, "f4")}, "m")
    files["m.data-00000-of-00001"] = bytes(32)
    write_folder(str(tmp_path), files)
    answer = openckpt_cli("doctor", tmp_path / "m")
    assert answer.code == 1
    assert not set("\x1b\x07\u202e") & set(answer.out)
    assert "evil\\x1b]0;owned" in answer.out
