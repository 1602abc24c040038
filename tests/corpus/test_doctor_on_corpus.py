"""The doctor over checkpoints that strangers wrote: every fault of the corpus by its code, and no false alarm anywhere else.

The expectations are written by hand from what each case is (``what`` and ``faults`` in corpus.json), not from what comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import openckpt
from oracle import corpus_cases

pytestmark = pytest.mark.corpus

ERRORS_AND_WARNINGS: dict[str, set[tuple[str, str]]] = {
    "serving-bad-half-plus-two": {("warning", "run.moved")},
    "serving-savedmodel-only-object-graph": {("warning", "run.no-saved-model")},
    "keras-bugged-fixed": {("warning", "run.optimizer-without-weights")},
    "onnx-regression-windows-manifest": {("warning", "run.moved")},
    "mtcnn-manifest-names-missing-step": {("error", "run.newest-missing")},
    "musicnn-empty-basename": {
        ("warning", "run.moved"),
        ("error", "run.newest-incomplete"),
        ("error", "bundle.shard-missing"),
    },
    "keras-molecules-lfs-pointers": {("error", "detect.lfs-pointer"), ("error", "run.none-whole")},
    "tf-agents-missing-data": {("error", "run.newest-incomplete"), ("error", "bundle.shard-missing")},
    "magenta-error-pages": {
        ("error", "detect.xml-error-page"),
        ("error", "bundle.shard-missing"),
        ("error", "run.none-whole"),
    },
    "flappybird-manifest-and-meta": {("error", "run.newest-missing"), ("error", "run.meta-only")},
    "open-spiel-two-runs-mixed": {
        ("warning", "run.mixed-models"),
        ("error", "run.newest-incomplete"),
        ("error", "bundle.shard-missing"),
    },
}
"""by case; one that is not listed must have neither"""

NOTES = {
    "t2t-two-shards": "run.no-meta-graph",
    "mtcnn-many-steps": "run.older-unlisted",
    "tfx-tuner-prefix-named-checkpoint": "run.manifest-is-prefix",
    "deepq-v1-2015": "run.leaves-directory",
    "opensim-h5f-two-formats": "run.same-name",
    "hardmaru-v1-steps": "run.same-bytes",
    "keras-bert-ckpt": "run.no-manifest",
}
"""faults and oddities that keep nobody from restoring"""


def _cases() -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in corpus_cases()] or [pytest.param({}, id="absent")]


def _records(*, lost: bool) -> list[Any]:
    found = [
        pytest.param(case["id"], record, id=f"{case['id']}/{record['prefix']}:{record['format']}")
        for case in corpus_cases()
        for record in case.get("checkpoints", ())
        if (bool(record.get("tf_lists")) and not record.get("tf_reads") if lost else not case["faults"])
    ]
    return found or [pytest.param("", {}, id="absent")]


def _above_note(report: openckpt.Report) -> set[tuple[str, str]]:
    return {(finding.severity, finding.code) for finding in report.all_findings() if finding.severity != "note"}


@pytest.mark.parametrize("case", _cases())
def test_case_has_exactly_its_faults(corpus: Path, case: dict[str, Any]) -> None:
    """Errors and warnings are those expected; a case without faults has none; notes say the rest."""
    report = openckpt.diagnose(corpus / case["id"])
    expected = ERRORS_AND_WARNINGS.get(case["id"], set())
    assert _above_note(report) == expected
    assert report.valid is not any(severity == "error" for severity, _ in expected)
    codes = {finding.code for finding in report.all_findings()}
    assert {NOTES[case["id"]]} <= codes if case["id"] in NOTES else True
    assert case["faults"] or not expected


@pytest.mark.parametrize(("case", "record"), _records(lost=False))
def test_checkpoint_of_a_faultless_case_is_clean(corpus: Path, case: str, record: dict[str, Any]) -> None:
    """Named on its own it has no error and no warning either, with all data read."""
    report = openckpt.diagnose(corpus / case / record["prefix"])
    assert _above_note(report) == set()
    assert report.valid
    assert [checkpoint.valid for checkpoint in report.checkpoints] == [True]


@pytest.mark.parametrize(("case", "record"), _records(lost=True))
def test_what_is_lost_is_said_exactly(corpus: Path, case: str, record: dict[str, Any]) -> None:
    """Records that TensorFlow lists but cannot read: all their tensors are lost, and all their parameters."""
    report = openckpt.diagnose(f"{corpus / case}/{record['prefix']}")
    (finding,) = [finding for finding in report.all_findings() if finding.code == "bundle.shard-missing"]
    parameters = 0
    for _, _, shape, _ in record["tensors"]:
        count = 1
        for length in shape:
            count *= length
        parameters += count
    assert finding.lost is not None
    assert sorted(finding.lost.tensors) == sorted(row[0] for row in record["tensors"])
    assert (finding.lost.parameters, finding.lost.of_parameters) == (parameters, parameters)
    assert not report.valid


@pytest.mark.parametrize("case", _cases())
def test_every_file_can_be_named(corpus: Path, case: dict[str, Any]) -> None:
    """Pointing at any file of the corpus gives a report, never an exception, and JSON."""
    for file in case.get("files", ()):
        form = openckpt.diagnose(corpus / case["id"] / file["as"], quick=True).to_json()
        assert set(form) == {"path", "valid", "findings", "checkpoints"}


def test_steps_of_one_agent_in_directories_of_their_own(corpus: Path) -> None:
    """Shapes change between the phases, but each phase has its own directory: nothing is mixed."""
    root = corpus / "tf-agents-checkpointer"
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        assert _above_note(openckpt.diagnose(directory)) == set()
