"""`Saver` beside ``tf.compat.v1.train.Saver``: the same names, lists and manifests, and each restores what the other saved."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import openckpt
from clocks import Clock, stop_clock_of
from openckpt.training import Checkpoint, Saver

pytestmark = pytest.mark.interop


@pytest.fixture
def clock(tf: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One clock for both sides."""
    from tensorflow.python.training import saver

    return stop_clock_of(saver, monkeypatch)


class Graph:
    """Variables of a TF1 graph, and a session that has them."""

    def __init__(self, tf: Any, values: dict[str, Any]) -> None:
        self.tf = tf
        with tf.Graph().as_default() as self.graph:
            self.variables = {
                name: tf.compat.v1.get_variable(name, initializer=value, use_resource=True)
                for name, value in values.items()
            }
            self.session = tf.compat.v1.Session(graph=self.graph)
            self.session.run(tf.compat.v1.global_variables_initializer())

    def saver(self, **options: Any) -> Any:
        with self.graph.as_default():
            return self.tf.compat.v1.train.Saver(self.variables, **options)

    def save(self, saver: Any, *arguments: Any, **options: Any) -> str:
        with self.graph.as_default():
            return str(saver.save(self.session, *arguments, **options))

    def restore(self, path: str) -> None:
        saver = self.saver()
        with self.graph.as_default():
            saver.restore(self.session, path)

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = self.session.run(self.variables)
        return found


VALUES = {"dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "dense/bias": np.ones(3), "step": np.int64(4)}
ZEROS = {name: np.zeros_like(value) for name, value in VALUES.items()}


def names_in(directory: Path) -> set[str]:
    """Return the files that are there, but for the graphs that only TensorFlow writes."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    assert not [name for name in names if "openckpt" in name]
    return {name for name in names if not name.endswith(".meta")}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([0, 1, 2, 3, None]),
    st.sampled_from([10000.0, 0.5, 1.0]),
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([1.0, 1800.0, 3601.0]), st.booleans()), min_size=1, max_size=10
    ),
)
def test_random_schedules_leave_what_tensorflow_leaves(
    tf: Any,
    clock: Clock,
    keep: int | None,
    hours: float,
    pad: bool,
    relative: bool,
    saves: list[tuple[int, float, bool]],
) -> None:
    """Files, lists and manifests, to the byte where paths are relative; steps may repeat, and some are not listed."""
    options: dict[str, Any] = {
        "max_to_keep": keep, "keep_checkpoint_every_n_hours": hours, "pad_step_number": pad, "save_relative_paths": relative,
    }  # fmt: skip
    graph = Graph(tf, {"w": np.float32(0)})
    theirs = graph.saver(**options)
    ours = Saver({"w": np.zeros((), np.float32)}, **options, clock=clock.time, durability="process-crash")
    with tempfile.TemporaryDirectory() as root:
        a, b = Path(root, "a"), Path(root, "b")
        for step, later, listed in saves:
            clock.now += later
            path = graph.save(theirs, f"{a}/m", step, write_state=listed, write_meta_graph=False)
            mine = ours.save(f"{b}/m", step, write_state=listed)
            assert Path(path).name == Path(mine).name
            assert [Path(p).name for p in theirs.last_checkpoints] == [Path(p).name for p in ours.last_checkpoints]
            assert names_of_prefixes(a) == names_of_prefixes(b)
            texts = [(d / "checkpoint").read_text() if (d / "checkpoint").exists() else "" for d in (a, b)]
            assert texts[0].replace(str(a), "") == texts[1].replace(str(b), "")


def names_of_prefixes(directory: Path) -> set[str]:
    return {name.partition(".")[0] for name in names_in(directory)}


def test_each_restores_what_the_other_saved(tf: Any, tmp_path: Path) -> None:
    """Values, types and scalars; V1 files too."""
    graph = Graph(tf, VALUES)
    paths = [graph.save(graph.saver(), str(tmp_path / "theirs"))]
    version = tf.compat.v1.train.SaverDef.V1
    paths.append(graph.save(graph.saver(write_version=version), str(tmp_path / "v1")))
    for path in paths:
        variables = {name: value.copy() for name, value in ZEROS.items()}
        Saver(variables).restore(path)
        assert all(np.array_equal(variables[name], value) for name, value in VALUES.items())
    mine = Saver(VALUES).save(tmp_path / "ours", 3)
    fresh = Graph(tf, ZEROS)
    fresh.restore(mine)
    assert all(np.array_equal(fresh.values()[name], value) for name, value in VALUES.items())
    assert tf.train.latest_checkpoint(tmp_path) == mine


def test_an_object_based_checkpoint_restores_by_full_names_as_in_tensorflow(tf: Any, tmp_path: Path) -> None:
    """Both warn; neither needs the structure."""
    program = tf.train.Checkpoint(a=tf.Variable([1.0, 2.0], name="x/w"), b=tf.Variable(3.0, name="x/b"))
    path = program.save(str(tmp_path / "c"))
    variables = {"x/w": np.zeros(2, np.float32), "x/b": np.float32(0)}
    with pytest.warns(openckpt.CheckpointWarning, match="names"):
        Saver(variables).restore(path)
    assert variables["x/w"].tolist() == [1.0, 2.0] and variables["x/b"] == 3.0
    graph = Graph(tf, {"x/w": np.zeros(2, np.float32), "x/b": np.float32(0)})
    graph.restore(path)
    assert graph.values()["x/w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("names", [("w", "b"), ("w",), ("w", "missing"), ("missing",), ()], ids=str)
def test_a_program_restored_by_names_gets_tensorflows_verdict(tf: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    """Of `Checkpoint.restore` of a file without a graph, with variables that have names."""
    graph = Graph(tf, {"w": np.float32(5), "b": np.float32(6), "more": np.float32(7)})
    path = graph.save(graph.saver(), str(tmp_path / "m"))
    theirs_variables = {name: tf.Variable(0.0, name=name) for name in names}
    ours_variables = {name: tf.Variable(0.0, name=name) for name in names}
    theirs = tf.train.Checkpoint(**theirs_variables).restore(path)
    ours = Checkpoint(**ours_variables).restore(path, partial=True)
    for question in ("assert_consumed", "assert_existing_objects_matched", "assert_nontrivial_match"):
        assert _holds(theirs, question) == _holds(ours, question), question
    assert [float(v) for v in theirs_variables.values()] == [float(v) for v in ours_variables.values()]


def _holds(status: Any, question: str) -> bool:
    try:
        getattr(status, question)()
    except AssertionError:
        return False
    return True


def test_recovered_lists_are_tensorflows(tf: Any, tmp_path: Path) -> None:
    """The times of the files, and what is not there left out."""
    first = Saver({"w": np.zeros(1, np.float32)})
    paths: list[str] = [first.save(tmp_path / "m", step) for step in range(4)]
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"m-2{suffix}").unlink()
    graph = Graph(tf, {"w": np.zeros(1, np.float32)})
    theirs, ours = graph.saver(), Saver({"w": np.zeros(1, np.float32)})
    theirs.recover_last_checkpoints(paths)
    ours.recover_last_checkpoints(paths)
    assert theirs.last_checkpoints == ours.last_checkpoints == [paths[0], paths[1], paths[3]]


def initialised(tf: Any, path: str, pairs: dict[str, str], variables: dict[str, Any]) -> dict[str, Any] | None:
    """Return what TensorFlow's ``init_from_checkpoint`` gives the variables of the present graph; None where it refuses."""
    try:
        tf.compat.v1.train.init_from_checkpoint(path, pairs)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return dict(session.run(variables))
    except (ValueError, tf.errors.OpError):
        return None


@pytest.mark.parametrize(
    "pairs",
    [
        {"dense/kernel": "dense/kernel", "step": "other"},
        {"dense/": "dense/"},
        {"dense/": "dense"},
        {"dense/": "x/y/"},
        {"/": "/"},
        {"dense/kernel": "x/y/kernel", "dense/bias": "x/y/bias"},
        {"dense/kernel": "nowhere"},
        {"dense/missing": "other"},
        {"dense/kernel": "other"},
    ],
    ids=str,
)
def test_init_from_checkpoint_assigns_what_tensorflow_assigns(tf: Any, tmp_path: Path, pairs: dict[str, str]) -> None:
    """The same variables get the same values, and the same maps are refused."""
    path = Saver(VALUES).save(tmp_path / "m")
    named = {"/": ["dense/kernel", "dense/bias", "step"], "dense/": ["dense/kernel", "dense/bias"]}
    names = named.get(next(iter(pairs.values())), ["dense/kernel", "dense/bias", "x/y/kernel", "x/y/bias", "other"])
    zeros = {name: ZEROS["dense/" + name.rpartition("/")[2] if "/" in name else "step"].copy() for name in names}
    ours: dict[str, Any] = dict(zeros)
    with tf.Graph().as_default():
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=value, use_resource=True) for name, value in zeros.items()
        }
        theirs = initialised(tf, path, pairs, variables)
    try:
        openckpt.init_from_checkpoint(path, pairs, ours)
    except (ValueError, openckpt.CheckpointError):
        assert theirs is None
        return
    assert theirs is not None
    assert {name: value.tolist() for name, value in theirs.items()} == {
        name: value.tolist() for name, value in ours.items()
    }


PAIRS_OF_PARTS: tuple[dict[str, str], ...] = (
    {"s/": "s/"}, {"/": "/"}, {"s/w": "s/w"}, {"s/w/": "s/w/"}, {"s/w": "s/w/part_0"}, {"turned": "s/w"}, {"s/b": "s/w"},
)  # fmt: skip


@pytest.mark.parametrize("cut", [(2, 1), (4, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("pairs", PAIRS_OF_PARTS, ids=str)
def test_partitioned_variables_get_what_tensorflow_gives_them(
    tf: Any, tmp_path: Path, pairs: dict[str, str], cut: tuple[int, int]
) -> None:
    """By scope, by name, by a scope that is the name; parts of unequal size; the same maps are refused."""
    whole = np.arange(24, dtype=np.float32).reshape(6, 4)
    path = Saver({"s/w": whole, "s/b": np.float32(3), "turned": whole.T.copy()}).save(tmp_path / "m")
    with tf.Graph().as_default():
        with tf.compat.v1.variable_scope("s"):
            zeros: dict[str, Any] = {"use_resource": True, "initializer": tf.zeros_initializer()}
            tf.compat.v1.get_variable("w", (6, 4), partitioner=lambda **_: list(cut), **zeros)
            tf.compat.v1.get_variable("b", (), **zeros)
        variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        ours = {name: np.zeros(variable.shape, np.float32) for name, variable in variables.items()}
        theirs = initialised(tf, path, pairs, variables)
    try:
        openckpt.init_from_checkpoint(path, pairs, ours)
    except openckpt.CheckpointError:
        assert theirs is None
    else:
        assert theirs is not None
        assert {name: value.tolist() for name, value in theirs.items()} == {
            name: value.tolist() for name, value in ours.items()
        }
