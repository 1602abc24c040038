"""The whole error hierarchy. Everything that openckpt raises on its own account is one of these:

    CheckpointError                  carries .code ("bundle.crc-mismatch") and .where (path, key, offset)
    |- FormatError                   the bytes are not what they claim
    |  |- CorruptionError            checksum, truncation, contradiction - was valid once
    |  |- UnsupportedError           valid, but a version or feature we do not read
    |  `- LimitError                 larger than limits allow; says which limit and how to raise it
    |- NotFoundError (KeyError)      no such key; suggests the nearest names
    |  `- PathNotFoundError          (also FileNotFoundError) no such checkpoint; suggests the nearest prefixes
    |- MismatchError                 restore target and stored tensor disagree (dtype, shape, structure)
    |  `- NotMatchedError            (also AssertionError) an assert_* of a restore's status did not hold
    |- ConflictError                 someone else holds or has changed this prefix
    `- UnsafeError                   asked to run or follow something the file chose (code, link, path)

``OSError`` from the system passes through untouched, with a note that says what openckpt was doing.

A code is stable, and means the same in an exception, in a finding of the doctor and in the CLI's JSON; its cause and fix
stand in `openckpt.codes`, which is imported only when somebody asks for them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple


class Where(NamedTuple):
    """The place of a fault: a file as shown to people, and inside it a key and a byte offset where known.

    A tuple, as is all that a listing needs: importing dataclasses would take a tenth of its time.
    """

    path: str
    key: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.key is not None:
            parts.append(f"key {self.key!r}")
        if self.offset is not None:
            parts.append(f"offset {self.offset}")
        if not self.path:
            return ", ".join(parts)
        return f"{printable(self.path)} ({', '.join(parts)})" if parts else printable(self.path)


def place_of(where: Where | str) -> Where:
    """Return the place; a plain string is a path."""
    return Where(where) if isinstance(where, str) else where


def printable(text: str) -> str:
    """Return ``text`` safe for a terminal and for UTF-8: control characters and undecodable bytes are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


def with_article(noun: str) -> str:
    """Return a noun with its article: ``a Dense``, ``an Adam``."""
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


def shown(names: Sequence[str], most: int = 3) -> str:
    """Return the first ``most`` names, quoted, and how many more there are: ``'a', 'b', 'c' and 7 more``."""
    text = ", ".join(map(repr, names[:most]))
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def size_text(nbytes: int | None) -> str:
    """Return a size in bytes for people, with a decimal unit: ``31.4 kB``; ``?`` where unknown."""
    if nbytes is None:
        return "?"
    if nbytes < 1000:
        return f"{nbytes} B"
    units = iter(("kB", "MB", "GB", "TB", "PB"))
    value, unit = nbytes / 1000, next(units)
    while value >= 999.5 and unit != "PB":
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


class CheckpointError(Exception):
    """Base of all errors of openckpt.

    Args:
        code: stable name of the fault, a key of ``openckpt.codes.CATALOGUE``.
        where: the place; a plain string is a path.
        message: what is wrong, one line, without the place.
        found: what was there, as text; shown after the message.
        expected: what should have been there, as text.
        fix: what to do now; the catalogue's fix for the code when not given.
    """

    def __init__(
        self,
        code: str,
        where: Where | str,
        message: str,
        *,
        found: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(code, where, message)
        self.code = code
        self.where = place_of(where)
        self.message = message
        self.found = None if found is None else str(found)
        self.expected = None if expected is None else str(expected)
        self._fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions travel between processes (the HDF5 child, pools of later versions); keyword state must survive.
        return (_rebuild, (type(self), self.code, self.where, self.message, self.found, self.expected, self._fix))

    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        """What other libraries make an error of their own from, as Keras does of one in a layer's call: the whole text."""
        return (str(self),)

    @property
    def fix(self) -> str | None:
        """What to do now, or None where there is nothing to do."""
        if self._fix is not None:
            return self._fix
        from openckpt.codes import fix_for

        return fix_for(self.code, self.where)

    def __str__(self) -> str:
        where = str(self.where)
        text = f"{where}: {self.message}" if where else self.message
        if self.expected is not None and self.found is not None:
            text += f" (expected {self.expected}, found {self.found})"
        elif self.found is not None:
            text += f" (found {self.found})"
        fix = self.fix
        text = f"{text} [{self.code}]"
        return f"{text}; {fix}" if fix else text


def _rebuild(
    kind: type[CheckpointError],
    code: str,
    where: Where,
    message: str,
    found: str | None,
    expected: str | None,
    fix: str | None,
) -> CheckpointError:
    return kind(code, where, message, found=found, expected=expected, fix=fix)


class FormatError(CheckpointError):
    """The bytes are not what they claim to be."""


class CorruptionError(FormatError):
    """A checksum, a truncation or a contradiction: these bytes were valid once."""


class UnsupportedError(FormatError):
    """Valid, but of a version or with a feature that openckpt does not read."""


class LimitError(FormatError):
    """Larger than `openckpt.Limits` allows; the message says which limit and how to raise it."""


class NotFoundError(CheckpointError, KeyError):
    """No such key in the checkpoint; the message suggests the nearest names."""

    __str__ = CheckpointError.__str__  # KeyError would print the repr


class PathNotFoundError(NotFoundError, FileNotFoundError):
    """No such checkpoint; the message suggests the nearest prefixes."""

    __str__ = CheckpointError.__str__


class MismatchError(CheckpointError):
    """The restore target and the stored tensor disagree in dtype, shape or structure."""


class NotMatchedError(MismatchError, AssertionError):
    """An ``assert_*`` of a restore's status did not hold."""


class ConflictError(CheckpointError):
    """Someone else holds this prefix, or has changed it under the reader."""


class UnsafeError(CheckpointError):
    """Asked to run or follow something that the file chose: code, a link, a path."""


class CheckpointWarning(UserWarning):
    """What a caller must hear although nothing failed: a manifest that is ignored, a fallback that was taken."""


class PartialRestoreWarning(CheckpointWarning):
    """A restore gave values to some variables of the program and not to others."""


def warn(message: str, category: type[CheckpointWarning] = CheckpointWarning) -> None:
    """Warn, for the line of the program that has called openckpt, however deep in it this is."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "openckpt":
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
