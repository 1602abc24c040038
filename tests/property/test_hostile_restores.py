"""Any object graph over any tensors restores, or is refused by an error of openckpt's; refused, it has assigned nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import openckpt
from mirrored import Plain, PlainOptimizer
from openckpt import Checkpoint
from openckpt.errors import CheckpointError
from openckpt.formats.objectgraph import ObjectGraph, encode_object_graph
from openckpt.formats.objectnodes import Attribute, Child, Node, SlotVariable

MOST = 8
TENSORS: dict[str, Any] = {
    "vector": np.arange(3.0),
    "other": np.ones((2, 2), np.float32),
    "number": np.int64(7),
    "text": b'"new"',
    "state": b'{"epoch": 1}',
    "nonsense": b"{",
}
IDS = st.integers(0, MOST - 1)
NAMES = st.sampled_from(("model", "w", "v", "n", "t", "opt", "state", "0", "save_counter", "_OPENCKPT", "x/y", ""))
ATTRIBUTES = st.builds(
    Attribute,
    st.sampled_from(("VARIABLE_VALUE", "py_state", "OBJECT_CONFIG_JSON", "table", "")),
    st.just(""),
    st.sampled_from((*TENSORS, "absent", "")),
    st.booleans(),
)
NODES = st.builds(
    Node,
    st.lists(st.builds(Child, IDS, NAMES), max_size=5).map(tuple),
    st.lists(ATTRIBUTES, max_size=2).map(tuple),
    st.lists(st.builds(SlotVariable, IDS, st.sampled_from(("momentum", "m")), IDS), max_size=2).map(tuple),
    st.none(),
    st.sampled_from((None, True, False)),
)


class Refused(Exception):
    """What an object raises that does not take its state; it reaches the caller."""


class Stateful:
    """State in one piece."""

    def __init__(self) -> None:
        self.epoch = 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused
        self.epoch = state["epoch"]


def program() -> Checkpoint:
    model = Plain()
    model.__dict__.update(w=np.zeros(3), v=np.zeros((2, 2), np.float32), n=0, t="old", model=model)
    return Checkpoint(model=model, w=model.__dict__["w"], opt=PlainOptimizer(), state=Stateful(), items=[0, ["x"]])


def state_of(ckpt: Checkpoint) -> list[Any]:
    model = ckpt.model
    return [model.w.tolist(), model.v.tolist(), model.n, model.t, ckpt.state.epoch, repr(ckpt.items), ckpt.save_counter]


@given(st.lists(NODES, min_size=MOST, max_size=MOST), st.booleans())
def test_any_graph_restores_or_is_refused_whole(nodes: list[Node], partial: bool) -> None:
    """Cycles, shared nodes, slots of anything, attributes of anything, keys that are not there."""
    checkpoint = program()
    before = state_of(checkpoint)
    with tempfile.TemporaryDirectory() as directory:
        graph = encode_object_graph(ObjectGraph(tuple(nodes)))
        tensors = {**TENSORS, "_CHECKPOINTABLE_OBJECT_GRAPH": graph}
        path = openckpt.save(Path(directory) / "ckpt", tensors, durability="process-crash")
        try:
            status = checkpoint.restore(path, partial=partial)
        except (CheckpointError, Refused):
            assert state_of(checkpoint) == before
            return
        status.expect_partial()
        assert "\n" not in str(status)
        for question in (
            status.assert_consumed,
            status.assert_existing_objects_matched,
            status.assert_nontrivial_match,
        ):
            try:
                question()
            except AssertionError as error:
                assert isinstance(error, CheckpointError)
