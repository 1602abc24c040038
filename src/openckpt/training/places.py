"""Containers that are values: the pytrees of JAX, of which a program says *where* they are and not which object they are.

    params = init(key)
    state = {"params": params, "average": params}     one dict in two places, and nothing in it will ever change

A step makes new arrays in new dicts, so the two are apart from the first step on: in a checkpoint they are two values, as two
arrays would be, and a restore gives each place its own. What holds a module or a NumPy array is one object wherever it stands.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Mapping

from openckpt.training.adapters import view_of
from openckpt.training.tracking import Bare, View


def is_pytree(value: object, view: View) -> bool:
    """Return whether a container has arrays of JAX in it, and else only numbers, text and containers of such."""
    if "jax" not in sys.modules or not _may_be_pytree(value, view):
        return False
    has_arrays = False
    seen = {id(value)}
    left = [view]
    for view in left:  # grows
        for child in view.children:
            item = child.value
            if item is value:
                return False  # a cycle: no tree
            below = None if id(item) in seen else view_of(item)
            seen.add(id(item))
            if isinstance(item, Bare):
                has_arrays = has_arrays or (below is not None and below.is_value)
            elif below is not None:
                if not _may_be_pytree(item, below):
                    return False
                left.append(below)
    return has_arrays


def _may_be_pytree(value: object, view: View) -> bool:
    return isinstance(value, (dict, list)) or (view.is_rebuilt and not view.leaves)


def apart(value: object, view: View) -> View:
    """Return the view of a container in one more of its places: a restore puts another one there."""
    if view.is_rebuilt:
        return view

    def replace(new: Mapping[str, object]) -> object:
        other = copy.copy(value)
        put = None if (own := view_of(other)) is None else own.replace
        assert put is not None
        return put(new)

    return dataclasses.replace(view, replace=replace, is_rebuilt=True)
