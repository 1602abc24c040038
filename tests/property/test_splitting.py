"""A plan of shards loses nothing, cuts without gap or overlap, and keeps the budget wherever that is possible."""

from __future__ import annotations

from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st

from openckpt.formats.bundle.splitting import REASSEMBLED_BY_TENSORFLOW, Piece, plan_shards
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicing import full_region, plan_copies, region_shape
from openckpt.formats.spec import TensorSpec

_numeric = st.builds(
    TensorSpec,
    dtype=st.sampled_from(sorted(name for name, dtype in BY_NAME.items() if dtype.is_numeric)),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    nbytes=st.none(),
)
_opaque = st.builds(
    TensorSpec,
    dtype=st.sampled_from(["string", "variant"]),
    shape=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    nbytes=st.integers(0, 100),
)
_specs = st.lists(st.one_of(_numeric, _numeric, _opaque), max_size=8).map(
    lambda specs: [(f"t{number}", spec) for number, spec in enumerate(specs)]
)


def counted(piece: Piece, spec: TensorSpec) -> int:
    """The bytes that the rule counts for a piece, from its definition."""
    if spec.dtype in ("string", "variant"):
        return spec.nbytes or 0 if spec.dtype == "string" else 0
    shape = spec.shape or () if piece.extents is None else region_shape(piece.extents)
    return prod(shape) * BY_NAME[spec.dtype].itemsize


def smallest_row(spec: TensorSpec) -> int:
    return spec.size * BY_NAME[spec.dtype].itemsize // max(spec.shape or (1,), default=1)


@settings(max_examples=500, deadline=None)
@given(specs=_specs, max_bytes=st.one_of(st.integers(1, 40), st.integers(1, 3000)), split_any=st.booleans())
def test_every_plan_is_whole_and_within_its_budget(
    specs: list[tuple[str, TensorSpec]], max_bytes: int, split_any: bool
) -> None:
    """Pieces tile their tensors, tensors come in their order, files are full at most, cuts are made only where allowed."""
    by_key = dict(specs)
    plan = plan_shards(specs, max_bytes, split_any=split_any)

    pieces: dict[str, list[Piece]] = {}
    for piece in (piece for shard in plan for piece in shard):
        pieces.setdefault(piece.key, []).append(piece)
    assert sorted(pieces) == sorted(by_key)
    for key, parts in pieces.items():
        spec = by_key[key]
        if len(parts) == 1:
            assert parts[0].extents is None
            continue
        assert spec.dtype in REASSEMBLED_BY_TENSORFLOW or (split_any and BY_NAME[spec.dtype].is_numeric)
        regions = [part.extents for part in parts if part.extents is not None]
        assert len(regions) == len(parts)
        plan_copies(full_region(spec.shape or ()), regions)  # raises at a gap or an overlap

    for shard in plan:
        size = sum(counted(piece, by_key[piece.key]) for piece in shard)
        if size > max_bytes:
            (piece,) = shard
            spec = by_key[piece.key]
            cuttable = spec.dtype in REASSEMBLED_BY_TENSORFLOW or (split_any and BY_NAME[spec.dtype].is_numeric)
            assert piece.extents is None
            assert not cuttable or smallest_row(spec) > max_bytes
    assert all(plan) or plan == [[]]
