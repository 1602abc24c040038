"""Data shards that are safetensors files, as bytes: the layout alone, without a disk, for tests and attacks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from openckpt.formats.bundle import Sliced, Strings, Variants
from openckpt.formats.bundle.payload import encode_strings, encode_variants
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME, dtype_of_numpy
from openckpt.formats.dual import DualShard, DualTensor, index_of_dual, plan_dual
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.formats.safetensors import parse_header
from openckpt.formats.slicekeys import Extents
from openckpt.formats.spec import TensorSpec

Value = Any  # an array, Strings, Variants, Sliced, or (dtype name, one of them)


class Part(NamedTuple):
    """One tensor or piece with its bytes."""

    tensor: DualTensor
    data: bytes
    crc: int


def parts_of(key: bytes, value: Value, *, sized: bool = True) -> list[Part]:
    """Return what is stored for one value; with ``sized=False`` strings and variants do not say their size beforehand."""
    name, value = value if isinstance(value, tuple) else (None, value)
    if isinstance(value, Sliced):
        return [_part(key, name, piece, extents, value.shape, sized) for extents, piece in value.pieces.items()]
    return [_part(key, name, value, None, None, sized)]


def _part(
    key: bytes, name: str | None, value: Value, extents: Extents | None, full: tuple[int, ...] | None, sized: bool
) -> Part:
    if isinstance(value, Strings | Variants):
        encode = encode_strings if isinstance(value, Strings) else encode_variants
        data, crc = encode(value.elements)
        dtype = "string" if isinstance(value, Strings) else "variant"
        spec = TensorSpec(dtype, value.shape, len(data) if sized else None)
        return Part(DualTensor(key, spec, extents, full), data, crc)
    array = np.asarray(value)
    found = dtype_of_numpy(array.dtype) if name is None else BY_NAME[name]
    assert found is not None
    data = np.ascontiguousarray(array).tobytes()
    if found.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        mask = 0x03 if found.name.endswith("2") else 0x0F
        data = bytes(byte & mask for byte in data)
    return Part(DualTensor(key, TensorSpec(found.name, array.shape, None), extents, full), data, crc32c(data))


def encode_shard(parts: Sequence[Part]) -> bytes:
    """Return the data file of these tensors."""
    plan = plan_dual([part.tensor for part in parts])
    by_place = {part.tensor.place: part for part in parts}
    sizes = {place: len(by_place[place].data) for place in plan.unsized}
    out = bytearray(plan.header({place: part.crc for place, part in by_place.items()}, sizes))
    assert len(out) == plan.data_start
    out += bytes(plan.end - len(out))
    for place, offset in plan.offsets.items():
        data = by_place[place].data
        out[offset : offset + len(data)] = data
    for place in plan.unsized:
        out += by_place[place].data
    return bytes(out)


def encode_dual(values: Mapping[bytes, Value], name: str, *, shards: int = 1, sized: bool = True) -> dict[str, bytes]:
    """Return ``{file name: bytes}`` of a checkpoint; tensors are dealt to the shards one by one."""
    parts = [part for key, value in values.items() for part in parts_of(key, value, sized=sized)]
    files = {shard_name(name, number, shards): encode_shard(parts[number::shards]) for number in range(shards)}
    return {**files, name + INDEX_SUFFIX: index_of_dual([shard_of(data, path) for path, data in files.items()])}


def shard_of(data: bytes, path: str = "x.safetensors") -> DualShard:
    """Return what the header of a data file says."""
    length = int.from_bytes(data[:8], "little")
    found = parse_header(data[8 : 8 + length], path, len(data)).dual
    assert found is not None
    return found


def header_of(data: bytes) -> dict[str, Any]:
    """Return the header of a file as any JSON parser sees it."""
    found: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return found


def forged(tensors: Mapping[str, Any], inner: Any, data: bytes, *, rest: Mapping[str, str] | None = None) -> bytes:
    """Return a file whose metadata says ``inner``, its own checksum right whatever it says: what a hostile writer makes.

    Args:
        tensors: the members of the header.
        inner: the metadata as a value, or as text; the checksum in it is filled in.
        data: the bytes behind the header.
        rest: other members of the metadata.
    """
    text = inner if isinstance(inner, str) else json.dumps(inner, separators=(",", ":"))
    header = {**tensors, "__metadata__": {"openckpt": text, **(rest or {})}}
    raw = bytearray(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    at = raw.find(b'\\"header\\":\\"')
    if at >= 0:
        at += len(b'\\"header\\":\\"')
        raw[at : at + 8] = b"00000000"
        raw[at : at + 8] = b"%08x" % crc32c(raw)
    return len(raw).to_bytes(8, "little") + raw + data


def digits(crcs: Iterable[int]) -> str:
    """Return checksums as the metadata spells them."""
    return "".join(f"{crc:08x}" for crc in crcs)
