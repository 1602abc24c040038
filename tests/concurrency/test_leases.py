"""Readers beside a manager that keeps a single step: what is open stays on the disk, and goes when it is closed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openckpt
from concurrency.test_reading_while_training import running

READS = 150


def read(directory: Path) -> int:
    """Open the latest step many times; return how often another one was the latest before this one was closed."""
    overtaken = 0
    for _ in range(READS):
        with openckpt.open(directory) as ckpt:
            values = set(ckpt["w/.ATTRIBUTES/VARIABLE_VALUE"].tolist())
            assert values == {float(ckpt.step or -1)}
            overtaken += openckpt.open(directory).step != ckpt.step
            assert all(Path(file).is_file() for file in ckpt.files), ckpt.prefix
            assert openckpt.checkpoint_exists(ckpt.prefix)
    return overtaken


def test_what_is_open_is_not_swept(tmp_path: Path) -> None:
    """By two readers at once, while steps come and go; at the end there is one step, and nothing else."""
    directory = tmp_path / "run"
    with running("manager.py", directory), ThreadPoolExecutor(2) as pool:
        overtaken = sum(pool.map(read, [directory, directory]))
    assert overtaken > 0, "no step was ever held beyond its time"
    names = {path.name for path in directory.iterdir()}
    steps = {name.removesuffix(".index") for name in names if name.endswith(".index")}
    assert len(steps) == 1
    (step,) = steps
    assert names == {"checkpoint", f"{step}.index", f"{step}.data-00000-of-00001"}
