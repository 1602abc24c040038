"""The object graph of a TF2 checkpoint: which Python object held which tensor (formats 6.1-6.5).

It is stored as one scalar string tensor, ``_CHECKPOINTABLE_OBJECT_GRAPH``:

    node 0 (root) --"model"--> node 1 --"dense"--> node 4 --"kernel"--> node 7   attribute VARIABLE_VALUE
       |                                                                          tensor model/dense/kernel/.ATTRIBUTES/...
       `--"optimizer"--> node 2   slot: m of node 7 is node 9

Children make a directed graph: one node may have several parents and several names, and cycles are legal, so nothing here
recurses. `openckpt.formats.objectcodec` knows the bytes, `openckpt.formats.objectpaths` names nodes and ways.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where, place_of, shown
from openckpt.formats.objectcodec import encode_nodes, parse_nodes
from openckpt.formats.objectnodes import Attribute, Child, Node, RegisteredSaver, SlotVariable
from openckpt.formats.spec import GRAPH_KEY
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding
    from openckpt.formats.objectpaths import Layout, Paths
    from openckpt.formats.spec import Array, TensorReader

__all__ = [
    "Attribute",
    "Child",
    "Node",
    "ObjectGraph",
    "RegisteredSaver",
    "SlotVariable",
    "encode_object_graph",
    "parse_object_graph",
    "read_object_graph",
    "validate_graph",
]

_MOST_CUTS = 64  # dashes in what a saveable appends to its key; a hostile key has a million of them


@dataclass(frozen=True, repr=False)
class ObjectGraph:
    """The nodes of an object graph; ``nodes[0]`` is the root, and every id in it is a valid index."""

    nodes: tuple[Node, ...]
    most_paths: int = field(default=DEFAULT_LIMITS.graph_paths, compare=False, repr=False)
    """how many paths `paths` gives for one key unless asked for another number"""

    def __repr__(self) -> str:
        return f"<ObjectGraph of {len(self.nodes)} nodes>"

    @cached_property
    def attributes(self) -> dict[str, tuple[int, Attribute]]:
        """``checkpoint_key -> (node id, attribute)`` in node order; the first holder of a key wins."""
        found: dict[str, tuple[int, Attribute]] = {}
        for node_id, node in enumerate(self.nodes):
            for attribute in node.attributes:
                found.setdefault(attribute.checkpoint_key, (node_id, attribute))
        return found

    @cached_property
    def keys_by_full_name(self) -> dict[str, str]:
        """``full_name -> checkpoint_key`` of every attribute that has a full name, e.g. ``dense/kernel``."""
        return {a.full_name: a.checkpoint_key for node in self.nodes for a in node.attributes if a.full_name}

    @cached_property
    def layout(self) -> Layout:
        """Parents, and the first way to each node."""
        from openckpt.formats.objectpaths import Layout

        return Layout(self.nodes)

    def below(self, node_id: int = 0) -> list[int]:
        """Return a node and all that its edges lead to, breadth-first; slots are below nothing."""
        order, seen = [node_id], {node_id}
        for number in order:  # grows while it is walked
            for child in self.nodes[number].children:
                if child.node_id not in seen:
                    seen.add(child.node_id)
                    order.append(child.node_id)
        return order

    def find_attribute(self, key: str) -> tuple[int, Attribute] | None:
        """Return ``(node id, attribute)`` of a tensor's key, also where only its first part is recorded (formats 6.2)."""
        found = self.attributes.get(key)
        cut = len(key)
        for _ in range(_MOST_CUTS):
            cut = max(key.rfind("-", 0, cut), key.rfind("_", 0, cut))
            if found is not None or cut <= 0:
                break
            found = self.attributes.get(key[:cut])
        return found

    def name(self, node_id: int) -> str:
        """Return the readable name of a node: ``(root).model.dense``, or for a slot whose state it is."""
        return self.layout.name(node_id)

    def paths(self, key: str | None = None, *, most: int | None = None) -> Paths:
        """Return an iterator of ``(path, key)``: every way to one key, or to all of them.

        A path is the key that the tensor would have if the graph were walked that way, so the first path of a key is the key
        itself. No path passes a node twice. At most ``most`` paths (`Limits.graph_paths`) are given for one key; ``.cut`` of
        the iterator tells whether there were more.
        """
        from openckpt.formats.objectpaths import Paths

        return Paths(self, key, self.most_paths if most is None else most)


def parse_object_graph(data: bytes, where: Where | str, limits: Limits = DEFAULT_LIMITS) -> ObjectGraph:
    """Parse a serialized TrackableObjectGraph.

    Raises:
        CorruptionError: no such message (``graph.does-not-parse``), one without any node (``graph.empty``), or an edge to a
            node that is not there (``graph.edge-out-of-range``).
        LimitError: more bytes or more nodes and edges than ``limits`` allow.
    """
    return ObjectGraph(tuple(parse_nodes(data, where, limits)), limits.graph_paths)


def read_object_graph(reader: TensorReader, limits: Limits = DEFAULT_LIMITS) -> ObjectGraph | None:
    """Return the object graph that a checkpoint holds among its tensors, or None for a name-based one.

    Raises:
        FormatError: the graph is there but cannot be read; ``graph.not-a-string`` where it is no scalar string.
    """
    if GRAPH_KEY not in reader:
        return None
    return parse_graph_value(reader.read(GRAPH_KEY), Where(reader.path, GRAPH_KEY), limits)


def parse_graph_value(value: Array, where: Where, limits: Limits = DEFAULT_LIMITS) -> ObjectGraph:
    """Parse the tensor that holds a graph; raises as `read_object_graph`."""
    data: object = value[()] if value.shape == () else None
    if not isinstance(data, bytes):
        raise CorruptionError(
            "graph.not-a-string",
            where,
            "the object graph is not one string",
            found=f"{value.dtype} {list(value.shape)}",
        )
    return parse_object_graph(data, where, limits)


def encode_object_graph(graph: ObjectGraph) -> bytes:
    """Return the TrackableObjectGraph as TensorFlow writes it, byte for byte."""
    return encode_nodes(graph.nodes)


def validate_graph(
    graph: ObjectGraph, keys: Collection[str], where: Where | str, *, most_names: int = 20
) -> Iterator[Finding]:
    """Yield what is wrong between the graph and the ``keys`` of the checkpoint that holds it.

    An attribute is content with any tensor whose key starts with its own (formats 6.2); an optional one with none at all.
    All absent keys make one finding, because they have one cause.
    """
    from openckpt.findings import Lost, make_finding

    stored = keys if isinstance(keys, (set, frozenset, dict)) else set(keys)
    absent = [
        (node_id, attribute)
        for node_id, node in enumerate(graph.nodes)
        for attribute in node.attributes
        if attribute.checkpoint_key not in stored and not attribute.is_optional
    ]
    if absent:
        ordered = sorted(stored)
        absent = [pair for pair in absent if not _is_prefix_of_any(pair[1].checkpoint_key, ordered)]
    if absent:
        missing = tuple(attribute.checkpoint_key for _, attribute in absent)
        yield make_finding(
            "graph.key-absent",
            Where(place_of(where).path, missing[0]),
            f"the object graph names {len(missing)} keys that are not in the checkpoint: {shown(missing, most_names)}",
            found=f"{len(missing)} absent",
            expected="every key of the graph",
            lost=Lost(missing, 0, 0),
        )


def _is_prefix_of_any(prefix: str, ordered: list[str]) -> bool:
    place = bisect_left(ordered, prefix)
    return place < len(ordered) and ordered[place].startswith(prefix)
