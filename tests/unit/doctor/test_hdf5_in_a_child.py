"""The doctor lets libhdf5 parse in a process of its own: its crash is a finding about the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import openckpt
from hdf5_bytes import ONES, datasets
from openckpt.formats.hdf5 import child


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.h5"
    path.write_bytes(datasets({"dense/kernel:0": ONES}))
    return str(path)


def test_crash_of_the_parser_is_a_finding(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmentation fault in the child is an error of the report, and the doctor goes on."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(child, "child_command", lambda: [sys.executable, "-c", program])

    report = openckpt.diagnose(model)

    findings = [finding for checkpoint in report.checkpoints for finding in checkpoint.findings]
    assert not report.valid
    assert [f.found for f in findings if f.code == "hdf5.parser-crashed"] == ["signal SIGSEGV"]


def test_the_doctors_own_process_never_loads_libhdf5(model: str) -> None:
    """h5py is imported by the child alone."""
    program = "import sys, openckpt; assert openckpt.diagnose(sys.argv[1]).valid; assert 'h5py' not in sys.modules"

    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
