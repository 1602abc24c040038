"""The two small messages that several formats share: a shape, and the versions that a reader must have.

    TensorShapeProto { 2 dim repeated { 1 size int64 }, 3 unknown_rank bool }
    VersionDef       { 1 producer int32, 2 min_consumer int32, 3 bad_consumers repeated int32 }

Shapes stand in V2 entries (formats 2.4), V1 lists (3.2) and SavedModels (5.1), versions in the headers of V2 and V1. Functions
raise `ValueError` on bytes that are no such message, as `openckpt.formats.wire` does.
"""

from __future__ import annotations

from typing import NamedTuple

from openckpt.errors import UnsupportedError, Where
from openckpt.formats.wire import encode_field, encode_varint, iter_fields, parse_varint, to_signed
from openckpt.limits import Limits

CONSUMER_VERSION = 1
"""the version of V1 and of V2 checkpoints that TensorFlow 2.21 reads, and we"""


def parse_shape(data: bytes, where: Where, limits: Limits) -> tuple[int, ...] | None:
    """Return the sizes, None for an unknown rank. A size may be negative, which no stored tensor's is: the caller checks.

    Raises:
        LimitError: more dimensions than ``limits.tensor_rank``.
    """
    dims: list[int] = []
    unknown_rank = 0
    for number, _, field in iter_fields(data):
        if number == 2 and isinstance(field, bytes):
            length = 0
            for sub_number, _, sub in iter_fields(field):
                if sub_number == 1 and isinstance(sub, int):
                    length = to_signed(sub)
            dims.append(length)
        elif number == 3 and isinstance(field, int):
            unknown_rank = field
    limits.check("tensor_rank", len(dims), where, "the rank of a tensor")
    return None if unknown_rank else tuple(dims)


def encode_shape(shape: tuple[int, ...]) -> bytes:
    """Return the TensorShapeProto of a shape; a dimension of 0 is an empty message."""
    return b"".join(encode_field(2, encode_field(1, length) if length else b"") for length in shape)


class Versions(NamedTuple):
    """Which version wrote a checkpoint, and which readers it is not for."""

    producer: int = 0
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


def parse_versions(data: bytes) -> Versions:
    """Return what a VersionDef says."""
    producer = min_consumer = 0
    bad: list[int] = []
    for number, _, field in iter_fields(data):
        if not isinstance(field, int):
            bad += _parse_packed(field) if number == 3 else ()
        elif number == 1:
            producer = to_signed(field)
        elif number == 2:
            min_consumer = to_signed(field)
        elif number == 3:
            bad.append(to_signed(field))
    return Versions(producer, min_consumer, tuple(bad))


def _parse_packed(data: bytes) -> list[int]:
    numbers, pos = [], 0
    while pos < len(data):
        value, pos = parse_varint(data, pos)
        numbers.append(to_signed(value))
    return numbers


def encode_versions(versions: Versions) -> bytes:
    """Return the VersionDef, as TensorFlow writes it."""
    numbers = ((1, versions.producer), (2, versions.min_consumer))
    parts = [encode_field(number, value) for number, value in numbers if value]
    if versions.bad_consumers:
        packed = b"".join(encode_varint(version & 0xFFFFFFFFFFFFFFFF) for version in versions.bad_consumers)
        parts.append(encode_field(3, packed))
    return b"".join(parts)


def check_versions(versions: Versions, where: Where, code: str) -> None:
    """Raise UnsupportedError with ``code`` where the checkpoint asks for another reader than this one."""
    if versions.min_consumer > CONSUMER_VERSION or CONSUMER_VERSION in versions.bad_consumers:
        raise UnsupportedError(
            code,
            where,
            "the checkpoint asks for a newer reader",
            expected=f"min_consumer at most {CONSUMER_VERSION}",
            found=f"min_consumer {versions.min_consumer}, bad_consumers {list(versions.bad_consumers[:8])}",
        )
