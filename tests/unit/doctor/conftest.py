"""What the tests of the doctor start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty directory called ``run`` to fill."""
    directory = tmp_path / "run"
    directory.mkdir()
    return Run(directory)
