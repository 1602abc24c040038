"""Slice keys, slice protos and the plan that puts pieces together (formats 2.9)."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from openckpt.errors import CorruptionError, LimitError
from openckpt.formats import slicing
from openckpt.formats.slicing import FULL
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
    assert slicing.encode_slice_key(name, extents) == bytes.fromhex(key)
    assert slicing.parse_slice_key(bytes.fromhex(key)) == (name, extents)


SIGNED = {
    0: "80", 1: "81", 63: "bf", 64: "c040", 8191: "dfff", 8192: "e02000", 0x424242: "f0424242",
    2**40: "fd0000000000", -1: "7f", -64: "40", -65: "3fbf", -2048: "3800",
}  # fmt: skip


@pytest.mark.parametrize(("value", "code"), SIGNED.items())
def test_signed_numbers_are_those_of_the_specification(value, code):
    """Every value listed in formats 2.9, as the start of an extent."""
    key = bytes.fromhex("000001") + b"\x01\x01" + bytes.fromhex(code) + b"\x80"
    assert slicing.encode_slice_key(b"", ((value, 0),)) == key
    assert slicing.parse_slice_key(key) == (b"", ((value, 0),))


def test_every_signed_number_survives_the_round_trip_and_keeps_its_order():
    """All powers of two of int64, their neighbours and negatives, sort as keys as they sort as numbers."""
    values = {sign * (1 << bits) + off for bits in range(63) for off in (-1, 0, 1) for sign in (1, -1)}
    values |= {(1 << 63) - 1, -(1 << 63)}
    keys = [slicing.encode_slice_key(b"x", ((value, 1),)) for value in sorted(values)]
    assert keys == sorted(keys)
    assert [slicing.parse_slice_key(key)[1][0][0] for key in keys] == sorted(values)


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
    assert code_of(slicing.parse_slice_key, bytes.fromhex(key)) == "slices.bad-key", why


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
    assert slicing.encode_slice_proto(extents) == bytes.fromhex(data)
    assert slicing.parse_slice_proto(bytes.fromhex(data)) == extents


@pytest.mark.parametrize(
    "data", ["0a020802", "0a0208", "0b", "0a0110", "0a0b10feffffffffffffffff01", "0a0d08ffffffffffffffffff011001"]
)
def test_an_extent_that_no_slice_can_have_is_refused(data):
    """A start without a length, a length of -2, a start of -1."""
    assert code_of(slicing.parse_slice_proto, bytes.fromhex(data)) == "slices.bad-extent"


def test_an_explicit_length_of_minus_one_is_a_whole_dimension():
    """TensorFlow reads the two alike."""
    assert slicing.parse_slice_proto(bytes.fromhex("0a0b10ffffffffffffffffff01")) == (FULL,)


@pytest.mark.parametrize("extents", [((0, 2),), ((0, 2), (0, 2), (0, 2)), ((4, 2), FULL), ((0, 2), (-1, 2))])
def test_a_slice_outside_its_tensor_is_refused(extents):
    """Another rank, a reach beyond the end, a negative start."""
    assert code_of(slicing.resolve_extents, extents, (5, 7)) == "slices.bad-extent"


def test_resolving_fills_whole_dimensions_in():
    """`FULL` becomes 0 and the size; an explicit extent stays."""
    assert slicing.resolve_extents((FULL, (2, 3)), (5, 7)) == ((0, 5), (2, 3))
    assert slicing.format_extents(((2, 3), FULL)) == "2,3:-"


def assemble(request, pieces, arrays):
    out = np.zeros(slicing.region_shape(request), np.int64)
    for step in slicing.plan_copies(request, pieces):
        out[step.target] += arrays[step.piece][step.source]  # += shows an element written twice
    return out


def random_tiling(rng, region, depth):
    """Cut a box and cut again, as TensorFlow's writers do."""
    axes = [axis for axis, (_, length) in enumerate(region) if length > 1]
    if not depth or not axes:
        return [region]
    axis = rng.choice(axes)
    start, length = region[axis]
    cut = rng.randrange(1, length)
    left = (*region[:axis], (start, cut), *region[axis + 1 :])
    right = (*region[:axis], (start + cut, length - cut), *region[axis + 1 :])
    return random_tiling(rng, left, depth - 1) + random_tiling(rng, right, depth - 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_tiling_gives_the_tensor_back_whole_and_in_part(seed):
    """Random tilings of random shapes; a random request inside gives that part of the tensor."""
    rng = random.Random(seed)
    shape = tuple(rng.randrange(1, 9) for _ in range(rng.randrange(4)))
    tensor = np.arange(1, 1 + int(np.prod(shape, dtype=np.int64))).reshape(shape)
    pieces = random_tiling(rng, slicing.full_region(shape), 5)
    rng.shuffle(pieces)
    arrays = [tensor[tuple(slice(s, s + n) for s, n in piece)] for piece in pieces]
    request = tuple((s := rng.randrange(size), rng.randrange(1, size - s + 1)) for size in shape)

    whole = assemble(slicing.full_region(shape), pieces, arrays)
    part = assemble(request, pieces, arrays)

    assert np.array_equal(whole, tensor)
    assert np.array_equal(part, tensor[tuple(slice(s, s + n) for s, n in request)])


@pytest.mark.parametrize("seed", range(20))
def test_a_tiling_with_one_piece_gone_or_moved_is_refused(seed):
    """Take a piece away: a gap. Put it twice, or swell it by one: an overlap (or outside)."""
    rng = random.Random(seed)
    region = slicing.full_region((7, 6, 5))
    pieces = random_tiling(rng, region, 5)
    index = rng.randrange(len(pieces))

    assert code_of(slicing.plan_copies, region, pieces[:index] + pieces[index + 1 :]) == "slices.gap"
    assert code_of(slicing.plan_copies, region, [*pieces, pieces[index]]) == "slices.overlap"


def test_a_gap_hidden_by_an_equal_overlap_is_found():
    """Volumes add up, yet two pieces share what a third should hold."""
    pieces = [((0, 2), (0, 2)), ((0, 2), (0, 2))]
    assert code_of(slicing.plan_copies, slicing.full_region((4, 2)), pieces) == "slices.overlap"


def test_a_pinwheel_that_no_cut_divides_is_read():
    """Four blades around a centre: no plane passes between them, comparison by pairs does."""
    pieces = [((0, 1), (0, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 2), (0, 1)), ((1, 1), (1, 1))]
    tensor = np.arange(9).reshape(3, 3)
    arrays = [tensor[tuple(slice(s, s + n) for s, n in piece)] for piece in pieces]
    assert np.array_equal(assemble(slicing.full_region((3, 3)), pieces, arrays), tensor)


def test_scalars_and_empty_tensors_have_their_rules():
    """A scalar has one element and one piece; a tensor without elements needs none."""
    assert slicing.plan_copies((), [()]) == [slicing.Copy(0, (), ())]
    assert slicing.plan_copies(slicing.full_region((0, 3)), []) == []
    assert code_of(slicing.plan_copies, (), []) == "slices.gap"
    assert code_of(slicing.plan_copies, (), [(), ()]) == "slices.overlap"


def test_a_hundred_thousand_pieces_of_a_grid_are_proven_quickly():
    """Grids come apart by cuts; no comparison of all pairs."""
    pieces = [((row, 1), (column, 1)) for row, column in itertools.product(range(316), range(316))]
    assert len(slicing.plan_copies(slicing.full_region((316, 316)), pieces)) == 316 * 316


def test_pieces_too_intertwined_to_prove_are_refused_not_waited_for():
    """Ten thousand pinwheels, one inside the other, cannot hold the reader up."""
    pieces = []
    size = 20_001
    for ring in range(10_000):
        low, high, span = ring, size - 1 - ring, size - 1 - 2 * ring
        pieces += [
            ((low, 1), (low, span)),
            ((low, span), (high, 1)),
            ((high, 1), (low + 1, span)),
            ((low + 1, span), (low, 1)),
        ]
    pieces.append(((10_000, 1), (10_000, 1)))
    with pytest.raises(LimitError) as caught:
        slicing.plan_copies(slicing.full_region((size, size)), pieces)
    assert caught.value.code == "slices.tangled"


def test_messages_stay_short_whatever_the_key_is():
    """A key of a megabyte does not become a message of two."""
    with pytest.raises(CorruptionError) as caught:
        slicing.parse_slice_key(b"\x00" + b"a" * (1 << 20))
    assert len(str(caught.value)) < 600
