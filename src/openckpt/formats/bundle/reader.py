"""`BundleReader`: one open V2 checkpoint (formats 2), read without TensorFlow.

    PREFIX.index                       table: "" -> header, key -> entry (dtype, shape, shard, offset, size, crc, slices)
    PREFIX.data-SSSSS-of-NNNNN         bare tensor bytes

Listing touches only the index (`index`) and imports no numpy; the first tensor that is read brings in `data`. Every tensor is
checked against its CRC when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from openckpt.formats.bundle.entry import BundleEntry
from openckpt.formats.bundle.index import BundleIndex
from openckpt.formats.bundle.shards import Shards
from openckpt.formats.spec import Extent, TensorSpec
from openckpt.limits import Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.bundle.data import BundleData
    from openckpt.formats.bundle.header import Header
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.slicekeys import Extents
    from openckpt.formats.spec import Array
    from openckpt.formats.sstable.table import Table
    from openckpt.storage.reading import ByteSource, Store


class BundleReader:
    """A `TensorReader` over one V2 checkpoint; made by `open_bundle`.

    Attributes:
        prefix: the prefix as a path of its store; `path` is the same as shown to people.
        index: keys, specs and entries.
        shards: the data files.
    """

    format = "bundle-v2"

    def __init__(self, store: Store, prefix: str, source: ByteSource, limits: Limits) -> None:
        self.prefix, self._source, self._limits = prefix, source, limits
        self.path = store.display(prefix)
        self.index = BundleIndex(source, self.path, limits)
        self.shards = Shards(store, prefix, self.header.num_shards, source.unchanged)
        self._data: BundleData | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The index and the shards that are there."""
        return (self._source.path, *self.shards.paths())

    @property
    def table(self) -> Table:
        """The table in the index file."""
        return self.index.table

    @property
    def header(self) -> Header:
        """Number of shards, byte order and version."""
        return self.index.header

    @property
    def data(self) -> BundleData:
        """What reads the tensors (imports numpy)."""
        if self._data is None:
            from openckpt.formats.bundle.data import BundleData

            self._data = BundleData(self.index, self.shards, self.path, self._limits)
        return self._data

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in table order."""
        return iter(self.index.listing()[0])

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in table order."""
        return zip(*self.index.listing(), strict=True)

    def __len__(self) -> int:
        return len(self.index.listing()[0])

    def __contains__(self, key: object) -> bool:
        return key in self.index

    def entry(self, key: str) -> BundleEntry:
        """Return the index entry of a key; raises `NotFoundError`, CorruptionError ``bundle.bad-entry``."""
        return self.index.entry(key)

    def spec(self, key: str) -> TensorSpec:
        """Return dtype, shape and stored bytes of one key; reads one block of the index."""
        return self.index.spec(key)

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
        """Return ``{key: array}`` in the order of ``keys``; see `BundleData.read_many`."""
        return self.data.read_many(keys, out=out, threads=threads, verify=verify)

    def check_many(self, keys: Iterable[str]) -> None:
        """Read tensors for nothing but their checksums; raises as `read`."""
        self.data.check_many(keys)

    def view(self, key: str) -> Array:
        """Return a read-only array over the shard's map, unchecked; raises UnsupportedError ``spec.no-view``."""
        return self.data.view(key)

    def slices(self, key: str) -> tuple[Extents, ...]:
        """Return the stored pieces of a partitioned tensor, () for one that is stored whole."""
        return self.entry(key).slices

    def read_slice(self, key: str, extents: Extents, *, verify: bool = True) -> Array:
        """Return one region of a tensor, ``(start, length)`` per dimension; ``(0, -1)`` is a whole dimension."""
        return self.data.read_slice(key, extents, verify=verify)

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie, piece by piece."""
        entry = self.entry(key)
        parts = [self.index.piece(key, entry, piece) for piece in entry.slices] if entry.slices else [entry]
        return tuple(
            Extent(self.shards.display(part.shard), part.shard, part.offset, part.size, part.crc) for part in parts
        )

    def graph(self) -> ObjectGraph | None:
        """Return the object graph, or None for a name-based checkpoint.

        Raises:
            FormatError: the graph is there but cannot be read.
        """
        from openckpt.formats.objectgraph import read_object_graph

        return read_object_graph(self, self._limits)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield everything that is wrong with the index and, with ``data``, with the tensors' bytes."""
        from openckpt.formats.bundle.validate import validate_bundle

        return validate_bundle(self, self._source, self._limits, data=data, progress=progress)

    def close(self) -> None:
        """Close index and shards; views stay valid."""
        self.shards.close()
        self._source.close()
