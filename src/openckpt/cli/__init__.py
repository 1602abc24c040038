"""The command line: ``openckpt doctor | find | ls | tree | show | convert | demo``.

One module per command, each a thin shell over one public function: it parses, calls, renders and picks the exit code.
Only the module of the command that runs is imported, and rich only to draw on a terminal: ``openckpt ls PREFIX`` is a
process of a twentieth of a second, and a test holds it there.

Everything may be imported here; nothing of openckpt imports this room. Exit codes are in `openckpt.cli.exits`.
"""

from __future__ import annotations


def main() -> None:
    """Run the program ``openckpt`` with the arguments of the process and exit with its code."""
    import sys

    try:
        from openckpt.cli.program import run
    except KeyboardInterrupt:  # within the first instants, before there is anybody to catch it
        sys.stderr.write("openckpt: interrupted\n")
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
