"""Lists and dicts that had more in them when they were saved than the program has when it begins."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import Checkpoint
from openckpt.errors import MismatchError

HISTORY = {
    "loss": [0.5, 0.25, float("inf")],
    "records": [{"step": 1, "note": "first"}, {"step": 2, "note": None, "at": (1, b"\xff")}],
    "by_epoch": {"counts": {0: 1, -7: 2}},
    "flags": [True, 2, 3j],
    "empty": [{}, [], ()],
}


def test_a_history_comes_back_into_a_program_that_has_just_begun(tmp_path: Path) -> None:
    """Numbers, text, None, lists, tuples and dicts in each other, of their own types and keys."""
    path = Checkpoint(history=HISTORY, weights=np.ones(2)).write(tmp_path / "ckpt")
    history: dict[str, Any] = {}

    Checkpoint(history=history, weights=np.zeros(2)).read(path).assert_consumed()

    assert history == HISTORY
    assert [type(item) for item in history["flags"]] == [bool, int, complex]
    assert type(history["records"][1]["at"]) is tuple


def test_lists_grow_at_their_end(tmp_path: Path) -> None:
    """What the program has there gets its own value; arrays are not made, they wait for the program's."""
    path = Checkpoint(items=[np.ones(2), 1, 2, 3], arrays=[np.ones(1)]).write(tmp_path / "ckpt")
    weights, items, arrays = np.zeros(2), [np.zeros(2), 0], []  # type: ignore[var-annotated]
    items[0] = weights

    status = Checkpoint(items=items, arrays=arrays).read(path)

    assert items[0] is weights and weights.all() and items[1:] == [1, 2, 3]
    assert arrays == []
    arrays.append(np.zeros(1))
    status.assert_consumed()
    assert arrays[0] == 1


def test_a_dict_grows_only_where_it_is_empty(tmp_path: Path) -> None:
    """A program that has some keys has chosen them: a state that a compiled function takes must not change its form."""
    path = Checkpoint(state={"a": 1, "b": 2}, empty={"a": 1}, default={"x": [1]}).write(tmp_path / "ckpt")
    state, empty, default = {"a": 0}, OrderedDict[str, int](), defaultdict[str, list[int]](list)

    Checkpoint(state=state, empty=empty, default=default).read(path)

    assert (state, empty, default) == ({"a": 1}, {"a": 1}, {"x": [1]})
    assert isinstance(default, defaultdict)


def test_a_dict_grows_by_the_keys_that_it_had(tmp_path: Path) -> None:
    """Numbers are no text, of dicts with an order or a default too; keys of other kinds have names and no way back."""
    counts = defaultdict(int, {3: 5, -1: 2})
    path = Checkpoint(counts=counts, order=OrderedDict({1: "a"}), pairs={(0, 1): 1}, mixed={"a": 1, 2: 3}).write(
        tmp_path / "ckpt"
    )
    new: defaultdict[int, int] = defaultdict(int)
    order: OrderedDict[int, str] = OrderedDict()
    pairs: dict[Any, Any] = {}
    mixed: dict[Any, Any] = {}

    status = Checkpoint(counts=new, order=order, pairs=pairs, mixed=mixed).read(path, partial=True)

    assert (new, order) == (counts, {1: "a"})
    assert (pairs, mixed) == ({}, {})
    assert status.report.unresolved == ("(root).mixed.a", "(root).mixed.2", "(root).pairs.(0, 1)")


def test_a_dict_of_another_class_is_not_made(tmp_path: Path) -> None:
    """A dict in the place of one with a default would fail at its first new key, long after the restore."""
    path = Checkpoint(history={"by_class": defaultdict(int, {"cat": 1})}, n=1).write(tmp_path / "ckpt")
    history: dict[str, Any] = {}

    Checkpoint(history=history, n=0).read(path, partial=True)

    assert history == {}


def test_what_holds_anything_else_is_not_made(tmp_path: Path) -> None:
    """An object of a class would become a dict."""

    class Record:
        def __init__(self) -> None:
            self.loss = 0.5

    path = Checkpoint(records=[Record(), 3], nested={"a": [[np.ones(1)]]}).write(tmp_path / "ckpt")
    records: list[object] = []
    nested: dict[str, object] = {}

    Checkpoint(records=records, nested=nested, n=1).read(path, partial=True)

    assert records == [] and nested == {}


def test_what_was_one_list_is_one_list(tmp_path: Path) -> None:
    """And a list in itself is no reason to go round for ever."""
    shared = [1]
    loop: list[Any] = [2]
    loop.append(loop)
    path = Checkpoint(state={"one": shared, "other": shared, "loop": loop}).write(tmp_path / "ckpt")
    state: dict[str, Any] = {}

    Checkpoint(state=state).read(path)

    assert state["one"] is state["other"] and state["one"] == [1]
    assert state["loop"][0] == 2 and state["loop"][1] is state["loop"]


@pytest.mark.parametrize("best", [{"step": 3, "loss": 0.5}, (3, 0.5), [3, 0.5], {7: "a"}, [], {}, ((1,), [{}])])
def test_a_container_takes_the_place_of_none(tmp_path: Path, best: object) -> None:
    """The best so far, in a program that has none yet: in a dict, a list, an attribute, below the Checkpoint."""

    class Trainer:
        best: object = None

    def program(best: object) -> Checkpoint:
        trainer = Trainer()
        trainer.best = deepcopy(best)
        return Checkpoint(best=best, trainer=trainer, state={"best": deepcopy(best)}, items=[deepcopy(best)])

    path = program(best).write(tmp_path / "ckpt")
    checkpoint = program(None)
    status = checkpoint.read(path)

    found = [checkpoint.best, checkpoint.trainer.best, checkpoint.state["best"], checkpoint.items[0]]
    assert found == [best] * 4 and all(type(item) is type(best) for item in found)
    status.assert_consumed()


def test_one_container_in_the_places_of_none_is_one(tmp_path: Path) -> None:
    """As the program that was saved had it."""
    best = [0.5]
    path = Checkpoint(a=best, b={"a": best}).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(a=None, b={"a": None})
    checkpoint.read(path).assert_consumed()
    assert checkpoint.a == [0.5] and checkpoint.b["a"] is checkpoint.a


def test_none_stays_where_a_restore_fails(tmp_path: Path) -> None:
    """And where what holds it would have to be made anew."""
    path = Checkpoint(state={"best": [1]}, pair=([1], 2), w=np.ones(2)).write(tmp_path / "ckpt")
    state: dict[str, Any] = {"best": None}
    with pytest.raises(MismatchError, match="shape"):
        Checkpoint(state=state, w=np.zeros(3)).read(path)
    assert state == {"best": None}

    checkpoint = Checkpoint(pair=(None, 0), w=np.zeros(2))
    assert "(root).pair.0" in checkpoint.read(path, partial=True).report.unbound
    assert checkpoint.pair == (None, 2)


@pytest.mark.parametrize("own", [[0, 0], []])
def test_what_was_one_list_is_the_one_that_the_program_has(tmp_path: Path, own: list[int]) -> None:
    """A new one in its other place would be another object, for which the file has no second value."""
    shared, pair = [1, 2], (3, 4)
    path = Checkpoint(a=shared, b={"same": shared, "pair": pair}, c=pair).write(tmp_path / "ckpt")
    state: dict[str, Any] = {}
    checkpoint = Checkpoint(a=own, b=state, c=(0, 0))

    checkpoint.read(path).assert_consumed()

    assert own == [1, 2] and state["same"] is own
    assert checkpoint.c == (3, 4) and state["pair"] is checkpoint.c


def test_nothing_grows_where_a_restore_fails(tmp_path: Path) -> None:
    """The program is as it was."""
    path = Checkpoint(history=[1, 2], best={"a": 1}, weights=np.ones(2)).write(tmp_path / "ckpt")
    history: list[int] = [7]
    best: dict[str, int] = {}

    with pytest.raises(MismatchError, match="shape"):
        Checkpoint(history=history, best=best, weights=np.zeros(3)).read(path)

    assert history == [7] and best == {}


def test_the_one_call_form_grows_too(tmp_path: Path) -> None:
    """In `openckpt.restore`, and in a part of a checkpoint."""
    path = Checkpoint(state={"history": [1.5, None], "w": np.ones(2)}).write(tmp_path / "ckpt")

    assert openckpt.restore(path, like={"history": []}, select="state", partial=True) == {"history": [1.5, None]}


def test_a_resumed_run_goes_on_with_its_history(tmp_path: Path) -> None:
    """What is appended after the restore stays what it is."""
    history: list[float] = []
    for run in range(3):
        history = []
        checkpoint = Checkpoint(history=history)
        checkpoint.restore(openckpt.latest_checkpoint(str(tmp_path)))
        history.append(float(run))
        checkpoint.save(tmp_path / "ckpt")
    assert history == [0.0, 1.0, 2.0]


def test_a_plain_value_that_the_program_makes_later_stays(tmp_path: Path) -> None:
    """A save changes no number; a child of the Checkpoint has its stored value at once, and an array when it is there."""

    class Trainer:
        best: float

    saved = Trainer()
    saved.best = 0.5
    path = Checkpoint(trainer=saved, metrics={"loss": 1.0, "acc": 2.0, "log": [1]}, w={"a": np.ones(1)}, step=7).write(
        tmp_path / "ckpt"
    )
    trainer, metrics, w = Trainer(), {"loss": 0.0}, dict[str, np.ndarray]()
    checkpoint = Checkpoint(trainer=trainer, metrics=metrics, w=w)
    status = checkpoint.read(path, partial=True)

    trainer.best = 9.0
    metrics |= {"acc": 9.0, "log": [9, 9]}
    w["a"] = np.zeros(1)
    checkpoint.step = 0
    assert status.report.waiting == 0
    checkpoint.write(tmp_path / "next")

    assert (trainer.best, metrics) == (9.0, {"loss": 1.0, "acc": 9.0, "log": [9, 9]})
    assert w["a"] == 1 and checkpoint.step == 7


@pytest.mark.parametrize("has_attributes", [False, True])
def test_a_plain_value_that_the_root_gets_later_stays(tmp_path: Path, has_attributes: bool) -> None:
    """The root of a checkpoint is an object like any other; a keyword beside it is a child of the Checkpoint."""

    class Trainer:
        pass

    def root(**held: object) -> Any:
        made = Trainer()
        vars(made).update(held)
        return made if has_attributes else held

    path = Checkpoint(root(w=np.ones(1), best=0.5, log=[1]), epoch=7).write(tmp_path / "ckpt")
    made = root(w=np.zeros(1))
    held = vars(made) if has_attributes else made
    checkpoint = Checkpoint(made)
    status = checkpoint.read(path)

    held |= {"best": 9.0, "log": [9, 9]}
    checkpoint.epoch = 0
    checkpoint.write(tmp_path / "next")

    assert (held["w"][0], held["best"], held["log"], checkpoint.epoch) == (1.0, 9.0, [9, 9], 7)
    assert status.report.unresolved == ("(root).best", "(root).log.0") and status.report.waiting == 0


def test_a_list_of_plain_values_loses_what_it_has_got_since(tmp_path: Path) -> None:
    """Going back in a running program: the history ends where it did, and what is appended next follows that."""
    history, mixed = [1.0, 2.0], [np.ones(1), 5]
    checkpoint = Checkpoint(history=history, mixed=mixed, empty=[])
    path = checkpoint.write(tmp_path / "ckpt")
    history += [3.0, 4.0]
    checkpoint.empty.append(7)
    weights = np.zeros(1)
    mixed[0] = weights

    checkpoint.read(path).assert_consumed()

    assert (history, checkpoint.empty) == ([1.0, 2.0], [])
    assert mixed[0] is weights and weights == 1


def test_nothing_is_lost_where_a_restore_fails(tmp_path: Path) -> None:
    """The tail of a list is there again."""
    path = Checkpoint(history=[1], weights=np.ones(2)).write(tmp_path / "ckpt")
    history = [1, 2, 3]
    with pytest.raises(MismatchError, match="shape"):
        Checkpoint(history=history, weights=np.zeros(3)).read(path)
    assert history == [1, 2, 3]


@pytest.mark.parametrize(
    ("saved", "program", "restored"),
    [(12.5, 0, 12.5), (12.0, 0, 12), (3, float("inf"), 3.0), (float("inf"), 0, float("inf")), (1e300, 1, 1e300)],
)
def test_ints_and_floats_take_the_place_of_each_other(
    tmp_path: Path, saved: float, program: float, restored: float
) -> None:
    """The total that began as 0, the best that began as infinity: the program's type where that can hold it."""
    path = Checkpoint(total=saved, state={"total": saved}).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(total=program, state={"total": program})

    checkpoint.read(path)

    for found in (checkpoint.total, checkpoint.state["total"]):
        assert found == restored and type(found) is type(restored)
