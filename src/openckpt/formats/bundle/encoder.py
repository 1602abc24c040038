"""A whole V2 checkpoint as bytes, pure: what the demo, the tests and the durable writer start from (formats 2.10, 2.12).

For the same tensors in the same order the files are those of TensorFlow, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from openckpt.formats.bundle.entry import BundleEntry, encode_entry
from openckpt.formats.bundle.header import encode_header
from openckpt.formats.bundle.payload import Order, encode_strings, encode_variants
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_numpy
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.formats.slicekeys import FULL, Extents, encode_slice_key
from openckpt.formats.slicing import Region, full_region
from openckpt.formats.sstable.builder import encode_table

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


@dataclass(frozen=True, slots=True)
class Strings:
    """A string tensor: its elements in C order and its shape."""

    elements: Sequence[bytes]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Variants:
    """A variant tensor: serialized VariantTensorDataProto in C order, and its shape."""

    elements: Sequence[bytes]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sliced:
    """A partitioned tensor: the whole shape and its pieces, each under its extents."""

    shape: tuple[int, ...]
    pieces: Mapping[Extents, Array | Strings] = field(default_factory=dict)


Value: TypeAlias = "Array | Strings | Variants | Sliced"


def encode_bundle(
    tensors: Mapping[str | bytes, Value],
    name: str,
    *,
    shards: int = 1,
    dtypes: Mapping[str | bytes, str] | None = None,
    alignment: int = 1,
    big_endian: bool = False,
    compress_index: bool = False,
) -> dict[str, bytes]:
    """Return ``{file name: bytes}`` of a checkpoint with the prefix ``name``.

    Args:
        tensors: key -> value, written in this order. Arrays of any dtype of formats 2.5; object and string arrays become
            string tensors (str as UTF-8).
        name: last part of the prefix.
        shards: data files; tensors are dealt to them in contiguous runs of equal count.
        dtypes: TensorFlow's dtype name where the array's cannot tell it (quantised integers).
        alignment: pad with zeros so that each tensor starts at a multiple of this (TensorFlow: 1).
        big_endian: as a big-endian host writes it.
        compress_index: store the blocks of the index Snappy-compressed.
    """
    data = [bytearray() for _ in range(shards)]
    entries: dict[bytes, bytes] = {b"": encode_header(shards, big_endian=big_endian)}
    order: Order = "big" if big_endian else "little"

    def put(shard: int, value: Array | Strings | Variants, dtype: DType | None) -> BundleEntry:
        out = data[shard]
        out += bytes(-len(out) % alignment)
        offset = len(out)
        enum, shape, stored, crc = _encode_value(value, dtype, order)
        out += stored
        return BundleEntry(enum, shape, shard, offset, len(stored), crc)

    for number, (key, value) in enumerate(tensors.items()):
        raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")
        shard = number * shards // max(1, len(tensors))
        named = None if dtypes is None or key not in dtypes else BY_NAME[dtypes[key]]
        if isinstance(value, Sliced):
            enum = 0
            whole = full_region(value.shape)
            slices: list[Extents] = []
            for piece, part in value.pieces.items():
                entry = put(shard, part, named)
                enum = entry.enum
                if _spelled_out(piece, whole) == whole:  # no slice, however it is spelled (formats 2.9)
                    entries[raw] = encode_entry(entry)
                else:
                    entries[encode_slice_key(raw, piece)] = encode_entry(entry)
                    slices.append(piece)
            if slices:
                entries[raw] = encode_entry(BundleEntry(enum, value.shape, shard, 0, 0, 0, tuple(slices)))
        else:
            entries[raw] = encode_entry(put(shard, value, named))
    files = {shard_name(name, shard, shards): bytes(data[shard]) for shard in range(shards)}
    files[name + INDEX_SUFFIX] = encode_table(sorted(entries.items()), compress_blocks=compress_index)
    return files


def _spelled_out(piece: Extents, whole: Region) -> Region:
    # Not `resolve_extents`: tests have files made with pieces that it would refuse.
    return tuple(full if extent == FULL else extent for extent, full in zip(piece, whole, strict=False))


def _encode_value(
    value: Array | Strings | Variants, dtype: DType | None, order: Order
) -> tuple[int, tuple[int, ...], bytes, int]:
    """Return ``(enum, shape, stored bytes, crc)``."""
    if isinstance(value, Variants):
        return BY_NAME["variant"].enum, value.shape, *encode_variants(value.elements)
    if isinstance(value, Strings):
        return BY_NAME["string"].enum, value.shape, *encode_strings(value.elements, order=order)
    import numpy as np

    array = np.asarray(value)
    found = dtype or dtype_of_numpy(array.dtype)
    if found is None:
        raise ValueError(f"numpy dtype {array.dtype} has no counterpart in a checkpoint")
    if found.name == "string":
        elements = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        return found.enum, array.shape, *encode_strings(elements, order=order)
    array = np.ascontiguousarray(array).reshape(array.shape)
    if found.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        array = array.view(np.uint8) & (0x0F if found.name.endswith(("4", "fn")) else 0x03)
    if order == "big" and found.swap > 1:
        array = array.reshape(-1).view(f"u{found.swap}").byteswap().reshape(-1)
    stored = array.tobytes()
    return found.enum, np.asarray(value).shape, stored, crc32c(stored)


__all__ = ["FULL", "Sliced", "Strings", "Value", "Variants", "encode_bundle"]
