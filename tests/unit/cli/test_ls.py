"""``openckpt ls``: what it lists, in which order, and how little it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from docs.schema import faults, schemas
from openckpt.formats.bundle import encode_bundle
from unit.cli.conftest import EVIL
from unit.cli.running import Runner, plain_environment


def keys_of(text: str) -> list[str]:
    """Return the first column of the rows between header and totals."""
    return [line.split("  ")[0] for line in text.splitlines()[2:-1]]


def test_the_contract_of_json(openckpt_cli: Runner, run_folder: Path) -> None:
    """Exactly the fields that other programs rely on, in the order of the table."""
    answer = openckpt_cli("ls", "--json", run_folder / "ckpt-2")
    assert answer.documents == [
        {
            "path": str(run_folder / "ckpt-2"),
            "prefix": str(run_folder / "ckpt-2"),
            "format": "bundle-v2",
            "step": 2,
            "tensors": [
                {"key": "dense/bias", "dtype": "float32", "shape": [4], "bytes": 16},
                {"key": "dense/kernel", "dtype": "float32", "shape": [3, 4], "bytes": 48},
                {"key": "step", "dtype": "int64", "shape": [], "bytes": 8},
            ],
        }
    ]


def test_json_follows_the_documented_schema(openckpt_cli: Runner, zoo: Path, tmp_path: Path) -> None:
    """Every dtype, odd names, and a path that cannot be read."""
    good, bad = openckpt_cli("ls", "--json", zoo, tmp_path / "absent").documents
    assert faults(good, schemas()["ls"]) == []
    assert faults(bad, schemas()["error"]) == []
    assert bad["error"]["code"] == "path.not-found"


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000])
def test_a_long_listing_is_one_document_and_one_table(openckpt_cli: Runner, tmp_path: Path, count: int) -> None:
    """It is printed piece by piece, which nobody can tell."""
    keys = [f"k{number:05d}" for number in range(count)]
    for name, data in encode_bundle({key: np.zeros(2, np.int8) for key in keys}, "many").items():
        (tmp_path / name).write_bytes(data)
    (document,) = openckpt_cli("ls", "--json", tmp_path / "many").documents
    assert [tensor["key"] for tensor in document["tensors"]] == keys
    table = openckpt_cli("ls", tmp_path / "many").out
    assert keys_of(table) == keys or count == 0


def test_json_is_ascii_and_keeps_every_name(openckpt_cli: Runner, zoo: Path) -> None:
    """Names that are not UTF-8 come back as surrogates, names with escapes unharmed."""
    answer = openckpt_cli("ls", "--json", zoo)
    assert answer.out.isascii()
    keys = {tensor["key"] for tensor in answer.documents[0]["tensors"]}
    assert {EVIL, b"\xff\xfekey".decode("utf-8", "surrogateescape"), "日本語"} <= keys


def test_a_directory_gives_its_latest_checkpoint(openckpt_cli: Runner, run_folder: Path) -> None:
    """The prefix that was opened is told, the path stays as it was given."""
    document = openckpt_cli("ls", "--json", run_folder).documents[0]
    assert (document["path"], document["prefix"]) == (str(run_folder), str(run_folder / "ckpt-2"))


def test_the_table_has_shards_and_totals(openckpt_cli: Runner, run_folder: Path) -> None:
    """People see where a tensor lies, and what it adds up to."""
    lines = openckpt_cli("ls", run_folder / "ckpt-2").out.splitlines()
    assert lines[0].endswith("ckpt-2 (bundle-v2, step 2, 3 files)")
    assert lines[1].split() == ["key", "dtype", "shape", "bytes", "shard"]
    assert lines[3].split() == ["dense/kernel", "float32", "[3,4]", "48", "0"]
    assert lines[4].split() == ["step", "int64", "[]", "8", "1"]
    assert lines[5] == "3 tensors, 17 elements, 72 B"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [(["--glob", "dense/*"], ["dense/bias", "dense/kernel"]), (["-g", "*s", "-g", "step"], ["dense/bias", "step"]),
     (["--regex", "k.r"], ["dense/kernel"]), (["-r", "^s", "-g", "*bias"], ["dense/bias", "step"]), (["-g", "DENSE*"], [])],
)  # fmt: skip
def test_filters(openckpt_cli: Runner, run_folder: Path, filters: list[str], expected: list[str]) -> None:
    """A key is listed when one of the patterns matches; case matters, `*` crosses slashes."""
    document = openckpt_cli("ls", "--json", run_folder / "ckpt-1", *filters).documents[0]
    assert [tensor["key"] for tensor in document["tensors"]] == expected


def test_filtered_totals_say_of_how_many(openckpt_cli: Runner, run_folder: Path) -> None:
    """A filter never looks like the whole."""
    assert openckpt_cli("ls", run_folder, "-g", "step").out.splitlines()[-1] == "1 of 3 tensors, 1 element, 8 B"


@pytest.mark.parametrize(
    ("column", "expected"),
    [("key", ["dense/bias", "dense/kernel", "step"]), ("bytes", ["step", "dense/bias", "dense/kernel"]),
     ("dtype", ["dense/bias", "dense/kernel", "step"]), ("shape", ["step", "dense/kernel", "dense/bias"]),
     ("shard", ["dense/bias", "dense/kernel", "step"])],
)  # fmt: skip
def test_sorting(openckpt_cli: Runner, run_folder: Path, column: str, expected: list[str]) -> None:
    """Each column sorts, and --reverse turns it around; equal rows keep the order of the file."""
    path = run_folder / "ckpt-1"
    assert keys_of(openckpt_cli("ls", path, "--sort", column).out) == expected
    assert keys_of(openckpt_cli("ls", path, "--sort", column, "--reverse").out) == expected[::-1]


def test_start_up_is_light(run_folder: Path) -> None:
    """Listing in a pipe imports neither numpy nor anything that draws or parses protobuf, and no other command.

    The time and memory of the whole process are measured by the benchmarks; what they consist of is held here.
    """
    script = (
        "import sys\n"
        "from openckpt.cli.program import run\n"
        f"code = run(['ls', {str(run_folder / 'ckpt-2')!r}])\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
        "sys.exit(code)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=plain_environment()
    )
    assert result.returncode == 0
    loaded = set(result.stderr.split())
    assert "openckpt.cli.ls" in loaded
    heavy = {
        "numpy",
        "rich",
        "h5py",
        "google.protobuf",
        "ml_dtypes",
        "json",
        "textwrap",
        "concurrent.futures",
        "openckpt.codes",
    }
    assert not loaded & heavy
    assert not loaded & {f"openckpt.cli.{name}" for name in ("doctor", "find", "tree", "show", "demo")}
    assert not [name for name in loaded if name.startswith(("openckpt.doctor.", "openckpt.finding."))]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_whole_process_stays_under_30_mib(run_folder: Path) -> None:
    """Peak resident memory, interpreter included."""
    script = (
        "import re, sys\n"
        "from openckpt.cli.program import run\n"
        f"run(['ls', {str(run_folder / 'ckpt-2')!r}])\n"
        "sys.stderr.write(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=plain_environment()
    )
    assert int(result.stderr) < 30 * 1024
