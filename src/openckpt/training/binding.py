"""Which stored value belongs to which live one: matching by edge names from the root, as TensorFlow does (formats 6.6).

Keys and full names say nothing here. A node of the file is bound to the first object that its way leads to; two nodes that
lead to one object bind both, and the first is read. What the program does not have (yet) waits as a *deferred* position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.objectnodes import Node
from openckpt.training.config import Difference
from openckpt.training.leaves import suffix_of
from openckpt.training.live import LiveGraph, LiveNode
from openckpt.training.tracking import PY_STATE, Leaf


class Bound(NamedTuple):
    """One stored value and the live one that takes it."""

    key: str
    node: LiveNode
    leaf: Leaf
    node_id: int
    is_optional: bool = False
    """whether the file need not have the tensor"""

    def label(self) -> str:
        """Return the readable name, and beside it the variable's own: ``(root).optimizer._variables.2 (adam/head_kernel_m)``."""
        label, own = self.node.label(), self.leaf.full_name
        return f"{label} ({own})" if "/" in own and not label.endswith(own.replace("/", ".")) else label


class Deferred(NamedTuple):
    """A part of the file that waits: the object of ``parent`` has no child called ``name`` yet."""

    parent: LiveNode
    name: str
    node_id: int


class PendingSlot(NamedTuple):
    """A slot of the file that waits for its optimizer or its variable."""

    optimizer_id: int
    variable_id: int
    name: str
    node_id: int


@dataclass(slots=True)
class Binding:
    """What matching found.

    Attributes:
        nodes: file's node id -> live node.
        values: the pairs to be read, in the order of matching.
        second: more values for objects that are in ``values`` already: they were several objects when they were saved.
        absorbed: live nodes whose state is one piece -> the file's nodes below, by name.
        deferred: parts of the file that wait for objects.
        slots: slots that wait.
        unused: ``(node id, attribute name)`` that a bound object cannot take.
        is_stock: whether the file holds only what stock TensorFlow tracks.
        differences: in what the stored config differs from the program's.
        part: names of the way to what alone is restored; none where it is everything.
    """

    nodes: dict[int, LiveNode] = field(default_factory=dict)
    values: list[Bound] = field(default_factory=list)
    second: list[Bound] = field(default_factory=list)
    absorbed: dict[LiveNode, dict[str, str]] = field(default_factory=dict)
    deferred: list[Deferred] = field(default_factory=list)
    slots: list[PendingSlot] = field(default_factory=list)
    unused: list[tuple[int, str]] = field(default_factory=list)
    is_stock: bool = False
    differences: Sequence[Difference] = ()
    part: Sequence[str] = ()


def bind(graph: ObjectGraph, live: LiveGraph, *, skip_slots: bool = False) -> Binding:
    """Match the nodes of a file with live objects.

    Args:
        graph: of the file.
        live: of the program.
        skip_slots: leave slots alone (``experimental_skip_slot_variables``).
    """
    matching = _Matching(graph.nodes, live, {})
    return matching.run([(0, live.nodes[0])], [] if skip_slots else _slots_of(graph.nodes))


def bind_more(
    graph: ObjectGraph,
    live: LiveGraph,
    before: Binding,
    starts: Sequence[tuple[int, LiveNode]],
    taken: Iterable[LiveNode],
    *,
    skip_slots: bool = False,
) -> Binding:
    """Match the nodes of a file with objects that have come since, and return what is new.

    Args:
        graph: of the file.
        live: of the program as it is now, or of a part of it.
        before: what was matched already.
        starts: ``(node id, live node)`` where deferred parts begin.
        taken: nodes of ``live`` that are bound already.
        skip_slots: leave the slots alone that were not found before.
    """
    matching = _Matching(graph.nodes, live, before.nodes)
    matching.taken.update(taken)
    return matching.run(starts, [] if skip_slots else before.slots)


def _slots_of(nodes: Sequence[Node]) -> list[PendingSlot]:
    records: dict[int, list[PendingSlot]] = {}  # by variable, as TensorFlow goes through them
    for number, node in enumerate(nodes):
        for variable, name, slot in node.slot_variables:
            records.setdefault(variable, []).append(PendingSlot(number, variable, name, slot))
    return [record for own in records.values() for record in own]


class _Matching:
    def __init__(self, nodes: Sequence[Node], live: LiveGraph, before: Mapping[int, LiveNode]) -> None:
        self._nodes, self._live, self._before = nodes, live, before
        self._found = Binding()
        self.taken: set[LiveNode] = set()

    def run(self, starts: Sequence[tuple[int, LiveNode]], slots: Sequence[PendingSlot]) -> Binding:
        found = self._found
        queue = []
        for node_id, live in starts:
            if node_id not in self._before and node_id not in found.nodes:
                self._bind(node_id, live)
                queue.append(node_id)
        for node_id in queue:
            live = found.nodes[node_id]
            if live.view.absorb is not None:
                # A container of the same name has no state in one piece; its values find nobody here.
                if any(attribute.name == PY_STATE for attribute in self._nodes[node_id].attributes):
                    self._absorb(node_id, live)
                continue
            for child_id, name in self._nodes[node_id].children:
                if child_id in found.nodes or child_id in self._before:
                    continue
                target = live.names.get(name)
                if target is None:
                    # A plain value that the program makes later is newer than the file's, but for a Checkpoint's own child;
                    # of a root it turns out later which of the two it is (`Deferral.advance`).
                    is_plain = self._nodes[child_id].is_plain and live.number and live.view.kind != "Checkpoint"
                    if has_values(self._nodes[child_id]) and not is_plain:
                        found.deferred.append(Deferred(live, name, child_id))
                    continue
                self._bind(child_id, target)
                queue.append(child_id)
        self._bind_slots(slots)
        return found

    def _bind(self, node_id: int, live: LiveNode) -> None:
        found = self._found
        found.nodes[node_id] = live
        first = live not in self.taken  # an object is read once, from the first node that leads to it
        self.taken.add(live)
        for attribute in self._nodes[node_id].attributes:
            leaves = [leaf for leaf in live.view.leaves if leaf.attribute == attribute.name]
            for leaf in leaves:
                key = attribute.checkpoint_key + suffix_of(leaf)
                bound = Bound(key, live, leaf, node_id, attribute.is_optional)
                if first:
                    found.values.append(bound)
                elif not self._live.is_mixed:  # those are TensorFlow's, which says nothing
                    found.second.append(bound)
            if first and not leaves and not attribute.is_optional:
                found.unused.append((node_id, attribute.name))

    def _absorb(self, node_id: int, live: LiveNode) -> None:
        """Bind everything below a node to the object whose state is one piece."""
        below: dict[str, str] = {}
        for child_id, name in self._nodes[node_id].children:
            self._found.nodes.setdefault(child_id, live.names.get(name, live))
            for attribute in self._nodes[child_id].attributes:
                below[name] = attribute.checkpoint_key
        self._found.absorbed[live] = below

    def _bind_slots(self, records: Sequence[PendingSlot]) -> None:
        found = self._found
        nodes = {**self._before, **found.nodes} if self._before else found.nodes
        for record in records:
            if record.node_id in found.nodes:
                continue
            variable, optimizer = nodes.get(record.variable_id), nodes.get(record.optimizer_id)
            slots = None if optimizer is None else optimizer.view.slots
            value = None
            if variable is not None and variable.view.leaves and slots is not None:
                value = slots.get(variable.object, record.name)
                if value is None:
                    value = slots.create(variable.object, record.name)
            if value is None or optimizer is None or variable is None:
                found.slots.append(record)
                continue
            node = self._live.add_slot(value, optimizer, record.name, variable)
            if node is not None:
                self._bind(record.node_id, node)


def has_values(node: Node) -> bool:
    """Return whether a node of a file holds values, it or one below; old writers do not say (formats 6.6)."""
    if node.has_checkpoint_values is not None:
        return node.has_checkpoint_values
    return bool(node.children or node.attributes or node.slot_variables or node.registered_saver)
