"""The progress bar: late, rare, on a terminal only, and gone before a result is printed."""

from __future__ import annotations

import io
import re

import pytest

from clocks import Clock
from openckpt.cli.progress import Bar, progress_bar


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return FakeTerminal()


def long_work(terminal: FakeTerminal) -> tuple[Bar, Clock]:
    """Return a bar two seconds after it was made."""
    clock = Clock(100.0)
    bar = Bar(terminal, clock.time)
    clock.now += 2
    return bar, clock


def test_nothing_is_drawn_in_the_first_second(terminal: FakeTerminal) -> None:
    """Most work is done by then, and flicker helps nobody."""
    clock = Clock(100.0)
    bar = Bar(terminal, clock.time)
    clock.now += 0.99
    bar("read", 1, 10)
    assert terminal.getvalue() == ""


def test_long_work_is_drawn_and_taken_away(terminal: FakeTerminal) -> None:
    """The name of the work and how far it is; afterwards the cursor is back."""
    clock = Clock(100.0)
    bar = Bar(terminal, clock.time)
    clock.now += 1.5
    bar("check ckpt-7", 5, 10)
    assert "check ckpt-7" in terminal.getvalue()
    assert "50%" in terminal.getvalue()
    bar.clear()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")
    bar.clear()


def test_a_busy_reporter_is_drawn_ten_times_a_second(terminal: FakeTerminal) -> None:
    """The bar costs the work nothing."""
    bar, clock = long_work(terminal)
    bar("read", 1, 1000)
    length = len(terminal.getvalue())
    for number in range(500):
        bar("read", number, 1000)
    assert len(terminal.getvalue()) == length
    clock.now += 0.2
    bar("read", 700, 1000)
    assert "70%" in terminal.getvalue()
    bar.clear()


def test_the_next_work_is_drawn_at_once(terminal: FakeTerminal) -> None:
    """What has ended must not stand there as what is done now."""
    bar, _ = long_work(terminal)
    bar("converting", 10, 10)
    bar("checking", 0, 10)
    assert "checking" in terminal.getvalue()
    bar.clear()


def test_the_ends_of_lines_are_left_free(terminal: FakeTerminal) -> None:
    """There the terminal shows the ^C of an interrupt; on a full line it would begin another, and the bar would stay."""
    bar, _ = long_work(terminal)
    bar("converting", 10, 10)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).splitlines()
    assert any("converting" in line for line in lines)
    assert max(map(len, lines)) <= 77
    bar.clear()


def test_names_in_it_are_escaped(terminal: FakeTerminal) -> None:
    """A file name is neither markup nor a command to the terminal."""
    bar, _ = long_work(terminal)
    bar("read [bold]\x1b]0;owned\x07", 1, None)
    assert "[bold]\\x1b]0;owned" in terminal.getvalue()
    assert "\x07" not in terminal.getvalue()
    bar.clear()


def test_work_of_unknown_length_shows_how_much_is_done(terminal: FakeTerminal) -> None:
    """A percentage of nothing would stand still."""
    bar, _ = long_work(terminal)
    bar("find", 12_345, None)
    assert "12,345" in terminal.getvalue()
    assert "%" not in terminal.getvalue()
    bar.clear()


def test_in_a_pipe_there_is_no_callback() -> None:
    """The library is not even asked to report."""
    with progress_bar() as (progress, clear):
        assert progress is None
        clear()
