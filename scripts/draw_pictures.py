#!/usr/bin/env python3
"""Draw the pictures of the documentation: what `openckpt doctor` and `openckpt tree` look like on a terminal, as SVG.

    scripts/draw_pictures.py        writes docs/images/*.svg

The program runs on a pseudo-terminal of 92 columns in a folder that holds what `openckpt demo demo` writes; rich turns its colours
into SVG. Run it through `make docs` when the output changes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
COLUMNS = 92
PICTURES = {
    "doctor.svg": ["doctor", "demo/missing-shard/ckpt-3"],
    "tree.svg": ["tree", "demo/healthy"],
    "show.svg": ["show", "demo/healthy", "model/dense/kernel"],
    "find.svg": ["find", "demo"],
}


def screen_of(arguments: list[str], folder: str) -> str:
    """Run the program on a pseudo-terminal and return what it drew, escape sequences included."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "openckpt.cli", *arguments], cwd=folder, stdin=follower, stdout=follower, stderr=follower,
        env={**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
    )  # fmt: skip
    os.close(follower)
    drawn = bytearray()
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        drawn += piece
    os.close(leader)
    process.wait()
    return drawn.decode().replace("\r\n", "\n").rstrip("\n")


def picture_of(arguments: list[str], drawn: str) -> str:
    """Return the SVG of one screen."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ " + shlex.join(["openckpt", *arguments]), style="bold"))
    console.print(Text.from_ansi(drawn))
    svg = console.export_svg(title="openckpt " + arguments[0])
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no font from elsewhere: a page must not load it


def main() -> int:
    """Draw every picture."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "openckpt.cli", "demo", "demo"], cwd=folder, check=True, capture_output=True
        )
        for name, arguments in PICTURES.items():
            svg = picture_of(arguments, screen_of(arguments, folder))
            (IMAGES / name).write_text(svg, encoding="utf-8", newline="\n")
            print(f"wrote docs/images/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
