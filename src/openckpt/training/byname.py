"""Matching by name, for checkpoints without an object graph and for savers: one name per variable, and no structure (formats 6.9, 7.3).

A variable is called what its framework calls it (``dense/kernel``, never ``dense/kernel:0``); one that has no name there, a NumPy
array in a dict, is called by its way from the root, with "/" between or, as in files that PyTorch programs write, with ".".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from openckpt.errors import (
    MismatchError,
    NotFoundError,
    UnsupportedError,
    Where,
    shown,
    warn,
    with_article,
)
from openckpt.formats.objectpaths import split_path
from openckpt.training.adapters.plain import as_child
from openckpt.training.binding import Binding, Bound
from openckpt.training.live import Identity, LiveGraph, LiveNode
from openckpt.training.report import is_counter
from openckpt.training.restoring import Checked, assign_values, check_values, prove_values, replace_objects
from openckpt.training.status import Outcome
from openckpt.training.tracking import VARIABLE_VALUE, Leaf, View

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader


# -- a mapping of variables ----------------------------------------------------------------------------------------------


def live_variables(variables: Mapping[str, object], path: str = "") -> LiveGraph:
    """Return the live side of a mapping from name to variable, array or number.

    Raises:
        UnsupportedError: something in it is no one variable (``training.no-variable``), or cannot be saved at all.
    """

    def replace(new: Mapping[str, object]) -> object:
        assert isinstance(variables, MutableMapping)
        variables.update(new)
        return variables

    children = [as_child(name, value) for name, value in variables.items()]
    live = LiveGraph(
        variables, View("mapping", children, replace=replace if isinstance(variables, MutableMapping) else None)
    )
    for name, node, _ in live.nodes[0].children:
        if node.view.children or [leaf.attribute for leaf in node.view.leaves] != [VARIABLE_VALUE]:
            kind = type(variables[name]).__name__
            raise UnsupportedError(
                "training.no-variable",
                Where(path, name),
                f"{with_article(kind)} is saved by its parts, not under one name",
            )
    return live


def named_leaves(live: LiveGraph) -> dict[str, tuple[LiveNode, Leaf]]:
    """Return the variables of `live_variables` by name."""
    return {name: (node, node.view.leaves[0]) for name, node, _ in live.nodes[0].children}


def keys_by_full_name(stored: CheckpointReader) -> dict[str, str]:
    """Return ``{full name: key}`` of an object-based checkpoint, {} of any other."""
    graph = stored.graph
    if graph is None:
        return {}
    attributes = [attribute for node in graph.nodes for attribute in node.attributes]
    return {attribute.full_name: attribute.checkpoint_key for attribute in attributes if attribute.full_name}


def keys_of_names(stored: CheckpointReader, names: Sequence[str]) -> dict[str, str]:
    """Return under which key each name is stored: the name itself, or what the object graph says of it, with a warning.

    Raises:
        NotFoundError: some are not there; all of them are named (``training.missing-names``).
    """
    keys = {name: name for name in names if name in stored}
    missing = [name for name in names if name not in keys]
    if missing:
        known = keys_by_full_name(stored)
        mapped = {name: known[name] for name in missing if known.get(name, "") in stored}
        missing = [name for name in missing if name not in mapped]
        if mapped and not missing:
            warn(
                f"{stored.prefix}: an object-based checkpoint is restored by the names of its variables, which change with "
                "the code; openckpt.Checkpoint restores it by structure"
            )
        keys |= mapped
    if missing:
        raise NotFoundError(
            "training.missing-names",
            Where(stored.prefix, missing[0]),
            f"{len(missing)} of {len(names)} names are not in the checkpoint: {shown(missing, 8)}; nothing was restored",
        )
    return keys


def restore_bound(stored: CheckpointReader, live: LiveGraph, values: list[Bound], *, cast: bool) -> Checked:
    """Check, prove and assign values; nothing is assigned unless all of them fit and have their checksum. Raises as these do."""
    checked = check_values(stored, Binding(values=values), cast=cast)
    prove_values(stored, checked)
    changed = assign_values(stored, checked)
    live.settle(replace_objects(live, changed))
    return checked


# -- programs and checkpoints without a graph ------------------------------------------------------------------------------


def restore_by_name(
    stored: CheckpointReader, walk: Callable[[], LiveGraph], *, select: str | None, partial: bool, cast: bool
) -> NameBasedStatus:
    """Restore a program from a checkpoint that has no object graph.

    Args:
        stored: opened.
        walk: returns the program as it is now.
        select: only what lies below this way from the root.
        partial: allow that nothing, or not everything, is found.
        cast: restore floats of other widths.

    Raises:
        MismatchError: no name of the program is in the file (``training.nothing-matched``), or values do not fit.
    """
    live = walk()
    values, missing, count = match_names(stored, live, select)
    if count and len(missing) == count and not partial:
        raise MismatchError(
            "training.nothing-matched",
            stored.prefix,
            f"this checkpoint has names and no object graph, and none of the program's {count} names, so nothing was restored",
            expected=f"names such as {shown(missing)}",
            found=shown(list(stored.specs)),
        )
    restored = {node.identity() for node in restore_bound(stored, live, values, cast=cast).nodes()}
    part = split_path(select) if select else ()
    status = NameBasedStatus(stored.prefix, sorted(missing), walk, restored, live.keep(), count, part)
    if missing and not partial:
        status.warn_unless_expected(str(status))
    return status


def match_names(
    stored: CheckpointReader, live: LiveGraph, select: str | None = None
) -> tuple[list[Bound], list[str], int]:
    """Return the values of a checkpoint that has no object graph which the program takes, the names that it lacks, and how many
    variables the program has; the save counter counts for nothing.

    Raises:
        NotFoundError: the program has no part ``select`` (``training.no-such-part``).
    """
    part = split_path(select) if select else []
    if live.below(part) is None:
        raise NotFoundError(
            "training.no-such-part", Where(stored.prefix, select), f"the program has no part {select!r}"
        )
    found: list[Bound] = []
    missing = []
    count = 0
    for node in live.holders(part=part):
        name, leaf = _name(node, stored), node.leaf(VARIABLE_VALUE)
        has_value = leaf is not None and name in stored
        if leaf is not None and has_value:
            found.append(Bound(name, node, leaf, 0))
        if not is_counter(node):
            count += 1
            missing += [] if has_value else [name]
    return found, missing, count


def _name(node: LiveNode, stored: Container[str]) -> str:
    """Return what a variable is called, in the spelling of the file where that has it."""
    leaf = node.leaf(VARIABLE_VALUE)
    path = node.path()
    if (leaf is not None and leaf.full_name) or not path:
        return (leaf.full_name if leaf is not None else "") or node.label()
    dotted = ".".join(path)
    return dotted if dotted in stored else "/".join(path)


class NameBasedStatus(Outcome):
    """The outcome of a restore by name, TensorFlow's ``NameBasedSaverStatus`` (formats 6.9).

    Every ``assert_*`` returns the status itself or raises `NotMatchedError`. Stored tensors that nobody asked for are not noticed.
    """

    def __init__(
        self,
        path: str,
        missing: Sequence[str],
        walk: Callable[[], LiveGraph],
        restored: set[Identity],
        keep: list[object],
        wanted: int,
        part: Sequence[str] = (),
    ) -> None:
        super().__init__(path)
        self.missing = tuple(missing)
        """names of variables of the program that the checkpoint does not have"""
        self._walk, self._restored, self._keep = walk, restored, keep
        self._wanted, self._part = wanted, part

    def __str__(self) -> str:
        text = f"{self.path}: bound {self._wanted - len(self.missing)} of {self._wanted} variables by their names"
        return f"{text}; not in the file: {shown(self.missing, 8)}" if self.missing else text

    def assert_consumed(self) -> NameBasedStatus:
        """Raise unless every variable of the program, those made since too, has got its value."""
        if self.missing:
            raise self._failure(f"names that the checkpoint does not have: {shown(self.missing, 8)}")
        live = self._walk()
        late = [
            n.label() for n in live.holders(part=self._part) if not is_counter(n) and n.identity() not in self._restored
        ]
        live.release()
        if late:
            raise self._failure(f"objects of the program that got no value: {shown(late, 8)}")
        return self

    def assert_existing_objects_matched(self) -> NameBasedStatus:
        """As `assert_consumed`."""
        return self.assert_consumed()

    def assert_nontrivial_match(self) -> NameBasedStatus:
        """As `assert_consumed`."""
        return self.assert_consumed()
