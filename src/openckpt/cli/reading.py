"""Opening a checkpoint for ``ls``, ``tree`` and ``show``, and the lines that say which one it was."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from openckpt.cli.settings import Settings
from openckpt.cli.terminal import Screen, is_terminal
from openckpt.cli.text import count_text
from openckpt.errors import printable

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader

Item = TypeVar("Item")

_MANY = 4096
"""items between two reports of progress"""
_CHOSEN = frozenset({"manifest", "manifest-file", "scan", "incomplete", "below", "saved-model"})
"""Kinds of `How` by which something else was opened than the path spells."""


def open_checkpoint(path: str, settings: Settings) -> CheckpointReader:
    """Open what ``path`` means; reading a compressed archive draws a bar on a terminal."""
    import openckpt

    if not is_terminal(sys.stderr):
        return openckpt.open(path, limits=settings.limits)
    from openckpt.cli.progress import progress_bar

    with progress_bar() as (progress, _clear):
        return openckpt.open(path, limits=settings.limits, progress=progress)


def reported(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    """Return the same items, with a bar on a terminal where going through them lasts; in a pipe the very same object."""
    return _with_bar(items, what, total) if total > _MANY and is_terminal(sys.stderr) else items


def _with_bar(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    from openckpt.cli.progress import progress_bar

    with progress_bar() as (progress, _clear):
        for number, item in enumerate(items):
            if progress is not None and number % _MANY == 0:
                progress(what, number, total)
            yield item


def print_heading(screen: Screen, ckpt: CheckpointReader) -> None:
    """Print the prefix, format, step and number of files; below, why this one, and what shares its name."""
    step = "" if ckpt.step is None else f", step {ckpt.step}"
    facts = f"({ckpt.format}{step}, {count_text(len(ckpt.files), 'file')})"
    screen.line(f"{screen.style(printable(ckpt.prefix), 'bold')} {screen.style(facts, 'dim')}")
    if ckpt.how.kind in _CHOSEN:
        screen.paragraph("", printable(ckpt.how.reason), indent=2, text_style="dim")
    for sibling in ckpt.siblings:
        screen.paragraph("", f"of the same name: {printable(sibling)}", indent=2, text_style="dim")
