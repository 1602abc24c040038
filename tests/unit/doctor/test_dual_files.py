"""What the doctor makes of data files that are safetensors files too, through the public functions alone."""

from __future__ import annotations

import os
import shlex

import numpy as np
import pytest

import openckpt
from runs import Run, codes, only

VALUES = {"a": np.arange(3.0), "names": np.array([b"x", b""], object), "\udcff": np.ones(2, np.float16)}
DATA = "ckpt-7.data-00000-of-00001"


def follow(run: Run, fix: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a fix says, in this process."""
    assert fix is not None
    monkeypatch.chdir(run.directory)
    (ln, data, link), (program, command, *paths) = (shlex.split(part) for part in fix.split(" && "))
    assert (ln, program, command) == ("ln", "openckpt", "convert")
    os.link(data, link)
    openckpt.convert(*paths)


def test_a_lost_index_comes_back_from_the_header(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding gives the commands, and they give the checkpoint back, strings and odd keys included."""
    openckpt.save(str(run / "ckpt-7"), VALUES)
    os.unlink(run / "ckpt-7.index")

    finding = only(run.diagnose(), "run.index-missing")
    follow(run, finding.fix, monkeypatch)

    with openckpt.open(run / "recovered" / "ckpt-7") as again:
        assert sorted(again) == sorted(VALUES)
        for key, value in VALUES.items():
            assert again[key].tolist() == value.tolist()


def test_a_damaged_header_promises_nothing(run: Run) -> None:
    """Then only the lost file helps."""
    openckpt.save(str(run / "ckpt-7"), VALUES)
    os.unlink(run / "ckpt-7.index")
    run.write({DATA: run.read(DATA).replace(b'"F64"', b'"I64"')})

    assert "convert" not in (only(run.diagnose(), "run.index-missing").fix or "")


def test_header_and_index_that_disagree_are_a_warning(run: Run) -> None:
    """The data file of another save with the same names: both are whole, together they are not one checkpoint."""
    openckpt.save(str(run / "ckpt-7"), VALUES)
    openckpt.save(str(run / "other" / "ckpt-7"), {**VALUES, "a": np.arange(1.0, 4.0)})
    run.write({DATA: run.read(f"other/{DATA}")})

    report = run.diagnose(quick=True)

    assert only(report, "dual.differs").severity == "warning"
    assert only(report, "dual.differs").where.key == "a"
    assert "bundle.crc-mismatch" in codes(run.diagnose())
