"""libhdf5 in a process of its own: equal answers, and every way to die is a finding."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hdf5_bytes import ONES, datasets, hdf5, legacy_weights
from openckpt.errors import CorruptionError
from openckpt.formats.hdf5.child import child_command, inspect_hdf5_in_child
from openckpt.formats.hdf5.report import HDF5Report, report_from_json
from openckpt.formats.hdf5.walk import inspect_hdf5
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.limits import Limits
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemorySource, MemoryStore

MODEL = hdf5(legacy_weights({"dense": {"dense/kernel:0": ONES}, "drop": {}}))


def codes(report: HDF5Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_report_survives_json() -> None:
    """What the child writes is what it saw, names that are no UTF-8 included."""
    data = hdf5(lambda file: file.create_dataset(b"na\xffme", data=ONES))
    report = inspect_hdf5(MemorySource("x.h5", data))

    assert report.datasets[0].path == "na\udcffme"
    assert report_from_json(json.loads(json.dumps(report.to_json()))) == report


def test_child_and_parent_see_the_same(tmp_path: Path) -> None:
    """A local file is opened by the child; any other source is sent to it."""
    path = tmp_path / "x.h5"
    path.write_bytes(MODEL)
    here = inspect_hdf5(LOCAL.open(str(path)))

    assert inspect_hdf5_in_child(str(path)) == here
    assert inspect_hdf5_in_child(MemorySource(str(path), MODEL)) == here
    assert here.attributes.layer_names == ("dense", "drop")


def test_damage_that_the_child_finds_is_a_problem_of_the_report() -> None:
    """A truncated file, a limit, a damaged chunk: the code is that of the parser in this process."""
    chunked = bytearray(datasets({"a": ONES}, fletcher32=True, chunks=(2, 3)))
    chunked[chunked.index(ONES.tobytes())] ^= 1

    assert codes(inspect_hdf5_in_child(MemorySource("x.h5", MODEL[:-1]))) == ["hdf5.truncated"]
    assert codes(inspect_hdf5_in_child(MemorySource("x.h5", MODEL), limits=Limits(hdf5_objects=1))) == [
        "limits.exceeded"
    ]
    assert codes(inspect_hdf5_in_child(MemorySource("x.h5", bytes(chunked)))) == []
    assert codes(inspect_hdf5_in_child(MemorySource("x.h5", bytes(chunked)), data=True)) == ["hdf5.chunk-checksum"]


def test_isolated_reader_reads_and_validates_equal() -> None:
    """`isolated` changes who parses, not what is read."""
    store = MemoryStore({"x.h5": MODEL})

    with_child, without = (open_hdf5(store, "x.h5", isolated=isolated) for isolated in (True, False))

    assert list(with_child.items()) == list(without.items())
    assert with_child.read("dense/dense/kernel:0").tolist() == ONES.tolist()
    assert list(with_child.validate()) == list(without.validate()) == []


def test_an_absent_file_is_the_callers_error(tmp_path: Path) -> None:
    """No child is started for it."""
    with pytest.raises(FileNotFoundError):
        inspect_hdf5_in_child(str(tmp_path / "none.h5"))


DEATHS = {
    "a segmentation fault": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
    "an abort": ("import os; os.abort()", "signal SIGABRT"),
    "an exit": ("import sys; sys.exit(3)", "exit status 3"),
    "no memory": ("import sys; sys.exit(77)", "out of memory"),
    "silence": ("pass", "an answer that is no report"),
    "nonsense": ("print('{\"datasets\": 3}')", "an answer that is no report"),
    "nested nonsense": ("print('[' * 100000)", "an answer that is no report"),
    "a report about something else": (
        (
            "import json; print(json.dumps({'path': 'y', 'datasets': [], 'problems': [], 'fatal': None, 'attributes': "
            "{'layer_names': [], 'lambda_layers': [], 'optimizer_weight_names': [], 'weight_names': {}}}))"
        ),
        "an answer about another file",
    ),
}


@pytest.mark.parametrize("name", DEATHS)
def test_every_death_is_a_finding(name: str) -> None:
    """Whatever happens to the child, the parent gets a report that says so."""
    program, found = DEATHS[name]

    report = inspect_hdf5_in_child(MemorySource("x.h5", MODEL), command=[sys.executable, "-c", program])

    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.found) == ("hdf5.parser-crashed", "error", found)
    assert report.fatal is not None


def test_a_child_that_hangs_is_killed() -> None:
    """A parser in an endless loop costs the time that it was given, no more."""
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]

    (finding,) = inspect_hdf5_in_child(MemorySource("x.h5", MODEL), timeout=0.2, command=command).findings

    assert finding.code == "hdf5.parser-crashed"
    assert finding.found == "no answer in 0.2 seconds"


def test_a_child_that_talks_without_end_is_killed() -> None:
    """The answer is capped like any other JSON."""
    command = [sys.executable, "-c", "while True: print('x' * 1000)"]

    (finding,) = inspect_hdf5_in_child(
        MemorySource("x.h5", MODEL), limits=Limits(json_bytes=10_000), command=command
    ).findings

    assert finding.found == "an answer of more than 10000 bytes"


def test_a_real_child_that_is_killed_while_it_works(tmp_path: Path) -> None:
    """The stock child, made to die inside libhdf5's place in it."""
    boot = child_command()
    boot[3] = "import os, signal; " + boot[3].replace("main()", "(os.kill(os.getpid(), signal.SIGSEGV), main())")

    with pytest.raises(CorruptionError) as caught:
        raise inspect_hdf5_in_child(MemorySource("x.h5", MODEL), command=boot).fatal.error("x.h5")  # type: ignore[union-attr]

    assert caught.value.code == "hdf5.parser-crashed"


def test_a_large_source_is_sent_in_pieces() -> None:
    """More than a pipe holds."""
    import numpy as np

    data = datasets({"a": np.arange(1 << 19)})

    assert inspect_hdf5_in_child(MemorySource("x.h5", data)).datasets[0].shape == (1 << 19,)
