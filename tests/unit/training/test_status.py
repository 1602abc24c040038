"""What a restore says: the status's questions, the report, the one warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from mirrored import PlainOptimizer
from openckpt import Checkpoint, NotMatchedError, PartialRestoreWarning
from openckpt.errors import CheckpointError
from openckpt.formats.objectgraph import ObjectGraph, encode_object_graph
from openckpt.formats.objectnodes import Attribute, Child, Node, SlotVariable
from openckpt.training.report import Near, Part

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Thing:
    """An object with the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def trained(*, optimizer: bool = True) -> Checkpoint:
    """Return a program: a model of two layers, and its optimizer with two slots."""
    model = Thing(first=Thing(w=np.ones((2, 3)), b=np.ones(3)), second=Thing(w=np.ones((3, 1)), b=np.ones(1)))
    if not optimizer:
        return Checkpoint(model=model)
    made = PlainOptimizer()
    for variable in (model.first.w, model.second.w):
        made.make(variable)[...] = 5
    return Checkpoint(model=model, opt=made)


def write(path: Path, nodes: tuple[Node, ...], tensors: dict[str, Any]) -> str:
    """Write a checkpoint with any graph."""
    return str(openckpt.save(path, {**tensors, GRAPH: encode_object_graph(ObjectGraph(nodes))}))


# -- the questions ------------------------------------------------------------------------------------------------------


def test_everything_restored_answers_every_question(tmp_path: Path) -> None:
    """And each question returns the status, so that they can be chained."""
    status = trained().restore(trained().save(tmp_path / "ckpt"))
    assert status.assert_consumed().assert_existing_objects_matched().assert_nontrivial_match() is status
    assert status.run_restore_ops() is status.initialize_or_restore() is status.expect_partial() is status
    assert str(status) == f"{tmp_path / 'ckpt-1'}: bound 6 of 6 variables"


def test_an_error_of_a_question_is_an_assertion_error_with_names(tmp_path: Path) -> None:
    """Programs that catch TensorFlow's go on working."""
    status = trained().restore(trained(optimizer=False).save(tmp_path / "ckpt"), partial=True)
    for question in (status.assert_consumed, status.assert_existing_objects_matched):
        with pytest.raises(AssertionError) as caught:
            question()
        assert isinstance(caught.value, NotMatchedError)
        assert caught.value.code == "training.not-matched"
        assert "(root).opt's state 'momentum' for (root).model.first.w" in str(caught.value)


def test_a_question_looks_at_the_program_as_it_is_now(tmp_path: Path) -> None:
    """What has come since and is not in the file is unbound."""
    program = trained()
    status = program.restore(trained().save(tmp_path / "ckpt"))
    status.assert_consumed()
    program.model.third = np.ones(2)
    with pytest.raises(NotMatchedError, match="third"):
        status.assert_existing_objects_matched()
    del program.model.third
    status.assert_consumed()


def test_an_attribute_that_the_object_cannot_take_is_not_consumed(tmp_path: Path) -> None:
    """A plain object where a variable was; all else is matched."""
    path = Checkpoint(a=np.ones(1), b=np.ones(2)).write(tmp_path / "ckpt")
    status = Checkpoint(a=np.ones(1), b=Thing()).read(path, partial=True)
    status.assert_existing_objects_matched()
    with pytest.raises(NotMatchedError, match=r"attributes that nothing takes: '\(root\).b \(VARIABLE_VALUE\)'"):
        status.assert_consumed()


def test_optional_attributes_need_no_taker(tmp_path: Path) -> None:
    """Old Keras layers describe themselves; TensorFlow 2.21 would call that unused (formats 6.2)."""
    nodes = (
        Node((Child(1, "layer"),), (), (), None, True),
        Node(
            (Child(2, "w"),),
            (Attribute("OBJECT_CONFIG_JSON", "", "layer/.ATTRIBUTES/OBJECT_CONFIG_JSON"),),
            (),
            None,
            True,
        ),
        Node((), (Attribute("VARIABLE_VALUE", "w", "layer/w" + VALUE),), (), None, True),
    )
    path = write(
        tmp_path / "ckpt", nodes, {"layer/w" + VALUE: np.ones(1), "layer/.ATTRIBUTES/OBJECT_CONFIG_JSON": b"{}"}
    )
    Checkpoint(layer=Thing(w=np.zeros(1))).read(path).assert_consumed()
    Checkpoint(layer=Thing(w=np.zeros(1))).read(path).assert_nontrivial_match()


def test_an_attribute_whose_key_is_the_beginning_of_several_is_unused(tmp_path: Path) -> None:
    """A lookup table: ``table-keys`` and ``table-values``; plain objects do not take it, and nothing is called absent."""
    nodes = (
        Node((Child(1, "t"), Child(2, "w")), (), (), None, True),
        Node((), (Attribute("table", "", "t/.ATTRIBUTES/table"),), (), None, True),
        Node((), (Attribute("VARIABLE_VALUE", "w", "w" + VALUE),), (), None, True),
    )
    tensors = {"t/.ATTRIBUTES/table-keys": [b"a"], "t/.ATTRIBUTES/table-values": np.ones(1), "w" + VALUE: np.ones(1)}
    path = write(tmp_path / "ckpt", nodes, tensors)
    status = Checkpoint(t=Thing(), w=np.zeros(1)).read(path)
    assert status.report.unused == ("(root).t (table)",)
    status.assert_existing_objects_matched()


def test_slots_that_are_on_neither_side_reachable_wait(tmp_path: Path) -> None:
    """The optimizer is not there: its slots are unresolved, and wait."""
    path = trained().write(tmp_path / "ckpt")
    status = trained(optimizer=False).read(path, partial=True)
    status.assert_existing_objects_matched()
    with pytest.raises(NotMatchedError):
        status.assert_consumed()
    assert len(status.report.unresolved) == 2
    assert status.report.unresolved[0] == "(root).opt's state 'momentum' for (root).model.first.w"
    assert status.report.waiting


def test_slots_are_made_where_the_optimizer_has_none_yet(tmp_path: Path) -> None:
    """A fresh optimizer gets its state before its first step."""
    path = trained().write(tmp_path / "ckpt")
    program = Checkpoint(model=trained().model, opt=PlainOptimizer())
    program.read(path).assert_consumed()
    assert program.opt.make(program.model.first.w).tolist() == np.full((2, 3), 5.0).tolist()


def test_slots_of_a_shared_slot_node_are_read_once(tmp_path: Path) -> None:
    """Two optimizers' records may name one node."""
    nodes = (
        Node((Child(1, "w"), Child(2, "opt"), Child(3, "twin")), (), (), None, True),
        Node((), (Attribute("VARIABLE_VALUE", "", "w" + VALUE),), (), None, True),
        Node((), (), (SlotVariable(1, "momentum", 4),), None, True),
        Node((), (), (SlotVariable(1, "momentum", 4),), None, True),
        Node((), (Attribute("VARIABLE_VALUE", "", "w/m" + VALUE),), (), None, True),
    )
    path = write(tmp_path / "ckpt", nodes, {"w" + VALUE: np.ones(2), "w/m" + VALUE: np.full(2, 9.0)})
    program = Checkpoint(w=np.zeros(2), opt=PlainOptimizer(), twin=PlainOptimizer())
    program.read(path)
    assert program.opt.make(program.w).tolist() == [9, 9]


def test_no_checkpoint_answers_no_question() -> None:
    """None, as latest_checkpoint gives in an empty directory: the assertions raise, the rest is as in TensorFlow."""
    status = Checkpoint(x=1).restore(None)
    for question in (
        "assert_consumed",
        "assert_existing_objects_matched",
        "assert_nontrivial_match",
        "run_restore_ops",
    ):
        with pytest.raises(AssertionError) as caught:
            getattr(status, question)()
        assert isinstance(caught.value, CheckpointError)
        assert caught.value.code == "training.no-checkpoint"
    assert status.initialize_or_restore() is status.expect_partial() is status


# -- the report ---------------------------------------------------------------------------------------------------------


def test_the_report_counts_by_object_and_names_the_nearest(tmp_path: Path) -> None:
    """A renamed variable is told with what it may have been called: same shape and type first, then the name."""
    path = trained(optimizer=False).write(tmp_path / "ckpt")
    program = trained()
    first = program.model.first
    first.kernel = first.__dict__.pop("w")
    program.model.second.b = Thing(b=np.ones(1))
    report = program.read(path, partial=True).report

    assert (report.bound, report.variables) == (2, 6)
    assert report.parts == (Part("model", 2, 4), Part("opt", 0, 2))
    assert report.unbound[:2] == ("(root).model.first.kernel", "(root).model.second.b.b")
    assert report.unresolved == ("(root).model.first.w",)
    assert report.near[0] == Near("(root).model.first.kernel", "(root).model.first.w", "same shape and type")
    assert report.forgotten == ("the program has an optimizer, '(root).opt', and the file none in its place",)
    text = str(report)
    assert "bound 2 of 6 variables (model 2 of 4, opt 0 of 2)" in text
    assert "'(root).model.first.kernel' may be '(root).model.first.w' (same shape and type)" in text
    assert "\n" not in text


def test_a_near_name_of_another_shape_is_told_with_it(tmp_path: Path) -> None:
    """Only where it is called nearly the same."""
    path = Checkpoint(a=np.ones(1), dense=Thing(kernel=np.ones((2, 3)))).write(tmp_path / "ckpt")
    report = Checkpoint(a=np.ones(1), dense=Thing(kernel1=np.ones(7))).read(path, partial=True).report
    assert report.near == (Near("(root).dense.kernel1", "(root).dense.kernel", "but float64 [2, 3] in the file"),)
    other = Checkpoint(a=np.ones(1), completely=Thing(different=np.ones(7))).read(path, partial=True).report
    assert other.near == ()


def test_the_save_counter_counts_for_nothing(tmp_path: Path) -> None:
    """Neither in N nor in M."""
    report = trained().restore(trained().save(tmp_path / "ckpt")).report
    assert (report.bound, report.variables) == (6, 6)


# -- the warning --------------------------------------------------------------------------------------------------------


def partly(tmp_path: Path) -> tuple[Checkpoint, str]:
    return Checkpoint(a=np.ones(1), b=np.ones(1)), str(Checkpoint(a=np.ones(1)).save(tmp_path / "ckpt"))


def test_a_partial_restore_warns_once_in_one_line_where_it_was_called(tmp_path: Path) -> None:
    """N of M, and the first names."""
    program, path = partly(tmp_path)
    with pytest.warns(PartialRestoreWarning) as caught:
        program.restore(path)
    (warning,) = caught
    assert str(warning.message) == f"{path}: bound 1 of 2 variables (a 1 of 1, b 0 of 1); without a value: '(root).b'"
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "restore",
    [
        lambda program, path: program.restore(path, partial=True),
        lambda program, path: program.restore(path).expect_partial(),
        lambda program, path: program.read(path).expect_partial(),
    ],
)
def test_a_partial_restore_on_request_warns_of_nothing(tmp_path: Path, restore: Callable[[Any, str], Any]) -> None:
    """By ``partial=True``, and by TensorFlow's ``expect_partial``."""
    program, path = partly(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(program, path)


def test_a_status_that_is_kept_warns_at_the_next_save(tmp_path: Path) -> None:
    """Not only when the program lets go of it, which may be never."""
    program, path = partly(tmp_path)
    status = program.restore(path)
    with pytest.warns(PartialRestoreWarning, match="bound 1 of 2") as caught:
        program.write(tmp_path / "other")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program.write(tmp_path / "other")
        del status


def test_an_assertion_that_fails_is_warning_enough(tmp_path: Path) -> None:
    """The error has said it."""
    program, path = partly(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotMatchedError):
            program.restore(path).assert_consumed()


def test_a_forgotten_optimizer_is_told_though_every_variable_is_bound(tmp_path: Path) -> None:
    """Training goes on without its state, and nobody notices: the commonest loss of all."""
    path = trained().write(tmp_path / "ckpt")
    with pytest.warns(PartialRestoreWarning, match="the file has an optimizer, '\\(root\\).opt', and the program none"):
        trained(optimizer=False).read(path)


def test_a_container_in_the_place_of_a_variable_gets_no_slots(tmp_path: Path) -> None:
    """They wait; TensorFlow 2.21 ends in an AttributeError."""
    first = Checkpoint(w=np.ones(2), opt=PlainOptimizer())
    first.opt.make(first.w)
    path = first.write(tmp_path / "ckpt")
    status = Checkpoint(w=[np.zeros(2)], opt=PlainOptimizer()).read(path, partial=True)
    assert status.report.waiting == 1
