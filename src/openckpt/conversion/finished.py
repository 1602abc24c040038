"""What an earlier run has finished: recognised by its bytes, never by its name alone, and made as safe as a new one.

A file of another step of the same training has the same names, types and shapes. So whatever is there is read and compared with
the source, tensor by tensor, before it is kept or called done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openckpt.conversion.casting import Casting
from openckpt.conversion.job import Job
from openckpt.conversion.many_files import plan_files
from openckpt.conversion.moving import checksum
from openckpt.conversion.planning import Row, checkpoint_order
from openckpt.conversion.proving import find_difference, has_header, is_dual, open_output, rows_of
from openckpt.errors import CheckpointError
from openckpt.storage.pending import doing
from openckpt.storage.sweeping import sweep
from openckpt.writing import MaxShardSize
from openckpt.writing.place import settle_dead

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader
    from openckpt.storage.writable import Durability


def find_finished(job: Job, casting: Casting) -> tuple[str, ...] | None:
    """Return the files at the target where they are what would be written; None for anything else, damaged ones included.

    Args:
        job: the conversion.
        casting: makes the casts of this comparison.

    Raises:
        CheckpointError, OSError: the source cannot be read.
    """
    rows = job.plan.rows
    try:
        with open_output(job.store, job.target, job.to) as found:
            if find_difference(found, rows) is not None or not _is_laid_out(job, found):
                return None
            files = found.files
            there = checksum(found, rows_of(found, rows), max_memory=job.max_memory)
    except CheckpointError:
        return None
    return files if there == _expected(job, rows, casting) else None


def is_finished_file(job: Job, path: str, rows: Sequence[Row]) -> bool:
    """Return whether a safetensors file is byte for byte what would be written for these tensors.

    Raises:
        CheckpointError, OSError: the source cannot be read.
    """
    try:
        with open_output(job.store, path, "safetensors") as found:
            if find_difference(found, rows) is not None:
                return False
            there = checksum(found, rows_of(found, rows), max_memory=job.max_memory)
    except CheckpointError:
        return False
    expected = _expected(job, rows, Casting(job.casting.casts))
    return there == expected and has_header(job.store, path, rows, expected)


def secure(job: Job, files: Sequence[str]) -> Durability:
    """Do what a run that was killed behind its commit point had still to do; return what the target survives.

    Raises:
        OSError: as the system says.
    """
    directory, _ = job.store.split(job.target)
    sweep(job.store, directory, settle=settle_dead)
    if job.durability != "power-loss":
        return job.durability
    for path in files:
        with doing("sync", path):
            job.store.sync_path(path)
    with doing("sync of the directory", directory or "."):
        return "power-loss" if job.store.sync_directory(directory) else "process-crash"


def _expected(job: Job, rows: Sequence[Row], casting: Casting) -> dict[str, int]:
    """Return the checksums of tensors as they would be written."""
    return checksum(job.ckpt, rows, casting=casting, max_memory=job.max_memory, progress=job.progress, what="comparing")


def _is_laid_out(job: Job, found: CheckpointReader) -> bool:
    """Return whether files of the right tensors are of the right layout as well."""
    if job.to in ("hdf5", "npz"):
        return True
    shards = {extent.path for row in job.plan.rows for extent in found.locate(row.key)}
    dual = [is_dual(job.store, path) for path in shards]
    return len(shards) == _planned_files(job) and (not any(dual) if job.to == "tensorflow" else all(dual))


def _planned_files(job: Job) -> int:
    """Return how many data files hold a tensor."""
    if job.max_shard_size is None:
        return 1
    if job.is_many_files:
        return len(plan_files(job.plan.rows, job.max_shard_size))
    specs = [(row.key, row.target) for row in checkpoint_order(job.plan.rows)]
    return sum(bool(pieces) for pieces in MaxShardSize(job.max_shard_size).plan(specs))
