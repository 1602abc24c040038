"""``openckpt demo``: what it writes is what it says, and it writes into nothing that is not its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import openckpt
from docs.schema import faults, schemas
from openckpt.cli.demo_cases import Case, demo_cases, model_graph, model_tensors
from openckpt.storage.writing import write_folder
from unit.cli.running import Runner

CASES = demo_cases()


def test_there_are_healthy_and_broken_cases() -> None:
    """Every folder has its own name and a sentence about it."""
    assert len({case.name for case in CASES}) == len(CASES) >= 12
    assert {case.code is None for case in CASES} == {True, False}
    assert all(case.summary.endswith(".") for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_doctor_says_of_each_case_what_it_is_there_to_show(case: Case, tmp_path: Path) -> None:
    """A broken case gives its code, a healthy one nothing but notes."""
    write_folder(str(tmp_path / case.name), case.files)
    report = openckpt.diagnose(tmp_path / case.name)
    assert case.is_told_by(report), [(finding.code, finding.severity) for finding in report.all_findings()]


MENDED_BY_ONE_COMMAND = {"moved", "forgotten-step", "newest-deleted", "renamed-manifest", "interrupted-save"}


@pytest.mark.skipif(os.name == "nt", reason="fixes are commands of a POSIX shell")
@pytest.mark.parametrize("case", [c for c in CASES if c.name in MENDED_BY_ONE_COMMAND], ids=lambda case: case.name)
def test_the_fix_that_is_shown_mends_the_case(case: Case, tmp_path: Path) -> None:
    """Whoever copies the command from the screen has a checkpoint without errors and warnings."""
    folder = tmp_path / "it's a demo; really" / case.name
    write_folder(str(folder), case.files)
    (fix,) = [finding.fix for finding in openckpt.diagnose(folder).all_findings() if finding.code == case.code]
    assert fix is not None
    command = re.sub(r"^(if|when) [^:]*: ", "", fix)
    subprocess.run(["bash", "-euc", command], check=True, timeout=60)
    assert openckpt.diagnose(folder).worst in (None, "note")


def test_the_demo_is_deterministic() -> None:
    """The same bytes on every machine and every day."""
    assert [case.files for case in demo_cases()] == [case.files for case in CASES]


def test_every_tensor_of_the_model_has_its_place_in_the_graph() -> None:
    """The hand-made graph fits the hand-made tensors: same keys, and each slot belongs to a variable."""
    graph = model_graph()
    assert set(graph.attributes) == set(model_tensors(1))
    for record in graph.nodes[2].slot_variables:
        variable = graph.nodes[record.original_variable_node_id].attributes[0].checkpoint_key
        slot = graph.nodes[record.slot_variable_node_id].attributes[0].checkpoint_key
        assert slot == variable.replace("/.ATTRIBUTES", f"/.OPTIMIZER_SLOT/optimizer/{record.slot_name}/.ATTRIBUTES")


def test_it_writes_examines_and_says_what_is_next(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Every folder is told with its state, and the commands at the end work."""
    import shlex

    folder = tmp_path / "my demo"
    answer = openckpt_cli("demo", folder)
    assert (answer.code, answer.err) == (0, "")
    for case in CASES:
        assert f"{folder}/{case.name}  " in answer.out
    commands = [line.strip() for line in answer.out.splitlines() if line.startswith("  openckpt ")]
    assert len(commands) >= 4
    for command in commands:
        assert openckpt_cli(*shlex.split(command)[1:]).code in (0, 1), command


def test_it_runs_again_over_its_own_folder(openckpt_cli: Runner, tmp_path: Path) -> None:
    """What was changed in between is as before."""
    openckpt_cli("demo", tmp_path / "demo")
    victim = tmp_path / "demo" / "healthy" / "ckpt-1.index"
    before = victim.read_bytes()
    victim.write_bytes(b"broken by a curious user")
    assert openckpt_cli("demo", tmp_path / "demo").code == 0
    assert victim.read_bytes() == before


def test_an_empty_directory_is_taken(openckpt_cli: Runner, tmp_path: Path) -> None:
    """`mkdir demo && openckpt demo demo` is what people do."""
    (tmp_path / "demo").mkdir()
    assert openckpt_cli("demo", tmp_path / "demo").code == 0


def test_a_directory_of_others_is_refused(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Nothing is written where somebody else's files lie, nor in place of a file."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("mine")
    answer = openckpt_cli("demo", tmp_path / "work")
    assert answer.code == 2
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["thesis.tex"]
    assert openckpt_cli("demo", tmp_path / "work" / "thesis.tex").code == 2
    assert (tmp_path / "work" / "thesis.tex").read_text() == "mine"


def test_json_is_one_report_per_folder(openckpt_cli: Runner, tmp_path: Path) -> None:
    """The documents of the doctor, as documented."""
    answer = openckpt_cli("demo", "--json", tmp_path / "demo")
    assert len(answer.documents) == len(CASES)
    assert [fault for document in answer.documents for fault in faults(document, schemas()["doctor"])] == []
