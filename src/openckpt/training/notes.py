"""What a manager was told of a step, kept inside its checkpoint as the string tensor ``_OPENCKPT_METRICS``.

    {"step": 1200, "metrics": {"accuracy": 0.91, "loss": 0.3}}

Not in the manifest, which holds TensorFlow's four fields and nothing else; and not in a file of its own, which others' sweeps
and copies would leave behind. Stock TensorFlow restores by the object graph, which does not name it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

METRICS_KEY = "_OPENCKPT_METRICS"


class Note(NamedTuple):
    """The step counter's value, None where there was none, and the metrics."""

    step: int | None = None
    metrics: Mapping[str, float] = {}


def encode_note(note: Note) -> bytes:
    """Return the note as JSON, equal for equal notes; numbers that JSON lacks are text."""
    metrics = {name: value if math.isfinite(value) else str(value) for name, value in sorted(note.metrics.items())}
    return json.dumps({"step": note.step, "metrics": metrics}).encode()


def parse_note(data: bytes) -> Note:
    """Return the note in some bytes, an empty one where they are none."""
    try:
        found = json.loads(data)
        step, metrics = found["step"], found["metrics"]
        return Note(None if step is None else int(step), {str(name): float(metrics[name]) for name in metrics})
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Note()
