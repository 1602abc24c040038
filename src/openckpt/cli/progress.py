"""A progress bar on stderr: only on a terminal, and only for work that has lasted a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from openckpt.cli.terminal import is_terminal
from openckpt.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from openckpt.findings import Progress

_PATIENCE_S = 1.0
_REFRESH_S = 0.1
_SPARE = 3  # columns at the end of the line, where the terminal shows the ^C of an interrupt


class Bar:
    """A bar that draws itself when the work turns out to be long; call it as `openckpt.findings.Progress`.

    It draws from the thread that reports (no thread of its own, so that the program may fork), and `clear` takes it off the
    screen before a result is printed.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._drawn = 0.0
        self._bar: RichProgress | None = None
        self._tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Report work; draws at most ten times a second, the beginning of other work at once."""
        now = self._clock()
        if now - self._started < _PATIENCE_S or (what in self._tasks and now - self._drawn < _REFRESH_S):
            return
        self._drawn = now
        if self._bar is None:
            self._bar = self._make()
            self._bar.start()
        from rich.markup import escape
        from rich.progress import TaskID

        if what not in self._tasks:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._tasks = {what: self._bar.add_task(escape(printable(what)), total=total, done="")}
        shown = f"{done:,}" if not total else f"{100 * done / total:.0f}%"
        self._bar.update(TaskID(self._tasks[what]), completed=done, total=total, done=shown)
        self._bar.refresh()

    def _make(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=self._stream, stderr=True)
        console.width = max(20, console.width - _SPARE)
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[done]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            auto_refresh=False,
            transient=True,
        )

    def clear(self) -> None:
        """Take the bar off the screen; the next report draws it again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks = {}


@contextmanager
def progress_bar() -> Iterator[tuple[Progress | None, Callable[[], None]]]:
    """Give ``(progress, clear)``: a callback for the library, None where nobody would see it, and how to take the bar away."""
    if not is_terminal(sys.stderr):
        yield None, lambda: None
        return
    bar = Bar(sys.stderr)
    try:
        yield bar, bar.clear
    finally:
        bar.clear()
