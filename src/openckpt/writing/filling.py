"""The data files of one checkpoint while they are filled: which tensor goes to which place, and what the index will say of it.

specs known    each data file is laid out first; tensors may come in any order and go to their places
specs unknown  tensors go one behind the other (TensorFlow's layout), as they come
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Literal, cast

from openckpt.errors import MismatchError, UnsupportedError, Where
from openckpt.formats.bundle.splitting import Piece
from openckpt.formats.collecting import SHORT_BYTES, collection_held
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual import DualTensor, Place
from openckpt.formats.slicing import region_shape, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.formats.sstable.builder import encode_table
from openckpt.storage.pending import PendingFile
from openckpt.writing.announced import Announced
from openckpt.writing.behind import WriteBehind
from openckpt.writing.keys import decode_key, encode_key
from openckpt.writing.linking import LinkedFile, Placed
from openckpt.writing.pieces import check_pieces
from openckpt.writing.shard import DualShard, PackedShard, Shard
from openckpt.writing.sharding import OneShard, Sharding, check_plan
from openckpt.writing.slots import Slots
from openckpt.writing.values import Sliced, Stored, Value, as_array, describe, direct_bytes, encode

Layout = Literal["dual", "tensorflow"]

_RUN = 256  # tensors that are looked at together
_RUN_BYTES = 8 << 20  # of all of them: of larger ones the bytes are the work, not the calls


class Filling:
    """The data files and what is in them so far.

    Args:
        prefix: of the checkpoint, for messages.
        layout: of the data files.
        create: makes a new, empty data file.
        linked: data files that are there already, numbered behind those that are written.
    """

    def __init__(
        self, prefix: str, layout: Layout, create: Callable[[], PendingFile], linked: Sequence[LinkedFile]
    ) -> None:
        self._prefix = prefix
        self._layout = layout
        self._create = create
        self._linked = linked
        self._behind = WriteBehind()
        self._shards: list[Shard] = []
        self._slots = Slots()
        self.specs: dict[bytes, TensorSpec] = {}
        """raw key -> what was announced"""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def files(self) -> list[PendingFile]:
        """The data files that are written, in the order of their numbers, the linked ones left out."""
        return [shard.file for shard in self._shards]

    @property
    def order(self) -> list[str]:
        """The keys in the order in which their bytes lie in the files."""
        return list(map(decode_key, self._slots.keys_in_order(placed=self._layout == "dual")))

    # -- before the first tensor --------------------------------------------------------------------------------------

    def lay_out(self, announced: Announced | None, specs: dict[bytes, TensorSpec], sharding: Sharding | None) -> None:
        """Begin the data files.

        Args:
            announced: every tensor that will come; None where nobody knows.
            specs: raw key -> its spec.
            sharding: which tensor goes to which file; None for one file.
        """
        if announced is None:
            self._shards = [self._new_shard()]
            return
        self.specs = specs
        if sharding is None and not announced.pieces:
            raws = list(specs)
            self._slots.add_whole(raws, list(specs.values()), 0)
            self._open_shard(0, DualTensor.whole(raws, specs.values()))
            for number, linked in enumerate(self._linked, 1):
                self._slots.add_placed(linked.tensors, number)
            return
        counted = announced.counted
        planned = (sharding or OneShard()).plan(
            [
                (key, spec._replace(nbytes=counted[key]) if key in counted else spec)
                for key, spec in announced.specs.items()
            ]
        )
        for number, pieces in enumerate(check_plan(planned, announced.specs)):
            start, tensors = len(self._slots), list[DualTensor]()
            for piece in pieces:
                tensors += self._add_pieces(piece, announced, number)
            self._open_shard(start, tensors)

    def _open_shard(self, start: int, tensors: Sequence[DualTensor]) -> None:
        """Begin the data file of the slots from ``start`` on."""
        self._shards.append(shard := self._new_shard(tensors))
        if shard.offsets:  # else: behind one another, as they come
            self._slots.offsets[start:] = [shard.offsets.get(place, -1) for place in self._slots.places(start)]

    def _new_shard(self, tensors: Sequence[DualTensor] = ()) -> Shard:
        """Return a new data file, laid out for some tensors; of none where the count is above that of the shards."""
        file = self._create()
        if self._layout == "tensorflow":
            return PackedShard(file, self._behind)
        marked = [number for number, linked in enumerate(self._linked, 1) if linked.is_superseded]
        return DualShard(file, self._behind, tensors, self._prefix, () if self._shards else marked)

    def _add_pieces(self, planned: Piece, announced: Announced, number: int) -> list[DualTensor]:
        key, cut = planned
        spec = announced.specs[key]
        raw, dtype, shape = encode_key(key, self._prefix), BY_NAME[spec.dtype], spec.shape or ()
        own = announced.pieces.get(key)
        if own and cut is not None:
            where = Where(self._prefix, key)
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

    # -- tensors ------------------------------------------------------------------------------------------------------

    def put(self, raw: bytes, key: str, value: Value | Stored) -> None:
        """Write one announced tensor, which is as its spec says."""
        whole = self._slots.whole.get(raw)
        for slot in self._slots.cut[raw] if whole is None else (whole,):
            self._put_slot(slot, key, value)

    def append(self, raw: bytes, value: Value, named: str | None, where: Where) -> None:
        """Write one tensor that was not announced, behind the others."""
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

    def put_all(self, values: Mapping[str, Value | Stored]) -> None:
        """Write every announced tensor, each as its spec says; all must stay as they are until the block ends."""
        short = sum(spec.nbytes or 0 for spec in self.specs.values()) < SHORT_BYTES
        with collection_held(when=short):
            for number, shard in enumerate(self._shards):
                order = self._slots.in_order(number, len(self._shards) + len(self._linked), shard.offsets)
                for start in range(0, len(order), _RUN):
                    self._put_run(shard, order[start : start + _RUN], values)
                shard.flush()

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
        raw, spec, where = slots.keys[slot], self.specs[slots.keys[slot]], Where(self._prefix, key)
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

    def flush(self) -> None:
        """Return when everything that was put is with the system."""
        self._hand_over()
        self._behind.drain()

    def _hand_over(self) -> None:
        for shard in self._shards:
            shard.flush()

    # -- after the last tensor ----------------------------------------------------------------------------------------

    def encode_index(self, count: int) -> bytes:
        """Return the index of a checkpoint with ``count`` data files; the last bytes may still be on their way."""
        self._hand_over()
        with collection_held():
            return encode_table(self._slots.entries(count, self._prefix, sort_pieces=self._layout == "dual"))

    def finish(self, count: int) -> None:
        """Write what is still missing of the data files, and as many empty ones as ``count`` asks for."""
        self._behind.drain()
        crcs = dict(zip(self._slots.places(), self._slots.crcs, strict=True))
        self._shards += [self._new_shard() for _ in range(count - len(self._shards) - len(self._linked))]
        for shard in self._shards:
            shard.finish(crcs)

    def close(self) -> None:
        """End the thread that writes."""
        self._behind.close()

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
