"""What the doctor answers, as values.

``Report`` is about the path that was named: findings of the path itself (a directory: its manifest, its mixture of files),
then one `CheckpointReport` for every checkpoint that was looked at. ``valid`` means *no error*: for one checkpoint or file
in anything said about it, for a directory in its own findings and in those of its newest checkpoint, since a damaged
older step does not keep anybody from restoring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openckpt.findings import Finding, Severity

_RANK: dict[Severity, int] = {"note": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """The findings about one checkpoint.

    Attributes:
        prefix: what to pass to `openckpt.open` (a prefix or a file), as shown to people.
        format: one of ``bundle-v2 table-v1 hdf5 keras-v3 safetensors npz``, or None where nothing readable is there.
        step: the step of the checkpoint, None where it has none.
        valid: whether it can be restored whole, that is, whether no finding is an error.
        findings: the worst first.
    """

    prefix: str
    format: str | None
    step: int | None
    valid: bool
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (documented in docs/reference/json.md)."""
        return {
            "prefix": self.prefix,
            "format": self.format,
            "step": self.step,
            "valid": self.valid,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The doctor's answer about one path.

    Attributes:
        path: the path as it was given.
        valid: whether what the path names can be restored whole (see the module's text for directories).
        findings: those of the path itself, the worst first.
        checkpoints: every checkpoint that was looked at, the newest first.
    """

    path: str
    valid: bool
    findings: tuple[Finding, ...]
    checkpoints: tuple[CheckpointReport, ...]

    def all_findings(self) -> Iterator[Finding]:
        """Iterate over the findings of the path and then of every checkpoint."""
        yield from self.findings
        for checkpoint in self.checkpoints:
            yield from checkpoint.findings

    @property
    def worst(self) -> Severity | None:
        """The worst severity of any finding, None where nothing was found."""
        return max((finding.severity for finding in self.all_findings()), key=_RANK.__getitem__, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (documented in docs/reference/json.md)."""
        return {
            "path": self.path,
            "valid": self.valid,
            "findings": [finding.to_json() for finding in self.findings],
            "checkpoints": [checkpoint.to_json() for checkpoint in self.checkpoints],
        }


def has_error(findings: Iterable[Finding]) -> bool:
    """Return whether one of the findings is an error."""
    return any(finding.severity == "error" for finding in findings)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the worst first and otherwise in the order they were made."""
    return tuple(sorted(findings, key=lambda finding: -_RANK[finding.severity]))


def checkpoint_report(
    prefix: str, format: str | None, step: int | None, findings: Iterable[Finding]
) -> CheckpointReport:
    """Make the report of one checkpoint; it is valid when no finding is an error."""
    found = ordered(findings)
    return CheckpointReport(prefix, format, step, not has_error(found), found)
