"""What is known of every stored piece of a checkpoint, and the entries of the index made of it.

A *slot* is one run of bytes in a data file: a whole tensor, or one piece of a partitioned one. Facts lie in columns, because
a checkpoint may have a million tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from openckpt.errors import UnsupportedError, Where
from openckpt.formats.bundle.entry import BundleEntry, encode_entries, encode_entry
from openckpt.formats.bundle.header import encode_header
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual import Place
from openckpt.formats.slicekeys import Extents, encode_slice_key
from openckpt.formats.spec import TensorSpec
from openckpt.writing.keys import decode_key
from openckpt.writing.linking import Placed


class Slots:
    """The columns. ``offsets`` and ``sizes`` are -1 until they are known, ``crcs`` unmasked."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.extents: dict[int, Extents] = {}
        """of the slots that are pieces"""
        self.enums: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.shards: list[int] = []
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.crcs: list[int] = []
        self.whole: dict[bytes, int] = {}
        """key -> its slot, of tensors that are stored in one piece"""
        self.cut: dict[bytes, list[int]] = {}
        """key -> the slots of its pieces"""
        self._pieces: dict[Place, int] = {}
        self.cut_specs: dict[bytes, TensorSpec] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def add_whole(self, raws: Sequence[bytes], specs: Sequence[TensorSpec], shard: int) -> None:
        """Append tensors that are stored whole."""
        start = len(self.keys)
        self.keys += raws
        enums = {name: dtype.enum for name, dtype in BY_NAME.items()}
        self.enums += [enums[spec[0]] for spec in specs]
        self.shapes += [spec[1] or () for spec in specs]
        self.whole.update(zip(raws, range(start, len(self.keys)), strict=True))
        self.sizes += [-1 if spec[2] is None else spec[2] for spec in specs]
        self._fill(shard)

    def add_placed(self, tensors: Mapping[bytes, Placed], shard: int) -> None:
        """Append tensors that lie whole in a data file that is there already."""
        start = len(self.keys)
        self.add_whole(list(tensors), [placed.spec for placed in tensors.values()], shard)
        self.offsets[start:] = [placed.offset for placed in tensors.values()]
        self.crcs[start:] = [placed.crc for placed in tensors.values()]

    def add_piece(self, raw: bytes, extents: Extents, shape: tuple[int, ...], whole: TensorSpec, shard: int) -> int:
        """Append one piece of a tensor and return its slot."""
        slot = len(self.keys)
        self.keys.append(raw)
        self.extents[slot] = extents
        self.enums.append(BY_NAME[whole.dtype].enum)
        self.shapes.append(shape)
        self.cut.setdefault(raw, []).append(slot)
        self._pieces[raw, extents] = slot
        self.cut_specs[raw] = whole
        self.sizes.append(-1)
        self._fill(shard)
        return slot

    def _fill(self, shard: int) -> None:
        missing = len(self.keys) - len(self.shards)
        self.shards += [shard] * missing
        self.offsets += [-1] * missing
        self.crcs += [0] * missing

    def keys_in_order(self, *, placed: bool) -> list[bytes]:
        """Return every key once, in the order of the bytes in the files: the places', or that in which the slots came."""
        slots: Iterable[int] = range(len(self))
        if placed:
            last = 1 << 63  # of those whose place is not known yet
            places = [
                (shard, offset if offset >= 0 else last)
                for shard, offset in zip(self.shards, self.offsets, strict=True)
            ]
            slots = sorted(slots, key=places.__getitem__)
        return list(dict.fromkeys(self.keys[slot] for slot in slots))

    def in_order(self, shard: int, shards: int, places: Mapping[Place, int]) -> Sequence[int]:
        """Return the slots of one data file, of so many, in the order of ``places``; behind them those without a place."""
        own = range(len(self)) if shards == 1 else [slot for slot, at in enumerate(self.shards) if at == shard]
        planned = self.slots_of(places)
        return planned if len(planned) == len(own) else [*planned, *(slot for slot in own if self.offsets[slot] < 0)]

    def place(self, slot: int) -> Place:
        """Return what a layout calls the slot."""
        extents = self.extents.get(slot)
        return self.keys[slot] if extents is None else (self.keys[slot], extents)

    def slots_of(self, places: Iterable[Place]) -> list[int]:
        """Return the slots of places."""
        return [self.whole[place] if type(place) is bytes else self._pieces[place] for place in places]

    def places(self, start: int = 0) -> Iterator[Place]:
        """Yield the place of every slot from ``start`` on."""
        return map(self.place, range(start, len(self.keys))) if self.extents else iter(self.keys[start:])

    def entries(self, count: int, prefix: str, *, sort_pieces: bool = False) -> list[tuple[bytes, bytes]]:
        """Return the records of the index of a checkpoint with ``count`` data files, sorted.

        Args:
            count: how many data files there are.
            prefix: the checkpoint, for messages.
            sort_pieces: list the pieces of a tensor by data file and extents, as the headers of dual files give them back;
                else as they came.

        Raises:
            UnsupportedError: a key is that of a slice of another tensor (``writing.duplicate-key``).
        """
        keys = self.keys
        if self.extents:
            keys = list(keys)
            for slot, extents in self.extents.items():
                keys[slot] = encode_slice_key(keys[slot], extents)
        rows = zip(self.enums, self.shapes, self.shards, self.offsets, self.sizes, self.crcs, strict=True)
        entries = dict(zip(keys, encode_entries(rows), strict=True))
        for raw, slots in self.cut.items():
            spec = self.cut_specs[raw]
            if sort_pieces:
                slots = sorted(slots, key=lambda slot: (self.shards[slot], self.extents[slot]))
            listed = tuple(self.extents[slot] for slot in slots)
            first = self.shards[slots[0]]  # such an entry has no data, and names the first data file, as after a merge
            entries[raw] = encode_entry(BundleEntry(BY_NAME[spec.dtype].enum, spec.shape, first, 0, 0, 0, listed))
        if len(entries) != len(keys) + len(self.cut):
            twice = next(raw for raw in self.keys if (raw in self.cut and raw in self.whole) or keys.count(raw) > 1)
            where = Where(prefix, decode_key(twice))
            raise UnsupportedError("writing.duplicate-key", where, "this is also the key of a piece of another tensor")
        return [(b"", encode_header(count)), *sorted(entries.items())]
