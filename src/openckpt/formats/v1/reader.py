"""`V1Reader`: one open V1 checkpoint, single or sharded (formats 3).

    key ""                        names, dtypes, shapes, slices of the tensors of this table   (`meta`)
    slice key of each slice       its values, packed                                           (`values`)

There is no checksum per tensor; what guards the values is the CRC of the block they lie in, checked on every read. A shard that
is not there leaves its tensors out, without a word in the others: its absence shows in the names only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.slicekeys import Extents, encode_slice_key, format_extents, parse_slice_proto
from openckpt.formats.slicing import Region, full_region, plan_copies, region_shape, resolve_extents
from openckpt.formats.spec import Extent, ListedTensors, TensorSpec
from openckpt.formats.sstable.table import Table
from openckpt.formats.v1.files import V1Files, find_v1_files
from openckpt.formats.v1.meta import TensorMeta, V1Meta, parse_v1_meta
from openckpt.limits import DEFAULT_LIMITS, Limits, no_memory

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.dtypes import DType
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource, Store

_KEPT_BLOCKS = 4  # the small tensors of one scope share a block; more would hold the whole checkpoint in memory


def open_v1(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS) -> V1Reader:
    """Open a V1 checkpoint.

    Args:
        store: where it lies.
        path: the table, one of its shards, the pattern ``PREFIX-?????-of-NNNNN``, or the prefix of a sharded one.
        limits: caps against hostile files.

    Raises:
        OSError: there is nothing of this name, or the system refuses.
        CorruptionError: a table is damaged (``table.*``) or its list of tensors is (``v1.*``).
        UnsupportedError: a version for newer readers (``v1.version``).
    """
    files = find_v1_files(store, path, limits=limits)
    store.expect(files.paths)
    return V1Reader(store, path, files, limits)


class V1Shard(NamedTuple):
    """One open table of the checkpoint."""

    source: ByteSource
    table: Table
    meta: V1Meta


class Piece(NamedTuple):
    """One stored slice: which shard holds it, and its extents."""

    shard: int
    extents: Extents


class V1Reader(ListedTensors):
    """A `TensorReader` over one V1 checkpoint; made by `open_v1`.

    Attributes:
        path: the path given, as shown to people.
        missing: names of the shards that are not there.
        shards: the open tables.
        limits: caps against hostile files.
    """

    format = "table-v1"

    def __init__(self, store: Store, path: str, files: V1Files, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = store.display(path)
        self.missing = tuple(store.display(name) for name in files.missing)
        self.shards: list[V1Shard] = []
        self.limits = limits
        self._sources: list[ByteSource] = []
        try:
            for name in files.paths:
                self.shards.append(self._open_shard(store.open(name)))
            self._specs, self._homes = self._merge()
        except BaseException:
            self.close()
            raise

    def _open_shard(self, source: ByteSource) -> V1Shard:
        self._sources.append(source)
        table = Table(source, limits=self.limits, keep_blocks=_KEPT_BLOCKS)
        value = table.get(b"")
        if value is None:
            raise CorruptionError(
                "v1.no-meta", source.path, "the table has no list of tensors", expected="an entry with the empty key"
            )
        return V1Shard(source, table, parse_v1_meta(value, Where(source.path), self.limits))

    def _merge(self) -> tuple[dict[str, TensorSpec], dict[str, tuple[int, ...]]]:
        """Join the lists of all shards, in the order of the tables; a partitioned tensor may stand in several."""
        homes: dict[str, tuple[int, ...]] = {}
        for number, shard in enumerate(self.shards):
            for key, tensor in shard.meta.tensors.items():
                if key in homes:
                    self._check_agreement(key, self.shards[homes[key][0]].meta.tensors[key], tensor, shard.source.path)
                    homes[key] = (*homes[key], number)
                else:
                    homes[key] = (number,)
        # Slice keys sort as the bytes of the names do, so this is the order of the tables.
        ordered = sorted(homes, key=lambda key: self.shards[homes[key][0]].meta.tensors[key].name)
        specs = {key: self.shards[homes[key][0]].meta.tensors[key].spec() for key in ordered}
        return specs, homes

    @staticmethod
    def _check_agreement(key: str, first: TensorMeta, other: TensorMeta, path: str) -> None:
        if (first.enum, first.shape) != (other.enum, other.shape):
            raise CorruptionError(
                "v1.conflict",
                Where(path, key),
                "two shards describe this tensor differently",
                expected=f"dtype {first.enum}, shape {first.shape}",
                found=f"dtype {other.enum}, shape {other.shape}",
            )

    @property
    def files(self) -> tuple[str, ...]:
        """The tables, in shard order; missing ones are left out."""
        return tuple(source.path for source in self._sources)

    @property
    def producer(self) -> int:
        """The version that the writer states: 0 for the first releases of TensorFlow, 1 since."""
        return max(shard.meta.producer for shard in self.shards)

    def pieces(self, key: str) -> list[Piece]:
        """Return the stored slices of a tensor; most tensors have one that is whole."""
        self.spec(key)
        where = Where(self.path, key)
        return [
            Piece(number, extents)
            for number in self._homes[key]
            for extents in self.shards[number].meta.tensors[key].slices(where, self.limits)
        ]

    def read(self, key: str, *, verify: bool = True) -> Array:
        """Return the value of one key as a new array. Block checksums are always checked: ``verify`` changes nothing.

        Raises:
            NotFoundError: no such key.
            CorruptionError: ``v1.slice-missing``, ``v1.bad-value``, ``v1.value-count``, ``slices.gap``, ``slices.overlap``,
                ``table.block-crc`` ...
            UnsupportedError: a dtype that is not known or cannot be in a V1 checkpoint.
            LimitError: ``limits.no-memory``.
        """
        try:
            return self._read(key, None)
        except MemoryError:
            raise no_memory(Where(self.path, key), "a tensor of this size") from None

    def slices(self, key: str) -> tuple[Extents, ...]:
        """Return the stored pieces of a partitioned tensor, () for one that is stored whole."""
        pieces = self.pieces(key)
        return tuple(piece.extents for piece in pieces) if len(pieces) > 1 else ()

    def read_slice(self, key: str, extents: Extents, *, verify: bool = True) -> Array:
        """Return one region of a tensor, ``(start, length)`` per dimension; ``(0, -1)`` is a whole dimension.

        Only the stored pieces that touch it are decoded. Raises as `read`, and CorruptionError ``slices.bad-extent``.
        """
        try:
            return self._read(key, extents)
        except MemoryError:
            raise no_memory(Where(self.path, key), "a tensor of this size") from None

    def _read(self, key: str, extents: Extents | None) -> Array:
        import numpy as np

        shape, dtype = self.readable(key)
        where = Where(self.path, key)
        wanted = full_region(shape) if extents is None else resolve_extents(extents, shape, where)
        pieces = self.pieces(key)
        regions = [resolve_extents(piece.extents, shape, where) for piece in pieces]
        copies = plan_copies(wanted, regions, where)
        # Every piece is decoded, its number of values compared with its region, before memory is taken for the whole.
        needed = {copy.piece for copy in copies}
        parts = {index: self._read_piece(key, pieces[index], regions[index], dtype) for index in sorted(needed)}
        if len(copies) == 1 and regions[copies[0].piece] == wanted:
            return parts[copies[0].piece]
        whole: Array = np.empty(region_shape(wanted), dtype.numpy())
        for copy in copies:
            whole[copy.target] = parts[copy.piece][copy.source]
        return whole

    def readable(self, key: str) -> tuple[tuple[int, ...], DType]:
        """Return shape and dtype of a tensor that can be read; raises FormatError as `read` does."""
        spec = self.spec(key)
        where = Where(self.path, key)
        dtype = self.shards[self._homes[key][0]].meta.tensors[key].dtype
        if dtype is None:
            raise UnsupportedError("spec.unknown-dtype", where, f"the data type {spec.dtype} is not known")
        if spec.shape is None:
            raise CorruptionError("v1.bad-shape", where, "the shape of a stored tensor is not known")
        places = max(dtype.itemsize, 1) * prod(
            max(length, 1) for length in spec.shape
        )  # numpy counts an empty axis too
        self.limits.check("tensor_bytes", places, where, "the size of the tensor")
        if len(spec.shape) > 64:
            raise UnsupportedError("v1.rank", where, f"numpy has no arrays of {len(spec.shape)} dimensions")
        return spec.shape, dtype

    def _read_piece(self, key: str, piece: Piece, region: Region, dtype: DType) -> Array:
        shard = self.shards[piece.shard]
        value = shard.table.get(encode_slice_key(shard.meta.tensors[key].name, piece.extents))
        if value is None:
            raise slice_missing(Where(shard.source.path, key), piece.extents)
        return self.decode_piece(key, piece, region_shape(region), dtype, value)

    def decode_piece(self, key: str, piece: Piece, shape: tuple[int, ...], dtype: DType, value: bytes) -> Array:
        """Return the array of one slice from the value that its table holds; raises as `read` does."""
        from openckpt.formats.v1.values import decode_values, find_data

        shard = self.shards[piece.shard]
        name = shard.meta.tensors[key].name
        where = Where(shard.source.path, key)
        found_name, found_slice, proto = find_data(value, where)
        if found_name != name or parse_slice_proto(found_slice, where) != piece.extents:
            raise CorruptionError(
                "v1.slice-mismatch",
                where,
                "the value under this tensor's key says that it belongs to another one",
                expected=f"{name.decode(errors='replace')[:80]!r} {format_extents(piece.extents)}",
                found=f"{found_name.decode(errors='replace')[:80]!r}",
            )
        return decode_values(value, proto, dtype, prod(shape), where).reshape(shape)

    def view(self, key: str) -> Array:
        """Raise UnsupportedError ``spec.no-view``: values are packed into protos and blocks, never plain in the file."""
        self.spec(key)
        raise UnsupportedError("spec.no-view", Where(self.path, key), "V1 checkpoints store no plain arrays")

    def read_many(
        self,
        keys: Iterable[str],
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> dict[str, Array]:
        """Return ``{key: array}``; targets are all checked before the first is filled. ``threads`` is not used."""
        import numpy as np

        from openckpt.formats.extents import check_target

        wanted = list(dict.fromkeys(keys))
        targets = out or {}
        for key in wanted:
            if key in targets:
                shape, dtype = self.readable(key)
                check_target(targets[key], dtype.numpy(), shape, self.path, key)
        result: dict[str, Array] = {}
        for key in wanted:
            value = self.read(key, verify=verify)
            if key in targets:
                np.copyto(targets[key], value)
                value = targets[key]
            result[key] = value
        return result

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return (): a value has no bytes of its own in the file, they are part of a block."""
        self.spec(key)
        return ()

    def graph(self) -> ObjectGraph | None:
        """Return the object graph, or None: V1 checkpoints nearly always are name-based."""
        from openckpt.formats.objectgraph import read_object_graph

        return read_object_graph(self, self.limits)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield everything that is wrong with the tables and, with ``data``, with the values."""
        from openckpt.formats.v1.validate import validate_v1

        return validate_v1(self, data=data, progress=progress)

    def close(self) -> None:
        """Close the tables."""
        for source in self._sources:
            source.close()


def slice_missing(where: Where, extents: Extents) -> CorruptionError:
    """Make the error for a slice that the list names and the table does not hold."""
    return CorruptionError(
        "v1.slice-missing",
        where,
        "the list of tensors names values that are not in the table",
        expected=f"the slice {format_extents(extents)}" if extents else "its value",
        found="nothing",
    )
