"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line of figures at the end of the run."""
    return lambda line: record_property("proof", line)
