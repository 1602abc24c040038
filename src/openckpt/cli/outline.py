"""What ``tree`` draws, as values: nodes with names, tensors and slots, made of an object graph or of the keys themselves.

A graph may share nodes and have cycles; here it stays a list of nodes with edges, and `Outline.first_edges` says which edge to a
node is the one under which it is drawn: the last of the first shortest path, the one that TensorFlow names tensors by. Nothing
recurses: a graph may be as deep as its file is long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from openckpt.formats.objectpaths import escape_name
from openckpt.formats.spec import GRAPH_KEY, TensorSpec

if TYPE_CHECKING:
    from openckpt.formats.objectgraph import ObjectGraph

DEEPEST = 64
"""Levels after which paths are no longer spelled out: in a hostile chain their lengths add up to the square of its own."""


class Edge(NamedTuple):
    """A named way from one node to another."""

    name: str
    node: int


class Leaf(NamedTuple):
    """A tensor of a node; ``spec`` is None where the graph names a key that the checkpoint lacks."""

    attribute: str
    key: str
    spec: TensorSpec | None


class Slot(NamedTuple):
    """What an optimizer keeps for one variable."""

    slot: str
    variable: int
    node: int


@dataclass(slots=True)
class OutlineNode:
    """One node: edges to children, tensors, and (an optimizer's) slots."""

    children: Sequence[Edge] = ()
    tensors: Sequence[Leaf] = ()
    slots: Sequence[Slot] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole tree.

    Attributes:
        nodes: node 0 is the root.
        first_edges: node -> (parent, name) of the edge under which it is drawn; None for the root and for slots.
        levels: node -> how many edges from the root; -1 where no edge leads to it.
        order: the nodes that edges lead to, in the order of their distance from the root.
        unreferenced: keys that no node refers to.
        is_graph: made from an object graph, not from names.
    """

    nodes: list[OutlineNode]
    first_edges: list[tuple[int, str] | None]
    levels: list[int]
    order: list[int]
    unreferenced: list[str]
    is_graph: bool

    def path(self, node: int) -> str | None:
        """Return the first shortest way to a node, "" for the root; None where none leads there, or one of over 64 parts."""
        if not 0 <= self.levels[node] <= DEEPEST:
            return None
        parts: list[str] = []
        while (edge := self.first_edges[node]) is not None:
            node, name = edge
            parts.append(escape_name(name) if self.is_graph else name)
        return "/".join(reversed(parts))

    def slots_by_variable(self) -> dict[int, list[tuple[int, Slot]]]:
        """Return variable node -> [(optimizer node, slot)]."""
        found: dict[int, list[tuple[int, Slot]]] = {}
        for number, node in enumerate(self.nodes):
            for slot in node.slots:
                found.setdefault(slot.variable, []).append((number, slot))
        return found

    def lost_leaves(self) -> list[Leaf]:
        """Return the tensors of nodes that neither an edge nor a slot of a drawn variable leads to."""
        drawn = set(self.order)
        drawn |= {slot.node for node in self.nodes for slot in node.slots if slot.variable in drawn}
        return [leaf for number, node in enumerate(self.nodes) if number not in drawn for leaf in node.tensors]

    def sizes(self) -> list[int]:
        """Return for every node how many nodes are drawn below it, itself included."""
        sizes = [1] * len(self.nodes)
        for node in reversed(self.order):
            edge = self.first_edges[node]
            if edge is not None:
                sizes[edge[0]] += sizes[node]
        return sizes


def outline_of_graph(graph: ObjectGraph, specs: Mapping[str, TensorSpec]) -> Outline:
    """Make the outline of an object graph over the tensors of its checkpoint."""
    parts: dict[str, list[str]] = {}  # checkpoint_key that is only the beginning of keys (formats 6.2) -> those keys
    unreferenced = []
    known = graph.attributes
    for key in specs:
        if key in known or key == GRAPH_KEY:
            continue
        holder = graph.find_attribute(key)
        if holder is None:
            unreferenced.append(key)
        else:
            parts.setdefault(holder[1].checkpoint_key, []).append(key)
    nodes = []
    for stored in graph.nodes:
        tensors: list[Leaf] = []
        for attribute in stored.attributes:
            keys = parts.get(attribute.checkpoint_key)
            if keys is None or attribute.checkpoint_key in specs:
                keys = [attribute.checkpoint_key, *(keys or ())]
            tensors += [Leaf(attribute.name, key, _spec_or_none(specs, key)) for key in keys]
        slots = [
            Slot(slot.slot_name, slot.original_variable_node_id, slot.slot_variable_node_id)
            for slot in stored.slot_variables
        ]
        children = [Edge(child.local_name, child.node_id) for child in stored.children]
        nodes.append(OutlineNode(children, tensors, slots))
    return Outline(nodes, *_walk(nodes), unreferenced, is_graph=True)


def _spec_or_none(specs: Mapping[str, TensorSpec], key: str) -> TensorSpec | None:
    # Not `get`: the error of a missing key, which `get` would swallow, looks for the nearest names first.
    return specs[key] if key in specs else None  # noqa: SIM401


def outline_of_names(items: Iterable[tuple[str, TensorSpec]]) -> Outline:
    """Make the outline of a checkpoint without a graph: a node for every part of a key between slashes."""
    nodes = [OutlineNode()]
    edges: dict[int, dict[str, int]] = {}
    for key, spec in items:
        place = 0
        for part in key.split("/", DEEPEST - 1):
            below = edges.setdefault(place, {})
            child = below.get(part)
            if child is None:
                child = below[part] = len(nodes)
                nodes.append(OutlineNode())
            place = child
        nodes[place].tensors = (Leaf("", key, spec),)
    for place, below in edges.items():
        nodes[place].children = [Edge(part, child) for part, child in below.items()]
    return Outline(nodes, *_walk(nodes), [], is_graph=False)


def _walk(nodes: list[OutlineNode]) -> tuple[list[tuple[int, str] | None], list[int], list[int]]:
    """Return first edges, levels and order of a walk from the root, breadth first."""
    first: list[tuple[int, str] | None] = [None] * len(nodes)
    levels = [-1] * len(nodes)
    levels[0] = 0
    order = [0]
    for node in order:  # grows while it is walked
        for name, child in nodes[node].children:
            if levels[child] < 0:
                levels[child] = levels[node] + 1
                first[child] = (node, name)
                order.append(child)
    return first, levels, order
