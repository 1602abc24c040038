"""What several faults cost together, and where a data file should end.

Every reader says what each of its findings costs; a cause that explains several of them costs their union. Parameters are
counted as TensorFlow's inspect tool counts them (formats 4.5): the product of the dimensions of every tensor, so a scalar and
the object graph string count 1 each.
"""

from __future__ import annotations

from collections.abc import Iterable

from openckpt.errors import CheckpointError
from openckpt.findings import Finding, Lost
from openckpt.formats.spec import TensorReader


def merge_losses(findings: Iterable[Finding]) -> Lost | None:
    """Return the loss of several findings about different tensors of one checkpoint, None where none has any."""
    tensors: dict[str, None] = {}
    parameters = total = 0
    for finding in findings:
        lost = finding.lost
        if lost is None or all(key in tensors for key in lost.tensors):
            continue  # readers report a tensor once; a second finding about it costs nothing more
        tensors.update(dict.fromkeys(lost.tensors))
        parameters += lost.parameters
        total = max(total, lost.of_parameters)
    return Lost(tuple(tensors), parameters, total) if tensors else None


def data_end(reader: TensorReader, path: str) -> int:
    """Return where the last tensor of a data file ends by the index, in bytes; 0 where no tensor is known to lie in it."""
    end, keys = 0, reader.keys()
    for key in keys:
        try:
            extents = reader.locate(key)
        except CheckpointError:
            continue  # its entry is unreadable, and a finding of its own says so
        for extent in extents:
            if extent.path == path:
                end = max(end, extent.offset + extent.nbytes)
    return end
