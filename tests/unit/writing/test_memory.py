"""What a save holds beyond its caller's arrays: measured by the system, in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
PROGRAM = """
import resource, sys
import numpy as np
import openckpt

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

how, layout, prefix = sys.argv[1:]
options = {"layout": layout, "durability": "process-crash"}
for size in (1, 20 << 20):  # what is imported, and started, is not what is measured
    openckpt.save(prefix, {"w": np.ones(size, np.uint8)}, overwrite=True, **options)
if how == "save":
    tensors = {str(n): np.full(8 << 20, n, np.uint8) for n in range(16)} | {"large": np.full(128 << 20, 7, np.uint8)}
    before = peak()
    openckpt.save(prefix, tensors, overwrite=True, **options)
else:
    specs = {str(n): openckpt.TensorSpec("uint8", (32 << 20,)) for n in range(8)}
    before = peak()
    with openckpt.create(prefix, specs if layout == "dual" else None, overwrite=True, **options) as writer:
        for key in specs:
            writer.add(key, np.full(32 << 20, int(key), np.uint8))
print(peak() - before)
"""


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
@pytest.mark.parametrize(("how", "most"), [("save", 64 * MIB), ("create", 96 * MIB)])
def test_a_quarter_of_a_gibibyte_is_saved_in_little_memory(tmp_path: Path, how: str, most: int, layout: str) -> None:
    """64 MiB at most beyond the caller's arrays; tensor by tensor, beyond one of them (32 MiB)."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, layout, str(tmp_path / "ckpt")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) >= 256 * MIB
    assert int(done.stdout) <= most, f"{int(done.stdout) / MIB:.0f} MiB"
