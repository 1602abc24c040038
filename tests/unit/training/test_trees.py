"""The one-call form, parts of a checkpoint, and casts between widths of floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import (
    CheckpointWarning,
    MismatchError,
    NotFoundError,
    NotMatchedError,
    PartialRestoreWarning,
    UnsupportedError,
)
from openckpt.training import Checkpoint, restore


def make(value: float) -> dict[str, Any]:
    return {
        "params": {"w": np.full((2, 3), value, np.float32), "a.b/c": [np.full(2, float(value)), int(value)]},
        "moments": (np.full(2, float(value)), "text"),
    }


def test_the_whole_of_a_checkpoint_comes_back_in_one_call(tmp_path: Path) -> None:
    """Arrays in place, the rest new; the tree is the result."""
    path = Checkpoint(state=make(2)).save(tmp_path / "ckpt")
    like = {"state": make(0)}
    w = like["state"]["params"]["w"]

    found = restore(path, like=like)

    assert found is like and found["state"]["params"]["w"] is w
    assert w.tolist() == [[2] * 3] * 2 and found["state"]["params"]["a.b/c"][1] == 2


def test_a_part_is_named_from_the_root(tmp_path: Path) -> None:
    """Names with "/" between, escaped as in keys; a tuple, a number and an array are parts too."""
    path = Checkpoint(state=make(2)).save(tmp_path / "ckpt")

    assert restore(path, like=make(0)["params"], select="state/params")["a.b/c"][1] == 2
    assert restore(path, like=[np.zeros(2), 0], select="state/params/a..b.Sc")[1] == 2
    assert restore(path, like=0, select="state/params/a..b.Sc/1") == 2
    assert restore(path, like=np.zeros(2), select="state/moments/0").tolist() == [2, 2]
    found = restore(path, like=(np.zeros(2), ""), select="state/moments")
    assert type(found) is tuple and found[1] == "text"


def test_a_part_that_is_not_there_is_named_with_what_is_near(tmp_path: Path) -> None:
    """The nearest names of where the way ends."""
    path = Checkpoint(state=make(2)).write(tmp_path / "ckpt")

    with pytest.raises(NotFoundError) as caught:
        restore(path, like={}, select="state/parms")

    assert caught.value.code == "training.no-such-part" and "'params'" in caught.value.message


def test_what_is_missing_is_an_error_unless_asked_for(tmp_path: Path) -> None:
    """Nothing is changed then; with partial=True the rest stays as it was."""
    path = Checkpoint(a=np.ones(2)).write(tmp_path / "ckpt")
    like = {"a": np.zeros(2), "b": np.zeros(2)}

    with pytest.raises(MismatchError) as caught:
        restore(path, like=like)
    assert caught.value.code == "training.incomplete" and "(root).b" in caught.value.message
    assert not like["a"].any()

    found = restore(path, like=like, partial=True)
    assert found["a"].tolist() == [1, 1] and found["b"].tolist() == [0, 0]


def test_a_part_without_its_name_is_told_what_the_names_are(tmp_path: Path) -> None:
    """The state itself was asked for, and the checkpoint has it as ``state``."""
    path = Checkpoint(state={"w": np.ones(2)}).write(tmp_path / "ckpt")
    with pytest.raises(MismatchError) as caught:
        restore(path, like={"w": np.zeros(2)})
    assert caught.value.code == "training.incomplete" and "'state'" in caught.value.message


def test_a_number_where_the_file_has_text_is_named(tmp_path: Path) -> None:
    """Both sides have the same names, and other things under them."""
    path = Checkpoint(state={"w": "text"}).write(tmp_path / "ckpt")
    with pytest.raises(MismatchError) as caught:
        Checkpoint(state={"w": np.zeros(2)}).read(path)
    assert caught.value.code == "training.nothing-matched"
    assert "(root).state.w (py_state)" in str(caught.value) and "(root).state.w (VARIABLE_VALUE)" in str(caught.value)


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    """A function has no state."""
    path = Checkpoint(a=np.ones(2)).write(tmp_path / "ckpt")

    with pytest.raises(UnsupportedError) as caught:
        restore(path, like=len)

    assert caught.value.code == "training.not-trackable"


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:::torch.*")
def test_slots_of_a_part_come_with_it(tmp_path: Path) -> None:
    """An optimizer and its variables below one name keep their state when only that is restored."""
    torch = pytest.importorskip("torch")

    def trained() -> dict[str, Any]:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        return {"model": model, "optimizer": optimizer}

    saved, live = trained(), trained()
    live["optimizer"].state[live["model"].weight]["momentum_buffer"].zero_()
    path = Checkpoint(gan={"generator": saved, "critic": trained()}).write(tmp_path / "ckpt")
    restore(path, like=live, select="gan/generator")

    moment = live["optimizer"].state[live["model"].weight]["momentum_buffer"]
    assert torch.equal(moment, saved["optimizer"].state[saved["model"].weight]["momentum_buffer"])
    assert torch.equal(live["model"].weight, saved["model"].weight)


def test_floats_of_another_width_are_cast_by_request_only(tmp_path: Path) -> None:
    """Lossless without a word; otherwise one line with the largest error, infinity where a value did not fit."""
    value = np.array([1.0, 1.0009765625 + 2.0**-12, np.nan, -3.0])
    path = Checkpoint(a=value, b=np.float32([1.5, 2]), n=np.arange(2)).write(tmp_path / "ckpt")

    def like(kind: str) -> dict[str, Any]:
        return {"a": np.zeros(4, kind), "b": np.zeros(2, "float64")}

    with pytest.raises(MismatchError) as caught:
        restore(path, like=like("float16"))
    assert caught.value.code == "training.mismatch"
    with pytest.raises(MismatchError):
        restore(path, like={"n": np.zeros(2)}, cast=True)
    with pytest.warns(CheckpointWarning, match=r"2 values cast, largest error 0\.000244 in \(root\)\.a"):
        found = restore(path, like=like("float16"), cast=True)
    assert found["a"].dtype == np.float16 and np.array_equal(found["a"], value.astype(np.float16), equal_nan=True)
    assert restore(path, like=like("float64"), cast=True)["b"].tolist() == [1.5, 2]

    big = Checkpoint(a=np.array([1e300, np.inf])).write(tmp_path / "big")
    with pytest.warns(CheckpointWarning, match="largest error inf"):
        restore(big, like={"a": np.zeros(2, np.float32)}, cast=True)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:::torch.*")
def test_frameworks_take_casts_too(tmp_path: Path) -> None:
    """A bfloat16 model from a float32 checkpoint."""
    torch = pytest.importorskip("torch")
    path = Checkpoint(w=np.float32([1, 1.01])).write(tmp_path / "ckpt")
    with torch.device("meta"):
        meta = torch.empty(2, dtype=torch.bfloat16)

    for like in (torch.zeros(2, dtype=torch.bfloat16), meta):
        with pytest.warns(CheckpointWarning):
            found = restore(path, like={"w": like}, cast=True)
        assert torch.equal(found["w"], torch.tensor([1, 1.01]).bfloat16())


def test_a_part_of_a_program_is_restored_from_the_same_part_of_a_checkpoint(tmp_path: Path) -> None:
    """The rest stays as it is, without a warning; what holds an immutable part gets the new one."""
    path = Checkpoint(state=make(2), epoch=7).write(tmp_path / "ckpt")
    ckpt = Checkpoint(state=make(0), epoch=1)

    ckpt.read(path, select="state/moments")

    assert ckpt.state["moments"][0].tolist() == [2, 2] and ckpt.state["moments"][1] == "text"
    assert ckpt.epoch == 1 and not ckpt.state["params"]["w"].any()
    with pytest.raises(NotFoundError) as caught:
        ckpt.read(path, select="state/moment")
    assert caught.value.code == "training.no-such-part"
    with pytest.raises(MismatchError) as nothing:
        Checkpoint(state=np.zeros(2)).read(path, select="epoch")
    assert nothing.value.code == "training.nothing-matched"


def test_the_status_of_a_part_asks_for_the_part_only(tmp_path: Path) -> None:
    """Its variables are all there are, for the report and for every assertion; what it lacks in the file is still missed."""
    path = Checkpoint(state={"a": np.ones(2), "b": [np.ones(1)]}, epoch=7).write(tmp_path / "ckpt")
    ckpt = Checkpoint(state={"a": np.zeros(2), "b": [np.zeros(1)]}, other=np.zeros(3))

    status = ckpt.restore(path, select="state/b")
    assert status.assert_consumed() is status and (status.report.bound, status.report.variables) == (1, 1)

    ckpt.state["b"].append(np.zeros(4))
    late = ckpt.restore(path, select="state/b")
    with pytest.raises(NotMatchedError):
        late.assert_existing_objects_matched()
    assert (late.report.bound, late.report.variables) == (1, 2)


def test_a_part_of_a_program_is_restored_by_its_names(tmp_path: Path) -> None:
    """As the one of an object graph; a name that the program does not have is no empty success."""
    path = openckpt.save(tmp_path / "ckpt", {"state/a": np.ones(2), "other": np.ones(3)})
    ckpt = Checkpoint(state={"a": np.zeros(2)}, other=np.zeros(3))
    assert str(ckpt.restore(path, select="state").assert_consumed()).endswith("bound 1 of 1 variables by their names")
    assert ckpt.state["a"].all() and not ckpt.other.any()
    with pytest.raises(NotFoundError) as caught:
        ckpt.restore(path, select="stat")
    assert caught.value.code == "training.no-such-part"


def test_the_report_says_what_was_cast(tmp_path: Path) -> None:
    """How many values, the largest error, and where."""
    path = Checkpoint(a=np.array([1.0, 1.01]), b=np.float32([1])).write(tmp_path / "ckpt")

    report = Checkpoint(a=np.zeros(2, np.float32), b=np.zeros(1, np.float64)).read(path, cast=True).report

    assert report.cast == 2 and report.largest_error_in == "(root).a"
    assert report.largest_error == abs(1.01 - float(np.float32(1.01)))
    assert "2 values cast, largest error" in str(report)


def test_one_object_here_and_two_that_differ_in_the_file(tmp_path: Path) -> None:
    """After ``target = params``: one line of warning, and the first as in TensorFlow; the strict form restores nothing."""
    path = Checkpoint(params={"w": np.ones(2)}, target={"w": np.zeros(2)}).write(tmp_path / "ckpt")
    same = {"w": np.full(2, 5.0)}

    with pytest.raises(MismatchError) as caught:
        restore(path, like={"params": same, "target": same})
    assert caught.value.code == "training.torn" and same["w"].tolist() == [5, 5]
    with pytest.warns(PartialRestoreWarning, match="one object here and two that differ"):
        Checkpoint(params=same, target=same).read(path)
    assert same["w"].tolist() == [1, 1]
    Checkpoint(params=same, target=same).read(path, partial=True)


def test_equal_values_for_one_object_are_no_question(tmp_path: Path) -> None:
    """Weights that are tied here and were saved as two."""
    path = Checkpoint(params={"w": np.ones(2)}, target={"w": np.ones(2)}).write(tmp_path / "ckpt")
    same = {"w": np.full(2, 5.0)}

    Checkpoint(params=same, target=same).read(path).assert_consumed()

    assert same["w"].tolist() == [1, 1]
