"""Hostile sources of a conversion: refused with their code in bounded memory and time, and nothing is written."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from attacks.attack import Attack

AREAS = ("archive", "bundle", "carried", "hdf5", "keras", "npz", "safetensors", "slices", "table", "v1")
CHILD = """
import json, resource, sys
import openckpt, openckpt.conversion.converting, h5py
from openckpt.formats.keras_h5 import open_hdf5

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
before = peak()
for source, target in json.loads(sys.stdin.read()):
    try:
        openckpt.convert(source, target, max_memory=16 << 20)
        code = "converted"
    except openckpt.CheckpointError as error:
        code = error.code
    except OSError as error:
        code = f"errno {error.errno}"
    print(json.dumps([code, peak() - before]), flush=True)
"""
GROWTH = 160 << 20  # the caps of reading allow 64 MiB, the budget 16; libraries are loaded on the way


def _cases() -> list[tuple[str, Attack]]:
    """Return a third of all attacks that reading must refuse."""
    found: list[tuple[str, Attack]] = []
    for area in AREAS:
        try:
            cases = importlib.import_module(f"attacks.{area}").CASES
        except ModuleNotFoundError:
            continue
        found += [(area, case) for case in cases if case.how == "read"][::3]
    return found


def test_a_hostile_source_costs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """One process converts them all; the codes are those of reading, those of a plan (unreadable, too large), or the disk has no room."""
    cases = _cases()
    calls = []
    for number, (_, case) in enumerate(cases):
        folder = tmp_path / f"{number}"
        for name, data in (case.files() if callable(case.files) else case.files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        calls.append((os.path.join(folder, case.path), str(tmp_path / "out" / f"{number}.npz")))
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(calls), capture_output=True, text=True, timeout=200, check=False
    )
    answers: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(answers) == len(cases) > 60, done.stderr[-2000:]
    wrong = {
        f"{area}/{case.name}": code
        for (area, case), (code, _) in zip(cases, answers, strict=True)
        if code not in (case.code, "convert.unreadable", "limits.exceeded", f"errno {errno.ENOSPC}")
    }
    assert wrong == {}
    assert max(grown for _, grown in answers) < GROWTH
    assert not list((tmp_path / "out").glob("*"))
