"""Readers whose tensors lie as one plain run of bytes each: safetensors, stored npz members, contiguous HDF5 datasets.

`FlatReader` is what those formats share of `TensorReader`. A format fills ``_specs`` (every key) and ``_runs`` (the keys
whose bytes lie as they are in an open source), and overrides `_read_other` for the keys that need decoding.

Nothing is allocated for a run that was not compared with the size of its file when the checkpoint was opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CheckpointError, ConflictError, LimitError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.extents import Request, check_target, read_arrays
from openckpt.formats.members import check_stored
from openckpt.formats.spec import Extent, ListedTensors, TensorSpec
from openckpt.limits import DEFAULT_LIMITS, Limits, no_memory

if TYPE_CHECKING:
    import numpy as np

    from openckpt.findings import Finding, Progress
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource

_NUMPY_RANK = 64


class Run(NamedTuple):
    """Where the bytes of one numeric tensor lie: a file of the reader, an offset, a length, and how they are laid out.

    A tuple, because a file may have a million of them. ``crc`` is the CRC-32C of the bytes as stored, None where the format has none.
    """

    source: int
    offset: int
    nbytes: int
    big_endian: bool = False
    fortran: bool = False
    crc: int | None = None


class FlatReader(ListedTensors):
    """The common part of readers over plain runs of bytes; see `openckpt.formats.spec.TensorReader`."""

    format: str

    def __init__(self, path: str, sources: Sequence[ByteSource], limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self._limits = limits
        self._sources = list(sources)
        self._specs: dict[str, TensorSpec] = {}
        self._runs: dict[str, Run] = {}
        self._maps: dict[int, memoryview | None] = {}
        self._proved: set[int] = set()  # places in ``_sources``

    @property
    def files(self) -> tuple[str, ...]:
        """The files this checkpoint consists of."""
        return tuple(source.path for source in self._sources)

    def read(self, key: str, *, verify: bool = True) -> Array:
        """Return a new array with the value."""
        return self.read_many((key,), verify=verify)[key]

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
        shape = checked_shape(spec, Where(self.path, key))
        if run.source not in self._maps:
            self._maps[run.source] = self._sources[run.source].map()
        mapped = self._maps[run.source]
        if mapped is None:
            raise UnsupportedError("spec.no-view", Where(self.path, key), "the file cannot be mapped where it lies")
        array: Array = np.ndarray(
            shape, spec.numpy_dtype, mapped if run.nbytes else b"", run.offset if run.nbytes else 0
        )
        array.flags.writeable = False
        return array

    def read_many(
        self,
        keys: Iterable[str],
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> dict[str, Array]:
        """Return ``{key: array}``; with ``out`` the values are read into the given arrays, all checked before any is filled."""
        wanted = list(dict.fromkeys(keys))
        try:
            return self._read_many(wanted, out or {}, threads, verify)
        except MemoryError:
            where = Where(self.path, wanted[0] if len(wanted) == 1 else None)
            raise no_memory(where, "so much data") from None

    def _read_many(
        self, wanted: list[str], targets: Mapping[str, Array], threads: int | None, verify: bool
    ) -> dict[str, Array]:
        import numpy as np

        for key in wanted:
            spec = self.spec(key)
            if key in targets and spec.dtype in BY_NAME:  # an unknown type is refused by the read itself
                check_target(targets[key], spec.numpy_dtype, spec.shape or (), self.path, key)
        plain = [key for key in wanted if key in self._runs]
        if verify:
            everything = range(len(self._sources))
            self._prove({self._runs[key].source for key in plain} if len(plain) == len(wanted) else everything)
        arrays = self._read_runs(plain, [targets.get(key) for key in plain], threads, verify)
        result: dict[str, Array] = {}
        for key in wanted:
            if key in arrays:
                result[key] = arrays[key]
                continue
            result[key] = value = self._read_other(key, self._specs[key], verify)
            if key in targets:
                np.copyto(targets[key], value)
                result[key] = targets[key]
        return result

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie; () where they are packed in some other way."""
        self.spec(key)
        run = self._runs.get(key)
        if run is None:
            return ()
        return (Extent(self._sources[run.source].path, run.source, run.offset, run.nbytes, run.crc),)

    def graph(self) -> ObjectGraph | None:
        """Return the object graph of a converted checkpoint, which is one of its tensors; None for any other file.

        Raises:
            FormatError: the graph is there but cannot be read.
        """
        from openckpt.formats.objectgraph import read_object_graph

        return read_object_graph(self, self._limits)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield the tensors that are listed and cannot be read; formats with checksums add to it."""
        if data:
            yield from self._damaged_members()
        yield from self._unreadable()

    def _unreadable(self) -> Iterator[Finding]:
        """Yield a finding for each tensor whose type is unknown or whose shape numpy cannot hold; reads nothing."""
        from openckpt.findings import finding_of

        for key, spec in self._specs.items():
            try:
                if spec.dtype not in BY_NAME:
                    raise self._refusal(key, spec)
                if key in self._runs:
                    checked_shape(spec, Where(self.path, key))
            except CheckpointError as error:
                yield finding_of(error)

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

    def _prove(self, places: Iterable[int]) -> None:
        """Hold each of these sources, once, against the checksum that the archive around it states.

        The formats themselves have none. A member that is packed was checked when it was unpacked.
        """
        for place in set(places) - self._proved:
            try:
                check_stored(self._sources[place])
            except CheckpointError:
                check_rewritten(self._sources[place])  # another program's doing, not damage
                raise
            self._proved.add(place)

    def _damaged_members(self) -> Iterator[Finding]:
        """Yield a finding for each source that is not what the archive around it states."""
        from openckpt.findings import finding_of

        for place in range(len(self._sources)):
            try:
                self._prove((place,))
            except CheckpointError as error:
                yield finding_of(error)

    _hashes_runs = False
    """whether `_verify_run` has something to check, beyond the checksum of the run"""

    def _verify_run(self, key: str, raw: memoryview) -> None:
        """Check the stored bytes of a whole tensor against a checksum of the format's own."""

    def _done_with(self, key: str) -> None:
        """Hear that a tensor was read, to let go of what was unpacked for it."""

    # Reading runs.

    def _read_runs(
        self, keys: list[str], out: list[Array | None], threads: int | None, verify: bool
    ) -> dict[str, Array]:
        requests: list[Request] = []
        targets: list[Array | None] = []
        layouts: dict[TensorSpec, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}  # many tensors share one
        for key, target in zip(keys, out, strict=True):
            run, spec = self._runs[key], self._specs[key]
            layout = layouts.get(spec)
            if layout is None:
                layout = layouts[spec] = checked_shape(spec, Where(self.path, key)), spec.numpy_dtype
            shape, dtype = layout
            turned = run.fortran and len(shape) > 1
            stored = shape[::-1] if turned else shape
            crc = run.crc if verify else None
            requests.append(Request(key, self._sources[run.source], run.offset, run.nbytes, dtype, stored, crc))
            targets.append(None if turned else target)
        arrays = read_arrays(requests, mismatch=mismatch, limits=self._limits, out=targets, threads=threads)
        for place in {self._runs[key].source for key in keys}:
            check_rewritten(self._sources[place])
        result: dict[str, Array] = {}
        hashed = verify and self._hashes_runs
        for key, target, array in zip(keys, out, arrays, strict=True):
            if hashed:
                self._verify_run(key, byte_view(array))
            result[key] = self._finish(key, target, array)
            self._done_with(key)
        return result

    def _finish(self, key: str, target: Array | None, array: Array) -> Array:
        """Turn the bytes that were read into the value: byte order, order of dimensions, honest bools."""
        run, spec = self._runs[key], self._specs[key]
        if not run.big_endian and not run.fortran and spec.dtype != "bool":
            return array
        import numpy as np

        if run.big_endian:
            array.byteswap(inplace=True)
        if array.dtype == np.bool_:
            # any nonzero byte is true (formats 2.5); numpy misbehaves on a bool that is neither 0 nor 1
            raw = array.reshape(-1).view(np.uint8)
            np.minimum(raw, 1, out=raw)
        if run.fortran and array.ndim > 1:
            if target is None:
                return np.ascontiguousarray(array.T)
            target[...] = array.T
            return target
        return array


def check_unchanged(source: ByteSource) -> None:
    """Raise `ConflictError` when the file was replaced while it was opened, so that what was read may be of two files."""
    if not source.unchanged():
        raise ConflictError("storage.changed", source.path, "the file was replaced while it was being opened")


def check_rewritten(source: ByteSource) -> None:
    """Raise `ConflictError` when somebody wrote into the open file: without checksums nothing else would tell.

    Keras and NumPy save over a file in place. A file that was replaced or removed is still there whole under its descriptor.
    """
    check = getattr(source, "rewritten", None)
    if check is not None and check():
        raise ConflictError(
            "storage.changed", source.path, "another program wrote into this file while it was being read"
        )


def byte_view(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array as a memoryview, for any dtype, ml_dtypes included."""
    import numpy as np

    # memoryview refuses dtypes that the buffer protocol cannot name (bfloat16), so look at them as bytes first.
    return array.reshape(-1).view(np.uint8).data


def checked_shape(spec: TensorSpec, where: Where) -> tuple[int, ...]:
    """Return the shape of a tensor that numpy can hold; raises `LimitError` for more dimensions or places than it has."""
    shape = spec.shape or ()
    dtype = BY_NAME.get(spec.dtype)
    places = (
        0 if dtype is None else dtype.itemsize
    ) or 8  # of numpy's dtype, without importing it; objects are pointers
    for length in shape:
        places *= max(length, 1)  # numpy counts an empty dimension as one here
    if len(shape) > _NUMPY_RANK or places >= 1 << 63:
        raise LimitError(
            "limits.exceeded",
            where,
            f"NumPy has no arrays of shape {list(shape[:8])}{' ...' if len(shape) > 8 else ''}",
            fix="the tensor can be listed but not read",
        )
    return shape


def mismatch(request: Request, computed: int) -> CheckpointError:
    """Make the error for bytes that do not have their checksum: damage, or another program that has replaced the file."""
    from openckpt.formats.bundle.payload import crc_mismatch

    where = Where(request.source.path, request.key, request.offset)
    if not request.source.unchanged():
        return ConflictError("storage.changed", where, "another program replaced this file while it was being read")
    return crc_mismatch(where, request.crc or 0, computed)
