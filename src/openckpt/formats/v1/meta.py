"""What the entry under the empty key of a V1 table says: names, dtypes, shapes and slices (formats 3.2).

    SavedTensorSlices      0a  meta { 0a tensor ...  12 versions { 08 producer  10 min consumer  18 bad consumer } }
    tensor                 0a name   12 shape { 12 dim { 08 size } ...  18 unknown rank }   18 dtype   22 slice ...

Slices are only counted here and parsed when a tensor is read: listing needs none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openckpt.errors import CorruptionError, Where
from openckpt.formats.dtypes import DType, dtype_of_enum, unknown_name
from openckpt.formats.messages import Versions, check_versions, parse_shape, parse_versions
from openckpt.formats.slicekeys import Extents, parse_slice_proto
from openckpt.formats.spec import TensorSpec
from openckpt.formats.wire import iter_fields
from openckpt.limits import Limits


class TensorMeta(NamedTuple):
    """One tensor as one shard lists it."""

    name: bytes
    enum: int
    shape: tuple[int, ...] | None
    raw: bytes
    """the whole record, for its slices"""

    @property
    def dtype(self) -> DType | None:
        """The data type, None for an unknown number."""
        return dtype_of_enum(self.enum)

    def spec(self) -> TensorSpec:
        """Return dtype and shape; the format does not say how many bytes are stored."""
        dtype = self.dtype
        return TensorSpec(unknown_name(self.enum) if dtype is None else dtype.name, self.shape, None)

    def slices(self, where: Where, limits: Limits) -> list[Extents]:
        """Return the extents of each slice that the shard holds."""
        raw: list[bytes] = []
        for number, _, value in iter_fields(self.raw):
            if number == 4 and isinstance(value, bytes):
                raw.append(value)
                limits.check("slices", len(raw), where, "the number of slices of a tensor")
        return [parse_slice_proto(value, where) for value in raw]


class V1Meta(NamedTuple):
    """The contents of the empty key of one table."""

    producer: int
    tensors: dict[str, TensorMeta]


def parse_v1_meta(value: bytes, where: Where, limits: Limits) -> V1Meta:
    """Parse the value of the empty key.

    Raises:
        CorruptionError: ``v1.not-v1`` (the header of a V2 index), ``v1.bad-meta``, ``v1.duplicate-name``.
        UnsupportedError: ``v1.version``, a checkpoint for newer readers.
    """
    versions = Versions()
    tensors: dict[str, TensorMeta] = {}
    found = False
    try:
        for part in _messages(value, 1):
            found = True
            for number, _, field in iter_fields(part):
                if number == 1 and isinstance(field, bytes):
                    tensor = _parse_tensor(field, where, limits)
                    key = tensor.name.decode("utf-8", "surrogateescape")
                    if key in tensors:
                        raise CorruptionError(
                            "v1.duplicate-name", Where(where.path, key), "the list of tensors has this name twice"
                        )
                    tensors[key] = tensor
                elif number == 2 and isinstance(field, bytes):
                    versions = parse_versions(field)
    except ValueError as error:
        raise CorruptionError("v1.bad-meta", where, f"the list of tensors does not parse: {error}") from None
    if not found:
        raise CorruptionError(
            "v1.not-v1",
            where,
            "this table is no V1 checkpoint",
            expected="a list of tensors under the empty key",
            found=f"{value[:16].hex()}, as in the index of a V2 checkpoint"
            if value[:1] in (b"\x08", b"\x1a")
            else value[:16].hex(),
        )
    check_versions(versions, where, "v1.version")
    return V1Meta(versions.producer, tensors)


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    for number, _, value in iter_fields(data):
        if number == wanted and isinstance(value, bytes):
            yield value


def _parse_tensor(raw: bytes, where: Where, limits: Limits) -> TensorMeta:
    name, enum = b"", 0
    shape: tuple[int, ...] | None = ()
    for number, _, value in iter_fields(raw):
        if isinstance(value, int):
            if number == 3:
                enum = value
        elif number == 1:
            name = value
        elif number == 2:
            shape = parse_shape(value, where, limits)
    if any(size < 0 for size in shape or ()):
        raise CorruptionError(
            "v1.bad-shape",
            Where(where.path, name.decode("utf-8", "surrogateescape")),
            "a dimension is negative",
            found=list(shape or ())[:8],
        )
    return TensorMeta(name, enum, shape, raw)
