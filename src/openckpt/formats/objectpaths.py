"""Names in an object graph: escaping, readable names, and every way from the root to a key (formats 6.2).

    key            escaped names from the root, "/" between, then /.ATTRIBUTES/ and the attribute:
                   model/layer-1/kernel/.ATTRIBUTES/VARIABLE_VALUE
    key of a slot  <variable's path>/.OPTIMIZER_SLOT/<optimizer's path>/<slot>/.ATTRIBUTES/VARIABLE_VALUE
    escape         "." to "..", then "/" to ".S"

A node has as many paths as there are ways to it; the breadth-first one is in its key. Walks keep their own stacks: a chain of
a million nodes is as good as a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openckpt.formats.objectgraph import ObjectGraph
    from openckpt.formats.objectnodes import Attribute, Node

ATTRIBUTES, SLOTS = ".ATTRIBUTES", ".OPTIMIZER_SLOT"


def escape_name(name: str) -> str:
    """Return a local name as it stands in a key."""
    return name.replace(".", "..").replace("/", ".S")


def unescape_name(segment: str) -> str:
    """Return the local name of a key's segment; the inverse of `escape_name`."""
    return re.sub(r"\.\.|\.S", lambda match: "." if match[0] == ".." else "/", segment)


def split_path(path: str) -> list[str]:
    """Return the local names of a way of escaped names with "/" between."""
    return [unescape_name(segment) for segment in path.split("/")]


class Layout:
    """Where each node hangs: all its parents, and the first way to it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes

    @cached_property
    def first(self) -> list[tuple[int, str] | None]:
        """``(parent, local name)`` of each node on the breadth-first way from the root; None for the root and the unreached."""
        nodes = self._nodes
        first: list[tuple[int, str] | None] = [None] * len(nodes)
        seen = bytearray(len(nodes))
        seen[0] = 1
        order = [0]
        for node_id in order:  # grows while it is walked
            for child, name in nodes[node_id].children:
                if not seen[child]:
                    seen[child] = 1
                    first[child] = (node_id, name)
                    order.append(child)
        return first

    @cached_property
    def parents(self) -> list[list[tuple[int, str]]]:
        """``(parent, local name)`` of every edge into each node, in node order."""
        parents: list[list[tuple[int, str]]] = [[] for _ in self._nodes]
        for node_id, node in enumerate(self._nodes):
            for child, name in node.children:
                parents[child].append((node_id, name))
        return parents

    @cached_property
    def slots(self) -> dict[int, list[tuple[int, int, str]]]:
        """``slot variable's node -> (optimizer's node, variable's node, slot name)`` of every record of it."""
        slots: dict[int, list[tuple[int, int, str]]] = {}
        for optimizer, node in enumerate(self._nodes):
            for variable, name, slot in node.slot_variables:
                slots.setdefault(slot, []).append((optimizer, variable, name))
        return slots

    def first_path(self, node_id: int) -> list[str] | None:
        """Return the local names of the first way to a node, None where no way leads to it."""
        names: list[str] = []
        while node_id:
            step = self.first[node_id]
            if step is None:
                return None
            node_id = step[0]
            names.append(step[1])
        return names[::-1]

    def name(self, node_id: int) -> str:
        """Return TensorFlow's readable name: ``(root).a.b``, ``(root).optimizer's state 'm' for (root).w``, or the number."""
        names = self.first_path(node_id)
        if names is not None:
            return ".".join(("(root)", *names))
        for optimizer, variable, slot in self.slots.get(node_id, ()):
            owners = self.first_path(optimizer), self.first_path(variable)
            if owners[0] is not None and owners[1] is not None:
                return "{}'s state '{}' for {}".format(
                    ".".join(("(root)", *owners[0])), slot, ".".join(("(root)", *owners[1]))
                )
        return f"(node {node_id})"


class Paths:
    """An iterator of ``(path, key)``; made by `ObjectGraph.paths`, which documents it.

    Attributes:
        cut: whether some key had more paths than were asked for, or too many dead ends to try them all.
    """

    def __init__(self, graph: ObjectGraph, key: str | None, most: int) -> None:
        self._layout = graph.layout
        self._most = most
        self.cut = False
        if key is None:
            wanted = [(stored, place) for stored, place in graph.attributes.items()]
        else:
            place = graph.find_attribute(key)
            wanted = [] if place is None else [(key, place)]
        self._found = self._run(wanted)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self

    def __next__(self) -> tuple[str, str]:
        return next(self._found)

    def _run(self, wanted: list[tuple[str, tuple[int, Attribute]]]) -> Iterator[tuple[str, str]]:
        for key, (node_id, attribute) in wanted:
            ending = f"/{ATTRIBUTES}/{escape_name(attribute.name)}" + key[len(attribute.checkpoint_key) :]
            left = self._most
            for path in self._to_node(node_id):
                if not left:
                    self.cut = True
                    break
                left -= 1
                yield path + ending, key

    def _to_node(self, node_id: int) -> Iterator[str]:
        yield from self._plain(node_id)
        for optimizer, variable, slot in self._layout.slots.get(node_id, ()):
            for owner in self._plain(variable):
                for state in self._plain(optimizer):
                    yield "/".join((owner, SLOTS, state, escape_name(slot)))

    def _plain(self, node_id: int) -> Iterator[str]:
        """Yield the ways along children, the breadth-first one first; none passes a node twice."""
        layout = self._layout
        names = layout.first_path(node_id)
        if names is None:
            return  # nothing leads here; do not search backwards for nothing
        first = _join(names)
        yield first
        if not node_id:
            return
        # Backwards from the node, so that only its own ancestors are visited, however wide the graph is.
        parents, reached = layout.parents, layout.first
        on_path = {node_id}
        stack = [(node_id, iter(parents[node_id]))]
        way: list[str] = []
        steps = 16 * self._most + 2 * len(parents)  # dead ends yield nothing, but cost as well
        skip_first = True
        while stack:
            steps -= 1
            if steps < 0:
                self.cut = True
                return
            edge = next(stack[-1][1], None)
            if edge is None:
                done, _ = stack.pop()
                on_path.discard(done)
                if way:
                    way.pop()
                continue
            parent, name = edge
            if parent == 0:
                path = _join([name, *reversed(way)])
                if skip_first and path == first:
                    skip_first = False
                else:
                    yield path
            elif parent not in on_path and reached[parent] is not None:
                on_path.add(parent)
                way.append(name)
                stack.append((parent, iter(parents[parent])))


def _join(names: Sequence[str]) -> str:
    return "/".join(map(escape_name, names))
