"""`CheckpointWriter`: a checkpoint written tensor by tensor, in the dual layout or in TensorFlow's.

    specs known    each data file is laid out first; tensors may come in any order and go to their places
    specs unknown  tensors go one behind the other (TensorFlow's layout), as they come

Nothing is visible under the prefix before everything is written and safe: see `openckpt.storage.commit`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from types import TracebackType
from typing import Literal, cast

from openckpt.errors import CheckpointError, ConflictError, MismatchError, NotFoundError, UnsupportedError, Where, shown
from openckpt.formats.bundle.splitting import Piece
from openckpt.formats.collecting import collection_held
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual import DualTensor, Place
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, step_of
from openckpt.formats.slicing import region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.formats.sstable.builder import encode_table
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.pending import PendingFile
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.announced import Announced, check_specs, check_value
from openckpt.writing.behind import WriteBehind
from openckpt.writing.checking import check_index
from openckpt.writing.keys import decode_key, encode_key, split_prefix
from openckpt.writing.linking import LinkedFile, Placed
from openckpt.writing.manifests import ManifestUpdate, advanced_manifest, check_name
from openckpt.writing.pieces import check_pieces, is_part
from openckpt.writing.place import Taken, look_at, record_of, settle_dead, shard_names
from openckpt.writing.result import SavedPath
from openckpt.writing.shard import DualShard, PackedShard, Shard
from openckpt.writing.sharding import OneShard, Sharding, check_plan
from openckpt.writing.slots import Slots
from openckpt.writing.values import Sliced, Stored, Value, as_array, describe, direct_bytes, encode

Layout = Literal["dual", "tensorflow"]

_RUN = 256  # tensors that are looked at together
_SHORT_BYTES = 1 << 30  # of all tensors: below, writing them is short enough to hold the garbage collector off
_RUN_BYTES = 8 << 20  # of all of them: of larger ones the bytes are the work, not the calls
_INDEX_BYTES = 256  # of an entry with its key, for the estimate of free space


class CheckpointWriter:
    """Writes one checkpoint; a context manager. Made by `openckpt.create`. For one thread at a time.

    ``result`` is the `SavedPath` once the block has ended, ``files`` are the paths of its data files. An error in the block, or a tensor that was announced and never
    came, leaves everything as it was.
    """

    def __init__(
        self,
        prefix: str,
        *,
        announced: Announced | None,
        layout: Layout,
        sharding: Sharding | None,
        overwrite: bool,
        durability: Durability,
        update_manifest: bool | ManifestUpdate,
        store: WritableStore | None,
        linked: Sequence[LinkedFile] = (),
    ) -> None:
        if layout not in ("dual", "tensorflow"):
            raise ValueError(f"layout is 'dual' or 'tensorflow', not {layout!r}")
        if durability not in ("power-loss", "process-crash"):
            raise ValueError(f"durability is 'power-loss' or 'process-crash', not {durability!r}")
        if announced is None and (layout == "dual" or sharding is not None):
            raise ValueError("the dual layout and sharding need the specs of all tensors first")
        self.prefix = prefix
        self._store: WritableStore = DISK if store is None else store
        directory, self._stem = split_prefix(self._store, prefix)
        if update_manifest:
            check_name(self._stem, prefix)
        self._commit = Commit(self._store, directory, self._stem, durability=durability, settle=settle_dead)
        self._announced = announced
        self._layout = layout
        self._sharding = sharding
        self._overwrite = overwrite
        self._update_manifest = update_manifest
        self._linked = linked  # numbered behind the data files that are written
        self._taken = Taken(False, {})
        self._behind = WriteBehind()
        self._shards: list[Shard] = []
        self._slots = Slots()
        self._specs: dict[bytes, TensorSpec] = {}
        self._seen: set[bytes] = set()
        self._process: int | None = None  # that writes it, while the block runs
        self._failed: BaseException | None = None
        self.result: SavedPath | None = None
        self.files: list[str] = []

    def __enter__(self) -> CheckpointWriter:
        if self._process is not None or self.result is not None:
            raise ValueError("a writer writes one checkpoint: create another one")
        self._commit.__enter__()
        try:
            with collection_held():
                self._begin()
        except BaseException as error:
            self._commit.__exit__(type(error), error, error.__traceback__)
            raise
        self._process = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process != os.getpid():  # a fork leaves the block: nothing here is its own
            if error is None:
                self._check_open()
            return
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._end(failure)
            raise
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._process = None
        try:
            self._behind.close()
        finally:
            self._commit.__exit__(None if error is None else type(error), error, None)

    def _check_open(self) -> None:
        if self._process is None:
            raise ValueError("tensors are added inside the writer's `with` block")
        if self._process != os.getpid():
            raise ConflictError("commit.locked", self.prefix, "the process of which this is a fork is saving it")

    # -- before the first tensor --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._taken = look_at(self._store, self._commit.directory, self._stem)
        if self._taken.index and not self._overwrite:
            raise ConflictError("commit.exists", self.prefix, "a checkpoint of this name is there already")
        if self._announced is None:
            self._shards = [self._new_shard()]
            return
        specs = self._announced.specs
        self._specs = check_specs(specs, self.prefix)
        raws = list(self._specs)
        self._commit.require_space(sum(spec.nbytes or 0 for spec in specs.values()) + _INDEX_BYTES * len(specs))
        if self._sharding is None and not self._announced.pieces:
            self._slots.add_whole(raws, list(specs.values()), 0)
            self._open_shard(0, DualTensor.whole(raws, specs.values()))
            for number, linked in enumerate(self._linked, 1):
                self._slots.add_placed(linked.tensors, number)
            return
        counted = self._announced.counted
        policy = self._sharding or OneShard()
        planned = policy.plan(
            [(key, spec._replace(nbytes=counted[key]) if key in counted else spec) for key, spec in specs.items()]
        )
        planned = check_plan(planned, specs)
        for number, pieces in enumerate(planned):
            start, tensors = len(self._slots), list[DualTensor]()
            for piece in pieces:
                tensors += self._add_pieces(piece, specs[piece.key], number)
            self._open_shard(start, tensors)

    def _open_shard(self, start: int, tensors: Sequence[DualTensor]) -> None:
        """Begin the data file of the slots from ``start`` on."""
        self._shards.append(shard := self._new_shard(tensors))
        if shard.offsets:  # else: behind one another, as they come
            self._slots.offsets[start:] = [shard.offsets.get(place, -1) for place in self._slots.places(start)]

    def _add_pieces(self, planned: Piece, spec: TensorSpec, number: int) -> list[DualTensor]:
        assert self._announced is not None
        key, cut = planned
        raw, dtype, shape = encode_key(key, self.prefix), BY_NAME[spec.dtype], spec.shape or ()
        own = self._announced.pieces.get(key)
        if own and cut is not None:
            where = Where(self.prefix, key)
            raise UnsupportedError("writing.slices", where, "a policy cannot cut a tensor that comes in pieces")
        if not own and cut is None:
            self._slots.add_whole([raw], [spec], number)
            return [DualTensor(raw, spec)]
        tensors = []
        for extents in own or ((cut,) if cut is not None else ()):
            part = region_shape(resolve_extents(extents, shape))
            self._slots.add_piece(raw, extents, part, spec, number)
            stored = TensorSpec(spec.dtype, part, prod(part) * dtype.itemsize if dtype.itemsize else None)
            tensors.append(DualTensor(raw, stored, extents, shape))
        return tensors

    @property
    def order(self) -> list[str]:
        """The announced keys in the order in which their bytes lie in the files: the quickest order to add them in."""
        return list(map(decode_key, self._slots.keys_in_order(placed=self._layout == "dual")))

    # -- tensors ------------------------------------------------------------------------------------------------------

    def add(self, key: str | bytes, value: Value, *, dtype: str | None = None) -> None:
        """Write one tensor.

        Args:
            key: its key.
            value: an array, a number, text, bytes, an array of text or bytes, `Variant` or an array of them; where nothing
                was announced also `Sliced`. It may be changed as soon as this returns.
            dtype: TensorFlow's name where the array's own type does not tell it (quantised types).

        Raises:
            UnsupportedError: no checkpoint holds this key or value (``writing.*``).
            MismatchError: it is not what its spec announced (``writing.wrong-dtype``, ``writing.wrong-shape``, ``writing.wrong-size``).
            NotFoundError: its spec was not announced (``writing.foreign-key``).
            OSError: the system refused; the checkpoint is then abandoned.
        """
        self._check_open()
        raw = encode_key(key, self.prefix)
        where = Where(self.prefix, decode_key(raw))
        if raw in self._seen:
            raise UnsupportedError("writing.duplicate-key", where, "this key was added before")
        try:
            if self._announced is not None:
                check_value(value, dtype, self._specs.get(raw), where)
                self._put_value(raw, decode_key(raw), value)
            else:
                self._append(raw, value, dtype, where)
            self._seen.add(raw)
            self._flush()
        except CheckpointError:
            raise  # before a byte of it was written: the caller may go on without this tensor
        except BaseException as error:
            self._failed = error
            raise

    def add_many(self, values: Mapping[str, Value | Stored]) -> None:
        """Write several announced tensors; all may be changed as soon as this returns.

        Args:
            values: key -> value as `add` takes it, or `Stored` bytes of a tensor that is announced whole: then nothing is
                made or checked again but their number.

        Raises:
            CheckpointError, OSError: as `add`.
        """
        self._check_open()
        try:
            for key, value in values.items():
                raw = encode_key(key, self.prefix)
                where = Where(self.prefix, key)
                if raw in self._seen:
                    raise UnsupportedError("writing.duplicate-key", where, "this key was added before")
                if raw not in self._specs or type(value) is not Stored:
                    check_value(value, None, self._specs.get(raw), where)
                self._put_value(raw, key, value)
                self._seen.add(raw)
            self._flush()
        except BaseException as error:
            self._failed = error
            raise

    def _put_value(self, raw: bytes, key: str, value: Value | Stored) -> None:
        whole = self._slots.whole.get(raw)
        for slot in self._slots.cut[raw] if whole is None else (whole,):
            self._put_slot(slot, key, value)

    def _flush(self) -> None:
        """Return when everything that was put is with the system."""
        for shard in self._shards:
            shard.flush()
        self._behind.drain()

    def placed(self) -> dict[str, Placed]:
        """Return where every tensor lies that is stored whole and whose size its dtype and shape settle, once all are written."""
        slots, names = self._slots, {dtype.enum: dtype for dtype in BY_NAME.values() if dtype.itemsize}
        return {
            decode_key(raw): Placed(
                TensorSpec(names[slots.enums[slot]].name, slots.shapes[slot], slots.sizes[slot]),
                slots.shards[slot],
                slots.offsets[slot],
                slots.crcs[slot],
            )
            for raw, slot in slots.whole.items()
            if slots.enums[slot] in names
        }

    def payload(self, shard: int) -> int:
        """Return the bytes of all tensors in one data file, once all are written."""
        return sum(size for size, at in zip(self._slots.sizes, self._slots.shards, strict=True) if at == shard)

    def put_all(self, values: Mapping[str, Value | Stored]) -> None:
        """Write every announced tensor, each as its spec says; all must stay as they are until the block ends."""
        short = sum(spec.nbytes or 0 for spec in self._specs.values()) < _SHORT_BYTES
        with collection_held(when=short):
            for number, shard in enumerate(self._shards):
                order = self._slots.in_order(number, len(self._shards) + len(self._linked), shard.offsets)
                for start in range(0, len(order), _RUN):
                    self._put_run(shard, order[start : start + _RUN], values)
                shard.flush()
        self._seen = set(self._specs)

    def _put_run(self, shard: Shard, run: Sequence[int], values: Mapping[str, Value | Stored]) -> None:
        """Write tensors that lie one behind the other; small ones column by column, which halves the work of 20,000."""
        slots = self._slots
        keys = [decode_key(slots.keys[slot]) for slot in run]
        taken = [values[key] for key in keys]
        parts = [direct_bytes(value) for value in taken]
        meant = [slots.sizes[slot] for slot in run]
        sizes = [-1 if part is None else len(part) for part in parts]
        if sizes != meant or slots.extents or sum(sizes) > _RUN_BYTES:
            for slot, key, value, part, size in zip(run, keys, taken, parts, meant, strict=True):
                if part is not None and len(part) == size:
                    self._put(slot, slots.keys[slot], Stored(part, None))
                else:
                    self._put_slot(slot, key, value)
            return
        small = cast("list[memoryview]", parts)
        at = shard.put_run(slots.offsets[run[0]], small, sum(sizes))
        for slot, offset, crc in zip(run, accumulate(sizes, initial=at), map(crc32c, small), strict=False):
            slots.offsets[slot] = offset
            slots.crcs[slot] = crc  # while the bytes are on their way, on another thread

    def _put_slot(self, slot: int, key: str, value: Value | Stored) -> None:
        """Write one tensor, or one piece of it, that is as its spec announced."""
        slots = self._slots
        raw, spec, where = slots.keys[slot], self._specs[slots.keys[slot]], Where(self.prefix, key)
        extents = slots.extents.get(slot)
        if extents is not None:
            if isinstance(value, Sliced):
                piece: Value = value.pieces[extents]
            else:
                region = resolve_extents(extents, spec.shape or ())
                piece = as_array(value, where)[tuple(slice(at, at + n) for at, n in region)]
            self._put(slot, (raw, extents), encode(piece, BY_NAME[spec.dtype], where))
            return
        if isinstance(value, Sliced):  # one piece that is everything
            (value,) = value.pieces.values()
        stored = value if type(value) is Stored else encode(value, BY_NAME[spec.dtype], where)
        if spec.nbytes is not None and len(stored.data) != spec.nbytes:
            raise MismatchError(
                "writing.wrong-size",
                where,
                "another size was announced",
                expected=f"{spec.nbytes} bytes",
                found=f"{len(stored.data)} bytes",
            )
        self._put(slot, raw, stored)

    def _put(self, slot: int, place: Place, stored: Stored) -> None:
        data, crc = stored
        slots = self._slots
        slots.offsets[slot] = self._shards[slots.shards[slot]].put(place, slots.offsets[slot], data)
        slots.sizes[slot] = len(data)
        # While the bytes are on their way, on another thread.
        slots.crcs[slot] = crc32c(data) if crc is None else crc

    def _append(self, raw: bytes, value: Value, named: str | None, where: Where) -> None:
        slots = self._slots
        if isinstance(value, Sliced):
            spec, cut = check_pieces(value, named, where)
            if cut:
                dtype = BY_NAME[spec.dtype]
                pieces = {extents: encode(value.pieces[extents], dtype, where) for extents in cut}
                for extents, stored in pieces.items():
                    part = region_shape(resolve_extents(extents, value.shape))
                    self._put(slots.add_piece(raw, extents, part, spec, 0), (raw, extents), stored)
                return
            (value,) = value.pieces.values()
        dtype, shape, _ = describe(value, named, where)
        stored = encode(value, dtype, where)
        slots.add_whole([raw], [TensorSpec(dtype.name, shape, len(stored.data))], 0)
        self._put(len(slots) - 1, raw, stored)

    # -- after the last tensor ----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._failed is not None:
            raise self._failed  # the caller did not let it out of the block; its bytes are missing all the same
        missing = self._specs.keys() - self._seen
        if missing:
            names = sorted(map(decode_key, missing))
            raise NotFoundError("writing.missing-keys", self.prefix, f"{len(names)} tensors never came: {shown(names)}")
        slots, commit = self._slots, self._commit
        if not len(slots) and not is_part(self.prefix):  # of several writers, one may have nothing to save
            raise UnsupportedError("writing.no-tensors", self.prefix, "there is no tensor to save")
        for shard in self._shards:
            shard.flush()
        written, links = len(self._shards), len(self._linked)
        count = self._taken.free_count(written + links)
        with collection_held():
            entries = slots.entries(count, self.prefix, sort_pieces=self._layout == "dual")
            table = encode_table(entries)  # beside the last bytes on their way
        self._behind.drain()
        crcs = dict(zip(slots.places(), slots.crcs, strict=True))
        self._shards += [self._new_shard() for _ in range(count - written - links)]
        for shard in self._shards:
            shard.finish(crcs)
        files: list[PendingFile] = [shard.file for shard in self._shards]
        names = shard_names(self._stem, count)
        shared = {file.path: name for file, name in zip(self._linked, names[written:], strict=False)}
        own = [*names[:written], *names[written + links :]]
        index = commit.put(table)
        commit.publish(dict(zip(files, own, strict=True)), linked=shared, record=record_of(count, self._taken))
        ends = {name: file.end for name, file in zip(own, files, strict=True)}
        ends |= {shared[linked.path]: linked.size for linked in self._linked}
        commit.switch(
            index,
            self._stem + INDEX_SUFFIX,
            check=lambda data: check_index(self._store, self.prefix, commit.directory, data, table, ends),
        )
        if callable(self._update_manifest):
            commit.follow(MANIFEST_NAME, self._update_manifest)
        elif self._update_manifest:
            commit.follow(MANIFEST_NAME, lambda present: advanced_manifest(present, self._stem, commit.directory))
        if self._overwrite:
            commit.retire(name for old in self._taken.shards.values() for name in old)
        self.result = SavedPath(
            self.prefix,
            step=step_of(self.prefix),
            durability=commit.durability,
            nbytes=len(table) + sum(ends.values()),
            linked_nbytes=sum(linked.size for linked in self._linked),
        )
        self.files = [self._store.join(commit.directory, name) for name in names]

    def _new_shard(self, tensors: Sequence[DualTensor] = ()) -> Shard:
        """Return a new data file, laid out for some tensors; of none where the count is above that of the shards."""
        file = self._commit.create()
        if self._layout == "tensorflow":
            return PackedShard(file, self._behind)
        marked = [number for number, linked in enumerate(self._linked, 1) if linked.is_superseded]
        return DualShard(file, self._behind, tensors, self.prefix, () if self._shards else marked)
