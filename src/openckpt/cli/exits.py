"""The exit codes of every command, and which one an error means.

With several PATHs the highest code wins.
"""

from __future__ import annotations

from openckpt.errors import CheckpointError, NotFoundError, PathNotFoundError

YES = 0
"""done; the answer is yes"""
NO = 1
"""the answer is no: the doctor found an error or a warning, nothing was found, no such key, something else is at the target"""
USAGE = 2
"""the command line itself is wrong"""
UNREADABLE = 3
"""``ls``, ``tree``, ``show`` and ``convert``: what they were given is damaged or of an unknown kind"""
NO_PATH = 4
"""the path does not exist, or the system refused"""
BUG = 70
"""openckpt itself failed (EX_SOFTWARE of sysexits)"""
INTERRUPTED = 130
"""Ctrl-C"""
PIPE_CLOSED = 141
"""the reader of the output went away (``| head``); what any Unix program reports"""

MEANINGS = {
    YES: "yes, done",
    NO: "the answer is no: the doctor found an error or a warning, nothing was found, there is no such key, something else is at the target",
    USAGE: "the command line is wrong",
    UNREADABLE: "`ls`, `tree`, `show` and `convert` cannot read what they were given (damaged, unknown)",
    NO_PATH: "the path does not exist, or the system refused",
    BUG: "openckpt itself failed: a bug, please report it with the output of `--debug`",
    INTERRUPTED: "Ctrl-C",
    PIPE_CLOSED: "the reader of the output went away (`| head`)",
}


def exit_code_of(error: CheckpointError | OSError) -> int:
    """Return the exit code that an error of the library or of the system means for ``ls``, ``tree``, ``show`` and ``find``."""
    if isinstance(error, PathNotFoundError):
        return NO_PATH
    if isinstance(error, NotFoundError):
        return NO
    if isinstance(error, CheckpointError):
        return UNREADABLE
    return NO_PATH
