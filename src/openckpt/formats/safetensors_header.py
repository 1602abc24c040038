"""The header of a safetensors file (formats 8.4, docs/format/safetensors.md).

    +--------+------------------------------------------------+---------------------------+
    | N: <u8 | N bytes of JSON, padded with spaces            | data                      |
    +--------+------------------------------------------------+---------------------------+
             {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
              "__metadata__": {"format": "pt"}}                  offsets count from here ^

The tensors tile the data exactly, every size agrees with dtype and shape, and no name occurs twice: after that no read can leave
the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where
from openckpt.formats.spec import TensorSpec
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.formats.dual import DualShard
    from openckpt.storage.reading import ByteSource

METADATA_KEY = "__metadata__"
OUR_METADATA = "openckpt"
"""the member of the metadata that a data shard of a checkpoint has (docs/format/dual.md)"""

_FIELDS = {"dtype", "shape", "data_offsets"}

# TensorFlow's name of each type (None: it has none, the tensor is listed and not read) and bits per element.
_DTYPES: dict[str, tuple[str | None, int]] = {
    "BOOL": ("bool", 8), "U8": ("uint8", 8), "I8": ("int8", 8), "U16": ("uint16", 16), "I16": ("int16", 16),
    "U32": ("uint32", 32), "I32": ("int32", 32), "U64": ("uint64", 64), "I64": ("int64", 64),
    "F16": ("float16", 16), "BF16": ("bfloat16", 16), "F32": ("float32", 32), "F64": ("float64", 64),
    "C64": ("complex64", 64), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": (None, 8), "F6_E2M3": (None, 6), "F6_E3M2": (None, 6), "F4": (None, 4),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A checked header.

    Attributes:
        tensors: name -> (spec, first byte in the file), in header order.
        metadata: the string-to-string map of ``__metadata__``.
        data_start: offset of the first data byte.
        dual: what our own metadata says, where the file is a shard of a checkpoint; None for any other file.
    """

    tensors: Mapping[str, tuple[TensorSpec, int]]
    metadata: Mapping[str, str]
    data_start: int
    dual: DualShard | None = None


def parse_header(data: bytes, path: str, file_size: int, limits: Limits = DEFAULT_LIMITS) -> SafetensorsHeader:
    """Parse and check the JSON of a header (``data``, which starts at byte 8) against a file of ``file_size`` bytes.

    Raises:
        CorruptionError: any rule of formats 8.4 is broken.
        LimitError: a shape has more dimensions than ``limits.tensor_rank``.
        FormatError: our own metadata is damaged (codes of the area ``dual``).
    """
    start = 8 + len(data)
    if not data.startswith(b"{"):
        raise CorruptionError("safetensors.header-text", Where(path, offset=8), "the header does not start with '{'")
    document = parse_json(
        data, path, code="safetensors.header-text", duplicate_code="safetensors.duplicate-name", offset=8
    )
    if not isinstance(document, dict):  # it starts with "{", so this cannot happen; the check is for the types
        raise CorruptionError("safetensors.header-text", path, "the header is not a JSON object")
    metadata = _metadata(document.pop(METADATA_KEY, None), path)
    tensors: dict[str, tuple[TensorSpec, int]] = {}
    for name, entry in document.items():
        spec, begin = _parse_entry(entry, path, name, limits)
        tensors[name] = (spec, start + begin)
    _check_tiling(tensors, path, start, file_size)
    dual = None
    if OUR_METADATA in metadata:
        from openckpt.formats.dual import parse_dual

        dual = parse_dual(data, tensors, metadata, path, limits)
    return SafetensorsHeader(tensors, metadata, start, dual)


def _metadata(value: Json, path: str) -> dict[str, str]:
    if value is None:
        return {}
    where = Where(path, METADATA_KEY)
    if not isinstance(value, dict):
        raise CorruptionError("safetensors.metadata", where, "the metadata is not a JSON object")
    texts: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(text, str):
            raise CorruptionError("safetensors.metadata", where, f"the metadata entry {name!r} is not a string")
        texts[name] = text
    return texts


def _parse_entry(entry: Json, path: str, key: str, limits: Limits) -> tuple[TensorSpec, int]:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise _bad_entry(path, key, "an entry is an object with exactly dtype, shape and data_offsets")
    name, shape, offsets = entry["dtype"], _sizes(entry["shape"]), _sizes(entry["data_offsets"])
    if not isinstance(name, str):
        raise _bad_entry(path, key, "the dtype is not a string")
    if shape is None:
        raise _bad_entry(path, key, "the shape is not a list of sizes")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad_entry(path, key, "data_offsets is not [begin, end] with begin <= end")
    if len(shape) > limits.tensor_rank:
        limits.check("tensor_rank", len(shape), Where(path, key), "the rank")
    begin, end = offsets
    mapped, bits = _DTYPES.get(name, (None, 0))
    if bits and prod(shape) * bits != (end - begin) * 8:
        raise CorruptionError(
            "safetensors.size-mismatch",
            Where(path, key),
            f"{name} of shape {list(shape)} does not fit its bytes",
            expected=f"{-(-prod(shape) * bits // 8)} bytes",
            found=f"{end - begin} bytes",
        )
    return TensorSpec(mapped or f"unknown-{name}", shape, end - begin), begin


def _bad_entry(path: str, key: str, message: str) -> CorruptionError:
    return CorruptionError("safetensors.header-entry", Where(path, key), message)


def _sizes(value: Json) -> tuple[int, ...] | None:
    if type(value) is not list:
        return None
    for size in value:
        # 2**63: the reference reader's integers end at 64 bits; it also keeps products from growing without bound
        if type(size) is not int or not 0 <= size < 1 << 63:
            return None
    return tuple(value)  # type: ignore[arg-type]  # integers all


def _check_tiling(tensors: Mapping[str, tuple[TensorSpec, int]], path: str, start: int, file_size: int) -> None:
    """Hold every rule of formats 8.4 about offsets: from the first data byte to the end of the file, no hole, no overlap."""
    at = start
    for name, (spec, begin) in sorted(tensors.items(), key=lambda item: (item[1][1], item[1][0].nbytes or 0)):
        if begin != at:
            what = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
            raise CorruptionError(
                "safetensors.offsets", Where(path, name, begin), f"the tensor {what}", expected=at, found=begin
            )
        at = begin + (spec.nbytes or 0)
        if at > file_size:
            raise CorruptionError(
                "safetensors.truncated",
                Where(path, name, begin),
                "the tensor ends beyond the end of the file",
                expected=f"at least {at} bytes in the file",
                found=f"{file_size} bytes",
            )
    if at != file_size:
        raise CorruptionError(
            "safetensors.trailing-bytes",
            Where(path, offset=at),
            f"{file_size - at} bytes follow the last tensor",
            expected=f"{at} bytes in the file",
            found=f"{file_size} bytes",
        )


def read_header(source: ByteSource, limits: Limits = DEFAULT_LIMITS) -> SafetensorsHeader:
    """Read and check the header of an open file.

    Raises:
        CorruptionError: not a safetensors file, or a damaged one.
        LimitError: the header is above ``limits.header_bytes``.
    """
    if source.size < 8:
        raise CorruptionError(
            "safetensors.too-short", source.path, "the file is too short for a header", found=f"{source.size} bytes"
        )
    length = int.from_bytes(source.read_at(0, 8), "little")
    if length > source.size - 8:
        raise CorruptionError(
            "safetensors.header-past-end",
            Where(source.path, offset=0),
            "the header is longer than the file",
            expected=f"at most {source.size - 8} bytes",
            found=f"{length} bytes",
        )
    limits.check("header_bytes", length, Where(source.path, offset=0), "the header size")
    return parse_header(source.read_at(8, length), source.path, source.size, limits)
