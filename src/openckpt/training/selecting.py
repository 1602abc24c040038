"""A part of what a checkpoint holds: the objects below one name, with the state that optimizers among them have of variables
among them.

    select="state/params"     names from the root, "/" between, escaped as in keys (formats 6.2)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import NotFoundError, Where, shown
from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.objectnodes import Child, Node, SlotVariable
from openckpt.formats.objectpaths import escape_name, split_path

if TYPE_CHECKING:
    from openckpt.training.binding import Binding


class Part(NamedTuple):
    """The graph of a part, the first object of which is the root.

    Attributes:
        graph: its nodes, numbered anew.
        whole: the graph of the whole checkpoint.
        numbers: node id in ``whole`` -> node id in ``graph``.
    """

    graph: ObjectGraph
    whole: ObjectGraph
    numbers: Mapping[int, int]

    def resolve(self, binding: Binding, path: str) -> object | None:
        """Return the live object that was matched with the stored one at the end of a way from the checkpoint's root."""
        node_id = 0
        for name in split_path(path):
            found = next((edge.node_id for edge in self.whole.nodes[node_id].children if edge.local_name == name), None)
            if found is None:
                return None
            node_id = found
        node = binding.nodes.get(self.numbers.get(node_id, -1))
        return None if node is None else node.object


def select_part(graph: ObjectGraph, path: str, where: str) -> Part:
    """Return the part of a graph that is below ``path``.

    Raises:
        NotFoundError: there is no such name (``training.no-such-part``); the message names the nearest.
    """
    way = _way(graph, path, where)
    return Part(*_cut(graph, [], way[-1][0]))


def keep_part(graph: ObjectGraph, path: str, where: str) -> ObjectGraph:
    """Return the graph in which the way to ``path`` and what is below it are left; raises as `select_part`."""
    way = _way(graph, path, where)
    return _cut(graph, way[:-1], way[-1][0])[0]


def _way(graph: ObjectGraph, path: str, where: str) -> list[tuple[int, str]]:
    """Return ``(node id, name of the edge that leads on)`` from the root to the end of a path."""
    way: list[tuple[int, str]] = []
    node_id = 0
    for name in split_path(path) if path else ():
        children = {child.local_name: child.node_id for child in graph.nodes[node_id].children}
        if name not in children:
            near = difflib.get_close_matches(name, list(children)[:1000], n=3) or list(children)
            raise NotFoundError(
                "training.no-such-part",
                Where(where, path),
                f"{graph.name(node_id)} of the checkpoint has no child {name!r}; it has {shown([*map(escape_name, near)])}",
            )
        way.append((node_id, name))
        node_id = children[name]
    return [*way, (node_id, "")]


def _cut(
    graph: ObjectGraph, way: list[tuple[int, str]], top: int
) -> tuple[ObjectGraph, ObjectGraph, Mapping[int, int]]:
    nodes = graph.nodes
    below = graph.below(top)
    seen = set(below)
    slots: dict[int, list[SlotVariable]] = {}
    for node_id in list(below):
        for slot in nodes[node_id].slot_variables:
            if slot.original_variable_node_id in seen:
                slots.setdefault(node_id, []).append(slot)
                if slot.slot_variable_node_id not in seen:
                    seen.add(slot.slot_variable_node_id)
                    below.append(slot.slot_variable_node_id)
    # Objects on the way get numbers of their own: one of them may be below the part too, with all that it holds.
    number = {node_id: len(way) + position for position, node_id in enumerate(below)}
    made = [Node((Child(position + 1, name),), has_checkpoint_values=True) for position, (_, name) in enumerate(way)]
    for node_id in below:
        node = nodes[node_id]
        made.append(
            node._replace(
                children=tuple(Child(number[child.node_id], child.local_name) for child in node.children),
                slot_variables=tuple(
                    SlotVariable(number[variable], name, number[slot])
                    for variable, name, slot in slots.get(node_id, ())
                ),
            )
        )
    return ObjectGraph(tuple(made), graph.most_paths), graph, number
