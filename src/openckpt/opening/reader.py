"""`CheckpointReader`: one opened checkpoint as a mapping from key to array, whatever its format."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Protocol, TypeVar, overload, runtime_checkable

from openckpt.errors import CheckpointError, Where
from openckpt.formats.names import parse_v1_shard_name, step_of
from openckpt.formats.spec import Extent, TensorReader, TensorSpec
from openckpt.opening.steps import read_stored_step

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.spec import Array
    from openckpt.opening.target import How, Target

Value = TypeVar("Value")
Default = TypeVar("Default")

_UNSET = object()


@runtime_checkable
class _Checking(Protocol):
    """A format's reader that can check tensors without making arrays of them."""

    def check_many(self, keys: Iterable[str]) -> None: ...


class _ByKey(Mapping[str, Value]):
    """What the two mappings over the keys of an open checkpoint share; in table order."""

    __slots__ = ()

    @property
    @abstractmethod
    def _open_reader(self) -> TensorReader:
        """The format's reader; raises CheckpointError ``path.closed``."""

    def __iter__(self) -> Iterator[str]:
        return self._open_reader.keys()

    def __len__(self) -> int:
        return len(self._open_reader)

    def __contains__(self, key: object) -> bool:
        return key in self._open_reader

    @overload
    def get(self, key: str, /) -> Value | None: ...
    @overload
    def get(self, key: str, /, default: Value | Default) -> Value | Default: ...
    def get(self, key: str, /, default: Value | Default | None = None) -> Value | Default | None:
        """Return the value of ``key``, or ``default`` where there is none, without looking for near names first."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that method


class CheckpointReader(_ByKey["Array"]):
    """One opened checkpoint: a read-only mapping from key to numpy array, in table order, and a context manager.

        with openckpt.open("run/") as ckpt:
            ckpt.format, ckpt.step, ckpt.how.reason
            ckpt["dense/kernel"]                  # a new array, its checksum verified
            ckpt.specs["dense/kernel"].shape      # without reading it

    Thread-safe, and usable in the children after a fork. Keys are str; bytes that are not UTF-8 are surrogates. Strings and
    variants are object arrays of bytes, scalars 0-d arrays. A missing key raises `NotFoundError`, which is a KeyError.

    Attributes:
        format: ``bundle-v2 table-v1 hdf5 keras-v3 safetensors npz``.
        prefix: what this checkpoint is called: its prefix, or the file.
        files: the files that it consists of and that are there, the index first.
        how: how the path that was passed led here: ``how.kind`` and ``how.reason``.
        siblings: other checkpoints that share the name, as paths for `openckpt.open`.
        verify: whether reading checks checksums where a call does not say.
    """

    def __init__(self, reader: TensorReader, target: Target, *, verify: bool = True) -> None:
        self._reader, self._target = reader, target
        self.format = reader.format
        self.prefix = target.display
        self.how: How = target.how
        self.siblings: tuple[str, ...] = target.siblings
        self.verify = verify
        self.files: tuple[str, ...] = reader.files
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._busy = 0
        self._closed = False
        self._graph: object = _UNSET
        self._step: object = _UNSET

    # ------------------------------------------------------------------------------------------------------- lifetime

    def __enter__(self) -> CheckpointReader:
        self._check_open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files, at once or as soon as running reads are done. Arrays, views too, stay valid."""
        with self._guard():
            self._closed = True
            last = self._busy == 0
            if last:
                self._busy = -1  # nobody enters again, and the files are closed once
        if last:
            self._release()

    def _guard(self) -> threading.Lock:
        """Return the lock around the count of running reads; the child of a fork gets a fresh one.

        A lock that another thread of the parent held at the fork is never released in the child, and its read never ends.
        """
        if self._pid != os.getpid():
            self._lock, self._pid, self._busy = threading.Lock(), os.getpid(), 0
        return self._lock

    def _release(self) -> None:
        self._reader.close()
        for archive in self._target.archives:
            archive.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise CheckpointError("path.closed", Where(self.prefix), "this checkpoint was closed")

    @property
    def _open_reader(self) -> TensorReader:
        self._check_open()
        return self._reader

    def _leave(self) -> None:
        with self._guard():
            self._busy -= 1
            last = self._closed and self._busy == 0
            if last:
                self._busy = -1
        if last:
            self._release()

    def _enter(self) -> TensorReader:
        # A descriptor closed under a running read could meanwhile be another file: reads hold the reader open.
        with self._guard():
            self._check_open()
            self._busy += 1
        return self._reader

    # -------------------------------------------------------------------------------------------------------- mapping

    def __getitem__(self, key: str) -> Array:
        return self.read(key)

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<CheckpointReader {self.prefix!r} ({self.format}{state})>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other  # Mapping would compare every array

    # -------------------------------------------------------------------------------------------------------- reading

    def read(self, key: str, *, verify: bool | None = None) -> Array:
        """Return a new array with the value of ``key``, its checksum checked unless ``verify`` is false.

        Raises:
            NotFoundError: no such key (``spec.no-such-key``); the message names the nearest.
            CorruptionError: the bytes are not those that were saved, or not there; names file, key and offset.
            ConflictError: another program replaced the checkpoint since it was opened.
        """
        reader = self._enter()
        try:
            return reader.read(key, verify=self.verify if verify is None else verify)
        finally:
            self._leave()

    def view(self, key: str) -> Array:
        """Return a read-only array over the file's own bytes: no copy, no checksum. It stays valid after `close`.

        Raises:
            NotFoundError: no such key.
            UnsupportedError: ``spec.no-view``: compressed, in pieces, byte-swapped or not numeric.
        """
        reader = self._enter()
        try:
            return reader.view(key)
        finally:
            self._leave()

    def read_many(
        self,
        keys: Iterable[str] | None = None,
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool | None = None,
    ) -> dict[str, Array]:
        """Return ``{key: array}`` of several keys at once (all of them by default); faster than one by one.

        Args:
            keys: which; None reads all, or those of ``out``.
            out: writable C-contiguous arrays of the right dtype and shape to read into.
            threads: how many; by default as many as pay.
            verify: whether to check checksums; by default as the checkpoint was opened.

        Raises:
            NotFoundError, CorruptionError, ConflictError: as `read`, for the first key that has no value to give.
            MismatchError: an array of ``out`` does not fit (``spec.bad-target``); then none was filled.
        """
        reader = self._enter()
        try:
            if keys is None:
                keys = reader.keys() if out is None else out.keys()
            return reader.read_many(keys, out=out, threads=threads, verify=self.verify if verify is None else verify)
        finally:
            self._leave()

    def check_many(self, keys: Iterable[str]) -> None:
        """Read tensors for nothing but their checksums, faster and in less memory than `read_many`.

        Raises:
            NotFoundError, CorruptionError, ConflictError: as `read`, for the first key that has no value to give.
        """
        reader = self._enter()
        try:
            if isinstance(reader, _Checking):
                reader.check_many(keys)
                return
            for key in keys:  # formats without a way of their own keep to one tensor at a time
                reader.read(key)
        finally:
            self._leave()

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie, in file order; () where the format does not say; raises `NotFoundError`."""
        return self._open_reader.locate(key)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is wrong with this checkpoint's own files; `openckpt.diagnose` says more, of its directory too."""
        return self._open_reader.validate(data=data, progress=progress)

    # ---------------------------------------------------------------------------------------------------- description

    @property
    def reader(self) -> TensorReader:
        """The format's own reader, for what only that format has."""
        return self._reader

    @property
    def specs(self) -> Specs:
        """A lazy mapping from key to `TensorSpec`; reads no tensor."""
        self._check_open()
        return Specs(self)

    @property
    def graph(self) -> ObjectGraph | None:
        """The object graph as data; None where the checkpoint has none (name-based, or another format)."""
        if self._graph is _UNSET:
            reader = self._enter()
            try:
                self._graph = reader.graph()
            finally:
                self._leave()
        return self._graph  # type: ignore[return-value]

    @property
    def step(self) -> int | None:
        """The number at the end of the prefix, else the save counter, else the global step, else None."""
        if self._step is _UNSET:
            self._step = self._find_step()
        return self._step  # type: ignore[return-value]

    def _find_step(self) -> int | None:
        name = self._target.store.split(self._target.path)[1]
        if self.format == "table-v1":
            part = parse_v1_shard_name(name)
            name = name if part is None else part[0]
        step = step_of(name)
        if step is not None or self.format not in ("bundle-v2", "table-v1"):
            return step
        if self._closed:
            return None
        reader = self._enter()
        try:
            return read_stored_step(reader)
        finally:
            self._leave()


class Specs(_ByKey[TensorSpec]):
    """The specs of an open checkpoint by key, in table order; made by `CheckpointReader.specs`."""

    __slots__ = ("_checkpoint",)

    def __init__(self, checkpoint: CheckpointReader) -> None:
        self._checkpoint = checkpoint

    @property
    def _open_reader(self) -> TensorReader:
        return self._checkpoint._open_reader

    def __getitem__(self, key: str) -> TensorSpec:
        return self._open_reader.spec(key)

    def items(self) -> ItemsView[str, TensorSpec]:
        """Return the pairs; one walk over the index, not a look-up for each key."""
        return _SpecItems(self)

    def values(self) -> ValuesView[TensorSpec]:
        """Return the specs; one walk over the index, not a look-up for each key."""
        return _SpecValues(self)

    def __repr__(self) -> str:
        return f"<Specs of {self._checkpoint.prefix!r}>"


class _SpecItems(ItemsView[str, TensorSpec]):
    _mapping: Specs

    def __iter__(self) -> Iterator[tuple[str, TensorSpec]]:
        return self._mapping._open_reader.items()


class _SpecValues(ValuesView[TensorSpec]):
    _mapping: Specs

    def __iter__(self) -> Iterator[TensorSpec]:
        return (spec for _, spec in self._mapping._open_reader.items())
