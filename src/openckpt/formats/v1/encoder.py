"""A whole V1 checkpoint as bytes, pure (formats 3); for the same tensors the files are those of TensorFlow, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from openckpt.formats.bundle.encoder import Sliced, Strings, Value, Variants
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_numpy
from openckpt.formats.messages import encode_shape
from openckpt.formats.names import v1_shard_name
from openckpt.formats.slicekeys import FULL, Extents, encode_slice_key, encode_slice_proto
from openckpt.formats.sstable.builder import encode_table
from openckpt.formats.v1.values import encode_values
from openckpt.formats.wire import encode_field

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


def encode_v1(
    tensors: Mapping[str | bytes, Value],
    name: str,
    *,
    shards: int | None = None,
    dtypes: Mapping[str | bytes, str] | None = None,
    producer: int = 1,
) -> dict[str, bytes]:
    """Return ``{file name: bytes}`` of a V1 checkpoint.

    Args:
        tensors: key -> array (object and string arrays become string tensors), `Strings` or `Sliced`.
        name: last part of the prefix; the name of the file where it is not sharded.
        shards: number of shards, dealt in contiguous runs of equal count; None for one unsharded table.
        dtypes: TensorFlow's dtype name where the array's cannot tell it (quantised integers).
        producer: the version to state; 0 is what the first releases wrote.

    Raises:
        UnsupportedError: a dtype that V1 cannot hold (``v1.dtype``).
    """
    dealt: list[dict[bytes, tuple[Value, DType]]] = [{} for _ in range(shards or 1)]
    for number, (key, value) in enumerate(tensors.items()):
        raw = key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")
        named = None if dtypes is None or key not in dtypes else BY_NAME[dtypes[key]]
        dealt[number * len(dealt) // max(1, len(tensors))][raw] = (value, named or _dtype_of(value))
    if shards is None:
        return {name: _encode_one(dealt[0], producer)}
    return {v1_shard_name(name, number, shards): _encode_one(part, producer) for number, part in enumerate(dealt)}


def _encode_one(tensors: Mapping[bytes, tuple[Value, DType]], producer: int) -> bytes:
    metas = []
    entries: dict[bytes, bytes] = {}
    for name in sorted(tensors):
        value, dtype = tensors[name]
        if isinstance(value, Sliced):
            shape, pieces = value.shape, {extents: _array(piece) for extents, piece in value.pieces.items()}
        else:
            array = _array(value)
            shape, pieces = array.shape, {(FULL,) * array.ndim: array}
        metas.append(_encode_tensor(name, shape, dtype, list(pieces)))
        for extents, array in pieces.items():
            body = encode_field(1, name) + encode_field(2, encode_slice_proto(extents))
            body += encode_field(3, encode_values(array, dtype))
            entries[encode_slice_key(name, extents)] = encode_field(2, body)
    meta = b"".join(encode_field(1, item) for item in metas)
    meta += encode_field(2, encode_field(1, producer) if producer else b"")
    entries[b""] = encode_field(1, meta)
    return encode_table(sorted(entries.items()))


def _encode_tensor(name: bytes, shape: tuple[int, ...], dtype: DType, slices: list[Extents]) -> bytes:
    parts = [encode_field(1, name), encode_field(2, encode_shape(shape)), encode_field(3, dtype.enum)]
    return b"".join(parts + [encode_field(4, encode_slice_proto(extents)) for extents in slices])


def _dtype_of(value: Value) -> DType:
    if isinstance(value, Sliced):
        return _dtype_of(next(iter(value.pieces.values())))
    if isinstance(value, Variants):
        return BY_NAME["variant"]
    if isinstance(value, Strings):
        return BY_NAME["string"]
    import numpy as np

    array = np.asarray(value)
    dtype = dtype_of_numpy(array.dtype)
    if dtype is None:
        raise ValueError(f"numpy dtype {array.dtype} has no counterpart in a checkpoint")
    return dtype


def _array(value: Array | Strings | Variants | Sliced) -> Array:
    import numpy as np

    if isinstance(value, (Strings, Variants)):
        array = np.empty(len(value.elements), dtype=object)
        array[:] = list(value.elements)
        return array.reshape(value.shape)
    return np.asarray(value)
