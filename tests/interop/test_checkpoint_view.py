"""`CheckpointView` beside TensorFlow's: the same nodes, the same matches, of every pair of a saved structure and a program's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.test_status_parity import FAMILIES
from mirrored import Numpy, TensorFlow
from openckpt.errors import MismatchError
from openckpt.training import Checkpoint

pytestmark = pytest.mark.interop


def named(found: Any, known: dict[int, str]) -> tuple[dict[int, str], list[int], list[str]]:
    """Return a diff with the names of variables in the place of objects; containers have none."""
    matched, stored, live = found
    names = {node_id: known.get(id(value), "") for node_id, value in matched.items()}
    return names, stored, sorted(known[id(value)] for value in live if id(value) in known)


@pytest.mark.parametrize("family", ["modules", "sharing", "containers", "slots"])
def test_views_are_tensorflows(tf: Any, tmp_path: Path, family: str) -> None:
    """Children, descendants, and what a program has of them, alone or not; slots are in neither."""
    structures = FAMILIES[family]
    for number, (saved, program) in enumerate(itertools.product(structures, structures)):
        written = tf.train.Checkpoint(**TensorFlow(tf, structures[saved], seed=1).children)
        path = written.save(str(tmp_path / str(number)))
        theirs, ours = tf.train.CheckpointView(path), openckpt.CheckpointView(path)
        assert ours.descendants() == theirs.descendants()
        for node_id in ours.descendants():
            assert ours.children(node_id) == theirs.children(node_id)

        a, b = TensorFlow(tf, structures[program], seed=2), Numpy(structures[program], seed=2)
        expected = named(theirs.diff(tf.train.Checkpoint(**a.children)), a.names())
        assert named(ours.diff(Checkpoint(**b.children)), b.names()) == expected, (saved, program)


def test_a_view_takes_any_root_and_changes_nothing(tmp_path: Path) -> None:
    """A dict, a number in a list; what was saved by names has no objects to show."""
    path = Checkpoint({"w": np.ones(2), "steps": [7]}).write(tmp_path / "ckpt")
    program = {"w": np.zeros(2), "steps": [3, 4]}
    view = openckpt.CheckpointView(path)
    found = view.diff(program)
    steps = view.children(0)["steps"]
    assert view.match(program) == found.matched
    assert found.matched[view.children(0)["w"]] is program["w"] and not program["w"].any()
    assert (found.matched[view.children(steps)["0"]], found.only_in_checkpoint, found.only_in_program) == (3, [], [4])
    with pytest.raises(MismatchError) as caught:
        openckpt.CheckpointView(openckpt.save(tmp_path / "named", {"w": np.ones(1)}))
    assert caught.value.code == "training.no-graph"


def test_looking_restores_nothing(tmp_path: Path) -> None:
    """Nor what waits since a restore for an object that has come."""
    path = openckpt.Checkpoint(a={"w": np.ones(2)}, v=np.ones(1)).write(tmp_path / "ckpt")
    a: dict[str, Any] = {}
    checkpoint = openckpt.Checkpoint(a=a, v=np.zeros(1))
    checkpoint.read(path)
    a["w"] = np.zeros(2)

    found = openckpt.CheckpointView(path).match(checkpoint)

    assert any(value is a["w"] for value in found.values()) and not a["w"].any()
