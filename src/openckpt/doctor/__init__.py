"""The doctor: findings with stable codes about anything a user may point at, the cause, what is lost, and the next command.

`diagnose` walks from the path to a directory's manifest, its groups of files, and each checkpoint's own bytes; every check
gives `openckpt.findings.Finding` values and none raises for what it finds in files. A `Report` is a value: terminal, JSON
and web page are renderings of it.

May import opening, finding and formats; must not import the face or the command line, and must not open files itself.
"""

from __future__ import annotations

from openckpt.doctor.diagnose import diagnose
from openckpt.doctor.report import CheckpointReport, Report

__all__ = ["CheckpointReport", "Report", "diagnose"]
