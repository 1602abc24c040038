"""libhdf5 in a process of its own: equal answers, and every way to die is a finding."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hdf5_bytes import ONES, datasets, hdf5, legacy_weights
from openckpt.errors import ConflictError, CorruptionError
from openckpt.formats.hdf5.child import HDF5Child, child_command
from openckpt.formats.hdf5.report import HDF5Report, report_from_json
from openckpt.formats.hdf5.walk import inspect_hdf5
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage import LOCAL, ByteSource
from openckpt.storage.memory import MemorySource, MemoryStore

MODEL = hdf5(legacy_weights({"dense": {"dense/kernel:0": ONES}, "drop": {}}))


def codes(report: HDF5Report) -> list[str]:
    return [finding.code for finding in report.findings]


def inspect_alone(
    source: ByteSource,
    *,
    limits: Limits = DEFAULT_LIMITS,
    data: bool = False,
    timeout: float = 120.0,
    command: Sequence[str] | None = None,
) -> HDF5Report:
    """Inspect one source in a child of its own."""
    with HDF5Child(timeout=timeout, command=command) as child:
        return child.inspect(source, limits=limits, data=data)


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

    assert inspect_alone(LOCAL.open(str(path))) == here
    assert inspect_alone(MemorySource(str(path), MODEL)) == here
    assert here.attributes.layer_names == ("dense", "drop")


def test_damage_that_the_child_finds_is_a_problem_of_the_report() -> None:
    """A truncated file, a limit, a damaged chunk: the code is that of the parser in this process."""
    chunked = bytearray(datasets({"a": ONES}, fletcher32=True, chunks=(2, 3)))
    chunked[chunked.index(ONES.tobytes())] ^= 1

    assert codes(inspect_alone(MemorySource("x.h5", MODEL[:-1]))) == ["hdf5.truncated"]
    assert codes(inspect_alone(MemorySource("x.h5", MODEL), limits=Limits(hdf5_objects=1))) == ["limits.exceeded"]
    assert codes(inspect_alone(MemorySource("x.h5", bytes(chunked)))) == []
    assert codes(inspect_alone(MemorySource("x.h5", bytes(chunked)), data=True)) == ["hdf5.chunk-checksum"]


def test_reader_over_a_child_reads_and_validates_equal() -> None:
    """A child changes who parses, not what is read."""
    store = MemoryStore({"x.h5": MODEL})

    with HDF5Child() as child:
        with_child, without = open_hdf5(store, "x.h5", child=child), open_hdf5(store, "x.h5")

        assert list(with_child.items()) == list(without.items())
        assert with_child.read("dense/dense/kernel:0").tolist() == ONES.tolist()
        assert list(with_child.validate()) == list(without.validate()) == []


def test_one_child_answers_for_many_files() -> None:
    """A process is started once; a damaged file between two good ones changes nothing for them."""
    with HDF5Child() as child:
        reports = [child.inspect(MemorySource("x.h5", data)) for data in (MODEL, MODEL[:-1], MODEL)]
        first = child._process
        child.inspect(MemorySource("x.h5", MODEL))

        assert child._process is first
    assert [codes(report) for report in reports] == [[], ["hdf5.truncated"], []]
    assert reports[0] == reports[2]
    assert first is not None
    assert first.returncode is not None


def test_a_file_is_not_blamed_for_the_crash_that_another_one_prepared() -> None:
    """A child that dies on its second file is replaced, and the file is asked again."""
    boot = child_command()
    boot[3] = boot[3].replace("main()", DIES_ON_SECOND)

    with HDF5Child(command=boot) as child:
        reports = [child.inspect(MemorySource("x.h5", MODEL)) for _ in range(3)]

    assert [codes(report) for report in reports] == [[], [], []]


DIES_ON_SECOND = (
    "import openckpt.formats.hdf5.child as c; answer, count = c._answer, []; "
    "c._answer = lambda *a: count.append(1) or (answer(*a) if len(count) < 2 else os.abort()); import os; main()"
)


def test_a_file_that_is_replaced_meanwhile_is_a_conflict(tmp_path: Path) -> None:
    """The child opens a path by itself, so its answer may be about a newer file than the one that is open here."""
    path = tmp_path / "x.h5"
    path.write_bytes(MODEL)
    source = LOCAL.open(str(path))
    (tmp_path / "new").write_bytes(datasets({"a": ONES}))
    (tmp_path / "new").replace(path)

    with HDF5Child() as child, pytest.raises(ConflictError) as caught:
        child.inspect(source)

    assert caught.value.code == "storage.changed"


def _says(text: str) -> str:
    return f"import sys; sys.stdout.buffer.write(({len(text)}).to_bytes(8, 'little') + {text!r}.encode())"


DEATHS = {
    "a segmentation fault": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
    "an abort": ("import os; os.abort()", "signal SIGABRT"),
    "an exit": ("import sys; sys.exit(3)", "no answer, exit status 3"),
    "no memory": ("import sys; sys.exit(77)", "out of memory"),
    "silence": ("pass", "no answer, exit status 0"),
    "nonsense": (_says('{"datasets": 3}'), "an answer that is no report"),
    "nested nonsense": (_says("[" * 10_000), "an answer that is no report"),
    "half an answer": (
        "import sys; sys.stdout.buffer.write((100).to_bytes(8, 'little') + b'{')",
        "an answer that is no report",
    ),
    "a report about something else": (_says(json.dumps(HDF5Report("y").to_json())), "an answer about another file"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_every_death_is_a_finding(name: str) -> None:
    """Whatever happens to the child, the parent gets a report that says so."""
    program, found = DEATHS[name]

    report = inspect_alone(MemorySource("x.h5", MODEL), command=[sys.executable, "-c", program])

    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.found) == ("hdf5.parser-crashed", "error", found)
    assert report.fatal is not None


def test_a_child_that_hangs_is_killed() -> None:
    """A parser in an endless loop costs the time that it was given, no more."""
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]

    (finding,) = inspect_alone(MemorySource("x.h5", MODEL), timeout=0.2, command=command).findings

    assert finding.code == "hdf5.parser-crashed"
    assert finding.found == "no answer in 0.2 seconds"


def test_a_child_that_talks_without_end_is_killed() -> None:
    """The answer is capped like any other JSON."""
    command = [sys.executable, "-c", "while True: print('x' * 1000)"]

    (finding,) = inspect_alone(MemorySource("x.h5", MODEL), limits=Limits(json_bytes=10_000), command=command).findings

    assert finding.found == "an answer of more than 10000 bytes"


def test_a_real_child_that_is_killed_while_it_works(tmp_path: Path) -> None:
    """The stock child, made to die inside libhdf5's place in it."""
    boot = child_command()
    boot[3] = "import os, signal; " + boot[3].replace("main()", "(os.kill(os.getpid(), signal.SIGSEGV), main())")

    with pytest.raises(CorruptionError) as caught:
        raise inspect_alone(MemorySource("x.h5", MODEL), command=boot).fatal.error("x.h5")  # type: ignore[union-attr]

    assert caught.value.code == "hdf5.parser-crashed"


def test_a_large_source_is_sent_in_pieces() -> None:
    """More than a pipe holds."""
    import numpy as np

    data = datasets({"a": np.arange(1 << 19)})

    assert inspect_alone(MemorySource("x.h5", data)).datasets[0].shape == (1 << 19,)
