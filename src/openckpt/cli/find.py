"""``openckpt find``: every checkpoint in a tree, as it is found. A shell over `openckpt.find`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from openckpt.cli import exits
from openckpt.cli.each import print_json, run_for_each
from openckpt.cli.progress import progress_bar
from openckpt.cli.settings import current_settings, general_options, json_option
from openckpt.cli.terminal import Screen, Style
from openckpt.cli.text import count_text, pad, shorten, size_text
from openckpt.errors import printable

if TYPE_CHECKING:
    from openckpt.finding import FoundCheckpoint

_HEAD = ("format", "step", "size", "files")
_WIDTHS = (12, 9, 9, 5)


@click.command("find", short_help="Find every checkpoint below a directory.")
@click.argument("roots", nargs=-1, metavar="[ROOT]...")
@json_option
@general_options
def command(roots: tuple[str, ...], as_json: bool) -> int:
    """Walk a tree and print every checkpoint as it is found: format, step, size, files, state and prefix.

    ROOT is a directory or an archive; without one, the current directory. Exit code 1 means that nothing was found.
    """
    settings = current_settings()
    screen = Screen(settings)

    def work(root: str) -> int:
        import openckpt

        found: list[FoundCheckpoint] = []
        table = _Table(screen)
        with progress_bar() as (progress, clear):
            for checkpoint in openckpt.find(root, limits=settings.limits, progress=progress):
                found.append(checkpoint)
                if not as_json:
                    clear()
                    table.add(checkpoint)
        if as_json:
            print_json({"root": root, "checkpoints": [checkpoint.to_json() for checkpoint in found]})
        else:
            _print_totals(screen, root, found)
        return exits.YES if found else exits.NO

    return run_for_each(roots or (".",), work, settings, as_json=as_json)


class _Table:
    """Rows of fixed columns, printed at once; the prefix stands last, where its length harms nobody."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._started = False

    def add(self, found: FoundCheckpoint) -> None:
        screen = self._screen
        if not self._started:
            self._started = True
            screen.line(screen.style(self._row(*_HEAD, "prefix"), "dim"))
        state, style = _state(found)
        cells = (
            found.format or "?",
            "-" if found.step is None else str(found.step),
            size_text(found.bytes),
            str(len(found.files)),
        )
        room = None if screen.width is None else max(20, screen.width - sum(_WIDTHS) - 2 * len(_WIDTHS))
        prefix = printable(found.prefix)
        screen.line(self._row(*cells, prefix if room is None else shorten(prefix, room, screen.ellipsis)))
        if state:
            screen.line(f"  {screen.style(state, style)}")
        if screen.is_terminal:
            screen.stream.flush()

    @staticmethod
    def _row(*cells: str) -> str:
        head = [
            pad(cell, width, right=number > 0) for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=False))
        ]
        return "  ".join([*head, cells[-1]])


def _state(found: FoundCheckpoint) -> tuple[str, Style]:
    return "", ""


def _print_totals(screen: Screen, root: str, found: list[FoundCheckpoint]) -> None:
    if not found:
        screen.line(f"no checkpoint below {printable(root)}")
        return
    whole = sum(checkpoint.complete for checkpoint in found)
    screen.line(screen.style(f"{count_text(len(found), 'checkpoint')}, {whole:,} complete", "bold"))
