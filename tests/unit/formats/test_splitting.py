"""The plan of shards of limited size: where it cuts, where TensorFlow would fail, what counts how much."""

from __future__ import annotations

import pytest

from openckpt.formats.bundle.splitting import Piece, plan_shards
from openckpt.formats.spec import GRAPH_KEY, TensorSpec


def tensor(key: str, dtype: str, *shape: int, nbytes: int | None = None) -> tuple[str, TensorSpec]:
    return key, TensorSpec(dtype, shape, nbytes)


def test_the_drawing_of_the_module() -> None:
    """Forty bytes a file: cut along the axis that needs the fewest parts, the rest whole, the uncuttable last."""
    specs = [tensor("a", "float32", 4, 3), tensor("b", "float32", 2), tensor("c", "string", nbytes=60)]

    plan = plan_shards([*specs, tensor("d", "int64")], 40)

    assert plan == [
        [Piece("a", ((0, 2), (0, 3))), Piece("a", ((2, 1), (0, 3))), Piece("a", ((3, 1), (0, 1)))],
        [Piece("a", ((3, 1), (1, 2))), Piece("b"), Piece("d")],
        [Piece("c")],
    ]


def test_a_tensor_that_fits_into_a_new_file_is_not_cut_where_no_row_fits_into_the_old() -> None:
    """Eight bytes of room, rows of sixteen: the tensor goes whole into the next file."""
    plan = plan_shards([tensor("a", "int8", 32), tensor("b", "float32", 2, 2, 4)], 64)
    assert plan == [[Piece("a"), Piece("b", ((0, 1), (0, 2), (0, 4)))], [Piece("b", ((1, 1), (0, 2), (0, 4)))]]

    plan = plan_shards([tensor("a", "int8", 60), tensor("b", "float32", 2, 2, 4)], 64)
    assert plan == [[Piece("a")], [Piece("b")]]


@pytest.mark.parametrize("shape", [(10, 10), (4, 4, 4), (2, 200)])
def test_a_tensor_whose_smallest_row_is_too_large_gets_a_file_of_its_own(shape: tuple[int, ...]) -> None:
    """TensorFlow's policy would loop until the memory is full."""
    plan = plan_shards([tensor("a", "int8"), tensor("big", "float64", *shape), tensor("z", "int8")], 15)

    assert plan == [[Piece("a"), Piece("z")], [Piece("big")]]


def test_empty_tensors_are_kept() -> None:
    """TensorFlow's policy would lose them."""
    plan = plan_shards([tensor("a", "float32", 0), tensor("b", "int8", 4), tensor("c", "float32", 3, 0)], 4)

    assert plan == [[Piece("a"), Piece("b"), Piece("c")]]


@pytest.mark.parametrize("dtype", ["float16", "uint16", "uint64", "float8_e5m2", "qint16", "int2", "float4_e2m1fn"])
def test_types_that_tensorflow_cannot_reassemble_are_cut_by_request_only(dtype: str) -> None:
    """Whole, in a file of its own where it must be; cut with ``split_any``."""
    whole = plan_shards([tensor("w", dtype, 40), tensor("a", "int8")], 8)
    cut = plan_shards([tensor("w", dtype, 40), tensor("a", "int8")], 8, split_any=True)

    assert whole == [[Piece("a")], [Piece("w")]]
    assert len(cut) > 4
    assert all(piece.extents is not None for shard in cut for piece in shard if piece.key == "w")


def test_strings_are_never_cut() -> None:
    """Not even by request: nothing is known of the length of their elements."""
    specs = [
        tensor("a", "string", 5, nbytes=7),
        tensor("b", "string", 5, nbytes=7),
        tensor("c", "string", 9, nbytes=11),
    ]

    assert plan_shards(specs, 10, split_any=True) == [[Piece("a")], [Piece("b")], [Piece("c")]]


def test_variants_and_the_object_graph_count_nothing() -> None:
    """As for TensorFlow, which decides before it knows their size."""
    specs = [tensor("a", "int8", 4), tensor("v", "variant", 3, nbytes=900), tensor(GRAPH_KEY, "string", nbytes=5000)]

    assert plan_shards(specs, 4) == [[Piece("a"), Piece("v"), Piece(GRAPH_KEY)]]


def test_no_tensors_are_one_empty_file() -> None:
    """A checkpoint has a data file."""
    assert plan_shards([], 10) == [[]]


@pytest.mark.parametrize("most", [0, -1])
def test_a_budget_below_one_byte_is_refused(most: int) -> None:
    """Nothing could ever be written."""
    with pytest.raises(ValueError, match="at least 1 byte"):
        plan_shards([], most)


def test_a_budget_that_makes_too_many_files_is_refused_before_they_are_planned() -> None:
    """The message says the least that would do, and that does."""
    specs = [tensor(f"t{number}", "int8", 2_500_000) for number in range(4)]
    specs.append(tensor("b", "int8", 1))

    with pytest.raises(ValueError, match="allow 101 bytes each"):
        plan_shards(specs, 99)
    assert len(plan_shards(specs, 101)) <= 100_000


def test_a_budget_that_makes_too_many_pieces_of_a_tensor_is_refused() -> None:
    """Nobody would read it back."""
    with pytest.raises(ValueError, match="50000 pieces"):
        plan_shards([tensor("a", "int8", 60_000)], 1)
    assert len(plan_shards([tensor("a", "int8", 50_000)], 1)) == 50_000
