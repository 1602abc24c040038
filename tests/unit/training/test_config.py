"""``config=``: the architecture beside the weights, and what differs in it said first."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import MismatchError, PartialRestoreWarning, UnsupportedError, Where
from openckpt.training import Checkpoint
from openckpt.training.config import CONFIG_KEY, Difference, compare_config, plain_config, text_of


class Layered:
    """Has a config, and an array for each layer."""

    def __init__(self, num_layers: int, units: int = 2) -> None:
        self.num_layers, self.units = num_layers, units

    def get_config(self) -> dict[str, Any]:
        return {"num_layers": self.num_layers, "units": self.units, "name": f"layered_{id(self)}"}


def stored_config(path: str) -> Any:
    return json.loads(openckpt.load_variable(path, CONFIG_KEY))


def test_a_config_is_in_the_file_and_comes_back_as_json(tmp_path: Path) -> None:
    """Under its key, beside the values, with the version of openckpt."""
    checkpoint = Checkpoint(w=np.zeros(2), config={"layers": (1, 2), "dropout": 0.1, "model": Layered(3)})
    found = stored_config(checkpoint.write(tmp_path / "ckpt"))
    assert found["openckpt"] == openckpt.__version__
    assert found["frameworks"] == {"numpy": np.__version__}
    assert found["config"]["layers"] == [1, 2]
    assert found["config"]["model"] == {"class_name": "Layered", "config": Layered(3).get_config()} | {
        "config": found["config"]["model"]["config"]
    }
    assert "provenance" not in found


def test_equal_programs_make_equal_files_unless_asked(tmp_path: Path) -> None:
    """Host, time and commit only with ``provenance=True``."""
    paths = [Checkpoint(w=np.zeros(2), config={"a": 1}).write(tmp_path / name) for name in "ab"]
    first, second = (Path(f"{path}.data-00000-of-00001").read_bytes() for path in paths)
    assert first == second
    path = Checkpoint(w=np.zeros(2), provenance=True).write(tmp_path / "c")
    assert {"host", "time"} <= stored_config(path)["provenance"].keys()
    assert "config" not in stored_config(path)


def test_no_config_no_key(tmp_path: Path) -> None:
    """Nothing is stored that nobody asked for."""
    assert CONFIG_KEY not in openckpt.load(Checkpoint(w=np.zeros(2)).write(tmp_path / "ckpt"))


def test_a_background_save_has_it_too(tmp_path: Path) -> None:
    """And a manager's."""
    checkpoint = Checkpoint(w=np.zeros(2), config={"a": 1})
    path = checkpoint.write(tmp_path / "behind", blocking=False).result()
    assert stored_config(path)["config"] == {"a": 1}


def test_what_differs_is_said_before_what_does_not_fit(tmp_path: Path) -> None:
    """In the error of a mismatch."""
    path = Checkpoint(w=np.zeros((2, 3)), config={"num_layers": 2, "units": 3}).write(tmp_path / "ckpt")
    other = Checkpoint(w=np.zeros((2, 4)), config={"num_layers": 3, "units": 4})
    with pytest.raises(MismatchError) as caught:
        other.read(path)
    assert caught.value.code == "training.mismatch"
    assert caught.value.message.startswith(
        "the configs differ - file: num_layers=2, units=3; program: num_layers=3, units=4; "
    )
    with pytest.raises(MismatchError) as caught:
        Checkpoint(v=np.zeros(2), config={"num_layers": 3}).read(path)
    assert caught.value.code == "training.nothing-matched"
    assert caught.value.message.startswith("the configs differ - file: num_layers=2, units=3; program: num_layers=3")


def test_it_is_said_of_a_partial_restore_too(tmp_path: Path) -> None:
    """In the warning and in the report."""
    path = Checkpoint(w=np.zeros(2), config=Layered(1)).write(tmp_path / "ckpt")
    other = Checkpoint(w=np.zeros(2), v=np.zeros(2), config=Layered(2))
    with pytest.warns(PartialRestoreWarning, match="file: config.num_layers=1; program: config.num_layers=2"):
        other.read(path)
    assert other.read(path, partial=True).report.config == (Difference("config.num_layers", "1", "2"),)


def test_configs_that_differ_harm_no_restore_that_fits(tmp_path: Path) -> None:
    """A dropout rate is the program's own business."""
    path = Checkpoint(w=np.ones(2), config={"dropout": 0.1}).write(tmp_path / "ckpt")
    w = np.zeros(2)
    Checkpoint(w=w, config={"dropout": 0.5}).read(path).assert_consumed()
    Checkpoint(w=w).read(path).assert_consumed()
    np.testing.assert_array_equal(w, [1, 1])


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    depth: int
    sizes: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (True, True),
        (math.inf, "inf"),
        (np.float32(0.5), 0.5),
        (np.arange(2), [0, 1]),
        ({3: {"b", "a"}}, {"3": ["a", "b"]}),
        (Path("a") / "b", "a/b"),
        (np.dtype("int8"), "int8"),
        (int, "builtins.int"),
        (math.sqrt, "math.sqrt"),
        (Colour.RED, "RED"),
        (Settings(3), {"depth": 3, "sizes": [1, 2]}),
    ],
)
def test_values_as_json_has_them(value: object, plain: object) -> None:
    """Numbers, text, containers, types, functions."""
    assert plain_config(value, Where("")) == plain


@pytest.mark.parametrize("value", [object(), {"a": [object()]}, 1j])
def test_what_json_cannot_hold_is_refused_by_name(value: object, tmp_path: Path) -> None:
    """Never pickled."""
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(w=np.zeros(1), config=value).write(tmp_path / "ckpt")
    assert caught.value.code == "training.not-plain"
    assert not list(tmp_path.iterdir())


def test_an_object_that_cannot_tell_its_config_is_refused(tmp_path: Path) -> None:
    """As a Keras model of the user's own that takes an odd argument."""

    class Mute:
        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("Object was made of\nwhat needs to override get_config. Example:\nclass ...")

    with pytest.raises(UnsupportedError, match=r"made of what needs to override get_config \["):
        Checkpoint(w=np.zeros(1), config=Mute()).write(tmp_path / "ckpt")


def test_a_list_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """By depth, not by the interpreter."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsupportedError, match="too deeply"):
        Checkpoint(w=np.zeros(1), config=endless).write(tmp_path / "ckpt")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_a_stored_config_that_is_none_is_said_and_harms_nothing(data: bytes) -> None:
    """Somebody else wrote it."""
    assert compare_config(data, {"a": 1}, "path") == [Difference("config", "unreadable", "")]


def test_names_and_input_layers_are_no_difference() -> None:
    """Two programs of the same architecture have them; lengths of lists are."""
    stored = {"config": {"name": "a", "layers": [{"class_name": "InputLayer"}, {"class_name": "Dense", "units": 3}]}}
    own = {"name": "b", "layers": [{"class_name": "Dense", "units": 4}]}
    assert compare_config(json.dumps(stored).encode(), own, "") == [Difference("layers.0.units", "3", "4")]
    own["layers"] *= 2
    (difference,) = compare_config(json.dumps(stored).encode(), own, "")
    assert difference == Difference("layers", "1 items", "2 items")
    assert text_of([difference] * 6).endswith("layers=2 items and 2 more")


@pytest.mark.parametrize(
    "stored",
    [b"{", b"[1]", b"\xff", 3, np.ones(2), np.array([b"a", b"b"], object), b'{"config":' * 500 + b"1" + b"}" * 500],
)
def test_a_stored_config_that_is_none_harms_no_restore(tmp_path: Path, stored: Any) -> None:
    """It is only an explanation."""
    path = Checkpoint(config={"a": 1}, x=np.ones(2)).write(tmp_path / "ckpt")
    tensors = openckpt.load(path)
    openckpt.save(path, {**tensors, CONFIG_KEY: stored}, overwrite=True)
    program = Checkpoint(config={"a": 2}, x=np.zeros(2))
    program.read(path).assert_consumed()
    assert program.x.tolist() == [1, 1]
