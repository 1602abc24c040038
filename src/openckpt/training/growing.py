"""Lists and dicts that had more in them when they were saved: a history of losses, in a program that has just begun.

    saved      history = {"loss": [0.9, 0.4], "best": None}      nodes "dict", "list", "value" in the graph (formats 6.1)
    program    history = {}                                      -> gets the keys and places; then the restore fills them

Only plain values are made - numbers, text, None, and lists, tuples and dicts of nothing else, as openckpt saved them. A list gets what it
lacks at its end, and loses what it has got since; a dict grows only where it is empty: a program that has some keys has chosen them;
the place of None gets a whole list, tuple or dict. Other objects wait for the program to make them (formats 6.6, item 4); a plain
value that it makes later is newer than the file's, and stays.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.objectnodes import MADE_TYPES, Node
from openckpt.training.binding import Binding, bind
from openckpt.training.live import LiveGraph, LiveNode
from openckpt.training.tracking import Bare

VALUE, LIST, TUPLE, DICT, INT_DICT = MADE_TYPES
_CONTAINERS = (LIST, TUPLE, DICT, INT_DICT)
_OF_OTHER_DICTS = {DICT: "other-dict", INT_DICT: "other-int-dict"}
"""kinds of an OrderedDict or defaultdict by that of a dict with its keys: one that the program has grows, and none is made"""
_NUMBER = re.compile(r"-?[0-9]{1,1000}")
_VALUES = (bool, int, float, complex, str, bytes, type(None))
_DICTS = (dict, OrderedDict, defaultdict)
_PLAIN = frozenset((Bare, list, tuple, *_DICTS))


def python_types(nodes: Iterable[LiveNode]) -> dict[LiveNode, str]:
    """Return the type of every node that is a plain value, or a container of nothing else."""
    found = {node: kind for node in nodes if type(node.object) in _PLAIN and (kind := _type_of(node))}
    parents: dict[LiveNode, list[LiveNode]] = {}
    others: list[LiveNode] = []
    for node in found:
        if any(found.get(child) not in MADE_TYPES for _, child, _ in node.children):
            others.append(node)
            continue
        for _, child, _ in node.children:
            parents.setdefault(child, []).append(node)
    for other in others:  # grows: what holds something else is something else
        if found.pop(other, None):
            others += parents.get(other, ())
    return found


def _type_of(node: LiveNode) -> str:
    value: Any = node.object
    if isinstance(value, Bare):
        return VALUE if type(value.value) in _VALUES or isinstance(value.value, np.generic) else ""
    if type(value) in _DICTS:
        kinds = {type(key) for key in value} or {str}
        kind = DICT if kinds == {str} else INT_DICT if kinds == {int} else ""
        return kind if type(value) is dict else _OF_OTHER_DICTS.get(kind, "")
    return LIST if type(value) is list else TUPLE if type(value) is tuple else ""


@contextmanager
def bound_grown(
    graph: ObjectGraph, live: LiveGraph, walk: Callable[[], LiveGraph]
) -> Iterator[tuple[LiveGraph, Binding]]:
    """Match a file with a program whose lists and dicts have places for the plain values that they lacked.

    The places go away again where what is done with them raises.

    Args:
        graph: of the file.
        live: of the program; of no use afterwards.
        walk: returns the program as it is then.
    """
    binding = bind(graph, live)
    undo = _grow(graph, binding)
    if not undo:
        yield live, binding
        return
    live.release()
    try:
        live = walk()
        yield live, bind(graph, live)
    except BaseException:
        for take_back in undo:
            take_back()
        raise


def _grow(graph: ObjectGraph, binding: Binding) -> list[Callable[[], object]]:
    """Give lists and dicts places for the values that they lack, None in each; return what takes these away again."""
    made: dict[int, Any] = {}
    undo = _put_for_none(graph, binding, made)
    for node_id, live in binding.nodes.items():
        container: Any = live.object
        if type(container) is list:
            undo += _fit_list(graph, node_id, live, lambda child: _made(graph, child, made, binding.nodes))
        elif type(container) in _DICTS and not container:
            names = _names(graph.nodes[node_id])
            if names and all(graph.nodes[child].is_plain for child in names.values()):
                keys = _keys(graph.nodes[node_id].python_type, names)
                container.update((key, _made(graph, child, made, binding.nodes)) for key, child in keys.items())
                undo.append(container.clear)
    return undo


def _fit_list(
    graph: ObjectGraph, node_id: int, live: LiveNode, make: Callable[[int], Any]
) -> list[Callable[[], object]]:
    """Give a list the places that it lacks, or take those that a list of plain values has got since; return what undoes that."""
    container: Any = live.object
    size = len(container)
    node = graph.nodes[node_id]
    names = _names(node)
    if node.python_type == LIST and size > len(names) and all(_is_plain(child) for _, child, _ in live.children):
        tail = container[len(names) :]
        del container[len(names) :]
        return [partial(container.extend, tail)]
    while (child := names.get(str(len(container)))) is not None and graph.nodes[child].is_plain:
        container.append(make(child))
    return [partial(container.__delitem__, slice(size, None))] if len(container) > size else []


def _names(node: Node) -> dict[str, int]:
    return {child.local_name: child.node_id for child in node.children}


def _is_plain(node: LiveNode) -> bool:
    return type(node.object) is Bare and _type_of(node) == VALUE


def _put_for_none(graph: ObjectGraph, binding: Binding, made: dict[int, Any]) -> list[Callable[[], object]]:
    """Put lists, tuples and dicts in the place of None; return what puts None there again."""
    undo: list[Callable[[], object]] = []
    containers = {number for number, node in enumerate(graph.nodes) if node.python_type in _CONTAINERS}
    if not containers:
        return undo
    for node_id, live in binding.nodes.items():
        put = None if live.view.is_rebuilt else live.view.replace
        for child_id, name in graph.nodes[node_id].children:
            target = live.names.get(name) if child_id in containers else None
            if (
                put is not None
                and target is not None
                and isinstance(target.object, Bare)
                and target.object.value is None
            ):
                put({name: _made(graph, child_id, made, binding.nodes)})
                undo.append(partial(put, {name: None}))
    return undo


def _keys(python_type: str, names: Mapping[str, int]) -> dict[Any, int]:
    """Return the children of a dict by its keys: text, or numbers; none of one with keys of other kinds."""
    if python_type in (DICT, _OF_OTHER_DICTS[DICT]):
        return dict(names)
    if python_type in (INT_DICT, _OF_OTHER_DICTS[INT_DICT]):
        return {int(name): child for name, child in names.items() if _NUMBER.fullmatch(name)}
    return {}


def _made(graph: ObjectGraph, top: int, made: dict[int, Any], bound: Mapping[int, LiveNode]) -> Any:
    """Return the object for a node, with what is below it; None for a value. One node is one object, wherever it stands."""
    stack = [(top, False)]
    while stack:
        node_id, is_below_done = stack.pop()
        node = graph.nodes[node_id]
        kind = node.python_type
        names = _names(node)
        if is_below_done:
            items = [made.get(names[name]) for name in map(str, range(len(names))) if name in names]
            if kind == TUPLE:
                made[node_id] = tuple(items)
            elif kind == LIST:
                made[node_id] += items
            else:
                made[node_id].update((key, made.get(child)) for key, child in _keys(kind, names).items())
        elif node_id in made:
            continue
        elif node_id in bound and not isinstance(bound[node_id].object, Bare):
            made[node_id] = bound[node_id].object  # in one more of its places
        else:
            made[node_id] = [] if kind == LIST else {} if kind in (DICT, INT_DICT) else None
            if kind in _CONTAINERS:
                stack += [(node_id, True), *((child, False) for child in names.values())]
    return made[top]
