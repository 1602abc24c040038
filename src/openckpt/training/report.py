"""What a restore did, as plain values and as one paragraph: how much was bound, what was not, and what it might belong to."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from openckpt.errors import MismatchError, shown
from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.spec import TensorSpec
from openckpt.training.binding import Binding
from openckpt.training.casting import Casts
from openckpt.training.config import Difference, text_of
from openckpt.training.counter import SAVE_COUNTER
from openckpt.training.live import LiveGraph, LiveNode

_SHOWN = 3
_CANDIDATES = 1000  # stored values that a report knows the shapes of
_COMPARED = 500  # stored values that are compared with one name; more say no more


class Part(NamedTuple):
    """One object of the root: ``bound`` of its ``variables`` have a value from the file."""

    name: str
    bound: int
    variables: int


class Near(NamedTuple):
    """A variable without a value, and the stored value without a variable that it may be."""

    variable: str
    stored: str
    why: str
    """"same shape and type", or how they differ"""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        path: the checkpoint.
        bound: variables of the program that have a value from the file.
        variables: variables of the program, the save counter not counted.
        parts: the same for each object of the root.
        unbound: readable names of variables of the program that got no value.
        unresolved: readable names of stored values that no object of the program took.
        unused: readable names of stored attributes that the bound object cannot take.
        near: of the first unbound ones, which stored value they may be.
        forgotten: an optimizer on one side only, in words.
        waiting: how many stored objects wait for objects that are not there yet.
        untracked: those of ``unbound`` that no file of stock TensorFlow has, as this is one.
        config: where the stored config and the program's differ, of a Checkpoint with ``config=``.
        cast: how many values were cast to floats of another width, which only ``cast=True`` does.
        largest_error: the largest difference between an element and what it was cast to; infinity where one did not fit.
        largest_error_in: readable name of the variable that has it; "" where nothing was lost.
    """

    path: str
    bound: int
    variables: int
    parts: tuple[Part, ...]
    unbound: tuple[str, ...]
    unresolved: tuple[str, ...]
    unused: tuple[str, ...]
    near: tuple[Near, ...]
    forgotten: tuple[str, ...]
    waiting: int
    untracked: tuple[str, ...] = ()
    config: tuple[Difference, ...] = ()
    cast: int = 0
    largest_error: float = 0.0
    largest_error_in: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: bound {self.bound} of {self.variables} variables"
        if self.unbound and len(self.parts) > 1:
            text += " (" + ", ".join(f"{part.name} {part.bound} of {part.variables}" for part in self.parts) + ")"
        said = [text_of(self.config)] if self.config else []
        said += self.forgotten
        if self.unbound:
            said.append(f"without a value: {shown(self.unbound, _SHOWN)}")
        if self.untracked:
            said.append(
                f"{len(self.untracked)} of these not in the file: stock TensorFlow does not track layers in lists and dicts of a "
                f"Keras model, nor what it makes in other ways than as attributes: {shown(self.untracked, _SHOWN)}"
            )
        said += [f"{near.variable!r} may be {near.stored!r} ({near.why})" for near in self.near]
        if self.unresolved:
            said.append(f"stored and not used: {shown(self.unresolved, _SHOWN)}")
        if self.unused:
            said.append(f"attributes that nothing takes: {shown(self.unused, _SHOWN)}")
        if self.waiting:
            objects = "1 stored object waits" if self.waiting == 1 else f"{self.waiting} stored objects wait"
            said.append(f"{objects} for objects of the program")
        if self.cast:
            said.append(str(Casts(self.cast, self.largest_error, self.largest_error_in)))
        return "; ".join((text, *said))


def make_report(
    path: str,
    graph: ObjectGraph,
    binding: Binding,
    live: LiveGraph,
    unbound: Collection[LiveNode],
    specs: Mapping[int, TensorSpec],
    casts: Casts | None = None,
) -> RestoreReport:
    """Return the report of a restore.

    Args:
        path: the checkpoint.
        graph: what it holds.
        binding: what was matched.
        live: the program, now or when it was restored.
        unbound: those of its nodes that have values, and got none; the save counter counts for nothing.
        specs: node id of the file -> spec of its value, of those that nobody took.
        casts: what was cast.
    """
    variables = variables_of(live, binding)
    without = set(unbound)
    missing = [node for node in variables if node in without]
    unresolved = unresolved_ids(graph, binding)
    return RestoreReport(
        path,
        len(variables) - len(missing),
        len(variables),
        tuple(_parts(variables, without)),
        tuple(node.label() for node in missing),
        tuple(graph.name(node_id) for node_id in unresolved),
        tuple(f"{graph.name(node_id)} ({attribute})" for node_id, attribute in binding.unused),
        tuple(_nearest(graph, missing[:_SHOWN], unresolved, specs)),
        tuple(forgotten_optimizers(graph, binding, live)),
        len(binding.deferred) + len(binding.slots),
        tuple(_untracked(missing, binding, live)),
        tuple(binding.differences),
        *(() if casts is None else (casts.count, casts.largest_error, casts.where)),
    )


def nothing_matched(path: str, graph: ObjectGraph, live: LiveGraph, count: int) -> MismatchError:
    """Return the error of a restore in which none of ``count`` variables got a value (``training.nothing-matched``)."""
    names = top_names(graph)
    own = [name for name, _, _ in live.nodes[0].children if name != SAVE_COUNTER]
    if (
        names == own
    ):  # then what lies below says more: a checkpoint has numbers where the program has text, keys, a state_dict
        names = [
            f"{graph.name(number)} ({attribute.name})"
            for number, node in enumerate(graph.nodes)
            for attribute in node.attributes
        ]
        own = [f"{node.label()} ({leaf.attribute})" for node in variables_of(live) for leaf in node.view.leaves]
    return MismatchError(
        "training.nothing-matched",
        path,
        f"none of the {count} variables of the program is in the checkpoint, so nothing was restored",
        expected=f"objects called {shown(names)}",
        found=f"objects called {shown(own)}",
    )


def top_names(graph: ObjectGraph) -> list[str]:
    """Return what the root of a checkpoint holds, by name."""
    return [child.local_name for child in graph.nodes[0].children if child.local_name != SAVE_COUNTER]


def variables_of(live: LiveGraph, binding: Binding | None = None) -> list[LiveNode]:
    """Return the objects of a program that have values, the save counter not among them.

    Metrics and seeds do not count where the file is one of stock TensorFlow, which never stores them; nor does what lies outside
    of the part that was asked for.
    """
    found = live.holders() if binding is None else live.holders(optional=not binding.is_stock, part=binding.part)
    return [node for node in found if not is_counter(node)]


def _untracked(missing: Sequence[LiveNode], binding: Binding, live: LiveGraph) -> list[str]:
    if not missing or not binding.is_stock or not live.is_mixed:
        return []
    tracked = set(live.stock)
    return [node.label() for node in missing if node not in tracked and node.slot is None]


def is_counter(node: LiveNode) -> bool:
    """Return whether this is the save counter, which every Checkpoint has and nobody counts."""
    return node.parent is not None and node.parent[1] == SAVE_COUNTER and node.parent[0].number == 0


def unresolved_ids(graph: ObjectGraph, binding: Binding) -> list[int]:
    """Return the nodes of the file that hold values and were bound to nothing."""
    bound = binding.nodes
    return [
        node_id
        for node_id, node in enumerate(graph.nodes)
        if node.attributes and node_id not in bound and not all(attribute.is_optional for attribute in node.attributes)
    ]


def specs_of_unresolved(
    stored: Mapping[str, TensorSpec], graph: ObjectGraph, binding: Binding
) -> dict[int, TensorSpec]:
    """Return the specs of stored values that were bound to nothing, as far as `make_report` looks at them.

    Args:
        stored: key -> spec, of the whole checkpoint.
        graph: its objects.
        binding: what was matched.
    """
    keys = {
        node_id: graph.nodes[node_id].attributes[0].checkpoint_key
        for node_id in unresolved_ids(graph, binding)[:_CANDIDATES]
    }
    return {node_id: stored[key] for node_id, key in keys.items() if key in stored}


def _parts(variables: Sequence[LiveNode], unbound: Collection[LiveNode]) -> list[Part]:
    counts: dict[str, list[int]] = {}
    for node in variables:
        top = node.slot[0] if node.slot is not None else node
        while top.parent is not None and top.parent[0].parent is not None:
            top = top.parent[0]
        count = counts.setdefault(top.parent[1] if top.parent is not None else "(root)", [0, 0])
        count[0] += node not in unbound
        count[1] += 1
    return [Part(name, bound, total) for name, (bound, total) in counts.items()]


def _nearest(
    graph: ObjectGraph, missing: Sequence[LiveNode], unresolved: Sequence[int], specs: Mapping[int, TensorSpec]
) -> list[Near]:
    """Return for variables without a value the stored one of the same spec, else of the most similar name."""
    found = []
    left = [(node_id, graph.name(node_id), specs[node_id]) for node_id in unresolved if node_id in specs]
    for node in missing:
        own = node.view.leaves[0].spec() if node.view.leaves else None
        same = [item for item in left if own is not None and item[2][:2] == own[:2]]
        label = node.label()
        matcher = difflib.SequenceMatcher(b=label, autojunk=False)
        best, best_ratio = None, 0.0 if same else 0.75  # of another shape only what is nearly called the same
        for item in (same or left)[:_COMPARED]:
            matcher.set_seq1(item[1])
            ratio = matcher.ratio()
            if ratio > best_ratio:
                best, best_ratio = item, ratio
        if best is None:
            continue
        spec = best[2]
        why = "same shape and type" if same else f"but {spec.dtype} {list(spec.shape or ())} in the file"
        found.append(Near(label, best[1], why))
        left.remove(best)
    return found


_OF_OPTIMIZERS = ("_iterations", "iter", "iterations", "_learning_rate", "param_groups")
"""children or attributes that optimizers of TensorFlow, Keras and PyTorch have in a file"""


def forgotten_optimizers(graph: ObjectGraph, binding: Binding, live: LiveGraph) -> list[str]:
    """Say in one line each that an optimizer is in the file or in the program only: the commonest loss of all."""
    said = []
    for node_id, node in enumerate(graph.nodes):
        if node_id not in binding.nodes and (
            node.slot_variables or any(child.local_name in _OF_OPTIMIZERS for child in node.children)
        ):
            said.append(f"the file has an optimizer, {graph.name(node_id)!r}, and the program none in its place")
            break
    bound = {node.identity() for node in binding.nodes.values() if node.view.is_optimizer}
    for optimizer in live.nodes:
        if not optimizer.view.is_optimizer or optimizer.identity() in bound:
            continue
        said.append(f"the program has an optimizer, {optimizer.label()!r}, and the file none in its place")
        break
    return said
