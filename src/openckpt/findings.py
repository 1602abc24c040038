"""The one finding type: what the doctor and every format's ``validate`` report, as a value.

A finding is rendered three ways (terminal, JSON, later a web page) and compared by ``code``. Severity:

* ``error``: what the path names cannot be restored whole;
* ``warning``: restorable but suspect;
* ``note``: normal life; never changes an exit code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from openckpt.errors import CheckpointError, Where, place_of

Severity = Literal["error", "warning", "note"]

Progress: TypeAlias = Callable[[str, int, "int | None"], None]
"""``progress(what, done, total)``, called now and then during long work; ``total`` is None where unknown. Never called
from a hot loop more than about every 10 MiB or 1,000 items, and always from the thread that started the work."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What a fault costs: the names of the tensors, and how many parameters of how many in the whole checkpoint."""

    tensors: tuple[str, ...]
    parameters: int
    of_parameters: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (documented in docs/reference/json.md)."""
        return {
            "tensors": list(self.tensors),
            "parameters": self.parameters,
            "of_parameters": self.of_parameters,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen: a stable code, how bad it is, where, and what to do about it.

    Attributes:
        code: stable name, listed in docs/reference/codes.md; its part before the dot is the area.
        severity: ``error``, ``warning`` or ``note``; a note is normal life.
        where: file, and key and offset where known.
        message: what was seen, one line, without the place.
        cause: how such a thing comes about, in a user's words.
        found: what was there, as text; None where that says nothing.
        expected: what should have been there, as text.
        lost: what the fault costs, None where it costs nothing or that is not known.
        fix: the next command or step, None where there is nothing to do.
    """

    code: str
    severity: Severity
    where: Where
    message: str
    cause: str
    found: str | None = None
    expected: str | None = None
    lost: Lost | None = None
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (documented in docs/reference/json.md)."""
        return {
            "code": self.code,
            "severity": self.severity,
            "where": {"path": self.where.path, "key": self.where.key, "offset": self.where.offset},
            "message": self.message,
            "found": self.found,
            "expected": self.expected,
            "cause": self.cause,
            "lost": None if self.lost is None else self.lost.to_json(),
            "fix": self.fix,
        }

    def with_lost(self, lost: Lost | None) -> Finding:
        """Return this finding with the loss filled in."""
        return replace(self, lost=lost)


def make_finding(
    code: str,
    where: Where | str,
    message: str,
    *,
    found: object = None,
    expected: object = None,
    lost: Lost | None = None,
    severity: Severity | None = None,
    cause: str | None = None,
    fix: str | None = None,
) -> Finding:
    """Make a finding; severity, cause and fix come from the catalogue of `openckpt.codes` where not given."""
    from openckpt.codes import CATALOGUE, fix_for

    entry = CATALOGUE[code]
    place = place_of(where)
    return Finding(
        code=code,
        severity=severity or entry.severity,
        where=place,
        message=message,
        cause=cause or entry.cause,
        found=None if found is None else str(found),
        expected=None if expected is None else str(expected),
        lost=lost,
        fix=fix if fix is not None else fix_for(code, place),
    )


def finding_of(error: CheckpointError, *, severity: Severity | None = None) -> Finding:
    """Turn an error of the library into the finding of the same code."""
    return make_finding(
        error.code,
        error.where,
        error.message,
        found=error.found,
        expected=error.expected,
        severity=severity,
        fix=error.fix,
    )
