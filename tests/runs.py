"""Real bytes for the doctor: checkpoints from the encoders, written into a temporary directory and then broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import openckpt
from openckpt.doctor import Report
from openckpt.findings import Finding
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.manifest import Manifest, encode_manifest


def weights(step: int = 0) -> dict[str, np.ndarray]:
    """Five tensors of 66 parameters; those of two steps differ in every tensor but one."""
    random = np.random.default_rng(step)
    return {
        "dense/bias": random.standard_normal(8).astype(np.float32),
        "dense/kernel": random.standard_normal((4, 8)).astype(np.float32),
        "embedding": random.standard_normal((5, 5)).astype(np.float64),
        "frozen": np.arange(0, dtype=np.float32),
        "global_step": np.array(step, np.int64),
    }


PARAMETERS = 8 + 32 + 25 + 0 + 1


class Run:
    """A directory with checkpoints of one training."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, files: dict[str, bytes]) -> None:
        """Put files into the directory; names may contain "/"."""
        for name, data in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def save(self, step: int, name: str = "ckpt", **options: object) -> str:
        """Write one whole checkpoint; returns the name of its prefix."""
        prefix = f"{name}-{step}"
        self.write(encode_bundle(weights(step), prefix, **options))  # type: ignore[arg-type]
        return prefix

    def manifest(self, newest: str, *others: str) -> None:
        """Write the manifest: the newest checkpoint, after the others in the list."""
        self.write({"checkpoint": encode_manifest(Manifest(newest, (*others, newest)))})

    def whole(self, *steps: int, **options: object) -> None:
        """Write whole checkpoints and their manifest."""
        names = [self.save(step, **options) for step in steps]
        self.manifest(names[-1], *names[:-1])

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.directory / name).read_bytes()

    def remove(self, *names: str) -> None:
        """Delete files."""
        for name in names:
            (self.directory / name).unlink()

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        (self.directory / old).rename(self.directory / new)

    def diagnose(self, name: str = "", **options: object) -> Report:
        """Ask the doctor about the directory, or about a name in it."""
        return openckpt.diagnose(self.directory / name if name else self.directory, **options)  # type: ignore[arg-type]

    def __truediv__(self, name: str) -> Path:
        return self.directory / name


def codes(report: Report, severity: str | None = None) -> set[str]:
    """Return the codes of all findings, or of those of one severity."""
    return {finding.code for finding in report.all_findings() if severity in (None, finding.severity)}


def only(report: Report, code: str) -> Finding:
    """Return the one finding with this code."""
    found = [finding for finding in report.all_findings() if finding.code == code]
    assert len(found) == 1, [finding.code for finding in report.all_findings()]
    return found[0]
