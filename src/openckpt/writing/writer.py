"""`CheckpointWriter`: a checkpoint written tensor by tensor, in the dual layout or in TensorFlow's.

    specs known    each shard is laid out first; tensors may come in any order and go to their places
    specs unknown  tensors go one behind the other (TensorFlow's layout), as they come

Nothing is visible under the prefix before everything is written and safe: see `openckpt.storage.commit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from openckpt.errors import ConflictError, MismatchError, NotFoundError, UnsupportedError, Where, shown
from openckpt.formats.bundle.entry import BundleEntry, encode_entries, encode_entry
from openckpt.formats.bundle.header import encode_header
from openckpt.formats.bundle.splitting import Piece
from openckpt.formats.dtypes import BY_NAME, DType
from openckpt.formats.dual import DualTensor
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, step_of
from openckpt.formats.slicing import Extents, encode_slice_key, region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.formats.sstable.builder import encode_table
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.pending import PendingFile
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.checking import check_index
from openckpt.writing.keys import decode_key, encode_key, split_prefix
from openckpt.writing.manifests import advanced_manifest
from openckpt.writing.pieces import check_pieces
from openckpt.writing.place import Taken, encode_record, look_at, settle_dead, shard_names
from openckpt.writing.result import SavedPath
from openckpt.writing.shard import DualShard, PackedShard, Shard
from openckpt.writing.sharding import OneShard, Sharding
from openckpt.writing.values import Sliced, Stored, Value, as_array, describe, encode

if TYPE_CHECKING:
    from openckpt.formats.dual import Place

Layout = Literal["dual", "tensorflow"]

_INDEX_BYTES = 256  # of an entry with its key, for the estimate of free space


class CheckpointWriter:
    """Writes one checkpoint; a context manager. Made by `openckpt.create`.

    ``result`` is the `SavedPath` once the block has ended. An error in the block, or a tensor that was announced and never
    came, leaves everything as it was.
    """

    def __init__(
        self,
        prefix: str,
        *,
        specs: Mapping[str, TensorSpec] | None,
        layout: Layout,
        sharding: Sharding | None,
        overwrite: bool,
        durability: Durability,
        update_manifest: bool,
        store: WritableStore | None,
        pieces: Mapping[str, Sequence[Extents]] | None = None,
        counted: Mapping[str, int] | None = None,
    ) -> None:
        if layout not in ("dual", "tensorflow"):
            raise ValueError(f"layout is 'dual' or 'tensorflow', not {layout!r}")
        if durability not in ("power-loss", "process-crash"):
            raise ValueError(f"durability is 'power-loss' or 'process-crash', not {durability!r}")
        if specs is None and (layout == "dual" or sharding is not None):
            raise ValueError("the dual layout and sharding need the specs of all tensors first")
        self.prefix = str(prefix)
        self._store: WritableStore = DISK if store is None else store
        directory, self._stem = split_prefix(self._store, self.prefix)
        self._commit = Commit(self._store, directory, self._stem, durability=durability, settle=settle_dead)
        self._specs = specs
        self._pieces = pieces or {}  # key -> the pieces in which the caller has it
        self._counted = counted or {}  # key -> bytes of a string tensor by which shards are cut
        self._layout = layout
        self._sharding = sharding or OneShard()
        self._overwrite = overwrite
        self._update_manifest = update_manifest
        self._taken = Taken(False, {})
        self._shards: list[Shard] = []
        # One column per fact, one row ("slot") per stored piece.
        self._keys: list[bytes] = []
        self._extents: list[Extents | None] = []
        self._enums: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._in: list[int] = []
        self._offsets: list[int] = []
        self._sizes: list[int] = []
        self._crcs: list[int] = []
        self._planned: dict[bytes, tuple[TensorSpec, list[int]]] = {}
        self._sliced: dict[bytes, tuple[int, tuple[int, ...], list[Extents]]] = {}
        self._seen: set[bytes] = set()
        self.result: SavedPath | None = None

    def __enter__(self) -> CheckpointWriter:
        self._commit.__enter__()
        try:
            self._begin()
        except BaseException as error:
            self._commit.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._commit.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._commit.__exit__(kind, error, trace)

    # -- before the first tensor --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        commit = self._commit
        self._taken = look_at(self._store, commit.directory, self._stem)
        if self._taken.index and not self._overwrite:
            raise ConflictError("commit.exists", self.prefix, "a checkpoint of this name is there already")
        if self._specs is None:
            self._shards = [PackedShard(commit.create(), self._crcs)]
            return
        raws = {encode_key(key, self.prefix): key for key in self._specs}
        if len(raws) < len(self._specs):
            raise UnsupportedError("writing.duplicate-key", self.prefix, "two keys of specs are the same bytes")
        counted = self._counted
        pieces = self._sharding.plan(
            [(key, spec._replace(nbytes=counted[key]) if key in counted else spec) for key, spec in self._specs.items()]
        )
        commit.require_space(sum(spec.nbytes or 0 for spec in self._specs.values()) + _INDEX_BYTES * len(self._specs))
        for number, shard in enumerate(pieces):
            self._lay_out(number, shard)
        missing = [key for raw, key in raws.items() if raw not in self._planned]
        if missing:
            raise ValueError(f"the sharding policy leaves out {shown(missing)}")

    def _lay_out(self, number: int, pieces: list[Piece]) -> None:
        assert self._specs is not None
        tensors: list[DualTensor] = []
        for key, cut in pieces:
            spec = self._specs[key]
            raw = encode_key(key, self.prefix)
            dtype = self._check_spec(spec, key)
            shape = spec.shape or ()
            own = self._pieces.get(key)
            if own and cut is not None:
                raise UnsupportedError(
                    "writing.slices", Where(self.prefix, key), "a policy cannot cut what is in pieces"
                )
            slots = []
            for extents in own or (cut,):
                if extents is None:
                    slots.append(self._add_slot(raw, None, dtype, shape, number))
                    tensors.append(DualTensor(raw, spec))
                    continue
                part = region_shape(resolve_extents(extents, shape))
                slots.append(self._add_slot(raw, extents, dtype, part, number))
                stored = TensorSpec(spec.dtype, part, prod(part) * dtype.itemsize if dtype.itemsize else None)
                tensors.append(DualTensor(raw, stored, extents, shape))
            known = self._planned.get(raw)
            if known is None:
                self._planned[raw] = (spec, slots)
            else:
                known[1].extend(slots)
        file = self._commit.create()
        self._shards.append(
            DualShard(file, self._crcs, tensors, self.prefix)
            if self._layout == "dual"
            else PackedShard(file, self._crcs)
        )

    def _check_spec(self, spec: TensorSpec, key: str) -> DType:
        dtype = BY_NAME.get(spec.dtype)
        if dtype is None or spec.shape is None:
            raise UnsupportedError("writing.dtype", Where(self.prefix, key), f"this cannot be stored: {spec}")
        if dtype.name == "resource":
            raise UnsupportedError("writing.resource", Where(self.prefix, key), "a resource is no value")
        return dtype

    def _add_slot(self, raw: bytes, extents: Extents | None, dtype: DType, shape: tuple[int, ...], shard: int) -> int:
        self._keys.append(raw)
        self._extents.append(extents)
        self._enums.append(dtype.enum)
        self._shapes.append(shape)
        self._in.append(shard)
        self._offsets.append(0)
        self._sizes.append(0)
        self._crcs.append(0)
        return len(self._keys) - 1

    @property
    def order(self) -> list[str]:
        """The keys in the order in which their bytes lie in the files: the quickest order to add them in."""
        slots = list(range(len(self._keys)))
        if self._layout == "dual":
            places = [shard.plan.offsets for shard in self._shards if isinstance(shard, DualShard)]
            slots.sort(key=lambda slot: (self._in[slot], places[self._in[slot]].get(self._place(slot), 1 << 63)))
        return [decode_key(raw) for raw in dict.fromkeys(self._keys[slot] for slot in slots)]

    # -- tensors ------------------------------------------------------------------------------------------------------

    def add(self, key: str | bytes, value: Value, *, dtype: str | None = None) -> None:
        """Write one tensor.

        Args:
            key: its key.
            value: an array, a number, text, bytes, an array of text or bytes, `Variant` or an array of them, or `Sliced`.
                It may be changed as soon as this returns.
            dtype: TensorFlow's name where the array's own type does not tell it (quantised types).

        Raises:
            UnsupportedError: no checkpoint holds this key or value (``writing.*``).
            MismatchError: it is not what its spec announced (``writing.wrong-dtype``, ``writing.wrong-shape``, ``writing.wrong-size``).
            NotFoundError: its spec was not announced (``writing.foreign-key``).
            OSError: the system refused; the checkpoint is then abandoned.
        """
        self.add_held(key, value, dtype=dtype)
        for shard in self._shards:
            shard.flush()

    def add_held(self, key: str | bytes, value: Value, *, dtype: str | None = None) -> None:
        """Write one tensor as `add` does, but leave the value as it is until the block ends: many small ones go in one call."""
        raw = encode_key(key, self.prefix)
        where = Where(self.prefix, decode_key(raw))
        if self._specs is not None:
            self._check_announced(raw, value, dtype, where)
        self.put(key, value, dtype=dtype)

    def put(self, key: str | bytes, value: Value | Stored, *, dtype: str | None = None) -> None:
        """Write one tensor as `add_held` does, of which the caller knows that it is as its spec announced."""
        raw = encode_key(key, self.prefix)
        if raw in self._seen:
            raise UnsupportedError(
                "writing.duplicate-key", Where(self.prefix, decode_key(raw)), "this key was added before"
            )
        self._seen.add(raw)
        planned = self._planned.get(raw)
        if planned is None:
            self._put_unplanned(raw, value, dtype)
            return
        spec, slots = planned
        kind = BY_NAME[spec.dtype]
        if self._extents[slots[0]] is None:
            if isinstance(value, Sliced):  # one piece that is everything
                (value,) = value.pieces.values()
            self._put(
                slots[0],
                value if isinstance(value, Stored) else encode(value, kind, Where(self.prefix, decode_key(raw))),
            )
            return
        where = Where(self.prefix, decode_key(raw))
        for slot in slots:
            extents = self._extents[slot]
            assert extents is not None
            if isinstance(value, Sliced):
                piece: Value = value.pieces[extents]
            else:
                region = resolve_extents(extents, spec.shape or ())
                piece = as_array(value, where)[tuple(slice(at, at + n) for at, n in region)]
            self._put(slot, encode(piece, kind, where))
        self._sliced[raw] = (kind.enum, spec.shape or (), [self._extents[slot] or () for slot in slots])

    def _put_unplanned(self, raw: bytes, value: Value, named: str | None) -> None:
        where = Where(self.prefix, decode_key(raw))
        parts: list[tuple[Extents | None, Value]] = [(None, value)]
        if isinstance(value, Sliced):
            spec, cut = check_pieces(value, named, where)
            parts = [(extents if cut else None, part) for extents, part in value.pieces.items()]
            if cut:
                self._sliced[raw] = (BY_NAME[spec.dtype].enum, value.shape, list(cut))
        for extents, part in parts:
            kind, shape, _ = describe(part, named, where)
            self._put(self._add_slot(raw, extents, kind, shape, 0), encode(part, kind, where))

    def _place(self, slot: int) -> Place:
        extents = self._extents[slot]
        return self._keys[slot] if extents is None else (self._keys[slot], extents)

    def _put(self, slot: int, stored: Stored) -> None:
        planned = self._planned.get(self._keys[slot])
        if (
            planned is not None
            and planned[0].nbytes is not None
            and self._extents[slot] is None
            and len(stored.data) != planned[0].nbytes
        ):
            raise MismatchError(
                "writing.wrong-size",
                Where(self.prefix, decode_key(self._keys[slot])),
                "another size was announced",
                expected=f"{planned[0].nbytes} bytes",
                found=f"{len(stored.data)} bytes",
            )
        self._offsets[slot] = self._shards[self._in[slot]].put(slot, self._place(slot), stored)
        self._sizes[slot] = len(stored.data)

    def _check_announced(self, raw: bytes, value: Value, named: str | None, where: Where) -> None:
        planned = self._planned.get(raw)
        if planned is None:
            raise NotFoundError("writing.foreign-key", where, "this key was not announced")
        spec = planned[0]
        if isinstance(value, Sliced):
            raise UnsupportedError("writing.slices", where, "specs announced this tensor whole")
        if named is None and spec.dtype in _NOT_FROM_NUMPY:
            named = spec.dtype
        dtype, shape, _ = describe(value, named, where)
        if dtype.name != spec.dtype:
            raise MismatchError(
                "writing.wrong-dtype", where, "another type was announced", expected=spec.dtype, found=dtype.name
            )
        if shape != spec.shape:
            raise MismatchError(
                "writing.wrong-shape", where, "another shape was announced", expected=spec.shape, found=shape
            )

    # -- after the last tensor ----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        missing = self._planned.keys() - self._seen
        if missing:
            names = sorted(map(decode_key, missing))
            raise NotFoundError("writing.missing-keys", self.prefix, f"{len(names)} tensors never came: {shown(names)}")
        if not self._keys:
            raise UnsupportedError("writing.no-tensors", self.prefix, "there is no tensor to save")
        slots: list[list[int]] = [[] for _ in self._shards]
        for slot, number in enumerate(self._in):
            slots[number].append(slot)
        for shard_slots, shard in zip(slots, self._shards, strict=True):
            shard.finish(
                [self._place(slot) for slot in shard_slots],
                [self._sizes[slot] for slot in shard_slots],
                [self._crcs[slot] for slot in shard_slots],
            )
        commit = self._commit
        count = self._taken.free_count(len(self._shards))
        names = shard_names(self._stem, count)
        files: list[PendingFile] = [shard.file for shard in self._shards]
        files += [self._empty_shard() for _ in range(count - len(files))]
        table = encode_table(self._entries(count))
        index = commit.put(table)
        commit.publish(dict(zip(files, names, strict=True)), record=encode_record(count, self._taken))
        ends = {name: file.end for name, file in zip(names, files, strict=True)}
        commit.switch(
            index,
            self._stem + INDEX_SUFFIX,
            check=lambda data: check_index(self._store, self.prefix, commit.directory, data, table, ends),
        )
        if self._update_manifest:
            commit.follow(MANIFEST_NAME, lambda present: advanced_manifest(present, self._stem))
        if self._taken.index:
            commit.retire(name for old in self._taken.shards.values() for name in old)
        self.result = SavedPath(
            self.prefix,
            step=step_of(self.prefix),
            durability=commit.durability,
            nbytes=len(table) + sum(file.end for file in files),
        )

    def _empty_shard(self) -> PendingFile:
        """Return a data file without a tensor, for a count above that of the shards."""
        file = self._commit.create()
        if self._layout == "dual":
            DualShard(file, [], [], self.prefix).finish([], [], [])
        return file

    def _entries(self, count: int) -> list[tuple[bytes, bytes]]:
        keys = list(self._keys)
        first: dict[bytes, int] = {}  # a tensor in pieces names its first data file, as after TensorFlow's merge
        for slot, extents in enumerate(self._extents) if self._sliced else ():
            if extents is not None:
                first.setdefault(keys[slot], self._in[slot])
                keys[slot] = encode_slice_key(keys[slot], extents)
        rows = zip(self._enums, self._shapes, self._in, self._offsets, self._sizes, self._crcs, strict=True)
        entries = dict(zip(keys, encode_entries(rows), strict=True))
        for raw, (enum, shape, listed) in self._sliced.items():
            if raw in entries:
                raise UnsupportedError("writing.duplicate-key", Where(self.prefix, decode_key(raw)), "given twice")
            entries[raw] = encode_entry(BundleEntry(enum, shape, first[raw], 0, 0, 0, tuple(listed)))
        if len(entries) != len(keys) + len(self._sliced):
            raise UnsupportedError("writing.duplicate-key", self.prefix, "a key is the same as the key of a slice")
        return [(b"", encode_header(count)), *sorted(entries.items())]


_NOT_FROM_NUMPY = frozenset(("qint8", "quint8", "qint16", "quint16", "qint32", "variant", "string"))
"""types whose arrays numpy calls by another name"""
