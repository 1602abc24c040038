"""The index of a V2 checkpoint: keys, specs and entries. Everything that listing needs, and nothing that reads a tensor.

This module and what it imports are the start-up time of ``openckpt ls``: no numpy, no protobuf, slices only where there are any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.formats.bundle.entry import BundleEntry, SpecCache, parse_entry
from openckpt.formats.bundle.header import header_of
from openckpt.formats.spec import TensorSpec, no_such_key
from openckpt.formats.sstable.table import Table
from openckpt.limits import Limits

if TYPE_CHECKING:
    from openckpt.formats.slicekeys import Extents
    from openckpt.storage.reading import ByteSource


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


_REMEMBERED = 8 << 20  # indexes up to this size keep their entries after a listing: whoever lists often reads all of it
_SLICE = b"\0"  # the first byte of every slice key (formats 2.9)


class BundleIndex:
    """The open index of one checkpoint; thread-safe.

    Attributes:
        source: the bytes of the index file.
        table: the table in it.
        header: number of shards, byte order, version.
    """

    def __init__(self, source: ByteSource, path: str, limits: Limits) -> None:
        self.source, self._path, self._limits = source, path, limits
        self.table = Table(source, limits=limits)
        self.header = header_of(self.table, limits)
        self._specs = SpecCache(limits)
        self._listing: tuple[list[str], list[TensorSpec]] | None = None
        self._entries: list[bytes] | None = None  # aligned with the listing

    def listing(self) -> tuple[list[str], list[TensorSpec]]:
        """Return all keys and, aligned with them, their specs, in table order; remembered after the first call."""
        if self._listing is None:
            names: list[str] = []
            specs: list[TensorSpec] = []
            entries: list[bytes] = []
            for keys, values in self._visible():
                names += decode_keys(keys) if keys else []
                specs += self._specs.specs(values)
                if self.source.size <= _REMEMBERED:
                    entries += values
            if len(entries) == len(names):
                self._entries = entries
            self._listing = names, specs
        return self._listing

    def _visible(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yield keys and values block by block, without the header and the pieces of partitioned tensors."""
        sliced: dict[bytes, frozenset[Extents]] = {}
        first = True
        for keys, values in self.table.blocks():
            if first and keys:
                keys, values, first = keys[1:], values[1:], False  # the header
            if keys and keys[0][:1] == _SLICE:
                shown = [not self._is_piece(key, sliced) for key in keys]
                keys = [key for key, keep in zip(keys, shown, strict=True) if keep]
                values = [value for value, keep in zip(values, shown, strict=True) if keep]
            yield keys, values

    def _is_piece(self, key: bytes, known: dict[bytes, frozenset[Extents]]) -> bool:
        """Return whether this is the slice key of a tensor that lists the slice (formats 2.9, listing rule)."""
        if key[:1] != _SLICE:
            return False
        from openckpt.formats.slicekeys import parse_slice_key

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
        return iter(self.listing()[0])

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in table order."""
        return zip(*self.listing(), strict=True)

    def __len__(self) -> int:
        return len(self.listing()[0])

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

    def value(self, key: str) -> bytes:
        """Return the stored entry of a key; raises `NotFoundError`."""
        value = self._value(key)
        if value is None:
            raise no_such_key(self._path, key, self.keys())
        return value

    def entry(self, key: str) -> BundleEntry:
        """Return the index entry of a key; raises `NotFoundError`, CorruptionError ``bundle.bad-entry``."""
        return parse_entry(self.value(key), Where(self.source.path, key), self._limits)

    def spec(self, key: str) -> TensorSpec:
        """Return dtype, shape and stored bytes of one key; reads one block of the index."""
        value = self.value(key)
        spec = self._specs.find(value)
        if spec is None:
            spec = parse_entry(value, Where(self.source.path, key), self._limits).spec()
            self._specs.learn(value)
        return spec

    def values(self, keys: list[str]) -> list[bytes]:
        """Return the stored entry of each key, in their order; raises `NotFoundError` for the first that is not there."""
        found: dict[str, bytes] = {}
        if self._listing is not None and keys == self._listing[0]:
            # All of them, as most often: no name is made a second time, and no dictionary.
            return self._entries or [value for _, values in self._visible() for value in values]
        if self._entries is not None and self._listing is not None and len(keys) > 64:
            found = dict(zip(self._listing[0], self._entries, strict=True))
        elif len(keys) > 64 * len(self.table.handles):  # one pass over the index beats so many lookups
            for raw, values in self.table.blocks():
                found.update(zip(decode_keys(raw), values, strict=True))
            for key in [key for key in found if not key or key[0] == "\0"]:
                del found[key]  # the header, and what may be a slice
        wanted: list[bytes] = []
        for key in keys:
            value = found.get(key) or self._value(key)
            if value is None:
                raise no_such_key(self._path, key, self.keys())
            wanted.append(value)
        return wanted

    def piece(self, key: str, entry: BundleEntry, piece: Extents) -> BundleEntry:
        """Return the entry of one stored slice, checked against its tensor's."""
        from openckpt.formats.slicekeys import encode_slice_key
        from openckpt.formats.slicing import region_shape, resolve_extents

        where = Where(self.source.path, key)
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
