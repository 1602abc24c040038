"""`convert`: one checkpoint in another format, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from openckpt.conversion.casting import Cast, Casting, parse_casts
from openckpt.conversion.finished import find_finished, is_finished_file, secure
from openckpt.conversion.job import Job
from openckpt.conversion.many_files import ManyFilesOutput, index_path
from openckpt.conversion.moving import DEFAULT_MEMORY, LEAST_MEMORY, measure, move
from openckpt.conversion.outputs import FILLERS, CheckpointOutput, FileOutput, Output
from openckpt.conversion.planning import plan_conversion
from openckpt.conversion.proving import open_output, prove
from openckpt.conversion.replacing import refuse_directory, refuse_source
from openckpt.conversion.result import Conversion, TargetFormat
from openckpt.conversion.targets import PREFIXES, choose_format, prefix_of_target
from openckpt.errors import ConflictError, UnsupportedError
from openckpt.formats.collecting import SHORT_BYTES, collection_held
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening import open as open_checkpoint
from openckpt.storage.disk import DISK
from openckpt.writing import MaxShardSize
from openckpt.writing.keys import refuse_url

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.storage.writable import Durability, WritableStore

Path = str | os.PathLike[str]


def convert(
    src: Path,
    dst: Path,
    *,
    to: TargetFormat | None = None,
    cast: Cast | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    max_shard_size: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    overwrite: bool = False,
    verify: bool = True,
    durability: Durability = "power-loss",
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    store: WritableStore | None = None,
) -> Conversion:
    """Write the tensors of a checkpoint in another format.

        openckpt.convert("zoo/model.tar.gz", "model.safetensors", cast="bfloat16")

    Tensors go from file to file one after the other, read ahead on one thread and written on the other. What the target has no
    type or name for - strings in safetensors, bfloat16 in npz - is carried in its metadata, and openckpt reads it back exactly;
    what cannot be carried is refused before anything is written. The target appears whole or not at all. Run again after a
    kill, it goes on: files of a sharded target that are finished are kept, and a finished target is not written again.

    Args:
        src: whatever `openckpt.open` opens.
        dst: a prefix, or a file: ``.safetensors .h5 .hdf5 .npz``, or ``.safetensors.index.json`` for many safetensors files.
        to: ``"dual"``: a V2 checkpoint whose data files are safetensors files too; ``"tensorflow"``: a V2 checkpoint byte for byte
            as TensorFlow writes it; ``"safetensors"``, ``"hdf5"``, ``"npz"``. By the suffix of ``dst`` when not given, else dual.
        cast: ``"bfloat16"`` casts all floats, ``"float32=bfloat16"`` one type; or several of them, or a mapping.
        include: only keys that match one of these globs (``*`` crosses ``/``).
        exclude: no keys that match one of these.
        max_shard_size: bytes of tensors in one data file; for checkpoints and safetensors.
        max_memory: bytes that tensors in memory may take beyond the largest one.
        overwrite: replace what is at ``dst``. Without it, anything but the finished result is refused.
        verify: read the target back and compare it, tensor by tensor, with what was read from the source.
        durability: what the target must survive, see `openckpt.save`.
        limits: caps against hostile sources.
        progress: told the bytes that are done.
        store: where to write; the local disk when not given.

    Raises:
        PathNotFoundError, FormatError, UnsafeError: ``src`` cannot be opened or read.
        UnsupportedError: ``convert.target``, ``convert.cast``, ``convert.unreadable``, ``convert.key``, ``convert.shard-names``.
        NotFoundError: no tensor is left (``convert.nothing``).
        ConflictError: something else is at ``dst`` (``convert.exists``, ``convert.same``), or another program writes it.
        CorruptionError: the target does not read back as it was written (``convert.verify``).
        OSError: the system refused; nothing of the target is left.
        ValueError: an argument makes no sense.
    """
    target = os.fspath(dst)
    refuse_url(DISK if store is None else store, target, code="convert.target")
    chosen = choose_format(target, to)
    casts = parse_casts(cast)
    if max_memory < LEAST_MEMORY:
        raise ValueError(f"max_memory is at least {LEAST_MEMORY}, not {max_memory}")
    if max_shard_size is not None and (max_shard_size < 1 or chosen in ("hdf5", "npz")):
        raise ValueError(f"max_shard_size is a positive size, for checkpoints and safetensors; not {max_shard_size}")
    with open_checkpoint(src, limits=limits, progress=progress) as ckpt:
        plan = plan_conversion(ckpt, chosen, casts=casts, include=_globs(include), exclude=_globs(exclude))
        if chosen not in ("hdf5", "npz"):
            plan = replace(plan, rows=measure(ckpt, plan.rows, max_memory=max_memory))
        job = Job(
            ckpt,
            plan,
            _settle_target(target, chosen, max_shard_size),
            chosen,
            Casting(casts),
            max_shard_size,
            max_memory,
            overwrite,
            durability,
            DISK if store is None else store,
            progress,
        )
        with collection_held(when=sum(row.spec.nbytes or 0 for row in plan.rows) < SHORT_BYTES):
            return _run(job, verify=verify)


def _globs(globs: str | Iterable[str]) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _settle_target(target: str, to: TargetFormat, max_shard_size: int | None) -> str:
    """Return the prefix or file that is written; raises UnsupportedError (``convert.target``)."""
    if to in PREFIXES:
        target = prefix_of_target(target)
    elif to == "safetensors" and (max_shard_size is not None or target.endswith(".json")):
        target = index_path(target)
    if os.path.basename(target) in ("", ".", ".."):
        raise UnsupportedError("convert.target", target or ".", "the target has no name to call the files after")
    return target


def _run(job: Job, *, verify: bool) -> Conversion:
    """Convert, unless it is done already."""
    if job.store.stat(job.face) is not None:
        casting = Casting(job.casting.casts)  # what the comparison casts must not count twice
        files = _look_at_target(job, casting)
        if files is not None:
            durability = secure(job, files)
            return _result(replace(job, casting=casting), files, (), already=True, verified=True, durability=durability)
    else:
        refuse_directory(job)
        if job.overwrite:
            refuse_source(job)
    crcs: dict[str, int] = {}
    with _output(job) as output:
        rows = {row.key: row for row in job.plan.rows}
        order = [rows[key] for key in output.order]
        moved = move(job.ckpt, order, casting=job.casting, max_memory=job.max_memory, progress=job.progress)
        with closing(moved):  # its thread ends before the output is abandoned and the source closed
            for batch in moved:
                output.write(batch)
                crcs.update((item.row.key, item.stored.crc or 0) for item in batch)
    if verify and job.progress is not None:  # opening 20,000 datasets takes seconds
        job.progress("checking", 0, sum(row.spec.nbytes or 0 for row in job.plan.rows))
    with open_output(job.store, job.target, job.to) as written:
        files = written.files
        if verify:
            prove(written, job.plan.rows, crcs, max_memory=job.max_memory, progress=job.progress)
    kept = output.kept if isinstance(output, ManyFilesOutput) else ()
    return _result(job, files, kept, already=False, verified=verify, durability=output.durability)


def _look_at_target(job: Job, casting: Casting) -> tuple[str, ...] | None:
    """Return the files that are there where they are the finished target; None where they may be replaced.

    Raises:
        ConflictError: they are something else, and may not be (``convert.exists``, ``convert.same``).
        UnsupportedError: a directory (``convert.target``).
    """
    present = job.store.stat(job.face)
    if present is not None and present.kind == "dir":
        refuse_directory(job)
    files = find_finished(job, casting)
    if files is not None or present is None:
        return files
    refuse_source(job)
    if not job.overwrite:
        raise ConflictError("convert.exists", job.target, "something else is there already")
    return None


def _output(job: Job) -> Output:
    rows = job.plan.rows
    if job.to in PREFIXES:
        return CheckpointOutput(
            job.target,
            rows,
            layout="dual" if job.to == "dual" else "tensorflow",
            sharding=None if job.max_shard_size is None else MaxShardSize(job.max_shard_size),
            overwrite=job.overwrite,
            durability=job.durability,
            store=job.store,
        )
    if job.is_many_files:
        return ManyFilesOutput(
            job.target,
            rows,
            job.max_shard_size or (1 << 62),
            partial(is_finished_file, job),
            overwrite=job.overwrite,
            durability=job.durability,
            store=job.store,
        )
    return FileOutput(
        job.target,
        rows,
        FILLERS[job.to],
        overwrite=job.overwrite,
        durability=job.durability,
        store=job.store,
    )


def _result(
    job: Job,
    files: Sequence[str],
    kept: tuple[str, ...],
    *,
    already: bool,
    verified: bool,
    durability: Durability,
) -> Conversion:
    stats = [job.store.stat(path) for path in files]
    return Conversion(
        source=job.ckpt.prefix,
        source_format=job.ckpt.format,
        target=job.target,
        to=job.to,
        converted=len(job.plan.rows),
        total=job.plan.total,
        filtered=job.plan.filtered,
        casts=job.casting.reports,
        nbytes=sum(stat.size for stat in stats if stat is not None),
        files=tuple(files),
        kept=kept,
        already=already,
        verified=verified,
        durability=durability,
        notes=job.plan.notes,
    )
