"""The one-call form: `restore` a checkpoint, or a part of one, into values like those that the program has."""

from __future__ import annotations

import os
from functools import partial as partial_of
from typing import TypeVar

from openckpt.errors import MismatchError, UnsupportedError, Where, shown, warn, with_article
from openckpt.training.adapters import view_of
from openckpt.training.adapters.plain import as_child
from openckpt.training.growing import bound_grown
from openckpt.training.live import LiveGraph
from openckpt.training.report import top_names, variables_of
from openckpt.training.restoring import assign_values, check_values, prove_values, replace_objects
from openckpt.training.selecting import select_part
from openckpt.training.stored import graph_of

Tree = TypeVar("Tree")


def restore(
    path: str | os.PathLike[str], like: Tree, *, select: str | None = None, cast: bool = False, partial: bool = False
) -> Tree:
    """Return what a checkpoint holds in the place of ``like``: the same structure, with the stored values.

        state = openckpt.restore("run/ckpt-7", like={"state": state})["state"]
        params = openckpt.restore("run/", like=jax.eval_shape(init, key), select="state/params")

    What can be changed in place - modules, NumPy arrays, torch tensors - is, and is itself in the result; what cannot -
    JAX arrays, numbers, tuples - is new there. Everything is checked before anything is assigned.

    Args:
        path: whatever `openckpt.open` takes, of a checkpoint that `Checkpoint` or TensorFlow wrote.
        like: any tree of dicts, lists, tuples, dataclasses, modules and arrays; abstract ones too (`jax.ShapeDtypeStruct`,
            meta tensors).
        select: names from the root of the checkpoint to the part that ``like`` stands for, with "/" between; its root where
            not given.
        cast: restore floats of other widths; a `CheckpointWarning` says the largest error where something was lost.
        partial: leave as it is what the checkpoint does not have; without it, that is an error.

    Raises:
        MismatchError: values are missing (``training.incomplete``) or do not fit (``training.mismatch``); nothing was
            restored.
        NotFoundError: no such part (``training.no-such-part``).
        PathNotFoundError, FormatError, OSError: as `openckpt.open`.
    """
    from openckpt.opening import open

    root = as_child("", like).value
    walk = partial_of(walk_tree, root)
    tree = walk()
    with open(path) as stored:
        graph = graph_of(stored)
        part = select_part(graph, select, stored.prefix) if select else None
        with bound_grown(graph if part is None else part.graph, tree, walk) as (live, binding):
            if part is not None:
                live.resolve = partial_of(part.resolve, binding)
            checked = check_values(stored, binding, cast=cast)
            variables = variables_of(live)
            if checked.torn and not partial:
                raise MismatchError("training.torn", stored.prefix, f"nothing was restored: {shown(checked.torn, 4)}")
            without = [node.label() for node in variables if node not in checked.nodes()]
            if without and not partial:
                is_astray = part is None and len(without) == len(variables)
                hint = f"; its root holds {shown(top_names(graph), 4)}" if is_astray else ""
                raise MismatchError(
                    "training.incomplete",
                    stored.prefix,
                    f"{len(without)} of {len(variables)} values of the program are not in the checkpoint, so nothing was "
                    f"restored: {shown(without, 4)}{hint}",
                )
            prove_values(stored, checked)
            changed = assign_values(stored, checked)
        replaced = replace_objects(live, changed)
    if checked.casts is not None and checked.casts.where:
        warn(f"{stored.prefix}: {checked.casts}")
    top = live.nodes[0]
    return replaced.get(top, like)  # type: ignore[return-value]


def walk_tree(root: object) -> LiveGraph:
    """Return the objects below a root that is no `Checkpoint`; raises UnsupportedError where it is nothing that could be saved."""
    view = view_of(root)
    if view is None or view.refused:
        why = "" if view is None else view.refused
        raise UnsupportedError(
            "training.not-trackable",
            Where("", "(root)"),
            why or f"{with_article(type(root).__name__)} holds nothing to restore",
        )
    return LiveGraph(root, view)
