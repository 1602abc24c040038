"""Data shards that are safetensors files, as bytes: the layout alone, without a disk, for tests and attacks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from openckpt.formats.bundle import Sliced, Strings, Variants
from openckpt.formats.bundle.payload import encode_strings, encode_variants
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME, dtype_of_numpy
from openckpt.formats.dual import DualShard, DualTensor, index_of_dual, plan_dual
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.formats.safetensors import open_safetensors
from openckpt.formats.safetensors_header import parse_header
from openckpt.formats.slicekeys import Extents
from openckpt.formats.spec import TensorSpec
from openckpt.limits import Limits
from openckpt.storage.memory import MemoryStore

Value = Any  # an array, Strings, Variants, Sliced, or (dtype name, one of them)

ROWS = ((0, 1), (0, -1)), ((1, 2), (0, -1))
"""extents of the pieces of ``VALUES[b"w"]``"""

VALUES: dict[bytes, Any] = {
    b"f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    b"bf16": np.arange(64).astype(ml_dtypes.bfloat16),
    b"e4m3b11": np.arange(4).astype(ml_dtypes.float8_e4m3b11fnuz),
    b"f4": np.array([0, 1, 2], ml_dtypes.float4_e2m1fn),
    b"i4": np.array([-8, 7, -1], ml_dtypes.int4),
    b"u2": np.array([0, 3], ml_dtypes.uint2),
    b"q8": ("qint8", np.array([-1, 2], np.int8)),
    b"q16": ("quint16", np.array([1, 65535], np.uint16)),
    b"c128": np.array([1 + 2j]),
    b"flag": np.array([True, False]),
    b"scalar": np.array(7, np.int64),
    b"empty": np.zeros((0, 3), np.float32),
    b"no strings": Strings([], (0,)),
    b"names": Strings([b"a", b"", b"\x00\xff"], (3,)),
    b"state": Variants([b"\x0a\x01x"], (1,)),
    b"b\xff": np.ones(3, np.float32),
    b"__metadata__": np.ones(2, np.int16),
    b"w": Sliced((3, 2), {ROWS[1]: np.arange(2, 6).reshape(2, 2), ROWS[0]: np.arange(2).reshape(1, 2)}),
    b"ws": Sliced((2,), {((0, 1),): Strings([b"x"], (1,)), ((1, 1),): Strings([b"yy"], (1,))}),
    b"w4": Sliced((2,), {((0, 1),): np.array([-1], ml_dtypes.int4), ((1, 1),): np.array([-2], ml_dtypes.int4)}),
}
"""one tensor of every kind that the layout treats in a way of its own"""


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


def opened(data: bytes, limits: Limits | None = None) -> Any:
    """Return the reader of one data file under a name of safetensors."""
    return open_safetensors(MemoryStore({"x.safetensors": data}), "x.safetensors", limits=limits or Limits())
