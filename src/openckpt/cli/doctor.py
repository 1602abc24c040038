"""``openckpt doctor``: is it whole, why not, what is lost and what to do. A shell over `openckpt.diagnose`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from openckpt.cli import exits
from openckpt.cli.each import print_json
from openckpt.cli.progress import progress_bar
from openckpt.cli.settings import current_settings, general_options, json_option, paths_argument
from openckpt.cli.terminal import Screen, Style
from openckpt.cli.text import count_text, names_text
from openckpt.errors import printable

if TYPE_CHECKING:
    from openckpt.doctor import CheckpointReport, Report
    from openckpt.findings import Finding

_INDENT = 11
_MORE_OF_A_CODE = 3
_COMMAND = re.compile(r"(?:^|: )((?:openckpt|git|pip|mv|cp|rm|ls|printf|curl|make|gunzip|python3?) .*)$")
NO_PATH_CODES = frozenset({"path.not-found", "path.url", "storage.refused"})
"""Findings about the path itself that are exit code 4: it is not there, or the system refused."""


@click.command("doctor", short_help="Say whether a checkpoint is whole, why not, and what helps.")
@paths_argument
@click.option("--quick", is_flag=True, help="Do not read tensor data: check names, sizes and indexes only.")
@click.option("-v", "--verbose", is_flag=True, help="Show cause and fix of notes too.")
@json_option
@general_options
def command(paths: tuple[str, ...], quick: bool, verbose: bool, as_json: bool) -> int:
    """Examine anything: a checkpoint, one of its files, a directory, an archive, a failed download.

    Every checksum is checked unless --quick. Each finding has a code, the place, the cause, what is lost and the next command.
    Exit code 1 means that an error or a warning was found; notes do not count.
    """
    import openckpt

    settings = current_settings()
    screen = Screen(settings)
    worst = exits.YES
    for path in paths:
        with progress_bar() as (progress, _clear):
            report = openckpt.diagnose(path, quick=quick, limits=settings.limits, progress=progress)
        if as_json:
            print_json(report.to_json())
        else:
            print_report(screen, report, verbose=verbose, quick=quick)
        worst = max(worst, exit_code_of_report(report))
    return worst


def exit_code_of_report(report: Report) -> int:
    """Return 4 where there is no such path, 1 where an error or a warning was found, else 0."""
    if any(finding.code in NO_PATH_CODES and finding.severity == "error" for finding in report.findings):
        return exits.NO_PATH
    return exits.NO if report.worst in ("error", "warning") else exits.YES


def print_report(screen: Screen, report: Report, *, verbose: bool = False, quick: bool = False) -> None:
    """Print one report: the verdict, the findings of the path, then those of each checkpoint."""
    unread = screen.style(", tensor data was not read", "dim") if quick and report.checkpoints else ""
    screen.line(f"{screen.style(printable(report.path), 'bold')}  {_verdict(screen, report)}{unread}")
    print_findings(screen, report.findings, verbose=verbose)
    said: set[tuple[str, str]] = set()
    for checkpoint in report.checkpoints:
        _print_checkpoint(screen, checkpoint, said, verbose=verbose)
    screen.line()


def _verdict(screen: Screen, report: Report) -> str:
    if report.worst == "error":
        text = "valid, but errors were found beside it" if report.valid else "not valid"
        return screen.style(text, "warning" if report.valid else "error") + screen.style(_counts(report), "dim")
    if report.worst == "warning":
        return screen.style("valid, with warnings", "warning") + screen.style(_counts(report), "dim")
    return screen.style("valid", "good") + screen.style(_counts(report), "dim")


def _counts(report: Report) -> str:
    severities = [finding.severity for finding in report.all_findings()]
    parts = [
        count_text(severities.count(severity), severity)
        for severity in ("error", "warning", "note")
        if severity in severities
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _print_checkpoint(
    screen: Screen, checkpoint: CheckpointReport, said: set[tuple[str, str]], *, verbose: bool
) -> None:
    """Print one checkpoint; notes that were ``said`` of one before are not said again: a run has hundreds of steps."""
    step = "" if checkpoint.step is None else f", step {checkpoint.step}"
    kind = checkpoint.format or "unknown format"
    state, style = _state(checkpoint)
    fresh = [
        finding
        for finding in checkpoint.findings
        if verbose or finding.severity != "note" or (finding.code, finding.message) not in said
    ]
    said.update((finding.code, finding.message) for finding in fresh if finding.severity == "note")
    line = f"  {printable(checkpoint.prefix)} {screen.style(f'({kind}{step})', 'dim')} {screen.style(state, style)}"
    screen.line(line + (screen.style(", notes as above", "dim") if len(fresh) < len(checkpoint.findings) else ""))
    print_findings(screen, fresh, verbose=verbose)


def _state(checkpoint: CheckpointReport) -> tuple[str, Style]:
    if not checkpoint.valid:
        return "broken", "error"
    if any(finding.severity == "warning" for finding in checkpoint.findings):
        return "suspect", "warning"
    return "whole", "good"


def print_findings(screen: Screen, findings: Iterable[Finding], *, verbose: bool = False) -> None:
    """Print findings, those of one code together: the first one whole, of a few more what differs, the rest counted."""
    by_code: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_code.setdefault((finding.severity, finding.code), []).append(finding)
    for group in by_code.values():
        print_finding(screen, group[0], verbose=verbose)
        rest = group[1:]
        if verbose:
            for finding in rest:
                print_finding(screen, finding, verbose=True)
            continue
        for finding in rest[:_MORE_OF_A_CODE]:
            screen.paragraph("", f"also {_again(finding, group[0])}", indent=_INDENT, text_style="dim")
            if finding.severity != "note" and finding.fix is not None and finding.fix != group[0].fix:
                _print_fix(screen, printable(finding.fix))
        if len(rest) > _MORE_OF_A_CODE:
            text = f"and {len(rest) - _MORE_OF_A_CODE:,} more of this code; --verbose shows all"
            screen.paragraph("", text, indent=_INDENT, text_style="dim")


def _again(finding: Finding, first: Finding) -> str:
    """Return what differs from the ``first`` finding of the same code: the key and offset in one file, or the place."""
    place = str(finding.where)
    if finding.where.path == first.where.path and finding.where.key is not None:
        place = place.removeprefix(f"{printable(finding.where.path)} (").removesuffix(")")
    return place if finding.message == first.message else f"{place}: {printable(finding.message)}"


def print_finding(screen: Screen, finding: Finding, *, verbose: bool = False) -> None:
    """Print one finding; a note is one paragraph, anything worse says place, cause, loss and fix as well."""
    message = printable(finding.message)
    if finding.expected is not None and finding.found is not None:
        message += f" (expected {printable(finding.expected)}, found {printable(finding.found)})"
    elif finding.found is not None:
        message += f" (found {printable(finding.found)})"
    message += f" [{finding.code}]"
    screen.paragraph(f"  {finding.severity}", message, indent=_INDENT, label_style=finding.severity)
    if finding.severity == "note" and not verbose:
        return
    rows: list[tuple[str, str, Style]] = [("where", str(finding.where), ""), ("cause", finding.cause, "")]
    if finding.lost is not None:
        rows.append(("lost", _loss(finding.lost.tensors, finding.lost.parameters, finding.lost.of_parameters), ""))
    for label, text, style in rows:
        # A path stays on one line, however long: it is there to be copied.
        screen.paragraph(f"    {label}", printable(text), indent=_INDENT, text_style=style, wrap=label != "where")
    if finding.fix is not None:
        _print_fix(screen, printable(finding.fix))


def _print_fix(screen: Screen, fix: str) -> None:
    """Print the next step; where it does not fit a line, its command gets one of its own, whole, to be copied."""
    label, advice, command = "    fix", fix, ""
    if screen.width is not None and _INDENT + len(fix) > screen.width:
        match = _COMMAND.search(fix)
        if match is not None:
            advice, command = fix[: match.start(1)].rstrip(), match[1]
    if advice:
        screen.paragraph(label, advice, indent=_INDENT, text_style="good")
        label = ""
    if command:
        screen.paragraph(label, command, indent=_INDENT, text_style="good", wrap=False)


def _loss(tensors: Sequence[str], parameters: int, of_parameters: int) -> str:
    share = f" ({100 * parameters / of_parameters:.1f} %)" if of_parameters else ""
    names = names_text(iter(tensors), len(tensors))
    what = f"{count_text(len(tensors), 'tensor')}, {parameters:,} of {count_text(of_parameters, 'parameter')}{share}"
    return f"{what}: {names}" if tensors else what
