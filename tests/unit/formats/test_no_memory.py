"""A sparse file has any number of bytes for nothing: what it makes a reader ask for beyond the machine's memory is an error of ours.

Each case runs in a process of its own that may take one GiB; the files claim, and have, sixteen.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openckpt.formats.bundle import BundleEntry, encode_header
from openckpt.formats.bundle.entry import encode_entry
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.sstable import encode_table

SIZE = 16 << 30

CHILD = """
import resource, sys
import numpy, openckpt
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
path, how = sys.argv[1:]
if how == "doctor":
    report = openckpt.diagnose(path)
    print(*sorted({f.code for c in (report, *report.checkpoints) for f in c.findings if f.severity != "note"}))
else:
    try:
        with openckpt.open(path) as ckpt:
            ckpt["a"] if how == "read" else ckpt.read_many()
    except openckpt.CheckpointError as error:
        print(error.code)
"""


def sparse_checkpoint(folder: Path, entry: BundleEntry, head: bytes = b"") -> str:
    """Write a checkpoint of one tensor whose data file is 16 GiB of nothing behind ``head``."""
    (folder / "ckpt.index").write_bytes(encode_table([(b"", encode_header(1)), (b"a", encode_entry(entry))]))
    with (folder / "ckpt.data-00000-of-00001").open("wb") as file:
        file.write(head)
        file.truncate(SIZE)
    return str(folder / "ckpt")


def codes_of(path: str, how: str) -> str:
    run = subprocess.run([sys.executable, "-c", CHILD, path, how], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("how", ["read", "read_many"])
@pytest.mark.parametrize("dtype, shape", [("uint8", (SIZE,)), ("int4", (SIZE,)), ("string", (1,)), ("variant", (1,))])
def test_a_tensor_beyond_the_memory_is_a_limit_error(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], how: str
) -> None:
    """Whatever its type, and however it is read."""
    path = sparse_checkpoint(tmp_path, BundleEntry(BY_NAME[dtype].enum, shape, 0, 0, SIZE, 0))

    assert codes_of(path, how) == "limits.no-memory"


def test_the_doctor_reports_a_string_beyond_the_memory(tmp_path: Path) -> None:
    """Its report says so, and the doctor does not die of it."""
    path = sparse_checkpoint(tmp_path, BundleEntry(BY_NAME["string"].enum, (1,), 0, 0, SIZE, 0))

    assert codes_of(path, "doctor") == "limits.no-memory"


def test_a_hole_behind_a_safetensors_header_is_not_read_at_once(tmp_path: Path) -> None:
    """Sixteen GiB of zeros between the header and the first tensor are no padding, and are not looked at."""
    entry = BundleEntry(BY_NAME["uint8"].enum, (1,), 0, SIZE - 1, 1, 0x527D5351)

    path = sparse_checkpoint(tmp_path, entry, b"\x02" + bytes(7) + b"{}")

    assert codes_of(path, "doctor") == "bundle.unused-bytes"
