"""From live objects to what a checkpoint holds: keys, values, and the object graph that describes them (formats 6.2, 6.3).

_CHECKPOINTABLE_OBJECT_GRAPH      what stock TensorFlow tracks: it restores this, and asserts that it is consumed
_OPENCKPT_OBJECT_GRAPH            everything, where that is more: the same message, which stock TensorFlow does not look at
_OPENCKPT/PATH/.ATTRIBUTES/...    the values that only the second graph names
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.objectnodes import Attribute, Child, Node, SlotVariable
from openckpt.formats.objectpaths import ATTRIBUTES, SLOTS, escape_name
from openckpt.training.growing import python_types
from openckpt.training.leaves import suffix_of, value_of
from openckpt.training.live import LiveGraph, LiveNode, all_children, slot_nodes
from openckpt.training.tracking import Leaf

FULL_GRAPH_KEY = "_OPENCKPT_OBJECT_GRAPH"
OWN_PREFIX = "_OPENCKPT/"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is to be saved.

    Attributes:
        leaves: key -> the value of a live object, in the order in which TensorFlow stores them.
        graph: what stock TensorFlow tracks.
        full_graph: everything, None where that is the same.
    """

    leaves: dict[str, Leaf]
    graph: ObjectGraph
    full_graph: ObjectGraph | None


def record(live: LiveGraph) -> Recorded:
    """Return keys, values and graphs of live objects. Variables without a value yet are nodes without an attribute."""
    leaves: dict[str, Leaf] = {}
    keys: dict[Leaf, str] = {}
    stock = list(live.stock)
    everything = [node for node in live.nodes if node.parent is not None or node.number == 0]
    types = python_types(everything)
    graph = _record(live, stock, live.stock_children, "", leaves, keys, {} if live.is_mixed else types)
    missing = any(leaf not in keys and leaf.spec() is not None for node in everything for leaf in node.view.leaves)
    if not missing:
        return Recorded(leaves, graph, None)
    full = _record(live, everything, all_children, OWN_PREFIX, leaves, keys, types)
    return Recorded(leaves, graph, full)


def values_of(recorded: Recorded, path: str) -> dict[str, Any]:
    """Return what is to be stored under ``path`` by key: arrays on the host, maybe the live memory itself.

    Raises:
        UnsupportedError: something has no value that could be stored (``training.*``).
    """
    return {key: value_of(leaf, key, path) for key, leaf in recorded.leaves.items()}


def _record(
    live: LiveGraph,
    nodes: list[LiveNode],
    children: Callable[[LiveNode], list[tuple[str, LiveNode]]],
    prefix: str,
    leaves: dict[str, Leaf],
    keys: dict[Leaf, str],
    types: Mapping[LiveNode, str],
) -> ObjectGraph:
    below = [children(node) for node in nodes]
    paths = _paths(nodes, below)
    slots = slot_nodes(nodes, live)
    ids = {node: number for number, node in enumerate(nodes)}
    order = list(nodes)
    slots_of: dict[LiveNode, list[SlotVariable]] = {}
    for optimizer, name, variable, slot in slots:
        if slot not in ids:
            ids[slot] = len(order)
            order.append(slot)
            paths[slot] = "/".join((paths[variable], SLOTS, paths[optimizer], escape_name(name)))
        slots_of.setdefault(optimizer, []).append(SlotVariable(ids[variable], name, ids[slot]))
    attributes: list[tuple[Attribute, ...]] = []
    ends: dict[str, str] = {}  # of keys; the attribute has nearly always the same name
    for node in order:
        if not node.view.leaves:
            attributes.append(())
            continue
        own: dict[str, Attribute] = {}
        for leaf in node.view.leaves:
            suffix = suffix_of(leaf)
            key = keys.get(leaf)
            if key is None:
                if leaf.spec() is None:
                    continue  # stock TensorFlow restores nothing from a graph that names a key that is not there
                end = ends.get(leaf.attribute)
                if end is None:
                    end = ends[leaf.attribute] = f"/{ATTRIBUTES}/{escape_name(leaf.attribute)}"
                key = keys[leaf] = f"{prefix}{paths[node]}{end}{suffix}"
                leaves[key] = leaf
            # Nothing is missing where a program is restored before it has made its metrics, as with stock TensorFlow's files.
            optional = bool(prefix) and node.is_optional
            own.setdefault(
                leaf.attribute, Attribute(leaf.attribute, leaf.full_name, key.removesuffix(suffix), optional)
            )
        attributes.append(tuple(own.values()))
    edges = [tuple([Child(ids[child], name) for name, child in named]) if named else () for named in below]
    edges += [()] * (len(order) - len(nodes))
    valued = _with_values(edges, [bool(own) or node in slots_of for node, own in zip(order, attributes, strict=True)])
    return ObjectGraph(
        tuple(
            Node(
                edges[number],
                attributes[number],
                tuple(slots_of.get(node, ())),
                None,
                valued[number],
                types.get(node, ""),
            )
            for number, node in enumerate(order)
        )
    )


def _paths(nodes: Sequence[LiveNode], below: Sequence[Sequence[tuple[str, LiveNode]]]) -> dict[LiveNode, str]:
    """Return the first way to each node; they come in the order in which a walk from the root meets them."""
    paths = {nodes[0]: ""}
    for node, children in zip(nodes, below, strict=True):
        if not children:
            continue
        front = paths[node] + "/" if node is not nodes[0] else ""
        for name, child in children:
            if child not in paths:
                paths[child] = front + escape_name(name)
    return paths


def _with_values(edges: list[tuple[Child, ...]], own: Iterable[bool]) -> list[bool]:
    """Return of each node whether it or one below it holds values."""
    valued = list(own)
    # Children come behind their parents, but for those of several and in cycles: once backwards is nearly always enough.
    for number in range(len(valued) - 1, -1, -1):
        if not valued[number] and any(valued[child.node_id] for child in edges[number]):
            valued[number] = True
    if all(has or not children for has, children in zip(valued, edges, strict=True)):
        return valued
    parents: list[list[int]] = [[] for _ in valued]
    for number, children in enumerate(edges):
        for child in children:
            parents[child.node_id].append(number)
    queue = [number for number, has in enumerate(valued) if has]
    for number in queue:
        for parent in parents[number]:
            if not valued[parent]:
                valued[parent] = True
                queue.append(parent)
    return valued
