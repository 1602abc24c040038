"""Varints, the field walk and the masked CRC against literal bytes."""

from __future__ import annotations

import pytest

from openckpt.formats.crc import crc32c, mask_crc, unmask_crc
from openckpt.formats.wire import encode_field, encode_varint, iter_fields, parse_varint, to_signed


@pytest.mark.parametrize(
    ("data", "crc", "masked"),
    [(b"", 0x00000000, 0xA282EAD8), (b"123456789", 0xE3069283, 0xC78AB0E5), (b"a", None, 0x28E46E78)],
)
def test_crc_has_the_documented_vectors(data: bytes, crc: int | None, masked: int) -> None:
    """The vectors of formats 0.1."""
    computed = crc32c(data)
    assert crc is None or computed == crc
    assert mask_crc(computed) == masked
    assert unmask_crc(masked) == computed


def test_crc_is_incremental() -> None:
    """crc(a + b) continues crc(a)."""
    assert crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32 - 1, 2**63, 2**64 - 1])
def test_varints_round_trip(value: int) -> None:
    """encode and parse are inverse over the whole range."""
    data = encode_varint(value)
    assert parse_varint(data, 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x7f"])
def test_broken_varints_are_refused(data: bytes) -> None:
    """A varint ends within the bytes, within ten of them, and within 64 bits."""
    with pytest.raises(ValueError, match="varint"):
        parse_varint(data, 0)


def test_negative_numbers_are_ten_bytes() -> None:
    """A negative int64 is a varint of its two's complement."""
    data = encode_field(1, -1)
    assert len(data) == 11
    ((number, wire, value),) = iter_fields(data)
    assert (number, wire) == (1, 0)
    assert isinstance(value, int)
    assert to_signed(value) == -1


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01",
        b"\x0a\x05ab",
        b"\x0d\x00",
        b"\x09\x00",
        b"\x0b",
        b"\x0c",
        b"\x0f\x00",
        b"\x80\x80\x80\x80\x80\x10\x00",
    ],
    ids=[
        "field 0",
        "length past end",
        "short fixed32",
        "short fixed64",
        "group",
        "end group",
        "wire 7",
        "tag too large",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Each way to break the wire format is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        list(iter_fields(data))
