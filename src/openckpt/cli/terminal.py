"""The two streams: results to stdout, everything else to stderr; colour and width where they lead to a terminal.

Colours are plain ANSI sequences written here. Text that comes out of a file passes `openckpt.errors.printable` before it is
printed, so that a tensor's name cannot move the cursor or set the title of the window.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import Literal, TextIO

from openckpt.cli.settings import Settings
from openckpt.errors import CheckpointError, printable

Style = Literal["error", "warning", "note", "good", "dim", "bold", "key", ""]

_SGR: dict[str, str] = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[33m",
    "note": "\x1b[36m",
    "good": "\x1b[32m",
    "dim": "\x1b[2m",
    "bold": "\x1b[1m",
    "key": "\x1b[36m",
}
_OFF = "\x1b[0m"


class _Nowhere(io.TextIOBase):
    """Takes any text to nowhere."""

    def write(self, text: str, /) -> int:
        return len(text)


def prepare_streams() -> None:
    """Let both streams take any text: what their encoding lacks (``LANG=C``) is escaped instead of raising.

    Python has None for a stream that the shell closed (``>&-``): whoever wants the exit code alone gets it.
    """
    if sys.stdout is None:
        sys.stdout = _Nowhere()
    if sys.stderr is None:
        sys.stderr = _Nowhere()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at this stream."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def wants_color(stream: TextIO, color: bool | None = None) -> bool:
    """Return whether to colour: never in a pipe, with ``NO_COLOR`` set to anything, or on a dumb terminal."""
    if color is not None:
        return color
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Screen:
    """Where a command's result goes: lines on stdout, styled and cut to the width on a terminal, whole and plain in a pipe."""

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.is_terminal = is_terminal(self.stream)
        self.color = wants_color(self.stream, settings.color)
        self.draws_lines = _can_encode(self.stream, "├─│└…█▏")
        self.ellipsis = "…" if self.draws_lines else "..."

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None in a pipe, where nothing is cut."""
        if not self.is_terminal:
            return None
        from shutil import get_terminal_size

        return max(20, get_terminal_size().columns)

    def style(self, text: str, style: Style) -> str:
        """Return ``text`` in a style, or as it is without colour."""
        return f"{_SGR[style]}{text}{_OFF}" if style and self.color and text else text

    def line(self, text: str = "") -> None:
        """Print one line."""
        self.stream.write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Print many lines, a few thousand to a write."""
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == 4096:
                self.stream.write("\n".join(batch) + "\n")
                batch.clear()
        if batch:
            self.stream.write("\n".join(batch) + "\n")

    def paragraph(
        self,
        label: str,
        text: str,
        *,
        indent: int,
        label_style: Style = "dim",
        text_style: Style = "",
        wrap: bool = True,
    ) -> None:
        """Print ``label  text``, wrapped under itself on a terminal; ``indent`` is the column where the text begins."""
        head = label.ljust(indent)
        parts = [text]
        if wrap and self.width is not None and len(head) + len(text) > self.width:
            from textwrap import wrap as wrap_text

            room = max(20, self.width - indent)
            parts = wrap_text(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        for number, part in enumerate(parts):
            lead = self.style(head, label_style) if number == 0 else " " * indent
            self.line(f"{lead}{self.style(part, text_style)}".rstrip())


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def error_line(message: str, label: Literal["error", "usage", ""] = "", hint: str = "") -> None:
    """Print one line to stderr, prefixed with the program's name; ``hint`` follows on its own line."""
    import click

    color = wants_color(sys.stderr, _color_of_context())
    text = printable(message)
    head = {"error": "error: ", "usage": "usage: ", "": ""}[label]
    if color and head:
        head = f"{_SGR['error']}{head}{_OFF}"
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass
    lines = f"openckpt: {head}{text}"
    if hint:
        lines += f"\n  {_SGR['dim'] if color else ''}{printable(hint)}{_OFF if color else ''}"
    click.echo(lines, err=True, color=color)


def _color_of_context() -> bool | None:
    import click

    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context is not None else None
    return settings.color if settings is not None else None


def report_error(error: CheckpointError | OSError) -> None:
    """Print one error to stderr: one line, and the fix on a second, so that it can be copied."""
    if isinstance(error, CheckpointError):
        whole, fix = str(error), error.fix
        if fix and whole.endswith(f"; {fix}"):
            error_line(whole[: -len(fix) - 2], "error", f"try: {fix}")
        else:
            error_line(whole, "error")
    else:
        place = f"{error.filename}: " if error.filename else ""
        error_line(f"{place}{error.strerror or error}", "error")
