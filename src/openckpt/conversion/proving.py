"""Whether what lies at a target is what a conversion writes there: read again, and compared by checksum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from openckpt.conversion.moving import checksum
from openckpt.conversion.planning import Row, key_bytes
from openckpt.conversion.result import TargetFormat
from openckpt.conversion.safetensors_file import plan_rows
from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.limits import DEFAULT_LIMITS
from openckpt.opening import CheckpointReader, How, Target, open_target

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.storage.reading import Store

_READERS = {"dual": "bundle-v2", "tensorflow": "bundle-v2"}


def open_output(store: Store, path: str, to: TargetFormat) -> CheckpointReader:
    """Open what lies at a target as the format that was written, whatever else has a similar name.

    Raises:
        CheckpointError, OSError: it is something else, or damaged.
    """
    target = Target(store, path, _READERS.get(to, to), How("file", "the target of the conversion"))
    return CheckpointReader(open_target(target, limits=DEFAULT_LIMITS), target)


def prove(
    output: CheckpointReader,
    rows: Sequence[Row],
    expected: Mapping[str, int],
    *,
    max_memory: int,
    progress: Progress | None = None,
) -> None:
    """Read a whole output and compare it with what went into it.

    Args:
        output: opened for this, so that nothing of the writing is left in it.
        rows: what was written.
        expected: key -> CRC-32C of the tensor's bytes as a V2 data file has them.
        max_memory: as in `move`.
        progress: told the bytes that are done.

    Raises:
        CorruptionError: it is not what was written (``convert.verify``), or damaged.
    """
    problem = find_difference(output, rows)
    if problem is not None:
        raise CorruptionError("convert.verify", Where(output.prefix, problem), "this tensor came back as another")
    found = checksum(output, rows_of(output, rows), max_memory=max_memory, progress=progress)
    for key, crc in expected.items():
        if found[key] != crc:
            raise CorruptionError(
                "convert.verify",
                Where(output.prefix, key),
                "the tensor came back with other bytes",
                expected=f"crc32c {crc:#010x}",
                found=f"{found[key]:#010x}",
            )


def find_difference(output: CheckpointReader, rows: Sequence[Row]) -> str | None:
    """Return a key that an output lacks, has too much, or holds with another type or shape; None where they are the same."""
    specs = dict(output.specs)
    for row in rows:
        spec = specs.pop(row.key, None)
        if spec is None or (spec.dtype, spec.shape) != (row.dtype, row.spec.shape):
            return row.key
    return next(iter(specs), None)


def rows_of(output: CheckpointReader, rows: Sequence[Row]) -> list[Row]:
    """Return the same tensors as they are in the output, in its order of reading."""
    specs = output.specs
    found = [Row(row.key, specs[row.key], specs[row.key].dtype) for row in rows]
    places = {row.key: output.locate(row.key)[:1] for row in found}
    return sorted(found, key=lambda row: [(extent.shard, extent.offset) for extent in places[row.key]])


def is_dual(store: Store, path: str) -> bool:
    """Return whether a data file is of the dual layout."""
    from openckpt.formats.safetensors_header import read_header

    with suppress(CheckpointError, OSError), closing(store.open(path)) as source:
        return read_header(source).dual is not None
    return False


def has_header(store: Store, path: str, rows: Sequence[Row], expected: Mapping[str, int]) -> bool:
    """Return whether a safetensors file has the very header that would be written for these tensors and checksums."""
    from openckpt.formats.safetensors_header import read_header

    plan = plan_rows(rows, path)
    with closing(store.open(path)) as source:
        header = read_header(source)
        if header.dual is None or source.size < plan.data_start:
            return False
        meant = plan.header({key_bytes(row.key): expected[row.key] for row in rows})
        return source.read_at(0, plan.data_start) == meant
