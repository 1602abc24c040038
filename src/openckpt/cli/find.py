"""``openckpt find``: every checkpoint in a tree, as it is found. A shell over `openckpt.find`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from openckpt.cli import exits
from openckpt.cli.each import print_json, run_for_each
from openckpt.cli.progress import progress_bar
from openckpt.cli.settings import current_settings, general_options, json_option
from openckpt.cli.terminal import Screen, Style
from openckpt.cli.text import cell_width, count_text, names_text, pad
from openckpt.errors import printable, size_text

if TYPE_CHECKING:
    from openckpt.finding import FoundCheckpoint
    from openckpt.findings import Finding

_HEAD = ("format", "step", "size", "files", "state")
_WIDTHS = (11, 8, 8, 5, 10)
_RIGHT = (False, True, True, True, False)


@click.command("find", short_help="Find every checkpoint below a directory.")
@click.argument("roots", nargs=-1, metavar="[ROOT]...")
@click.option("--no-archives", is_flag=True, help="Do not look into archives.")
@json_option
@general_options
def command(roots: tuple[str, ...], no_archives: bool, as_json: bool) -> int:
    """Walk a tree and print every checkpoint as it is found: format, step, size, files, state and prefix.

    ROOT is a directory, an archive or a file; without one, the current directory. States: newest (what its directory stands
    for), listed (by the manifest), forgotten (complete, but its manifest does not list it), incomplete, damaged. What interrupted
    saves left, and what could not be searched, is told in between. Exit code 1 means that no checkpoint was found.
    """
    settings = current_settings()
    screen = Screen(settings)

    def work(root: str) -> int:
        import openckpt

        found: list[FoundCheckpoint] = []
        findings: list[Finding] = []
        with progress_bar() as (progress, clear):
            table = _Table(screen, clear)

            def on_finding(finding: Finding) -> None:
                findings.append(finding)
                if not as_json:
                    table.add_finding(finding)

            for checkpoint in openckpt.find(
                root, limits=settings.limits, progress=progress, archives=not no_archives, on_finding=on_finding
            ):
                found.append(checkpoint)
                if not as_json:
                    table.add(checkpoint)
        if as_json:
            print_json(_document(root, found, findings))
        else:
            _print_totals(screen, root, found, findings)
        return exits.YES if found else exits.NO

    return run_for_each(roots or (".",), work, settings, as_json=as_json)


def _document(root: str, found: list[FoundCheckpoint], findings: list[Finding]) -> dict[str, object]:
    return {
        "root": root,
        "checkpoints": [checkpoint.to_json() for checkpoint in found],
        "findings": [finding.to_json() for finding in findings],
    }


class _Table:
    """Rows of fixed columns, printed at once; the prefix stands last, where its length harms nobody."""

    def __init__(self, screen: Screen, clear_bar: Callable[[], None]) -> None:
        self._screen = screen
        self._clear_bar = clear_bar
        self._started = False

    def add(self, found: FoundCheckpoint) -> None:
        """Print one checkpoint: a row, and what it lacks below."""
        screen = self._screen
        if not self._started:
            self._started = True
            self._print(screen.style(f"{self._row(*_HEAD)}  prefix", "dim"))
        state, style = state_of(found)
        step = "-" if found.step is None else str(found.step)
        prefix = printable(found.prefix)
        layout = f"  [{found.layout}]" if found.layout is not None else ""
        row = self._row(found.format, step, size_text(found.bytes), str(len(found.files)))
        row += "  " + screen.style(pad(state, _WIDTHS[-1]), style)
        # A prefix is there to be copied: where the row has no room for it, it gets a line of its own, whole.
        at = sum(_WIDTHS) + 2 * len(_WIDTHS)
        if screen.width is not None and at + cell_width(prefix + layout) > screen.width:
            self._print(row)
            row = "  "
        self._print(f"{row}  {prefix}{screen.style(layout, 'dim')}")
        if found.damage is not None:
            self._paragraph("", f"{printable(found.damage)} [{found.damage_code}]", indent=4)
        elif found.missing:
            self._paragraph("", f"missing: {names_text(found.missing, len(found.missing))}", indent=4)
        if found.links:
            self._print(screen.style(f"    links: {names_text(found.links, len(found.links))}", "dim"))

    def add_finding(self, finding: Finding) -> None:
        """Print what is odd about the tree, in the place of the walk where it was met."""
        label = f"{finding.severity}: "
        text = f"{finding.where}: {printable(finding.message)} [{finding.code}]"
        self._paragraph(label, text, indent=len(label), style=finding.severity)

    def _paragraph(self, label: str, text: str, *, indent: int, style: Style = "") -> None:
        self._clear_bar()
        self._screen.paragraph(label, text, indent=indent, label_style=style)
        if self._screen.is_terminal:
            self._screen.stream.flush()

    def _print(self, line: str) -> None:
        self._clear_bar()
        self._screen.line(line)
        if self._screen.is_terminal:
            self._screen.stream.flush()

    @staticmethod
    def _row(*cells: str) -> str:
        return "  ".join(
            pad(cell, width, right=right) for cell, width, right in zip(cells, _WIDTHS, _RIGHT, strict=False)
        )


def state_of(found: FoundCheckpoint) -> tuple[str, Style]:
    """Return the one word that says most about a checkpoint."""
    if found.damage is not None:
        return "damaged", "error"
    if not found.complete:
        return "incomplete", "error"
    if found.forgotten:
        return "forgotten", "warning"
    if found.newest:
        return "newest", "good"
    return ("listed", "") if found.listed else ("", "")


def _print_totals(screen: Screen, root: str, found: list[FoundCheckpoint], findings: list[Finding]) -> None:
    if not found:
        screen.line(f"no checkpoint below {printable(root)}")
        return
    complete = sum(checkpoint.complete for checkpoint in found)
    runs = len({checkpoint.run for checkpoint in found})
    forgotten = sum(checkpoint.forgotten for checkpoint in found)
    text = f"{count_text(len(found), 'checkpoint')} in {count_text(runs, 'run')}, {complete:,} complete"
    if forgotten:
        text += f", {forgotten:,} forgotten"
    text += f", {size_text(sum(checkpoint.bytes for checkpoint in found))}"
    if findings:
        text += f"; {count_text(len(findings), 'finding')}"
    screen.paragraph("", text, indent=0, text_style="bold")
