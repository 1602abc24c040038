"""Paths and keys as a command line takes them: what a fix prints can be pasted, whatever the name is made of."""

from __future__ import annotations

import os
import shlex


def quoted(path: str) -> str:
    """Return a path quoted for the shell.

    One that starts with "-" is made to start with "./", for it would be an option; the prefix of an empty name in the current
    directory becomes "./". Control characters and bytes that are not UTF-8 are spelled in octal between ``$'`` and ``'``, as bash, zsh and
    ksh read them: as they are, a terminal would obey them or show them as something else.
    """
    return quoted_word(f"./{path}" if path.startswith("-") or not path else path)


def quoted_word(text: str) -> str:
    """Return any text quoted for the shell as one word."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_spelled, text))}'"


def _spelled(char: str) -> str:
    if char in "'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    try:
        data = os.fsencode(char)
    except UnicodeEncodeError:  # a surrogate that stands for no byte: no file has this name
        data = char.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in data)
