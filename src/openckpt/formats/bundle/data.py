"""The tensors of a V2 checkpoint: copies, views, bulk reads and slices, each checked against the index (formats 2.5 to 2.9).

Imported when the first tensor is read; numpy comes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from openckpt.errors import CheckpointError, ConflictError, CorruptionError, UnsupportedError, Where
from openckpt.formats import extents
from openckpt.formats.bundle.entry import BundleEntry, match_head, parse_entry, prefix_end, shared_head
from openckpt.formats.bundle.index import BundleIndex
from openckpt.formats.bundle.payload import Order, crc_mismatch, parse_strings, parse_variants
from openckpt.formats.bundle.shards import Shards
from openckpt.formats.bundle.tails import parse_tails
from openckpt.formats.bundle.values import SUB_BYTE, finish, stored_dtype
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_enum, unknown_name
from openckpt.formats.extents import Request
from openckpt.formats.flat import checked_shape
from openckpt.formats.slicekeys import Extents
from openckpt.formats.slicing import Region, full_region, plan_copies, region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.limits import Limits, no_memory

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


class _Head(NamedTuple):
    """What dtype and shape alone settle about a tensor."""

    enum: int
    shape: tuple[int, ...]
    dtype: DType
    stored: np.dtype[np.generic]
    nbytes: int


_MANY = 64  # from so many tensors on, looking for groups costs less than it saves
_GROUP = 16
_BATCH = 1 << 16  # so many at a time: what is known of a tensor before it is read takes 400 bytes


class BundleData:
    """Reads tensors by the entries of an index; thread-safe, usable after a fork."""

    def __init__(self, index: BundleIndex, shards: Shards, path: str, limits: Limits) -> None:
        self._index, self._shards, self._path, self._limits = index, shards, path, limits
        self._big_endian = index.header.big_endian
        self._heads: dict[bytes, _Head] = {}

    def _dtype(self, entry: BundleEntry, key: str) -> DType:
        dtype = dtype_of_enum(entry.enum)
        where = Where(self._index.source.path, key)
        if dtype is None:
            raise UnsupportedError(
                "spec.unknown-dtype", where, f"the data type {unknown_name(entry.enum)} is not known"
            )
        if dtype.name == "resource":
            raise UnsupportedError("bundle.resource", where, "a resource handle has no value that could be stored")
        if entry.shape is None:
            raise CorruptionError("bundle.bad-shape", where, "a stored tensor without a known rank")
        return dtype

    def _request(self, key: str, entry: BundleEntry, dtype: DType, *, verify: bool) -> Request:
        """Return the request for a numeric entry with data of its own, its size and place checked."""
        self._check_size(entry, dtype, key)
        source = self._shards.get(entry.shard, key)
        extents.check_bounds(source, entry.offset, entry.size, key, "bundle.data-truncated")
        return Request(
            key, source, entry.offset, entry.size, stored_dtype(dtype), entry.shape or (), entry.crc if verify else None
        )

    def _check_size(self, entry: BundleEntry, dtype: DType, key: str) -> int:
        """Return the stored size after checking it against dtype and shape."""
        expected = entry.spec().size * dtype.itemsize
        if entry.size != expected:
            raise CorruptionError(
                "bundle.size-mismatch",
                Where(self._index.source.path, key),
                "the index entry contradicts itself",
                expected=f"{expected} bytes for {dtype.name} {list(entry.shape or ())}",
                found=f"size {entry.size}",
            )
        checked_shape(entry.spec(), Where(self._index.source.path, key))
        return expected

    def mismatch(self, request: Request, computed: int) -> CheckpointError:
        """Make the error for a wrong CRC: damage, or another program that has overwritten the checkpoint meanwhile."""
        where = Where(request.source.path, request.key, request.offset)
        if not (self._index.source.unchanged() and request.source.unchanged()):
            return ConflictError(
                "storage.changed", where, "another program replaced this checkpoint while it was being read"
            )
        return crc_mismatch(where, request.crc or 0, computed)

    def _read_opaque(self, key: str, entry: BundleEntry, dtype: DType, *, verify: bool) -> Array:
        shape = entry.shape or ()
        count = entry.spec().size
        source = self._shards.get(entry.shard, key)
        extents.check_bounds(source, entry.offset, entry.size, key, "bundle.data-truncated")
        where = Where(source.path, key, entry.offset)
        self._limits.check("tensor_bytes", entry.size, where, "the size of a tensor")
        data = source.read_at(entry.offset, entry.size)
        try:
            if dtype.name == "variant":
                if self._big_endian:
                    raise UnsupportedError("bundle.variant-big-endian", where, "variants of a big-endian checkpoint")
                elements = parse_variants(data, count, entry.crc, where, verify=verify)
            else:
                order: Order = "big" if self._big_endian else "little"
                elements = parse_strings(data, count, entry.crc, where, verify=verify, order=order)
        except CorruptionError as error:
            if error.code == "bundle.crc-mismatch" and not (self._index.source.unchanged() and source.unchanged()):
                raise ConflictError(
                    "storage.changed", where, "another program replaced this checkpoint while it was being read"
                ) from None
            raise
        checked_shape(entry.spec(), where)
        array = np.empty(count, object)
        array[:] = elements
        return array.reshape(shape)

    def reads_in_other_order(self, key: str) -> bool:
        """Return whether a string tensor's checksums hold in the byte order that the header denies (formats 9, row 22)."""
        try:
            entry = self._index.entry(key)
            source = self._shards.get(entry.shard, key)
            data = source.read_at(entry.offset, entry.size)
            order: Order = "little" if self._big_endian else "big"
            parse_strings(data, entry.spec().size, entry.crc, Where(source.path, key), verify=True, order=order)
        except CheckpointError:
            return False
        return dtype_of_enum(entry.enum) is BY_NAME["string"]

    def read_many(
        self,
        keys: Iterable[str],
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> dict[str, Array]:
        """Return ``{key: array}`` in the order of ``keys``; see `TensorReader.read_many`.

        New arrays under 1 MiB that lie next to each other in a file share one allocation, which lives as long as any of
        them. Everything that can be told from the index is checked before the first byte is read.
        """
        wanted = list(dict.fromkeys(keys))
        try:
            return self._read_many(wanted, out, threads, verify=verify)
        except MemoryError:
            where = Where(self._path, wanted[0] if len(wanted) == 1 else None)
            raise no_memory(where, "so much data") from None

    def _read_many(
        self, wanted: list[str], out: Mapping[str, Array] | None, threads: int | None, *, verify: bool
    ) -> dict[str, Array]:
        entries = self._index.values(wanted)
        if out is not None or len(wanted) <= _BATCH:  # given arrays are all checked before the first is filled
            return self._read_batch(dict(zip(wanted, entries, strict=True)), out, threads, verify=verify)
        results: dict[str, Array] = {}
        for start in range(0, len(wanted), _BATCH):
            stop = start + _BATCH
            batch = dict(zip(wanted[start:stop], entries[start:stop], strict=True))
            results |= self._read_batch(batch, None, threads, verify=verify)
        return results

    def check_many(self, keys: Iterable[str]) -> None:
        """Check the checksums of tensors; what is read is not kept. Raises as `read_many`."""
        wanted = list(dict.fromkeys(keys))
        values = dict(zip(wanted, self._index.values(wanted), strict=True))
        requests: list[Request] = []
        rest: Iterable[str] = values
        if len(values) >= _MANY:
            rest = self._request_groups(values, requests, [], verify=True)
        for key in rest:
            entry = parse_entry(values[key], Where(self._index.source.path, key), self._limits)
            dtype = self._dtype(entry, key)
            if dtype.is_numeric and not entry.slices:
                requests.append(self._request(key, entry, dtype, verify=True))
            elif dtype.is_numeric:
                pieces = [self._index.piece(key, entry, piece) for piece in entry.slices]
                self._shards.check_apart(key, pieces)
                requests += [self._request(key, piece, dtype, verify=True) for piece in pieces]
            else:
                self.read_many((key,))
        extents.prove_requests(requests, mismatch=self.mismatch)

    def _read_batch(
        self, values: Mapping[str, bytes], out: Mapping[str, Array] | None, threads: int | None, *, verify: bool
    ) -> dict[str, Array]:
        """Return the tensors of these keys and entries, in their order."""
        results: dict[str, Array | None] = dict.fromkeys(values)
        requests: list[Request] = []
        plain: list[DType] = []
        opaque: list[tuple[str, BundleEntry, DType]] = []
        rest: Iterable[str] = values
        if len(values) >= _MANY:
            rest = self._request_groups(values, requests, plain, verify=verify)
        for key in rest:
            entry = parse_entry(values[key], Where(self._index.source.path, key), self._limits)
            dtype = self._dtype(entry, key)
            if entry.slices or not dtype.is_numeric:
                opaque.append((key, entry, dtype))
                continue
            requests.append(self._request(key, entry, dtype, verify=verify))
            plain.append(dtype)
        targets = self._targets(requests, plain, opaque, out)
        arrays = extents.read_arrays(
            requests, mismatch=self.mismatch, limits=self._limits, out=targets, threads=threads
        )
        for request, dtype, array in zip(requests, plain, arrays, strict=True):
            results[request.key] = array
            if self._big_endian or dtype.name == "bool" or dtype.name in SUB_BYTE:
                results[request.key] = self._deliver(
                    request.key, finish(array, dtype, big_endian=self._big_endian), out
                )
        for key, entry, dtype in opaque:
            if entry.slices:
                target, region = None if out is None else out[key], full_region(entry.shape or ())
                array = self._assemble(key, entry, dtype, region, verify=verify, out=target)
            else:
                array = self._read_opaque(key, entry, dtype, verify=verify)
            results[key] = self._deliver(key, array, out)
        return results  # type: ignore[return-value]  # every key has its array by now

    def _request_groups(
        self, values: Mapping[str, bytes], requests: list[Request], plain: list[DType], *, verify: bool
    ) -> list[str]:
        """Add the requests of all tensors that share dtype and shape with many others; return the keys that are left.

        Tensor by tensor this would take longer than reading the bytes of small ones.
        """
        groups: dict[tuple[bytes, int], list[str]] = {}
        for key, value in values.items():
            groups.setdefault((value[: prefix_end(value)], len(value)), []).append(key)
        rest: list[str] = []
        for (prefix, _), keys in groups.items():
            head = self._heads.get(prefix)
            if len(keys) >= _GROUP and prefix:
                head = head or self._learn(values[keys[0]], keys[0])
            if head is None or len(keys) < _GROUP:
                rest += keys
                continue
            found = parse_tails([values[key] for key in keys], len(prefix), head.nbytes)
            readable = found.canonical
            for shard in np.unique(found.shard[readable]).tolist():
                rows = np.flatnonzero(readable & (found.shard == shard))
                source = self._shards.get(shard, keys[rows[0]])
                inside = found.offset[rows] <= source.size - head.nbytes
                readable[rows[~inside]] = False
                rows = rows[inside]
                fields = zip(
                    [keys[row] for row in rows.tolist()],
                    repeat(source),
                    found.offset[rows].tolist(),
                    repeat(head.nbytes),
                    repeat(head.stored),
                    repeat(head.shape),
                    found.crc[rows].tolist() if verify else repeat(None),
                )
                requests += map(Request._make, fields)
                plain += repeat(head.dtype, len(rows))
            rest += [keys[row] for row in np.flatnonzero(~readable).tolist()]
        return rest

    def _learn(self, value: bytes, key: str) -> _Head | None:
        """Remember what dtype and shape of an entry settle, where its end is canonical; None for other entries."""
        try:
            entry = parse_entry(value, Where(self._index.source.path, key), self._limits)
            dtype = self._dtype(entry, key)
            prefix = shared_head(value, entry)
            if not dtype.is_numeric or not prefix:
                return None
            head = self._heads[prefix] = self._head(entry, dtype, key)
        except CheckpointError:
            return None  # reading that key says what is wrong
        return head

    def _head(self, entry: BundleEntry, dtype: DType, key: str) -> _Head:
        shape = entry.shape or ()
        return _Head(entry.enum, shape, dtype, stored_dtype(dtype), self._check_size(entry, dtype, key))

    def _targets(
        self,
        requests: list[Request],
        plain: list[DType],
        opaque: list[tuple[str, BundleEntry, DType]],
        out: Mapping[str, Array] | None,
    ) -> list[Array | None] | None:
        """Check the caller's arrays, all of them before anything is read, and return those that can be read into."""
        if out is None:
            return None
        targets: list[Array | None] = []
        for request, dtype in zip(requests, plain, strict=True):
            target = out[request.key]
            extents.check_target(target, dtype.numpy(), request.shape, self._path, request.key)
            targets.append(None if dtype.name in SUB_BYTE else target)
        for key, entry, dtype in opaque:
            extents.check_target(out[key], dtype.numpy(), entry.shape or (), self._path, key)
        return targets

    def _deliver(self, key: str, value: Array, out: Mapping[str, Array] | None) -> Array:
        """Copy a value that could not be read in place into the caller's array, if there is one."""
        if out is None or out[key] is value:
            return value
        out[key][...] = value
        return out[key]

    def view(self, key: str) -> Array:
        """Return a read-only array over the shard's map, unchecked; raises UnsupportedError ``spec.no-view``."""
        value = self._index.value(key)
        known = match_head(value, self._heads)
        if known is not None:
            head, (shard, offset, size, _) = known
            dtype = head.dtype
            source = self._shards.get(shard, key)
            extents.check_bounds(source, offset, size, key, "bundle.data-truncated")
            request = Request(key, source, offset, size, head.stored, head.shape)
            viewable = True
        else:
            entry = parse_entry(value, Where(self._index.source.path, key), self._limits)
            dtype = self._dtype(entry, key)
            viewable = dtype.is_numeric and not entry.slices
            if viewable:
                request = self._request(key, entry, dtype, verify=False)
                prefix = shared_head(value, entry)
                if prefix:
                    self._heads[prefix] = self._head(entry, dtype, key)
        if not viewable or dtype.name in SUB_BYTE or (self._big_endian and dtype.swap > 1):
            raise UnsupportedError(
                "spec.no-view",
                Where(self._path, key),
                f"a {dtype.name} tensor that is not stored as one piece of native elements",
            )
        return extents.view_array(request)

    def read_slice(self, key: str, extents_: Extents, *, verify: bool = True) -> Array:
        """Return one region of a tensor, given as ``(start, length)`` per dimension; ``(0, -1)`` is a whole dimension.

        A stored piece is read alone; any other region is put together from the pieces that touch it (formats 2.9).
        """
        entry = self._index.entry(key)
        dtype = self._dtype(entry, key)
        where = Where(self._index.source.path, key)
        region = resolve_extents(extents_, entry.shape or (), where)
        if entry.slices:
            try:
                return self._assemble(key, entry, dtype, region, verify=verify)
            except MemoryError:
                raise no_memory(where, "a tensor of this size") from None
        whole = self.read_many((key,), verify=verify)[key]
        part: Array = whole[tuple(slice(start, start + length) for start, length in region)]
        return part.copy()

    def _assemble(
        self, key: str, entry: BundleEntry, dtype: DType, region: Region, *, verify: bool, out: Array | None = None
    ) -> Array:
        where, shape = Where(self._index.source.path, key), entry.shape or ()
        pieces = [resolve_extents(piece, shape, where) for piece in entry.slices]
        copies = plan_copies(region, pieces, where)
        # Every piece is looked up and measured before the whole is allocated.
        sources = {copy.piece: self._index.piece(key, entry, entry.slices[copy.piece]) for copy in copies}
        measured = sources.items() if dtype.is_numeric else ()
        requests = {number: self._request(key, piece, dtype, verify=verify) for number, piece in measured}
        spec = TensorSpec(dtype.name, region_shape(region), None)
        self._limits.check("tensor_bytes", spec.size * max(dtype.itemsize, 8), where, "the size of a tensor")
        checked_shape(spec, where)
        self._shards.check_apart(key, list(sources.values()))
        whole: Array = np.empty(region_shape(region), dtype.numpy()) if out is None else out
        for copy in copies:
            if dtype.is_numeric:
                part = extents.read_arrays([requests[copy.piece]], mismatch=self.mismatch, limits=self._limits)[0]
                part = finish(part, dtype, big_endian=self._big_endian)
            else:
                part = self._read_opaque(key, sources[copy.piece], dtype, verify=verify)
            whole[copy.target] = part[copy.source]
            del part  # not two at a time
        return whole
