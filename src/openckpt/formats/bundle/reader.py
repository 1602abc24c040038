"""`BundleReader`: one open V2 checkpoint (formats 2), read without TensorFlow.

    PREFIX.index                       table: "" -> header, key -> entry (dtype, shape, shard, offset, size, crc, slices)
    PREFIX.data-SSSSS-of-NNNNN         bare tensor bytes

Listing touches only the index and imports no numpy. Every tensor is checked against its CRC when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CheckpointError, ConflictError, CorruptionError, UnsupportedError, Where
from openckpt.formats import extents
from openckpt.formats.bundle.entry import BundleEntry, SpecCache, parse_entry, parse_tail
from openckpt.formats.bundle.header import header_of
from openckpt.formats.bundle.payload import Order, crc_mismatch, parse_strings, parse_variants
from openckpt.formats.bundle.shards import Shards
from openckpt.formats.bundle.values import SUB_BYTE, finish, stored_dtype
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_enum, unknown_name
from openckpt.formats.extents import Request
from openckpt.formats.slicing import (
    Extents,
    Region,
    encode_slice_key,
    full_region,
    is_slice_key,
    parse_slice_key,
    plan_copies,
    region_shape,
    resolve_extents,
)
from openckpt.formats.spec import GRAPH_KEY, Extent, TensorSpec, no_such_key
from openckpt.formats.sstable import Table
from openckpt.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from openckpt.findings import Finding, Progress
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource, Store


class _Head(NamedTuple):
    """What dtype and shape alone settle about a tensor."""

    enum: int
    shape: tuple[int, ...]
    dtype: DType
    stored: np.dtype[np.generic]
    nbytes: int


def encode_key(key: str) -> bytes:
    """Return the stored bytes of a key; surrogates stand for bytes that are not UTF-8."""
    return key.encode("utf-8", "surrogateescape")


def decode_keys(keys: list[bytes]) -> list[str]:
    """Return the keys as str, all at once where they are plain UTF-8 without line ends (nearly always)."""
    try:
        names = b"\n".join(keys).decode().split("\n")
        if len(names) == len(keys):
            return names
    except UnicodeDecodeError:
        pass
    return [key.decode("utf-8", "surrogateescape") for key in keys]


class BundleReader:
    """A `TensorReader` over one V2 checkpoint; made by `open_bundle`."""

    format = "bundle-v2"

    def __init__(self, store: Store, prefix: str, index: ByteSource, limits: Limits) -> None:
        self._store, self.prefix, self._index, self._limits = store, prefix, index, limits
        self.path = store.display(prefix)
        self.table = Table(index, limits=limits)
        self.header = header_of(self.table, limits)
        self.shards = Shards(store, prefix, self.header.num_shards)
        self._specs = SpecCache(limits)
        self._listing: tuple[list[str], list[TensorSpec]] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The index and the shards that are there."""
        return (self._index.path, *self.shards.paths())

    # ------------------------------------------------------------------------------------------------------ listing

    def _list(self) -> tuple[list[str], list[TensorSpec]]:
        if self._listing is None:
            names: list[str] = []
            specs: list[TensorSpec] = []
            sliced: dict[bytes, frozenset[Extents]] = {}
            first = True
            for keys, values in self.table.blocks():
                if first and keys:
                    keys, values, first = keys[1:], values[1:], False  # the header
                if keys and is_slice_key(keys[0]):
                    shown = [not self._is_piece(key, sliced) for key in keys]
                    keys = [key for key, keep in zip(keys, shown, strict=True) if keep]
                    values = [value for value, keep in zip(values, shown, strict=True) if keep]
                names += decode_keys(keys) if keys else []
                specs += self._specs.specs(values)
            self._listing = names, specs
        return self._listing

    def _is_piece(self, key: bytes, known: dict[bytes, frozenset[Extents]]) -> bool:
        """Return whether this is the slice key of a tensor that lists the slice (formats 2.9, listing rule)."""
        if not is_slice_key(key):
            return False
        try:
            name, piece = parse_slice_key(key)
        except CheckpointError:
            return False
        if name not in known:
            value = self.table.get(name) if name else None
            try:
                entry = None if value is None else parse_entry(value, Where(""), self._limits)
            except CheckpointError:
                entry = None
            known[name] = frozenset(entry.slices) if entry else frozenset()
        return piece in known[name]

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in table order."""
        return iter(self._list()[0])

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in table order."""
        return zip(*self._list(), strict=True)

    def __len__(self) -> int:
        return len(self._list()[0])

    def _value(self, key: object) -> bytes | None:
        if not isinstance(key, str) or not key:
            return None
        try:
            raw = encode_key(key)
        except UnicodeEncodeError:
            return None
        value = self.table.get(raw)
        return None if value is not None and self._is_piece(raw, {}) else value

    def __contains__(self, key: object) -> bool:
        return self._value(key) is not None

    def entry(self, key: str) -> BundleEntry:
        """Return the index entry of a key; raises `NotFoundError`, CorruptionError ``bundle.bad-entry``."""
        value = self._value(key)
        if value is None:
            raise no_such_key(self.path, key, self.keys())
        return parse_entry(value, Where(self._index.path, key), self._limits)

    def spec(self, key: str) -> TensorSpec:
        """Return dtype, shape and stored bytes of one key; reads one block of the index."""
        return self.entry(key).spec()

    # ------------------------------------------------------------------------------------------------------ reading

    def _dtype(self, entry: BundleEntry, key: str) -> DType:
        dtype = dtype_of_enum(entry.enum)
        where = Where(self._index.path, key)
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
        source = self.shards.get(entry.shard, key)
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
                Where(self._index.path, key),
                "the index entry contradicts itself",
                expected=f"{expected} bytes for {dtype.name} {list(entry.shape or ())}",
                found=f"size {entry.size}",
            )
        return expected

    def mismatch(self, request: Request, computed: int) -> CheckpointError:
        """Make the error for a wrong CRC: damage, or another program that has overwritten the checkpoint meanwhile."""
        where = Where(request.source.path, request.key, request.offset)
        if not (self._index.unchanged() and request.source.unchanged()):
            return ConflictError(
                "storage.changed", where, "another program replaced this checkpoint while it was being read"
            )
        return crc_mismatch(where, request.crc or 0, computed)

    def _read_opaque(self, key: str, entry: BundleEntry, dtype: DType, *, verify: bool) -> Array:
        import numpy as np

        shape = entry.shape or ()
        count = entry.spec().size
        source = self.shards.get(entry.shard, key)
        extents.check_bounds(source, entry.offset, entry.size, key, "bundle.data-truncated")
        where = Where(source.path, key, entry.offset)
        self._limits.check("tensor_bytes", entry.size, where, "the size of a tensor")
        data = source.read_at(entry.offset, entry.size)
        try:
            if dtype.name == "variant":
                if self.header.big_endian:
                    raise UnsupportedError("bundle.variant-big-endian", where, "variants of a big-endian checkpoint")
                elements = parse_variants(data, count, entry.crc, where, verify=verify)
            else:
                order: Order = "big" if self.header.big_endian else "little"
                elements = parse_strings(data, count, entry.crc, where, verify=verify, order=order)
        except CorruptionError as error:
            if error.code == "bundle.crc-mismatch" and not (self._index.unchanged() and source.unchanged()):
                raise ConflictError(
                    "storage.changed", where, "another program replaced this checkpoint while it was being read"
                ) from None
            raise
        array = np.empty(count, object)
        array[:] = elements
        return array.reshape(shape)

    def reads_in_other_order(self, key: str) -> bool:
        """Return whether a string tensor's checksums hold in the byte order that the header denies (formats 9, row 22)."""
        try:
            entry = self.entry(key)
            source = self.shards.get(entry.shard, key)
            data = source.read_at(entry.offset, entry.size)
            order: Order = "little" if self.header.big_endian else "big"
            parse_strings(data, entry.spec().size, entry.crc, Where(source.path, key), verify=True, order=order)
        except CheckpointError:
            return False
        return dtype_of_enum(entry.enum) is BY_NAME["string"]

    def read(self, key: str, *, verify: bool = True) -> Array:
        """Return the value of one key as a new array.

        Raises:
            NotFoundError: no such key.
            CorruptionError: ``bundle.crc-mismatch``, ``bundle.shard-missing``, ``bundle.data-truncated``,
                ``bundle.size-mismatch``, ``slices.gap`` and the other codes of these areas.
            UnsupportedError: a dtype that has no value here.
            ConflictError: another program replaced the checkpoint meanwhile.
        """
        return self.read_many((key,), verify=verify, threads=1)[key]

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
        values = self._values(wanted)
        heads: dict[bytes, _Head] = {}
        results: dict[str, Array | None] = dict.fromkeys(wanted)
        requests: list[Request] = []
        plain: list[DType] = []
        opaque: list[tuple[str, BundleEntry, DType]] = []
        sources: dict[int, ByteSource] = {}
        for key in wanted:
            value = values[key]
            # Most tensors share dtype and shape with others: what follows from these two is worked out once.
            cut = value[3] + 4 if len(value) > 3 else 0
            head = heads.get(value[:cut])
            tail = parse_tail(value, cut) if head is not None else None
            if head is not None and tail is not None and tail[2] == head.nbytes:
                shard, offset, size, crc = tail
            else:
                entry = parse_entry(value, Where(self._index.path, key), self._limits)
                dtype = self._dtype(entry, key)
                if entry.slices or not dtype.is_numeric:
                    opaque.append((key, entry, dtype))
                    continue
                head = self._head(entry, dtype, key)
                _, _, shard, offset, size, crc, _ = entry
                if parse_tail(value, cut) == (shard, offset, size, crc):
                    heads[value[:cut]] = head
            source = sources.get(shard)
            if source is None:
                source = sources[shard] = self.shards.get(shard, key)
            if offset + size > source.size:
                extents.check_bounds(source, offset, size, key, "bundle.data-truncated")
            requests.append(Request(key, source, offset, size, head.stored, head.shape, crc if verify else None))
            plain.append(head.dtype)
        targets = self._targets(requests, plain, opaque, out)
        arrays = extents.read_arrays(
            requests, mismatch=self.mismatch, limits=self._limits, out=targets, threads=threads
        )
        for request, dtype, array in zip(requests, plain, arrays, strict=True):
            results[request.key] = array
            if self.header.big_endian or dtype.name == "bool" or dtype.name in SUB_BYTE:
                results[request.key] = self._deliver(
                    request.key, finish(array, dtype, big_endian=self.header.big_endian), out
                )
        for key, entry, dtype in opaque:
            if entry.slices:
                array = self._assemble(key, entry, dtype, full_region(entry.shape or ()), verify=verify)
            else:
                array = self._read_opaque(key, entry, dtype, verify=verify)
            results[key] = self._deliver(key, array, out)
        return results  # type: ignore[return-value]  # every key has its array by now

    def _values(self, keys: list[str]) -> dict[str, bytes]:
        """Return the stored entry of each key; raises `NotFoundError` for the first that is not there."""
        found: dict[str, bytes] = {}
        if len(keys) > 64 * len(self.table.handles):  # one pass over the index beats so many lookups
            for raw, values in self.table.blocks():
                found.update(zip(decode_keys(raw), values, strict=True))
            found = {key: found[key] for key in keys if key and key[0] != "\0" and key in found}
        for key in keys:
            if key not in found:
                value = self._value(key)
                if value is None:
                    raise no_such_key(self.path, key, self.keys())
                found[key] = value
        return found

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
            extents.check_target(target, dtype.numpy(), request.shape, self.path, request.key)
            targets.append(None if dtype.name in SUB_BYTE else target)
        for key, entry, dtype in opaque:
            extents.check_target(out[key], dtype.numpy(), entry.shape or (), self.path, key)
        return targets

    def _deliver(self, key: str, value: Array, out: Mapping[str, Array] | None) -> Array:
        """Copy a value that could not be read in place into the caller's array, if there is one."""
        if out is None or out[key] is value:
            return value
        out[key][...] = value
        return out[key]

    def view(self, key: str) -> Array:
        """Return a read-only array over the shard's map, unchecked; raises UnsupportedError ``spec.no-view``."""
        entry = self.entry(key)
        dtype = self._dtype(entry, key)
        if (
            entry.slices
            or not dtype.is_numeric
            or dtype.name in SUB_BYTE
            or (self.header.big_endian and dtype.swap > 1)
        ):
            raise UnsupportedError(
                "spec.no-view",
                Where(self.path, key),
                f"a {dtype.name} tensor that is not stored as one piece of native elements",
            )
        return extents.view_array(self._request(key, entry, dtype, verify=False))

    # ------------------------------------------------------------------------------------------------------- slices

    def slices(self, key: str) -> tuple[Extents, ...]:
        """Return the stored pieces of a partitioned tensor, () for one that is stored whole."""
        return self.entry(key).slices

    def read_slice(self, key: str, extents_: Extents, *, verify: bool = True) -> Array:
        """Return one region of a tensor, given as ``(start, length)`` per dimension; ``(0, -1)`` is a whole dimension.

        A stored piece is read alone; any other region is put together from the pieces that touch it (formats 2.9).
        """
        entry = self.entry(key)
        dtype = self._dtype(entry, key)
        where = Where(self._index.path, key)
        region = resolve_extents(extents_, entry.shape or (), where)
        if entry.slices:
            return self._assemble(key, entry, dtype, region, verify=verify)
        whole = self.read(key, verify=verify)
        part: Array = whole[tuple(slice(start, start + length) for start, length in region)]
        return part.copy()

    def piece(self, key: str, entry: BundleEntry, piece: Extents) -> BundleEntry:
        """Return the entry of one stored slice, checked against its tensor's."""
        where = Where(self._index.path, key)
        value = self.table.get(encode_slice_key(encode_key(key), piece))
        if value is None:
            raise CorruptionError("bundle.slice-missing", where, f"the entry of slice {piece} is not in the index")
        found = parse_entry(value, where, self._limits)
        shape = region_shape(resolve_extents(piece, entry.shape or (), where))
        if found.enum != entry.enum or found.shape != shape or found.slices:
            raise CorruptionError(
                "bundle.slice-contradicts",
                where,
                f"slice {piece} contradicts its tensor",
                expected=f"dtype {entry.enum}, shape {list(shape)}",
                found=f"dtype {found.enum}, shape {found.shape}",
            )
        return found

    def _assemble(self, key: str, entry: BundleEntry, dtype: DType, region: Region, *, verify: bool) -> Array:
        import numpy as np

        where = Where(self._index.path, key)
        shape = entry.shape or ()
        pieces = [resolve_extents(piece, shape, where) for piece in entry.slices]
        copies = plan_copies(region, pieces, where)
        # Every piece is looked up and measured before the whole is allocated.
        sources = {copy.piece: self.piece(key, entry, entry.slices[copy.piece]) for copy in copies}
        requests = {}
        if dtype.is_numeric:
            requests = {number: self._request(key, piece, dtype, verify=verify) for number, piece in sources.items()}
        count = 1
        for _, length in region:
            count *= length
        self._limits.check("tensor_bytes", count * max(dtype.itemsize, 8), where, "the size of a tensor")
        whole: Array = np.empty(region_shape(region), dtype.numpy())
        for copy in copies:
            if dtype.is_numeric:
                part = extents.read_arrays([requests[copy.piece]], mismatch=self.mismatch, limits=self._limits)[0]
                part = finish(part, dtype, big_endian=self.header.big_endian)
            else:
                part = self._read_opaque(key, sources[copy.piece], dtype, verify=verify)
            whole[copy.target] = part[copy.source]
        return whole

    # ---------------------------------------------------------------------------------------------------- the rest

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie, piece by piece."""
        entry = self.entry(key)
        parts = [self.piece(key, entry, piece) for piece in entry.slices] if entry.slices else [entry]
        return tuple(
            Extent(self.shards.display(part.shard), part.shard, part.offset, part.size, part.crc) for part in parts
        )

    def graph(self) -> ObjectGraph | None:
        """Return the object graph, or None for a name-based checkpoint.

        Raises:
            FormatError: the graph is there but cannot be read.
        """
        if GRAPH_KEY not in self:
            return None
        from openckpt.formats.objectgraph import parse_object_graph

        value = self.read(GRAPH_KEY)
        where = Where(self.path, GRAPH_KEY)
        data: object = value[()] if value.shape == () else None
        if not isinstance(data, bytes):
            raise CorruptionError(
                "graph.not-a-string",
                where,
                "the object graph is not one string",
                found=f"{value.dtype} {list(value.shape)}",
            )
        return parse_object_graph(data, where, self._limits)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield everything that is wrong with the index and, with ``data``, with the tensors' bytes."""
        from openckpt.formats.bundle.validate import validate_bundle

        return validate_bundle(self, self._store, self._index, self._limits, data=data, progress=progress)

    def close(self) -> None:
        """Close index and shards; views stay valid."""
        self.shards.close()
        self._index.close()
