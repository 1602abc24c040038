"""The program's side of a checkpoint: the live objects below a root, walked breadth-first as TensorFlow does (formats 6.3).

Every object is a node once, however many ways lead to it; a number or text in a container is a node per place, and so is a
container of JAX arrays (`openckpt.training.places`). The walk sees all edges; `LiveGraph.stock` is the part that stock TensorFlow
tracks, which is everything where a program has neither TensorFlow's nor Keras's objects in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

from openckpt.errors import UnsupportedError, Where, with_article
from openckpt.formats.objectpaths import escape_name, split_path
from openckpt.training.adapters import view_of
from openckpt.training.adapters.plain import as_child
from openckpt.training.places import apart, is_pytree
from openckpt.training.tracking import Bare, Leaf, View

Identity: TypeAlias = tuple[int, str]


_NO_NAMES: Mapping[str, LiveNode] = {}


class LiveNode:
    """One live object: its view, its edges to other nodes, and the way to it."""

    __slots__ = ("children", "names", "number", "object", "parent", "slot", "view")

    def __init__(self, number: int, value: object, view: View, parent: tuple[LiveNode, str] | None) -> None:
        self.number = number
        self.object = value
        self.view = view
        self.parent = parent
        """``(node, name)`` of the first edge that led here; None of the root"""
        self.slot: tuple[LiveNode, str, LiveNode] | None = None
        """``(optimizer, name, variable)`` of a slot, which no edge leads to"""
        self.children: Sequence[tuple[str, LiveNode, bool]] = ()
        """``(name, node, whether stock TensorFlow tracks this edge)``"""
        self.names: Mapping[str, LiveNode] = _NO_NAMES

    def leaf(self, attribute: str) -> Leaf | None:
        """Return the value of this object that is called ``attribute``."""
        return next((leaf for leaf in self.view.leaves if leaf.attribute == attribute), None)

    @property
    def is_part(self) -> bool:
        """Whether this is a piece of its parent's state, which comes and goes with it."""
        return self.parent is not None and self.parent[0].view.absorb is not None

    @property
    def is_optional(self) -> bool:
        """Whether programs do without this state: a metric's, a seed generator's."""
        node: LiveNode | None = self
        while node is not None and not node.view.is_optional:
            node = None if node.parent is None else node.parent[0]
        return node is not None

    def path(self) -> list[str]:
        """Return the names on the first way from the root."""
        names: list[str] = []
        node = self
        while node.parent is not None:
            node, name = node.parent
            names.append(name)
        return names[::-1]

    def identity(self, replaced: Mapping[LiveNode, object] | None = None) -> Identity:
        """Return what stays the same when the program is walked again; a number is known by its place in its container.

        ``replaced`` holds the objects that have taken the place of others since the walk.
        """
        now = replaced or {}
        node, path = self, ""
        while isinstance(node.object, Bare) and node.parent is not None:
            node, name = node.parent
            path = f"{escape_name(name)}/{path}"
        return id(now.get(node, node.object)), path

    def label(self) -> str:
        """Return the readable name: ``(root).model.dense``, ``(root).opt's state 'm' for (root).w``."""
        if self.slot is not None:
            optimizer, name, variable = self.slot
            return f"{optimizer.label()}'s state '{name}' for {variable.label()}"
        return ".".join(["(root)", *self.path()])


class LiveGraph:
    """All live objects below a root; ``nodes[0]`` is the root.

    Of a part of a program ``parent`` is the node above it, of another walk, and the name of the edge.
    """

    def __init__(self, root: object, view: View, parent: tuple[LiveNode, str] | None = None) -> None:
        self.nodes: list[LiveNode] = []
        self._by_object: dict[int, LiveNode] = {}
        self._pytrees: dict[LiveNode, bool] = {}
        self._apart: set[LiveNode] = set()
        """values in one more of their places: so is what is below them"""
        self.resolve: Callable[[str], object | None] | None = None
        """what `at` asks where the root of the program is not the root of the file"""
        self._add(root, view, parent)
        for node in self.nodes:  # grows while it is walked
            self._walk(node)
        for node in self.nodes:
            if node.view.walked is not None:
                node.view.walked(self)

    def _add(self, value: object, view: View, parent: tuple[LiveNode, str] | None) -> LiveNode:
        node = LiveNode(len(self.nodes), value, view, parent)
        self.nodes.append(node)
        self._by_object.setdefault(
            id(value), node
        )  # the view of its container keeps a Bare alive, so its id stays its own
        return node

    def _walk(self, node: LiveNode) -> None:
        if not node.view.children:
            return
        children: list[tuple[str, LiveNode, bool]] = []
        names: dict[str, LiveNode] = {}
        known = self._by_object
        for name, value, stock in node.view.children:
            target = known.get(id(value))
            is_again = target is not None and (node in self._apart or self._is_pytree(target))
            if is_again and name.isdecimal() and hasattr(node.object, "_fields"):
                target, is_again = names[node.object._fields[int(name)]], False  # a namedtuple's other name for it
            if target is None or is_again:
                try:
                    view = view_of(value)
                except UnsupportedError as error:  # its adapter refuses something in it
                    error.where = Where("", f"{node.label()}.{name}")
                    raise
                if view is None or view.refused:
                    why = "" if view is None else view.refused
                    raise UnsupportedError(
                        "training.not-trackable",
                        Where("", f"{node.label()}.{name}"),
                        why
                        or f"{with_article(type(value).__name__)} cannot be saved: it is no array, number, text or container, "
                        "and has no state_dict",
                    )
                target = self._add(value, apart(value, view) if is_again else view, (node, name))
                if is_again:
                    self._apart.add(target)
            children.append((name, target, stock))
            names.setdefault(name, target)
        node.children, node.names = children, names

    def _is_pytree(self, node: LiveNode) -> bool:
        known = self._pytrees.get(node)
        if known is None:
            known = self._pytrees[node] = is_pytree(node.object, node.view)
        return known

    def release(self) -> None:
        """Let go of all objects; of no use afterwards, and its nodes know only the way up.

        They refer to each other in cycles, which would keep values alive that the program has long replaced.
        """
        for node in self.nodes:
            node.children, node.names = (), _NO_NAMES
        self.nodes.clear()
        self._by_object.clear()

    def settle(self, replaced: Mapping[LiveNode, object]) -> None:
        """Remember the new objects of nodes in the place of the old, and no old value."""
        if not replaced:
            return
        for node in self.nodes:
            if node in replaced:
                new = replaced[node]
                # An array in the place of None is known by itself, and no more by its place.
                node.object = as_child("", new).value if isinstance(node.object, Bare) else new
                node.view = View(node.view.kind, family=node.view.family)
            elif any(child in replaced for _, child, _ in node.children):
                node.view = dataclasses.replace(node.view, children=())

    def keep(self) -> list[object]:
        """Return every object, so that none of their ids is given away while somebody remembers them.

        Not what is known by its place: a program that replaces its arrays at every step would hold a copy of them all.
        """
        return [node.object for node in self.nodes if not isinstance(node.object, Bare)]

    def find(self, value: object) -> LiveNode | None:
        """Return the node of an object, None where the walk did not meet it."""
        return self._by_object.get(id(value))

    def path_of(self, value: object) -> str | None:
        """Return the names on the first way to an object, escaped and joined."""
        node = self.find(value)
        if node is None or (node.parent is None and node.number > 0):
            return None
        return "/".join(escape_name(name) for name in node.path())

    def at(self, path: str) -> object | None:
        """Return the object at the end of a way."""
        if self.resolve is not None:
            return self.resolve(path)
        node: LiveNode | None = self.nodes[0]
        for name in split_path(path) if path else ():
            node = None if node is None else node.names.get(name)
        return None if node is None else node.object

    def add_slot(self, value: object, optimizer: LiveNode, name: str, variable: LiveNode) -> LiveNode | None:
        """Return the node of a slot, made where it is none yet; None where nobody can save such a thing."""
        node = self.find(value)
        if node is not None:
            return node
        view = view_of(value)
        if view is None:
            return None
        node = self._add(value, view, None)
        node.slot = (optimizer, name, variable)
        return node

    def holders(self, *, optional: bool = True, part: Sequence[str] = ()) -> list[LiveNode]:
        """Return every object that has values of its own: slots too, pieces of another one's state not.

        Without ``optional`` only those that a program cannot do without; with ``part`` those `below` it, where there is such a way.
        """
        slot_nodes(self.nodes, self)
        found = [node for node in self.nodes if node.view.leaves and not node.is_part]
        inside = self.below(part) if part else None
        if inside is not None:
            found = [node for node in found if inside.issuperset(node.slot[::2] if node.slot else [node])]
        return found if optional else [node for node in found if not node.is_optional]

    def below(self, way: Sequence[str]) -> set[LiveNode] | None:
        """Return the object at the end of a way of names from the root, and all below it; None where there is no such way."""
        node: LiveNode | None = self.nodes[0]
        for name in way:
            node = None if node is None else node.names.get(name)
        return None if node is None else set(_reached(node, all_children))

    def leaves(self) -> Iterator[tuple[LiveNode, Leaf]]:
        """Yield every value of every object."""
        for node in self.nodes:
            for leaf in node.view.leaves:
                yield node, leaf

    @cached_property
    def is_mixed(self) -> bool:
        """Whether stock TensorFlow tracks some of these objects itself, and so has its own mind about the others."""
        return any(node.view.family == "tensorflow" for node in self.nodes)

    @cached_property
    def stock(self) -> list[LiveNode]:
        """The nodes that stock TensorFlow would reach, in its order."""
        if not self.is_mixed:
            return list(self.nodes)
        return _reached(self.nodes[0], self._stock_children)

    def stock_children(self, node: LiveNode) -> list[tuple[str, LiveNode]]:
        """Return the edges of a node that stock TensorFlow tracks."""
        if not self.is_mixed:
            return all_children(node)
        return self._stock_children(node)

    def _stock_children(self, node: LiveNode) -> list[tuple[str, LiveNode]]:
        return [(name, child) for name, child, stock in node.children if stock and self._is_stock(child)]

    def _is_stock(self, node: LiveNode) -> bool:
        if node.view.family == "container" and isinstance(node.object, tuple):
            return any(
                child.view.family != "other" for _, child, _ in node.children
            )  # tuples of plain values are not tracked
        return node.view.family != "other"


def all_children(node: LiveNode) -> list[tuple[str, LiveNode]]:
    """Return every edge of a node, whether stock TensorFlow tracks it or not."""
    return [(name, child) for name, child, _ in node.children]


def _reached(root: LiveNode, children: Callable[[LiveNode], list[tuple[str, LiveNode]]]) -> list[LiveNode]:
    order, seen = [root], {root}
    for node in order:
        for _, child in children(node):
            if child not in seen:
                seen.add(child)
                order.append(child)
    return order


def slot_nodes(nodes: Iterable[LiveNode], graph: LiveGraph) -> list[tuple[LiveNode, str, LiveNode, LiveNode]]:
    """Return ``(optimizer, slot name, variable, slot)`` of every slot, in TensorFlow's order (formats 6.3, item 3)."""
    own = list(nodes)
    found = []
    for optimizer in own:
        slots = optimizer.view.slots
        if slots is None:
            continue
        for name in slots.names():
            for variable in own:
                value = slots.get(variable.object, name) if variable.view.leaves else None
                node = None if value is None else graph.add_slot(value, optimizer, name, variable)
                if node is not None:
                    found.append((optimizer, name, variable, node))
    return found
