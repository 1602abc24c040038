"""Slice keys and slice protos (formats 2.9)."""

from __future__ import annotations

import pytest

from openckpt.errors import CorruptionError
from openckpt.formats import slicekeys
from openckpt.formats.slicekeys import FULL
from refusals import code_of

KEYS = [
    (b"w", ((0, 2), FULL), "00 77 00 01 01 02 80 82 80 7f"),
    (b"w", ((2, 3), (0, 100)), "00 77 00 01 01 02 82 83 80 c0 64"),
    (b"w", ((2, 3), (100, 200)), "00 77 00 01 01 02 82 83 c0 64 c0 c8"),
    (b"b", (FULL,), "00 62 00 01 01 01 80 7f"),
    (b"s", (), "00 73 00 01 00"),
    (b"n\xff\x00a", (), "00 6e ff 00 00 ff 61 00 01 00"),
    (b"", (), "00 00 01 00"),
]


@pytest.mark.parametrize(("name", "extents", "key"), KEYS)
def test_slice_keys_are_those_of_tensorflow(name, extents, key):
    """The worked examples of formats 2.9 and 3.2, both directions."""
    assert slicekeys.encode_slice_key(name, extents) == bytes.fromhex(key)
    assert slicekeys.parse_slice_key(bytes.fromhex(key)) == (name, extents)


SIGNED = {
    0: "80", 1: "81", 63: "bf", 64: "c040", 8191: "dfff", 8192: "e02000", 0x424242: "f0424242",
    2**40: "fd0000000000", -1: "7f", -64: "40", -65: "3fbf", -2048: "3800",
}  # fmt: skip


@pytest.mark.parametrize(("value", "code"), SIGNED.items())
def test_signed_numbers_are_those_of_the_specification(value, code):
    """Every value listed in formats 2.9, as the start of an extent."""
    key = bytes.fromhex("000001") + b"\x01\x01" + bytes.fromhex(code) + b"\x80"
    assert slicekeys.encode_slice_key(b"", ((value, 0),)) == key
    assert slicekeys.parse_slice_key(key) == (b"", ((value, 0),))


def test_every_signed_number_survives_the_round_trip_and_keeps_its_order():
    """All powers of two of int64, their neighbours and negatives, sort as keys as they sort as numbers."""
    values = {sign * (1 << bits) + off for bits in range(63) for off in (-1, 0, 1) for sign in (1, -1)}
    values |= {(1 << 63) - 1, -(1 << 63)}
    keys = [slicekeys.encode_slice_key(b"x", ((value, 1),)) for value in sorted(values)]
    assert keys == sorted(keys)
    assert [slicekeys.parse_slice_key(key)[1][0][0] for key in keys] == sorted(values)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("61", "an ordinary name"),
        ("00", "no name"),
        ("0061", "name without end"),
        ("006100", "half an end"),
        ("00610002", "no escape"),
        ("0061ff01000100", "ff without 00"),
        ("00610001", "no rank"),
        ("0061000101", "rank cut"),
        ("006100010100", "rank 0 written with one byte"),
        ("0061000109010101010101010101", "rank of nine bytes"),
        ("00610001010180", "length missing"),
        ("00610001010180c0", "length cut"),
        ("006100010101c00180", "a number in more bytes than it needs"),
        ("0061000100ff", "bytes after the end"),
        ("006100010102807f", "rank 2, one extent"),
        ("00610001087fffffffffffffff", "rank of two to the 63"),
        ("006100010101ffffffffffffffffffff80", "beyond int64"),
    ],
)
def test_a_key_that_is_no_slice_key_has_its_code(key, why):
    """Everything but the one canonical form is refused."""
    assert code_of(slicekeys.parse_slice_key, bytes.fromhex(key)) == "slices.bad-key", why


PROTOS = [
    (((0, 2), FULL), "0a 02 10 02 0a 00"),
    (((2, 3), (0, 100)), "0a 04 08 02 10 03 0a 02 10 64"),
    (((2, 3), (100, 200)), "0a 04 08 02 10 03 0a 05 08 64 10 c8 01"),
    ((), ""),
    (((0, 0),), "0a 02 10 00"),
]


@pytest.mark.parametrize(("extents", "data"), PROTOS)
def test_slice_protos_are_those_of_tensorflow(extents, data):
    """The worked example of formats 2.9; a length of 0 is written, an absent one is the whole dimension."""
    assert slicekeys.encode_slice_proto(extents) == bytes.fromhex(data)
    assert slicekeys.parse_slice_proto(bytes.fromhex(data)) == extents


@pytest.mark.parametrize(
    "data", ["0a020802", "0a0208", "0b", "0a0110", "0a0b10feffffffffffffffff01", "0a0d08ffffffffffffffffff011001"]
)
def test_an_extent_that_no_slice_can_have_is_refused(data):
    """A start without a length, a length of -2, a start of -1."""
    assert code_of(slicekeys.parse_slice_proto, bytes.fromhex(data)) == "slices.bad-extent"


def test_an_explicit_length_of_minus_one_is_a_whole_dimension():
    """TensorFlow reads the two alike."""
    assert slicekeys.parse_slice_proto(bytes.fromhex("0a0b10ffffffffffffffffff01")) == (FULL,)


def test_messages_stay_short_whatever_the_key_is():
    """A key of a megabyte does not become a message of two."""
    with pytest.raises(CorruptionError) as caught:
        slicekeys.parse_slice_key(b"\x00" + b"a" * (1 << 20))
    assert len(str(caught.value)) < 600


def test_extents_are_shown_as_tensorflow_shows_them():
    """A dash is a whole dimension."""
    assert slicekeys.format_extents(((2, 3), FULL)) == "2,3:-"
