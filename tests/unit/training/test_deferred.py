"""What waits after a restore: containers and attributes that come later, objects that tell, several restores, wrapped methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import MismatchError, PartialRestoreWarning
from openckpt.training import Checkpoint
from openckpt.training.tracking import Child, View
from openckpt.training.wrapping import call_after


class Layer:
    """Has its weight when it is built, and tells who waits for it."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.weight: np.ndarray | None = None

    def build(self) -> str:
        """Make the weight."""
        self.weight = np.zeros(self.size)
        return "built"

    def __openckpt_view__(self) -> View:
        children = [] if self.weight is None else [Child("weight", self.weight)]
        return View("layer", children, waits=lambda call: call_after(self, "build", call))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A layer, a list of two arrays in a dict, a number."""
    layer = Layer()
    layer.build()
    assert layer.weight is not None
    layer.weight[:] = 7
    return Checkpoint(layer=layer, state={"parts": [np.array([1.0]), np.array([2.0])]}, epoch=3).write(
        tmp_path / "ckpt"
    )


def test_an_object_that_tells_gets_its_value_at_once(path: str) -> None:
    """And is as it was when nothing waits any more."""
    layer = Layer()
    before = dict(vars(layer))
    status = Checkpoint(layer=layer).read(path, partial=True)
    assert "build" in vars(layer)

    assert layer.build() == "built"

    np.testing.assert_array_equal(layer.weight, [7, 7])
    assert set(vars(layer)) == set(before)
    assert status.report.bound == 1


def test_an_attribute_of_the_checkpoint_that_comes_later_has_its_value_at_once(path: str, tmp_path: Path) -> None:
    """Numbers are replaced in it. What comes into a list is met by the next question to the status."""
    checkpoint = Checkpoint(layer=Layer())
    status = checkpoint.read(path, partial=True)
    checkpoint.epoch = 0
    assert checkpoint.epoch == 3
    checkpoint.epoch = 4
    assert status.report.bound == 1
    assert checkpoint.epoch == 4

    parts = [np.zeros(1)]
    checkpoint.state = {"parts": parts}
    assert parts[0] == 1
    parts[0][:] = 5
    parts.append(np.zeros(1))
    assert not status.report.unbound
    assert [part[0] for part in parts] == [5, 2]
    parts[1][:] = 6
    checkpoint.write(tmp_path / "new")
    assert [part[0] for part in parts] == [5, 6]


def test_nothing_waits_when_everything_was_there(path: str) -> None:
    """No checkpoint stays open for a whole restore."""
    layer = Layer()
    layer.build()
    state = {"parts": [np.zeros(1), np.zeros(1)]}
    checkpoint = Checkpoint(layer=layer, state=state, epoch=0)
    checkpoint.read(path).assert_consumed()
    assert not checkpoint._deferrals


def test_two_restores_wait_and_the_newest_wins(path: str, tmp_path: Path) -> None:
    """Whichever of them hears first."""
    newer = Layer()
    newer.build()
    assert newer.weight is not None
    newer.weight[:] = 9
    second = Checkpoint(layer=newer).write(tmp_path / "second")
    layer = Layer()
    checkpoint = Checkpoint(layer=layer)
    checkpoint.read(path, partial=True)
    checkpoint.read(second, partial=True)

    layer.build()
    np.testing.assert_array_equal(layer.weight, [9, 9])
    checkpoint.state = {"parts": [np.zeros(1), np.zeros(1)]}
    np.testing.assert_array_equal(layer.weight, [9, 9])
    np.testing.assert_array_equal(checkpoint.state["parts"], [[1], [2]])


def test_a_value_of_another_shape_is_refused_where_its_object_is_made(path: str, tmp_path: Path) -> None:
    """Once, and with a warning, because the caller may swallow the error; the object keeps what it made."""
    layer = Layer(5)
    checkpoint = Checkpoint(layer=layer)
    checkpoint.read(path, partial=True)
    with pytest.warns(PartialRestoreWarning, match="weight"), pytest.raises(MismatchError) as caught:
        layer.build()
    assert caught.value.code == "training.mismatch"
    assert "(root).layer.weight" in str(caught.value)
    np.testing.assert_array_equal(layer.weight, np.zeros(5))
    checkpoint.write(tmp_path / "new")


def test_a_save_gives_no_old_value_to_what_was_made_since(path: str, tmp_path: Path) -> None:
    """It has been trained, perhaps for a thousand steps: the save says what it found, once, and nothing waits for it any more."""
    state: dict[str, Any] = {"parts": []}
    checkpoint = Checkpoint(layer=Layer(), state=state, epoch=0)
    status = checkpoint.read(path, partial=True)
    state["parts"].append(np.full(1, 7.0))
    with pytest.warns(PartialRestoreWarning, match="values that they have now: .*parts.0"):
        saved = checkpoint.write(tmp_path / "new")
    assert state["parts"][0] == 7
    assert "state/parts/0" in str(list(openckpt.load(saved)))

    checkpoint.write(tmp_path / "new")
    assert len(status.report.unbound) == 1 and state["parts"][0] == 7
    state["parts"].append(np.zeros(1))
    assert not [name for name in status.report.unbound if "parts.1" in name] and state["parts"][1] == 2


class Thing:
    """Has a method."""

    def work(self, number: int) -> int:
        """Return twice the number."""
        return 2 * number


def test_listeners_are_called_in_order_after_a_call_that_returns() -> None:
    """Not after one that raises; the result is the method's own."""
    thing = Thing()
    heard: list[str] = []
    call_after(thing, "work", lambda: heard.append("first"))
    call_after(thing, "work", lambda: heard.append("second"))
    assert thing.work(4) == 8
    assert heard == ["first", "second"]
    with pytest.raises(TypeError):
        thing.work()  # type: ignore[call-arg]
    assert heard == ["first", "second"]
    assert Thing().work(1) == 2


def test_a_wrapper_goes_with_its_last_listener() -> None:
    """In whatever order they stop; a method of the instance's own comes back."""
    thing: Any = Thing()
    stops = [call_after(thing, "work", lambda: None) for _ in range(3)]
    for number in (1, 0, 2):
        assert "work" in vars(thing)
        stops[number]()
    assert "work" not in vars(thing)
    stops[0]()

    own = thing.work = lambda number: number
    call_after(thing, "work", lambda: None)()
    assert thing.work is own


def test_a_listener_may_stop_itself_and_others_while_they_are_called() -> None:
    """As a restore does that has nothing left to wait for."""
    thing = Thing()
    heard: list[str] = []

    def first() -> None:
        heard.append("first")
        stop()

    stop = call_after(thing, "work", first)
    call_after(thing, "work", lambda: heard.append("second"))
    thing.work(1)
    thing.work(1)
    assert heard == ["first", "second", "second"]
