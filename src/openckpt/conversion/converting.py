"""`convert`: one checkpoint in another format, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openckpt.conversion.casting import Cast, Casting, parse_casts
from openckpt.conversion.many_files import SUFFIX as SAFETENSORS_SUFFIX
from openckpt.conversion.many_files import ManyFilesOutput, index_path, plan_files
from openckpt.conversion.moving import DEFAULT_MEMORY, LEAST_MEMORY, checksum, measure, move
from openckpt.conversion.outputs import FILLERS, CheckpointOutput, FileOutput, Output
from openckpt.conversion.planning import Plan, Row, checkpoint_order, plan_conversion
from openckpt.conversion.proving import find_difference, has_header, is_dual, open_output, prove, rows_of
from openckpt.conversion.result import Conversion, TargetFormat
from openckpt.conversion.targets import PREFIXES, choose_format, prefix_of_target
from openckpt.errors import CheckpointError, ConflictError, UnsupportedError
from openckpt.formats.names import INDEX_SUFFIX
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening import open as open_checkpoint
from openckpt.storage.disk import DISK
from openckpt.storage.pending import doing
from openckpt.storage.sweeping import sweep
from openckpt.writing import MaxShardSize
from openckpt.writing.place import settle_dead

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.opening import CheckpointReader
    from openckpt.storage.writable import Durability, WritableStore
    from openckpt.writing.writer import Layout

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
        job = _Job(
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
        return job.run(verify=verify)


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


@dataclass(frozen=True, slots=True)
class _Job:
    """One conversion with everything decided."""

    ckpt: CheckpointReader
    plan: Plan
    target: str
    to: TargetFormat
    casting: Casting
    max_shard_size: int | None
    max_memory: int
    overwrite: bool
    durability: Durability
    store: WritableStore
    progress: Progress | None

    @property
    def _many(self) -> bool:
        return (
            self.to == "safetensors" and not self.target.endswith(SAFETENSORS_SUFFIX) and self.target.endswith(".json")
        )

    @property
    def _face(self) -> str:
        """The file by which the target is there."""
        return self.target + INDEX_SUFFIX if self.to in PREFIXES else self.target

    def run(self, *, verify: bool) -> Conversion:
        """Convert, unless it is done already."""
        present = self.store.stat(self._face)
        if present is not None:
            if present.kind == "dir":
                raise UnsupportedError("convert.target", self.target, "this is a directory")
            casting = Casting(self.casting.casts)  # what the comparison casts must not count twice
            files = self._finished_files(casting)
            if files is not None:
                secured = self._secure(files)
                return replace(self, casting=casting)._result(
                    files, (), already=True, verified=True, durability=secured
                )
            if present.identity in [self._identity(path) for path in self.ckpt.files]:
                raise ConflictError("convert.same", self.target, "this is the source itself")
            if not self.overwrite:
                raise ConflictError("convert.exists", self.target, "something else is there already")
        crcs: dict[str, int] = {}
        with self._output() as output:
            rows = {row.key: row for row in self.plan.rows}
            order = [rows[key] for key in output.order]
            moved = move(self.ckpt, order, casting=self.casting, max_memory=self.max_memory, progress=self.progress)
            with closing(moved):  # its thread ends before the output is abandoned and the source closed
                for batch in moved:
                    output.write(batch)
                    crcs.update((item.row.key, item.stored.crc or 0) for item in batch)
        if verify:
            with open_output(self.store, self.target, self.to) as written:
                prove(written, self.plan.rows, crcs, max_memory=self.max_memory, progress=self.progress)
        kept = output.kept if isinstance(output, ManyFilesOutput) else ()
        return self._result(output.files, kept, already=False, verified=verify, durability=output.durability)

    def _secure(self, files: Sequence[str]) -> Durability:
        """Do what a run that was killed behind its commit point had still to do; return what the target survives."""
        directory, _ = self.store.split(self.target)
        sweep(self.store, directory, settle=settle_dead)
        if self.durability != "power-loss":
            return self.durability
        for path in files:
            with doing("sync", path):
                self.store.sync_path(path)
        with doing("sync of the directory", directory or "."):
            return "power-loss" if self.store.sync_directory(directory) else "process-crash"

    def _identity(self, path: str) -> tuple[int, ...]:
        stat = self.store.stat(path)
        return () if stat is None else stat.identity

    def _output(self) -> Output:
        rows = self.plan.rows
        if self.to in PREFIXES:
            layout: Layout = "dual" if self.to == "dual" else "tensorflow"
            return CheckpointOutput(
                self.target,
                rows,
                layout=layout,
                sharding=None if self.max_shard_size is None else MaxShardSize(self.max_shard_size),
                overwrite=self.overwrite,
                durability=self.durability,
                store=self.store,
            )
        if self._many:
            return ManyFilesOutput(
                self.target,
                rows,
                self.max_shard_size or (1 << 62),
                self._is_finished_file,
                overwrite=self.overwrite,
                durability=self.durability,
                store=self.store,
            )
        return FileOutput(
            self.target,
            rows,
            FILLERS[self.to],
            overwrite=self.overwrite,
            durability=self.durability,
            store=self.store,
        )

    def _checksums(self, rows: Sequence[Row], casting: Casting) -> dict[str, int]:
        """Return the checksums of tensors as they would be written."""
        return checksum(
            self.ckpt, rows, casting=casting, max_memory=self.max_memory, progress=self.progress, what="comparing"
        )

    def _is_finished_file(self, path: str, rows: Sequence[Row]) -> bool:
        """Return whether a safetensors file is byte for byte what would be written for these tensors."""
        try:
            with open_output(self.store, path, "safetensors") as found:
                if find_difference(found, rows) is not None:
                    return False
                expected = self._checksums(rows, Casting(self.casting.casts))
                if not has_header(self.store, path, rows, expected):
                    return False
                return checksum(found, rows_of(found, rows), max_memory=self.max_memory) == expected
        except CheckpointError:
            return False

    def _finished_files(self, casting: Casting) -> tuple[str, ...] | None:
        """Return the files at the target where they are what would be written, read and compared; None for anything else."""
        rows = self.plan.rows
        try:
            with open_output(self.store, self.target, self.to) as found:
                if find_difference(found, rows) is not None or not self._is_laid_out(found):
                    return None
                if checksum(found, rows_of(found, rows), max_memory=self.max_memory) != self._checksums(rows, casting):
                    return None
                return found.files
        except (CheckpointError, IsADirectoryError):
            return None

    def _is_laid_out(self, found: CheckpointReader) -> bool:
        """Return whether files of the right tensors are of the right layout as well."""
        if self.to in ("hdf5", "npz"):
            return True
        shards = {extent.path for row in self.plan.rows for extent in found.locate(row.key)}
        if self.to == "tensorflow" and any(is_dual(self.store, path) for path in shards):
            return False
        if self.to != "tensorflow" and not all(is_dual(self.store, path) for path in shards):
            return False
        return len(shards) == self._planned_files()

    def _planned_files(self) -> int:
        """Return how many data files hold a tensor."""
        if self.max_shard_size is None:
            return 1
        if self._many:
            return len(plan_files(self.plan.rows, self.max_shard_size))
        specs = [(row.key, row.target) for row in checkpoint_order(self.plan.rows)]
        return sum(bool(pieces) for pieces in MaxShardSize(self.max_shard_size).plan(specs))

    def _result(
        self,
        files: Sequence[str],
        kept: tuple[str, ...],
        *,
        already: bool,
        verified: bool,
        durability: Durability,
    ) -> Conversion:
        stats = [self.store.stat(path) for path in files]
        return Conversion(
            source=self.ckpt.prefix,
            source_format=self.ckpt.format,
            target=self.target,
            to=self.to,
            converted=len(self.plan.rows),
            total=self.plan.total,
            filtered=self.plan.filtered,
            casts=self.casting.reports,
            nbytes=sum(stat.size for stat in stats if stat is not None),
            files=tuple(files),
            kept=kept,
            already=already,
            verified=verified,
            durability=durability,
            notes=self.plan.notes,
        )
