"""Where tensors go: a checkpoint, one safetensors file, an HDF5 file, an npz. Each is one commit: whole, or not there.

An output says in which order it wants its tensors, takes them in batches, and is a context manager: leaving the block without
an error puts the target in place. Safetensors in many files is `openckpt.conversion.many_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from openckpt.conversion.planning import Row, checkpoint_order
from openckpt.conversion.safetensors_file import SafetensorsFile
from openckpt.storage.commit import Commit
from openckpt.storage.seeking import SeekingFile
from openckpt.writing import CheckpointWriter, create
from openckpt.writing.place import settle_dead

if TYPE_CHECKING:
    from openckpt.conversion.moving import Moved
    from openckpt.formats.hdf5.encoder import HDF5Writer
    from openckpt.formats.npz_encoder import NpzWriter
    from openckpt.storage.pending import PendingFile
    from openckpt.storage.writable import Durability, WritableStore
    from openckpt.writing import Sharding
    from openckpt.writing.filling import Layout

_PER_TENSOR = 2048  # bytes of headers and directories, for the estimate of free space


class Output(Protocol):
    """One target while it is written."""

    durability: Durability
    """what the target survives, once the block has ended"""

    @property
    def order(self) -> Sequence[str]:
        """The keys in the order in which they should come."""
        ...

    def write(self, batch: Sequence[Moved]) -> None:
        """Write some tensors; they may be changed when this returns."""
        ...

    def __enter__(self) -> Output: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CheckpointOutput:
    """A V2 checkpoint, dual or in TensorFlow's layout."""

    def __init__(
        self,
        prefix: str,
        rows: Sequence[Row],
        *,
        layout: Layout,
        sharding: Sharding | None,
        overwrite: bool,
        durability: Durability,
        store: WritableStore,
    ) -> None:
        self.durability = durability
        self._whole = sharding is None  # else the writer may have to cut the value
        specs = {row.key: row.target for row in checkpoint_order(rows)}
        self._writer: CheckpointWriter = create(
            prefix,
            specs,
            layout,
            sharding=sharding,
            overwrite=overwrite,
            durability=durability,
            store=store,
        )

    @property
    def order(self) -> Sequence[str]:
        """As the files want them."""
        return self._writer.order

    def write(self, batch: Sequence[Moved]) -> None:
        """Write some tensors."""
        self._writer.add_many({moved.row.key: moved.stored if self._whole else moved.value for moved in batch})

    def __enter__(self) -> CheckpointOutput:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        if self._writer.result is not None:
            self.durability = self._writer.result.durability


class Filler(Protocol):
    """What makes the bytes of a target of one file."""

    @property
    def order(self) -> Sequence[str]:
        """The keys in the order in which they should come."""
        ...

    def add(self, moved: Moved) -> None:
        """Write one tensor; it may be changed after the next `flush`."""
        ...

    def flush(self) -> None:
        """Write what is held back."""
        ...

    def finish(self) -> None:
        """Write what is still missing."""
        ...

    def abandon(self) -> None:
        """Let go of the file after an error; never raises."""
        ...


class FileOutput:
    """A target of one file.

    Args:
        path: its path.
        rows: its tensors.
        fill: makes what fills the file.
        overwrite: replace what is there.
        durability: see `openckpt.save`.
        store: where to write.
    """

    def __init__(
        self,
        path: str,
        rows: Sequence[Row],
        fill: Callable[[PendingFile, Sequence[Row]], Filler],
        *,
        overwrite: bool,
        durability: Durability,
        store: WritableStore,
    ) -> None:
        self.durability: Durability = durability
        self._rows = checkpoint_order(rows)
        self._fill = fill
        self._overwrite = overwrite
        directory, self._name = store.split(path)
        self._commit = Commit(store, directory, self._name, durability=durability, settle=settle_dead)

    @property
    def order(self) -> Sequence[str]:
        """As the file wants them."""
        return self._filler.order

    def write(self, batch: Sequence[Moved]) -> None:
        """Write some tensors."""
        for moved in batch:
            self._filler.add(moved)
        self._filler.flush()

    def __enter__(self) -> FileOutput:
        with ExitStack() as stack:
            stack.enter_context(self._commit)
            self._commit.require_space(needed_space(self._rows))
            self._file = self._commit.create()
            self._filler = self._fill(self._file, self._rows)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._filler.finish()
                if self._overwrite:
                    self._commit.switch(self._file, self._name)
                else:
                    self._commit.publish({self._file: self._name})
        except BaseException as failure:
            self._filler.abandon()
            self._commit.__exit__(type(failure), failure, failure.__traceback__)
            raise
        if error is not None:
            self._filler.abandon()
        self.durability = self._commit.durability
        self._commit.__exit__(kind, error, trace)


def needed_space(rows: Sequence[Row]) -> int:
    """Return about how many bytes the files of these tensors take."""
    return sum((row.target.nbytes or row.spec.nbytes or 0) + _PER_TENSOR for row in rows)


class TensorByTensor:
    """Fills a file through a format's own writer, which takes one tensor after the other: plain HDF5 and npz."""

    def __init__(self, writer: HDF5Writer | NpzWriter, order: Sequence[str]) -> None:
        self.order = order
        self._writer = writer

    def add(self, moved: Moved) -> None:
        """Write one tensor."""
        self._writer.add(moved.row.key, moved.value, moved.row.dtype)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        """Write what comes last: what libhdf5 still holds, the directory of a zip."""
        self._writer.finish()

    def abandon(self) -> None:
        """Let go of the file in libhdf5 or the zip."""
        self._writer.abandon()


def _fill_hdf5(file: PendingFile, rows: Sequence[Row]) -> TensorByTensor:
    from openckpt.formats.hdf5.encoder import HDF5Writer

    order = [row.key for row in rows]
    return TensorByTensor(HDF5Writer(SeekingFile(file), order), order)


def _fill_npz(file: PendingFile, rows: Sequence[Row]) -> TensorByTensor:
    from openckpt.formats.npz_encoder import NpzWriter

    order = [row.key for row in rows]
    return TensorByTensor(NpzWriter(SeekingFile(file), order), order)


FILLERS: dict[str, Callable[[PendingFile, Sequence[Row]], Filler]] = {
    "safetensors": SafetensorsFile,
    "hdf5": _fill_hdf5,
    "npz": _fill_npz,
}
"""format -> what fills a file of it"""
