"""A data shard of a checkpoint opened as the safetensors file that it also is: true keys, true types, checksums.

`openckpt.formats.safetensors` reads the header and opens one of these where a file carries our metadata. Numbers that lie as one
plain run are read like those of any safetensors file, and checked. Strings, variants, types of less than a byte and partitioned
tensors are read by the code that reads them out of a checkpoint, over an index of just these, made from the headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where
from openckpt.formats.bundle.index import BundleIndex
from openckpt.formats.bundle.reader import BundleReader
from openckpt.formats.bundle.shards import Shards
from openckpt.formats.bundle.values import SUB_BYTE
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual.parsing import DualEntry, DualShard, gather_pieces
from openckpt.formats.dual.rebuilding import index_of_dual
from openckpt.formats.flat import Run
from openckpt.formats.safetensors import SafetensorsReader
from openckpt.formats.spec import Extent, TensorSpec
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.memory import MemorySource

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.safetensors_header import SafetensorsHeader
    from openckpt.formats.slicekeys import Extents
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource


class DualReader(SafetensorsReader):
    """A `TensorReader` over safetensors files of which one or more are data shards of a checkpoint.

    Keys, types, shapes and checksums are those of the checkpoint; where all files are such shards, so is the order of the keys.
    """

    def __init__(self, path: str, sources: tuple[ByteSource, ...], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(path, sources, limits)
        self._entries: dict[int, dict[str, DualEntry]] = {}  # source -> name that safetensors sees -> entry
        self._decoded: dict[int, list[DualEntry]] = {}  # source -> what is no plain run
        self._bundle: BundleReader | None = None

    def _add(self, key: str, header: SafetensorsHeader, source: int) -> None:
        if header.dual is None:
            super()._add(key, header, source)
            return
        if source not in self._entries:
            self._entries[source] = {entry.name: entry for entry in header.dual.entries}
        entry = self._entries[source][key]
        name = entry.key.decode("utf-8", "surrogateescape")
        dtype = BY_NAME[entry.spec.dtype]
        if name in (self._specs if entry.slice is None else self._runs):
            where = Where(self._sources[source].path, name, entry.offset)
            raise CorruptionError("dual.duplicate-key", where, "two files hold a tensor of the same key")
        if entry.slice is not None:  # listed as the index lists a tensor in pieces
            whole = TensorSpec(dtype.name, entry.full_shape, None)
            self._specs[name] = whole._replace(nbytes=whole.size * dtype.itemsize if dtype.is_numeric else None)
        else:
            self._specs[name] = entry.spec
            if dtype.is_numeric and dtype.name not in SUB_BYTE:
                self._runs[name] = Run(source, entry.offset, entry.spec.nbytes or 0, crc=entry.crc)
                return
        self._decoded.setdefault(source, []).append(entry)

    def _settle(self, headers: Iterable[tuple[int, SafetensorsHeader]]) -> None:
        super()._settle(headers)
        gather_pieces(self._decoded_shards(), self._limits)
        if len(self._entries) == len(self._sources):
            order = sorted(self._specs, key=lambda key: key.encode("utf-8", "surrogateescape"))
            self._specs = {key: self._specs[key] for key in order}

    def _decoded_shards(self) -> list[DualShard]:
        return [
            DualShard(source.path, tuple(self._decoded.get(number, ()))) for number, source in enumerate(self._sources)
        ]

    def source(self, number: int) -> ByteSource:
        """Return the open file that an `Extent` calls its shard."""
        return self._sources[number]

    @property
    def bundle(self) -> BundleReader:
        """The tensors that are no plain run, as a checkpoint of their own."""
        if self._bundle is None:
            self._bundle = _Bundle(self.path, self._sources, self._decoded_shards(), self._limits)
        return self._bundle

    def is_decoded(self, key: str) -> bool:
        """Return whether a tensor is more than one plain run of numbers: text, variants, packed types, pieces."""
        return self.spec(key).dtype in BY_NAME and key not in self._runs

    def _read_other(self, key: str, spec: TensorSpec, verify: bool) -> Array:
        if spec.dtype not in BY_NAME:
            raise self._refusal(key, spec)
        return self.bundle.read(key, verify=verify)

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie, piece by piece, with their checksums."""
        return self.bundle.locate(key) if self.is_decoded(key) else super().locate(key)

    def slices(self, key: str) -> tuple[Extents, ...]:
        """Return the stored pieces of a partitioned tensor, () for one that is stored whole."""
        return self.bundle.slices(key) if self.is_decoded(key) else ()

    def read_slice(self, key: str, extents: Extents, *, verify: bool = True) -> Array:
        """Return one region of a tensor, ``(start, length)`` per dimension; ``(0, -1)`` is a whole dimension."""
        if self.is_decoded(key):
            return self.bundle.read_slice(key, extents, verify=verify)
        from openckpt.formats.slicing import resolve_extents

        region = resolve_extents(extents, self.spec(key).shape or (), Where(self.path, key))
        whole = self.read(key, verify=verify)
        part: Array = whole[tuple(slice(start, start + length) for start, length in region)]
        return part.copy()

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is wrong with the files and, with ``data``, with the tensors' bytes."""
        from openckpt.formats.dual.validate import validate_dual

        yield from super().validate(data=data, progress=progress)
        yield from validate_dual(self, data=data, progress=progress)


class _Bundle(BundleReader):
    """A checkpoint whose index is in memory and whose data files are safetensors files that are open already."""

    format = "safetensors"

    def __init__(self, path: str, sources: Sequence[ByteSource], shards: Sequence[DualShard], limits: Limits) -> None:
        self.prefix = self.path = path
        self._source: ByteSource = MemorySource(path, index_of_dual(shards, limits))
        self._limits = limits
        self.index = BundleIndex(self._source, path, limits)
        self.shards = _OpenShards(sources)
        self._data = None


class _OpenShards(Shards):
    """Shards under names of their own; whoever opened them closes them."""

    def __init__(self, sources: Sequence[ByteSource]) -> None:
        self._sources = sources
        self.stated = self.count = len(sources)

    def display(self, shard: int) -> str:
        return self._sources[shard].path

    def get(self, shard: int, key: str) -> ByteSource:
        return self._sources[shard]

    def missing(self) -> list[int]:
        return []

    def paths(self) -> tuple[str, ...]:
        return tuple(source.path for source in self._sources)

    def close(self) -> None:
        """Nothing to do."""
