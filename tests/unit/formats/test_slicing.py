"""The plan that puts the pieces of a tensor together (formats 2.9)."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from openckpt.errors import LimitError
from openckpt.formats import slicing
from openckpt.formats.slicekeys import FULL
from refusals import code_of


@pytest.mark.parametrize("extents", [((0, 2),), ((0, 2), (0, 2), (0, 2)), ((4, 2), FULL), ((0, 2), (-1, 2))])
def test_a_slice_outside_its_tensor_is_refused(extents):
    """Another rank, a reach beyond the end, a negative start."""
    assert code_of(slicing.resolve_extents, extents, (5, 7)) == "slices.bad-extent"


def test_resolving_fills_whole_dimensions_in():
    """`FULL` becomes 0 and the size; an explicit extent stays."""
    assert slicing.resolve_extents((FULL, (2, 3)), (5, 7)) == ((0, 5), (2, 3))


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
