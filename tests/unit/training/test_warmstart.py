"""`init_from_checkpoint`: pairs, parts, names and scopes."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import MismatchError, NotFoundError
from openckpt.training.warmstart import init_from_checkpoint
from peaks import traced_peak

STORED: dict[str, Any] = {
    "encoder/a": np.arange(3.0), "encoder/deep/b": np.arange(6.0).reshape(2, 3), "c": np.float64(9.0), "table": np.arange(10.0).reshape(5, 2),
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    return openckpt.save(tmp_path / "ckpt-1", STORED, update_manifest=True)


def test_single_variables_by_object_and_by_name(path: str) -> None:
    """Also where the checkpoint is named by its directory; a number is new in the mapping."""
    a = np.zeros(3)
    variables: dict[str, Any] = {"x": a, "y/z": np.zeros((2, 3)), "number": 0.0}
    init_from_checkpoint(Path(path).parent, {"encoder/a": a, "encoder/deep/b": "y/z", "c": "number"}, variables)
    assert a.tolist() == [0.0, 1.0, 2.0] and variables["x"] is a
    assert variables["y/z"][1, 2] == 5.0 and variables["number"] == 9.0


@pytest.mark.parametrize(
    ("source", "target", "names"),
    [
        ("encoder/", "model/", ("model/a", "model/deep/b")),
        ("encoder/", "/", ("a", "deep/b")),
        ("/", "m/", ("m/encoder/a", "m/encoder/deep/b")),
        ("/", "/", ("encoder/a", "encoder/deep/b")),
    ],
)
def test_scopes(path: str, source: str, target: str, names: tuple[str, str]) -> None:
    """Every variable below one gets the stored tensor of the same rest; the slash alone is the root."""
    variables = {names[0]: np.zeros(3), names[1]: np.zeros((2, 3))}
    init_from_checkpoint(path, {source: target}, variables)
    assert variables[names[0]][2] == 2.0 and variables[names[1]][1, 2] == 5.0


@pytest.mark.parametrize(("shapes", "axis"), [([(2, 2), (3, 2)], 0), ([(5, 1), (5, 1)], 1), ([(1, 2)] * 5, 0)])
@pytest.mark.parametrize("way", ["list", "name", "scope"])
def test_parts_of_a_partitioned_variable(path: str, shapes: list[tuple[int, int]], axis: int, way: str) -> None:
    """Cut along the one axis along which they make up the stored tensor, in the order of their numbers."""
    parts = [np.zeros(shape) for shape in shapes]
    variables = {f"m/table/part_{number}": part for number, part in reversed(list(enumerate(parts)))}
    match way:
        case "list":
            init_from_checkpoint(path, [("table", parts)])
        case "name":
            init_from_checkpoint(path, {"table": "m/table"}, variables)
        case "scope":
            init_from_checkpoint(path, {"/": "m/"}, variables)
    assert np.array_equal(np.concatenate(parts, axis), STORED["table"])


def test_nothing_is_assigned_unless_everything_fits(path: str) -> None:
    """Missing names, shapes, parts that do not make up the whole."""
    a = np.zeros(3)
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"encoder/a": a, "nowhere": np.zeros(1), "neither": np.zeros(1)}, NotFoundError, "2 of 3 names"),
        ({"encoder/a": a, "table": np.zeros((2, 5))}, MismatchError, "shape"),
        ({"encoder/a": a, "table": np.zeros((5, 2), np.int32)}, MismatchError, "float64"),
        ({"encoder/a": a, "table": [np.zeros((2, 2)), np.zeros((2, 2))]}, MismatchError, "make up"),
        ({"encoder/a": a, "table": [np.zeros((2, 2), np.int8), np.zeros((3, 2), np.int8)]}, MismatchError, "float64"),
    ]
    for pairs, error, words in wrong:
        with pytest.raises(error, match=words):
            init_from_checkpoint(path, pairs)
    assert not a.any()


def test_floats_of_other_widths_on_request(path: str) -> None:
    """Of parts too."""
    parts = [np.zeros((2, 2), np.float32), np.zeros((3, 2), np.float32)]
    init_from_checkpoint(path, {"table": parts}, cast=True)
    assert parts[1][2, 1] == 9.0


def test_maps_that_say_nothing_are_refused(path: str) -> None:
    """A scope on one side only, a scope without a variable; a mapping that cannot take a new number."""
    with pytest.raises(ValueError, match="scope"):
        init_from_checkpoint(path, {"encoder": "model/"}, {"model/a": np.zeros(3)})
    with pytest.raises(ValueError, match="scope"):
        init_from_checkpoint(path, {"encoder/": "model"}, {"model/a": np.zeros(3)})
    with pytest.raises(ValueError, match="below"):
        init_from_checkpoint(path, {"encoder/": "model/"}, {"other": np.zeros(3)})
    a = np.zeros(3)
    for target, variables in (("n", MappingProxyType({"n": 0.0})), (0.0, None)):
        with pytest.raises(MismatchError) as caught:
            init_from_checkpoint(path, {"encoder/a": a, "c": target}, variables)
        assert caught.value.code == "training.cannot-replace"
    assert not a.any()


def test_one_stored_tensor_may_go_to_several_variables(path: str) -> None:
    """Pairs that begin alike, with variables that have no name: each of them is another one."""
    first, second = np.zeros(3), np.zeros(3)
    init_from_checkpoint(path, [("encoder/a", first), ("encoder/a", second)])
    assert first.tolist() == second.tolist() == [0.0, 1.0, 2.0]


def test_the_parts_of_a_tensor_share_one_copy_of_it(tmp_path: Path) -> None:
    """However many they are: it is read once for all, and one copy of it is there at a time."""
    table = np.arange(6 << 20, dtype=np.float64).reshape(6, -1)
    path = openckpt.save(tmp_path / "ckpt", {"table": table}, durability="process-crash")
    parts = {f"table/part_{n}": np.zeros((1, 1 << 20)) for n in range(6)}

    peak = traced_peak(lambda: init_from_checkpoint(path, {"table": "table"}, parts))

    assert np.array_equal(np.concatenate(list(parts.values())), table)
    assert peak <= table.nbytes + (24 << 20)
