"""The record that stands for one code in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openckpt.findings import Severity


@dataclass(frozen=True, slots=True)
class Code:
    """One code: how bad it usually is, what happened in a user's words, and the next step.

    Attributes:
        severity: the severity of a finding with this code unless the finding says otherwise.
        cause: one or two sentences: what probably happened.
        fix: the next step, a command where there is one; None where nothing needs doing.
    """

    severity: Severity
    cause: str
    fix: str | None = None
