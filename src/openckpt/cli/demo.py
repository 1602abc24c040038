"""``openckpt demo``: a folder of healthy and broken checkpoints, and what the doctor says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from openckpt.cli import exits
from openckpt.cli.doctor import print_finding
from openckpt.cli.each import print_json
from openckpt.cli.settings import current_settings, general_options, json_option
from openckpt.cli.terminal import Screen, Style
from openckpt.cli.text import count_text
from openckpt.errors import printable

if TYPE_CHECKING:
    from openckpt.cli.demo_cases import Case
    from openckpt.doctor import Report

_MARKER = ".openckpt-demo"
"""The file by which a later run knows that the folder is its own."""


@click.command("demo", short_help="Write a folder of healthy and broken checkpoints and examine it.")
@click.argument("directory", default="openckpt-demo", metavar="[DIRECTORY]")
@json_option
@general_options
def command(directory: str, as_json: bool) -> int:
    """Write a folder of small healthy and broken checkpoints, run the doctor over each, and say what to try next.

    DIRECTORY (openckpt-demo) must be new, empty, or from an earlier demo: nothing else is ever written into.
    """
    import openckpt
    from openckpt.cli.demo_cases import demo_cases
    from openckpt.storage import LOCAL
    from openckpt.storage.writing import write_folder

    settings = current_settings()
    screen = Screen(settings)
    status = LOCAL.stat(directory)
    if status is not None:
        if status.kind != "dir":
            raise click.BadParameter(f"{printable(directory)} is not a directory", param_hint="DIRECTORY")
        names = {entry.name for entry in LOCAL.scan(directory)}
        if names and _MARKER not in names:
            raise click.BadParameter(
                f"{printable(directory)} is not empty and was not made by `openckpt demo`; name a new directory",
                param_hint="DIRECTORY",
            )
    cases = demo_cases()
    write_folder(directory, {_MARKER: b"Made by `openckpt demo`, which may write over everything here.\n"})
    for case in cases:
        write_folder(LOCAL.join(directory, case.name), case.files)
    reports = []
    for case in cases:
        report = openckpt.diagnose(LOCAL.join(directory, case.name), limits=settings.limits)
        reports.append(report)
        if not as_json:
            _print_case(screen, case, report)
    if as_json:
        for report in reports:
            print_json(report.to_json())
    else:
        _print_next_steps(screen, directory, len(cases))
    as_told = all(case.is_told_by(report) for case, report in zip(cases, reports, strict=True))
    return exits.YES if as_told else exits.NO


def _print_case(screen: Screen, case: Case, report: Report) -> None:
    state: tuple[str, Style] = {
        "error": ("broken", "error"),
        "warning": ("suspect", "warning"),
    }.get(report.worst or "", ("whole", "good"))  # type: ignore[assignment]
    screen.line(f"{screen.style(printable(report.path), 'bold')}  {screen.style(*state)}")
    screen.paragraph("", case.summary, indent=2, text_style="dim")
    findings = [finding for finding in report.all_findings() if finding.severity != "note"]
    findings.sort(key=lambda finding: (finding.code != case.code, finding.severity != "error"))
    for finding in findings[:1]:
        print_finding(screen, finding)
    if len(findings) > 1:
        screen.line(screen.style(f"  and {count_text(len(findings) - 1, 'more finding')}", "dim"))
    screen.line()


def _print_next_steps(screen: Screen, directory: str, count: int) -> None:
    from openckpt.codes.quoting import quoted

    def path(name: str) -> str:
        return quoted(f"{directory}/{name}")

    screen.line(f"{count_text(count, 'folder')} in {printable(directory)}. Try next:")
    for line, what in (
        (f"openckpt doctor {path('missing-shard')}", "everything it knows about one of them"),
        (f"openckpt find {quoted(directory)}", "all checkpoints below it"),
        (f"openckpt ls {path('healthy')} --sort bytes", "keys, dtypes, shapes"),
        (f"openckpt tree {path('healthy')}", "the object graph, optimizer slots included"),
        (f"openckpt show {path('healthy')} model/dense/kernel", "values, statistics, histogram"),
    ):
        screen.line(f"  {screen.style(line, 'good')}")
        screen.line(f"      {screen.style(what, 'dim')}")
