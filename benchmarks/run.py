"""Measure the goals of the project, as ratios against stock TensorFlow, safetensors, torch and the bare system call, in one run.

    python benchmarks/run.py                              everything; about half an hour and 7 GB of disk
    python benchmarks/run.py --quick                      small data, a minute: shows that the benchmarks work, proves nothing
    python benchmarks/run.py --only large,small           some areas
    python benchmarks/run.py --markdown docs/benchmarks.md --date 2026-11-20    also write the figures into the page

Exit code 0 when every goal is met, 1 when one is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cases import CASES, Setting
from harness import Result, Row, end_workers

BEGIN, END = "<!-- measured: written by benchmarks/run.py -->", "<!-- end of what was measured -->"
LIBRARIES = (
    "openckpt",
    "tensorflow",
    "keras",
    "safetensors",
    "torch",
    "jax",
    "orbax-checkpoint",
    "numpy",
    "fastcrc",
    "cramjam",
)


def machine() -> str:
    """The machine in one line: processor, cores, memory, system."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {pages:.0f} GiB, {platform.system()} {platform.release()}"


def versions() -> str:
    """Every library of the race with its version."""
    return f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES
    )


def verdict(row: Row) -> str:
    """``met``, or MISSED with the share of the goal that was reached."""
    return "met" if row.met else f"MISSED ({row.ratio / row.goal:.2f} of the goal)"


def to_text(row: Row) -> str:
    """One row for the terminal."""
    sign = ">=" if row.compare == "at least" else ">"
    return f"  {verdict(row):32} {row.ratio:9.2f} x (goal {sign} {row.goal:g})  {row.name}\n{'':36}ours {row.ours}\n{'':36}{row.peer}"


def to_markdown(results: dict[str, Result], *, date: str, rounds: int) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        f"Measured {date} on {machine()}. {versions()}. Median of {rounds} or more calls in turns (lowest .. highest; the first call apart).",
        "",
        "| area | what | ours | peer | ratio | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        for row in result.rows:
            sign = "≥" if row.compare == "at least" else ">"
            lines.append(
                f"| {row.area} | {row.name} | {row.ours} | {row.peer} | {row.ratio:.2f} | {sign} {row.goal:g} | {verdict(row)} |"
            )
    lines.append("")
    for result in results.values():
        lines += [f"- {note}" for note in result.notes]
    return "\n".join(lines) + "\n"


def write_markdown(path: Path, table: str) -> None:
    """Put the table between the two marks of a page that has them, else make it the whole file."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{table}{END}{tail or chr(10)}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen areas, print their rows, and return 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small data: shows that the benchmarks work")
    parser.add_argument("--only", default=",".join(CASES), help=f"areas, comma-separated: {','.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls per side (at least 5)")
    parser.add_argument("--workdir", type=Path, help="keep and reuse the data here (default: a temporary directory)")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--date", default="(no date given)", help="the day, for the table")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    unknown = set(chosen) - set(CASES)
    if unknown or options.rounds < 5:
        parser.error(f"unknown areas {sorted(unknown)}" if unknown else "at least 5 rounds")
    print(machine(), versions(), sep="\n")
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="openckpt-bench-") as temporary:
        directory = options.workdir or Path(temporary)
        directory = directory / ("quick" if options.quick else "full")
        directory.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            print(f"\n{name}", flush=True)
            results[name] = CASES[name](Setting(directory, options.rounds, options.quick))
            end_workers()
            for row in results[name].rows:
                print(to_text(row), flush=True)
            for note in results[name].notes:
                print(f"  - {note}", flush=True)
    missed = [row for result in results.values() for row in result.rows if not row.met]
    total = sum(len(result.rows) for result in results.values())
    print(
        f"\n{total - len(missed)} of {total} goals met"
        + ("; small data, so this says nothing" if options.quick else "")
    )
    for row in missed:
        print(f"MISSED {row.ratio:.2f} x instead of {row.goal:g}: {row.area}, {row.name}")
    if options.markdown:
        write_markdown(options.markdown, to_markdown(results, date=options.date, rounds=options.rounds))
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
