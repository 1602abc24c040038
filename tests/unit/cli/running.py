"""Run the command line: in this process for answers, as a process of its own for manners."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openckpt.cli.program import run


@dataclass(frozen=True)
class Answer:
    """What one run of the program left behind."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """The JSON documents on stdout, one per line."""
        import json

        return [json.loads(line) for line in self.out.splitlines()]


class Runner:
    """Call it with arguments: the program runs in this process, in a pipe."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Answer:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Answer(code, captured.out, captured.err)


def plain_environment(**changes: str) -> dict[str, str]:
    """Return an environment without the variables that change the output, plus ``changes``."""
    drop = (
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "LC_ALL",
        "LC_CTYPE",
        "LANG",
        "PYTHONUNBUFFERED",
    )
    return {**{key: value for key, value in os.environ.items() if key not in drop}, **changes}


def run_process(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a process of its own, its streams being pipes."""
    return subprocess.run(
        [sys.executable, "-m", "openckpt.cli", *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env=plain_environment(**environment),
        timeout=60,
    )


def run_on_terminal(*arguments: str | Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run the program on a pseudo-terminal of ``columns``; return its exit code and everything it drew."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "openckpt.cli", *map(str, arguments)],
        stdin=follower, stdout=follower, stderr=follower, close_fds=True,
        env=plain_environment(TERM="xterm-256color", LANG="C.UTF-8", **environment),
    )  # fmt: skip
    os.close(follower)
    drawn = bytearray()
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux: the last writer is gone
            break
        if not piece:
            break
        drawn += piece
    os.close(leader)
    return process.wait(timeout=60), drawn.decode("utf-8").replace("\r\n", "\n")
