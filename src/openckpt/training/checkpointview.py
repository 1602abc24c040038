"""`CheckpointView`: the objects that a checkpoint was saved from, beside those of a program, as ``tf.train.CheckpointView`` shows
them (formats 6.11). Nothing is restored, and no tensor read.

Slots are no descendants, here as there: no edge leads to them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from openckpt.training.adapters.plain import as_child
from openckpt.training.binding import bind
from openckpt.training.checkpoint import Checkpoint
from openckpt.training.stored import graph_of
from openckpt.training.tracking import Bare
from openckpt.training.trees import walk_tree


class ViewDiff(NamedTuple):
    """What a checkpoint and a program have in common.

    Attributes:
        matched: node id -> object of the program.
        only_in_checkpoint: node ids, breadth-first.
        only_in_program: objects, breadth-first.
    """

    matched: Mapping[int, Any]
    only_in_checkpoint: list[int]
    only_in_program: list[Any]


class CheckpointView:
    """The stored objects of a checkpoint by their node ids; the root is 0.

    Args:
        save_path: whatever `openckpt.open` takes.

    Raises:
        MismatchError: it was saved by names, and has no objects (``training.no-graph``; TensorFlow raises ValueError).
        PathNotFoundError, FormatError, OSError: as `openckpt.open`.
    """

    def __init__(self, save_path: str | os.PathLike[str]) -> None:
        from openckpt.opening import open

        with open(save_path) as stored:
            self._graph = graph_of(stored)

    def children(self, node_id: int) -> dict[str, int]:
        """Return the node ids of what hangs below a node, by name."""
        return {child.local_name: child.node_id for child in self._graph.nodes[node_id].children}

    def descendants(self) -> list[int]:
        """Return the node ids of all that can be reached from the root, breadth-first, the root itself first."""
        return self._graph.below()

    def match(self, obj: object) -> dict[int, Any]:
        """Return the objects of a program that lie where the checkpoint has one, by node id.

        Args:
            obj: the root: a `Checkpoint`, or whatever can be the root of one.
        """
        return dict(self.diff(obj).matched)

    def diff(self, obj: object) -> ViewDiff:
        """Return what both have, and what one of them has alone; ``obj`` as for `match`."""
        live = obj._walk() if isinstance(obj, Checkpoint) else walk_tree(as_child("", obj).value)
        nodes = bind(self._graph, live, skip_slots=True).nodes
        bound = set(nodes.values())
        found = ViewDiff(
            {node_id: _plain(node.object) for node_id, node in sorted(nodes.items())},
            [node_id for node_id in self.descendants() if node_id not in nodes],
            [_plain(node.object) for node in live.nodes if node not in bound and node.slot is None],
        )
        live.release()
        return found


def _plain(value: object) -> object:
    return value.value if isinstance(value, Bare) else value
