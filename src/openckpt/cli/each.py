"""One command over several PATHs: each is answered on its own, a failure of one is told, and the worst exit code wins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from openckpt.cli import exits
from openckpt.cli.settings import Settings
from openckpt.cli.terminal import report_error
from openckpt.errors import CheckpointError

if TYPE_CHECKING:
    from openckpt.formats.spec import TensorSpec

_BATCH = 4096


def run_for_each(paths: Iterable[str], work: Callable[[str], int], settings: Settings, *, as_json: bool) -> int:
    """Call ``work(path)`` for every path and return the highest exit code.

    An error goes to stderr; with ``--json`` also to stdout, as ``{"path", "error"}``, so that every PATH has its line.
    """
    worst = exits.YES
    for path in paths:
        try:
            code = work(path)
        except BrokenPipeError:
            raise
        except (CheckpointError, OSError) as error:
            if settings.debug:
                raise
            report_error(error)
            if as_json:
                print_json({"path": path, "error": error_document(error, path)})
            code = exits.exit_code_of(error)
        worst = max(worst, code)
    return worst


def print_json(document: object) -> None:
    """Print one document on one line of ASCII: any name survives, whatever the encoding of stdout."""
    import json

    sys.stdout.write(json.dumps(document) + "\n")


def print_json_with(document: Mapping[str, object], name: str, items: Iterable[object]) -> None:
    """Print a document like `print_json`, with one more list, ``name``, that is never in memory as a whole."""
    import json

    sys.stdout.write(f"{json.dumps(document)[:-1]}, {json.dumps(name)}: [")
    between = ""
    batch: list[object] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            sys.stdout.write(between + json.dumps(batch)[1:-1])
            between = ", "
            batch.clear()
    sys.stdout.write((between + json.dumps(batch)[1:-1] if batch else "") + "]}\n")


def tensor_document(key: str, spec: TensorSpec | None) -> dict[str, object]:
    """Return what every command says of one tensor; None stands for a key that the checkpoint lacks."""
    return {
        "key": key,
        "dtype": None if spec is None else spec.dtype,
        "shape": None if spec is None or spec.shape is None else list(spec.shape),
        "bytes": None if spec is None else spec.nbytes,
    }


def error_document(error: CheckpointError | OSError, path: str) -> dict[str, object]:
    """Return the finding that stands for an error, in the form of ``openckpt doctor --json``."""
    from openckpt.findings import finding_of, make_finding

    if isinstance(error, CheckpointError):
        return finding_of(error).to_json()
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else path
    return make_finding("storage.refused", place, error.strerror or str(error)).to_json()
