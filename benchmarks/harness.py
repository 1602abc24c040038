"""Measuring: worker processes that take turns, medians with their spread, and rows that say whether a goal is met.

Rules, because figures lie easily:

* both sides' results are compared equal before anything is timed;
* the sides take turns within one run, in shuffled order, at least five rounds after a first call that is shown apart (on a
  virtual machine the first touch of memory costs more than the work);
* every in-process side lives in its own worker, and every worker imports the same libraries;
* a figure is a median with the lowest and the highest value beside it; a missed goal is printed as MISSED with its ratio.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent

ENVIRONMENT = {
    # Compiled modules are kept, as on any machine where a program runs twice.
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONPATH": str(HERE.parent / "src"),
}


@dataclass(frozen=True)
class Sample:
    """Seconds of every timed call of one side; the first call is not among them."""

    name: str
    seconds: tuple[float, ...]
    first: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def spread(self) -> str:
        return f"{seconds_text(min(self.seconds))} .. {seconds_text(max(self.seconds))}"


@dataclass(frozen=True)
class Row:
    """One goal: ours against a peer, or ours against a fixed bound.

    ``ratio`` is larger when we are better: peer's time by ours, or the bound by our figure.
    """

    area: str
    name: str
    ours: str
    peer: str
    ratio: float
    goal: float
    compare: Literal["at least", "above"] = "at least"
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.compare == "at least" else self.ratio > self.goal


@dataclass
class Result:
    """What a case measured: rows with goals, and lines of context."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def seconds_text(seconds: float) -> str:
    """A duration with three significant digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def figure(sample: Sample, nbytes: int = 0) -> str:
    """Median, spread and first call of a side, with GB/s where bytes were moved."""
    speed = f", {nbytes / sample.median / 1e9:.1f} GB/s" if nbytes else ""
    return f"{seconds_text(sample.median)}{speed} ({sample.spread()}; first {seconds_text(sample.first)})"


def versus(area: str, name: str, ours: Sample, peer: Sample, goal: float, *, nbytes: int = 0, **more: Any) -> Row:
    """A row that compares two sides by their medians."""
    return Row(
        area,
        name,
        figure(ours, nbytes),
        f"{peer.name}: {figure(peer, nbytes)}",
        peer.median / ours.median,
        goal,
        **more,
    )


def below(area: str, name: str, ours: Sample, bound: float) -> Row:
    """A row that compares our median with a fixed number of seconds."""
    return Row(area, name, figure(ours), f"bound: {seconds_text(bound)}", bound / ours.median, 1.0, "above")


def memory_row(area: str, name: str, peak: int, bound: int) -> Row:
    """A row that compares our peak of memory with a fixed number of bytes."""
    mib = 1 << 20
    return Row(
        area,
        name,
        f"{peak / mib:.1f} MiB",
        f"bound: {bound / mib:.0f} MiB",
        bound / peak if peak > 0 else 1e9,
        1.0,
        "above",
    )


class Worker:
    """One process with all libraries imported, that runs the functions of `jobs` one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # TensorFlow's log; errors come back as answers
            text=True,
            env=ENVIRONMENT,
        )

    def call(self, job: str, /, **arguments: Any) -> Any:
        """Run one job and return what it returned."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([job, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker died in {job}({arguments}), status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{job}({arguments}): {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


Side = tuple[str, Mapping[str, Any]]
"""name of a job and its arguments"""


def call_alone(job: str, /, **arguments: Any) -> Any:
    """Run one job in a process of its own."""
    worker = Worker()
    try:
        return worker.call(job, **arguments)
    finally:
        worker.close()


def race(
    sides: Mapping[str, Side],
    *,
    rounds: int,
    compare: Sequence[str] | None = None,
    together: bool = False,
    new_process: bool = False,
) -> dict[str, Sample]:
    """Time the jobs of several sides in turns, each side in a worker of its own.

    Args:
        sides: label -> job; a job returns ``[seconds, digest]``, and takes ``digest=True`` to compute what it compares by.
        rounds: timed calls per side.
        compare: labels whose digests must be equal; all of them by default.
        together: all sides in one worker, where they differ by less than two processes do.
        new_process: every timed call in a worker of its own, for what only the first call of a process pays.
    """
    while len(_IDLE) < (1 if together else len(sides)):
        _IDLE.append(Worker())
    workers = dict.fromkeys(sides, _IDLE[0]) if together else dict(zip(sides, _IDLE, strict=False))
    digests = {
        label: workers[label].call(job, digest=True, **arguments)[1] for label, (job, arguments) in sides.items()
    }
    compared = {digests[label] for label in (compare or list(sides))}
    if len(compared) > 1:
        raise AssertionError(f"the sides do not agree, so there is nothing to time: {digests}")

    def call(label: str) -> float:
        job, arguments = sides[label]
        seconds: float = (call_alone if new_process else workers[label].call)(job, **arguments)[0]
        return seconds

    first = {label: call(label) for label in sides}
    seconds: dict[str, list[float]] = {label: [] for label in sides}
    for _ in range(rounds):
        order = list(sides)
        random.shuffle(order)
        for label in order:
            seconds[label].append(call(label))
    for worker in set(workers.values()):
        for forget in ("forget", "forget_saved", "forget_trained", "forget_async", "forget_deltas"):
            worker.call(forget)
    return {label: Sample(label, tuple(values), first[label]) for label, values in seconds.items()}


_IDLE: list[Worker] = []


def end_workers() -> None:
    """End the workers that races left behind; the next race starts new ones. Called between areas."""
    while _IDLE:
        _IDLE.pop().close()


@dataclass(frozen=True)
class ProcessRun:
    """One run of a whole process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: bytes


def run_process(command: Sequence[str], output: Path) -> ProcessRun:
    """Run a command from start to exit; standard output goes to the file ``output``."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], list(command), ENVIRONMENT, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    data = output.read_bytes()
    if status:
        raise RuntimeError(f"{command} ended with status {status}: {data[-400:]!r}")
    # The kernel counts the peak from this process's own size on (the child shares it until exec), so it is an upper bound.
    return ProcessRun(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, data)


@dataclass(frozen=True)
class ProcessSample:
    """All runs of one command: wall time, CPU time (which a busy machine disturbs less), and peak memory."""

    wall: Sample
    cpu: float
    peak_bytes: int


def race_processes(
    commands: Mapping[str, Sequence[str]], *, rounds: int, directory: Path, parse: Callable[[str, bytes], Any]
) -> dict[str, ProcessSample]:
    """Time whole processes in turns.

    ``parse(label, output)`` turns what a process printed into a value that must be equal for all.
    """
    output = directory / "stdout"
    firsts = {label: run_process(command, output) for label, command in commands.items()}
    values = {label: parse(label, run.output) for label, run in firsts.items()}
    if any(value != next(iter(values.values())) for value in values.values()):
        raise AssertionError(f"the processes do not list the same: { {k: str(v)[:200] for k, v in values.items()} }")
    runs: dict[str, list[ProcessRun]] = {label: [] for label in commands}
    for _ in range(rounds):
        order = list(commands)
        random.shuffle(order)
        for label in order:
            runs[label].append(run_process(commands[label], output))
    return {
        label: ProcessSample(
            Sample(label, tuple(run.seconds for run in done), firsts[label].seconds),
            statistics.median(run.cpu_seconds for run in done),
            int(statistics.median(run.peak_bytes for run in done)),
        )
        for label, done in runs.items()
    }
