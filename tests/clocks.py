"""Clocks that stand still until a test moves them."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest


class Clock:
    """Seconds that pass when somebody says so; since 1970 where nothing else is said."""

    def __init__(self, now: float = 1_795_000_000.25) -> None:
        self.now = now

    def time(self) -> float:
        """Return the present time, as `time.time` does."""
        return self.now


def stop_clock_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give a module that asks ``time.time()`` a clock that stands still."""
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=clock.time))
    return clock
