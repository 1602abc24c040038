"""Readers whose tensors lie as one plain run of bytes each: safetensors, stored npz members, contiguous HDF5 datasets.

`FlatReader` is what those formats share of `TensorReader`. A format fills ``_specs`` (every key) and ``_runs`` (the keys
whose bytes lie as they are in an open source), and overrides `_read_other` for the keys that need decoding.

Nothing is allocated for a run that was not compared with the size of its file when the checkpoint was opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, LimitError, MismatchError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.spec import Extent, TensorSpec, no_such_key

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource

CHUNK = 16 << 20
"""Bytes per read: large enough that the system call costs nothing, small enough to spread one tensor over threads."""


@dataclass(frozen=True, slots=True)
class Run:
    """Where the bytes of one numeric tensor lie: a file of the reader, an offset, a length, and how they are laid out."""

    source: int
    offset: int
    nbytes: int
    big_endian: bool = False
    fortran: bool = False


class FlatReader:
    """The common part of readers over plain runs of bytes; see `openckpt.formats.spec.TensorReader`."""

    format: str
    path: str

    def __init__(self, path: str, sources: Sequence[ByteSource]) -> None:
        self.path = path
        self._sources = tuple(sources)
        self._specs: dict[str, TensorSpec] = {}
        self._runs: dict[str, Run] = {}
        self._maps: dict[int, memoryview | None] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files this checkpoint consists of."""
        return tuple(source.path for source in self._sources)

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in stored order."""
        return iter(self._specs)

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in stored order."""
        return iter(self._specs.items())

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, key: object) -> bool:
        return key in self._specs

    def spec(self, key: str) -> TensorSpec:
        """Return the spec of one key; raises `NotFoundError` (``spec.no-such-key``)."""
        spec = self._specs.get(key)
        if spec is None:
            raise no_such_key(self.path, key, self._specs)
        return spec

    def read(self, key: str, *, verify: bool = True) -> Array:
        """Return a new array with the value."""
        spec = self.spec(key)
        run = self._runs.get(key)
        if run is None:
            return self._read_other(key, spec, verify)
        array = _new_array(spec, Where(self.path, key))
        self._read_run(key, run, array, verify)
        return array

    def view(self, key: str) -> Array:
        """Return a read-only array over the file's own bytes; raises UnsupportedError (``spec.no-view``)."""
        import numpy as np

        spec = self.spec(key)
        run = self._runs.get(key)
        plain = run is not None and not run.big_endian and (not run.fortran or len(spec.shape or ()) < 2)
        if run is None or not plain:
            if spec.dtype not in BY_NAME:
                raise self._refusal(key, spec)
            why = "it is not stored as one plain run of little-endian bytes"
            raise UnsupportedError("spec.no-view", Where(self.path, key), f"no view of this tensor: {why}")
        dtype, shape = spec.numpy_dtype, spec.shape or ()
        if run.nbytes == 0:
            empty: Array = np.empty(shape, dtype)
            empty.flags.writeable = False
            return empty
        if run.source not in self._maps:
            self._maps[run.source] = self._sources[run.source].map()
        mapped = self._maps[run.source]
        if mapped is None:
            raise UnsupportedError("spec.no-view", Where(self.path, key), "the file cannot be mapped where it lies")
        return np.frombuffer(mapped, dtype, spec.size, run.offset).reshape(shape)

    def read_many(
        self,
        keys: Iterable[str],
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> dict[str, Array]:
        """Return ``{key: array}``; with ``out`` the values are read into the given arrays, all checked before any is filled."""
        import numpy as np

        wanted = list(dict.fromkeys(keys))
        specs = {key: self.spec(key) for key in wanted}
        targets = out or {}
        for key in wanted:
            if key in targets:
                _check_target(targets[key], specs[key], Where(self.path, key))
        result: dict[str, Array] = {}
        jobs: list[Callable[[], None]] = []
        for key in wanted:
            run = self._runs.get(key)
            if run is None:
                value = self._read_other(key, specs[key], verify)
                if key in targets:
                    np.copyto(targets[key], value)
                    value = targets[key]
                result[key] = value
                continue
            result[key] = array = targets[key] if key in targets else _new_array(specs[key], Where(self.path, key))
            jobs += self._jobs(key, run, array, verify)
        _run_all(jobs, threads)
        for key in wanted:
            if key in self._runs and result[key].dtype == np.bool_:
                _make_bool_safe(result[key])
        return result

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie; () where they are packed in some other way."""
        self.spec(key)
        run = self._runs.get(key)
        return () if run is None else (Extent(self.files[run.source], run.source, run.offset, run.nbytes),)

    def graph(self) -> ObjectGraph | None:
        """None: this format stores no object graph."""
        return None

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is wrong with the files of this checkpoint; formats without checksums have nothing to add."""
        yield from ()

    def close(self) -> None:
        """Release the files; views stay valid."""
        self._maps.clear()
        for source in self._sources:
            source.close()

    # What a format overrides.

    def _read_other(self, key: str, spec: TensorSpec, verify: bool) -> Array:
        """Read a tensor that is no plain run; every unknown dtype ends here."""
        raise self._refusal(key, spec)

    def _refusal(self, key: str, spec: TensorSpec) -> CheckpointError:
        """Make the error for a tensor that is listed but cannot be read."""
        where = Where(self.path, key)
        return UnsupportedError("spec.unknown-dtype", where, f"the data type {spec.dtype} is not known")

    def _verify_run(self, key: str, run: Run, raw: memoryview) -> None:
        """Check the stored bytes of a whole tensor; formats without checksums have nothing to check."""

    # Reading runs.

    def _read_run(self, key: str, run: Run, array: Array, verify: bool) -> None:
        if run.fortran and array.ndim > 1:
            self._read_fortran(key, run, array, verify)
            return
        raw = byte_view(array)
        self._sources[run.source].read_into(run.offset, raw)
        if verify:
            self._verify_run(key, run, raw)
        if run.big_endian:
            array.byteswap(inplace=True)
        if array.dtype.kind == "b":
            _make_bool_safe(array)

    def _read_fortran(self, key: str, run: Run, array: Array, verify: bool) -> None:
        import numpy as np

        columns: Array = np.empty(array.shape[::-1], array.dtype)
        self._read_run(key, Run(run.source, run.offset, run.nbytes, run.big_endian), columns, verify)
        array[...] = columns.T

    def _jobs(self, key: str, run: Run, array: Array, verify: bool) -> list[Callable[[], None]]:
        whole = run.big_endian or (run.fortran and array.ndim > 1) or (verify and self._has_checksum(key))
        if whole or run.nbytes <= 2 * CHUNK:
            return [lambda: self._read_run(key, run, array, verify)]
        raw, source = byte_view(array), self._sources[run.source]

        def piece(start: int) -> Callable[[], None]:
            return lambda: source.read_into(run.offset + start, raw[start : start + CHUNK])

        return [piece(start) for start in range(0, run.nbytes, CHUNK)]

    def _has_checksum(self, key: str) -> bool:
        return False


def byte_view(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array as a writable memoryview, for any dtype, ml_dtypes included."""
    import numpy as np

    # memoryview refuses dtypes that the buffer protocol cannot name (bfloat16), so look at them as bytes first.
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _new_array(spec: TensorSpec, where: Where) -> Array:
    import numpy as np

    try:
        return np.empty(spec.shape or (), spec.numpy_dtype)
    except (MemoryError, ValueError) as error:
        raise LimitError(
            "limits.exceeded", where, f"no memory for {spec.dtype} of shape {spec.shape}: {error}"
        ) from None


def _check_target(array: Array, spec: TensorSpec, where: Where) -> None:
    if spec.dtype not in BY_NAME:
        return  # the read itself refuses, with the better message
    if array.dtype != spec.numpy_dtype or array.shape != spec.shape:
        raise MismatchError(
            "spec.bad-target",
            where,
            "the array given for the result does not fit",
            expected=f"{spec.dtype} {spec.shape}",
            found=f"{array.dtype} {array.shape}",
        )
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise MismatchError("spec.bad-target", where, "the array given for the result is not writable and C-contiguous")


def _make_bool_safe(array: Array) -> None:
    """Any nonzero byte is true (formats 2.5); numpy misbehaves on a bool that is neither 0 nor 1."""
    import numpy as np

    raw = array.reshape(-1).view(np.uint8)
    if raw.size and raw.max() > 1:
        np.minimum(raw, 1, out=raw)


def _run_all(jobs: Sequence[Callable[[], None]], threads: int | None) -> None:
    import os

    count = min(len(jobs), threads or min(4, os.cpu_count() or 1))
    if count <= 1:
        for job in jobs:
            job()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
