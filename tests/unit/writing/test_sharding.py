"""Which tensors go into which data file, and plans that are refused because they would lose or repeat a byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import ByGroup, MaxShardSize, Sliced, TensorSpec, UnsupportedError, Variant
from openckpt.formats.bundle.splitting import Piece
from openckpt.limits import DEFAULT_LIMITS
from openckpt.writing import OneShard
from openckpt.writing.sharding import check_plan

SPECS = {"a": TensorSpec("float32", (4,)), "b": TensorSpec("float32", (2, 3)), "s": TensorSpec("string", (2,))}
VALUES: dict[str, Any] = {"a": np.arange(4, dtype="f"), "b": np.arange(6, dtype="f").reshape(2, 3), "s": ["x", "yz"]}
Plan = Sequence[Sequence[Piece]]


class Planned:
    """A policy that has its mind made up, as a caller may write one."""

    def __init__(self, plan: Plan) -> None:
        self.planned = plan

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return the plan, whatever the tensors are."""
        return [list(pieces) for pieces in self.planned]


def cut(key: str, *extents: tuple[int, int]) -> Piece:
    return Piece(key, extents)


WHOLE = [Piece("a"), Piece("b"), Piece("s")]
BAD: dict[str, Plan] = {
    "nothing": [],
    "no tensor": [[]],
    "one left out": [WHOLE[:2]],
    "one twice": [WHOLE, [Piece("a")]],
    "whole and in pieces": [[Piece("b"), Piece("s"), Piece("a"), cut("a", (0, 4))]],
    "in pieces and whole": [[Piece("b"), Piece("s"), cut("a", (0, 4)), Piece("a")]],
    "a foreign one": [WHOLE, [Piece("c")]],
    "a gap": [[*WHOLE[1:], cut("a", (0, 2)), cut("a", (3, 1))]],
    "an overlap": [[*WHOLE[1:], cut("a", (0, 3))], [cut("a", (2, 2))]],
    "a piece twice": [[*WHOLE[1:], cut("a", (0, 4)), cut("a", (0, 4))]],
    "outside": [[*WHOLE[1:], cut("a", (0, 5))]],
    "another rank": [[*WHOLE[1:], cut("a", (0, 4), (0, 1))]],
    "text in pieces": [[*WHOLE[:2], cut("s", (0, 1)), cut("s", (1, 1))]],
    "too many files": [WHOLE, *[[]] * DEFAULT_LIMITS.shards],
}


@pytest.mark.parametrize("name", BAD)
def test_a_plan_that_is_not_every_byte_once_is_refused(tmp_path: Path, name: str) -> None:
    """Before a file is made."""
    with pytest.raises(ValueError):
        check_plan(BAD[name], SPECS)
    with pytest.raises(ValueError):
        openckpt.save(tmp_path / "run" / "ckpt", VALUES, sharding=Planned(BAD[name]))
    assert list(tmp_path.iterdir()) == []


GOOD: dict[str, Plan] = {
    "one file": [WHOLE],
    "each its own": [[piece] for piece in WHOLE],
    "an empty file": [[], WHOLE, []],
    "cut": [[cut("a", (0, 1)), *WHOLE[1:]], [cut("a", (1, 3))]],
    "cut both ways": [
        [cut("b", (0, 2), (2, 1)), Piece("s")],
        [cut("b", (1, 1), (0, 2)), Piece("a"), cut("b", (0, 1), (0, 2))],
    ],
    "a piece that is everything": [[cut("a", (0, 4)), *WHOLE[1:]]],
    "a piece with whole dimensions": [[cut("b", (0, 1), (0, -1)), cut("b", (1, 1), (0, -1)), Piece("a"), Piece("s")]],
}


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
@pytest.mark.parametrize("name", GOOD)
def test_any_plan_that_is_whole_will_do(tmp_path: Path, name: str, layout: Any) -> None:
    """It reads as the same tensors, and the doctor has nothing against it."""
    openckpt.save(tmp_path / "ckpt", VALUES, sharding=Planned(GOOD[name]), layout=layout)
    assert len(list(tmp_path.glob("ckpt.data-*"))) == len(GOOD[name])
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        assert {key: value.tolist() for key, value in ckpt.items()} == {
            "a": [0, 1, 2, 3], "b": [[0, 1, 2], [3, 4, 5]], "s": [b"x", b"yz"],
        }  # fmt: skip
        assert [len(ckpt.locate(key)) for key in "ab"] == [
            sum(piece.key == key for pieces in GOOD[name] for piece in pieces) for key in "ab"
        ]
        assert {extent.shard for key in ckpt for extent in ckpt.locate(key)} <= set(range(len(GOOD[name])))
    assert openckpt.diagnose(tmp_path / "ckpt").valid


def test_groups_come_in_the_order_of_their_first_tensor(tmp_path: Path) -> None:
    """Any hashable value names one."""
    values = {"opt/m": np.ones(2), "model/w": np.ones(3), "opt/v": np.ones(2), "model/b": "text", "x": Variant(b"v")}
    openckpt.save(
        tmp_path / "ckpt", values, sharding=ByGroup(lambda key, spec: (key.split("/")[0], spec.dtype == "variant"))
    )
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        shards = {key: ckpt.locate(key)[0].shard for key in ckpt}
    assert shards == {"opt/m": 0, "opt/v": 0, "model/w": 1, "model/b": 1, "x": 2}


def test_an_error_of_the_policy_comes_out(tmp_path: Path) -> None:
    """As it is, and nothing is left."""

    def group_of(key: str, spec: TensorSpec) -> str:
        raise LookupError(key)

    with pytest.raises(LookupError):
        openckpt.save(tmp_path / "run" / "ckpt", VALUES, sharding=ByGroup(group_of))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_the_largest_size_is_kept_and_large_tensors_are_cut(tmp_path: Path, layout: Any) -> None:
    """Text counts its elements' bytes; what cannot be cut has a file of its own."""
    values = {
        "w": np.arange(100.0).reshape(10, 10),
        "half": np.ones(300, np.float16),
        "text": ["a" * 150, "b" * 30],
        "n": np.ones(5),
    }
    openckpt.save(tmp_path / "ckpt", values, sharding=MaxShardSize(200), layout=layout)
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        read = {key: ckpt[key].tolist() for key in ckpt}
        sizes: dict[int, int] = {}
        for key in ("w", "n"):
            for extent in ckpt.locate(key):
                sizes[extent.shard] = sizes.get(extent.shard, 0) + extent.nbytes
        assert len(ckpt.locate("w")) > 4 and len(ckpt.locate("half")) == 1
    assert max(sizes.values()) <= 200
    assert read == {"w": values["w"].tolist(), "half": [1] * 300, "text": [b"a" * 150, b"b" * 30], "n": [1] * 5}  # type: ignore[attr-defined]


def test_a_tensor_in_pieces_is_not_cut_again(tmp_path: Path) -> None:
    """The caller's pieces are the caller's."""
    value = Sliced((4,), {((0, 2),): np.ones(2), ((2, 2),): np.ones(2)})
    with pytest.raises(UnsupportedError) as caught:
        openckpt.save(tmp_path / "ckpt", {"w": value}, sharding=MaxShardSize(8))
    assert caught.value.code == "writing.slices" and list(tmp_path.iterdir()) == []


def test_no_size_and_no_tensors() -> None:
    """A file of no bytes holds nothing; of no tensors there is one empty file."""
    with pytest.raises(ValueError):
        MaxShardSize(0)
    assert OneShard().plan([]) == ByGroup(lambda key, spec: 1).plan([]) == MaxShardSize(1).plan([]) == [[]]
