"""JAX: arrays, random keys, and the classes that a program has registered as pytrees (optax, Flax, equinox, its own).

    dict, list, tuple, dataclass    plain Python's adapter, as everywhere
    jax.Array                       a node for each place: an array has a value and no identity
    registered class                its children by their key path; a new object takes its place
    Flax nnx                        see `openckpt.training.adapters.nnx`

A restore puts new arrays into what holds them, up to something that can be changed: a dict, a module, the Checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax

from openckpt.errors import UnsupportedError, Where
from openckpt.training.adapters.jax_values import RefLeaf, array_view, is_array, why_not_stored
from openckpt.training.tracking import Child, View

_REF: Any = getattr(jax, "Ref", ())


class JaxAdapter:
    """See the module."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it is neither JAX's nor registered with it."""
        if is_array(value):
            return array_view(value)
        if isinstance(value, _REF):
            held: Any = value
            why = why_not_stored(held[...])
            return View("jax.Ref", refused=why) if why else View("jax.Ref", leaves=(RefLeaf(held),))
        if "flax.nnx" in sys.modules:
            from openckpt.training.adapters.nnx import nnx_view

            view = nnx_view(value)
            if view is not None:
                return view
        if value is None or isinstance(value, (dict, list, tuple)) or jax.tree_util.all_leaves([value]):
            return None
        return _registered(value)


def _registered(value: Any) -> View:
    from openckpt.training.adapters.plain import as_child, is_code

    found, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)
    items = [item for _, item in found]
    at: dict[str, int] = {}
    for number, (path, item) in enumerate(found):
        name = _name(path[-1])
        if is_code(item):  # equinox keeps activation functions among its leaves
            continue
        if at.setdefault(name, number) != number:
            raise UnsupportedError(
                "training.same-name", Where("", name), f"two children of a {type(value).__name__} have the same name"
            )

    def replace(new: Mapping[str, object]) -> object:
        changed = list(items)
        for name, item in new.items():
            changed[at[name]] = item
        return jax.tree_util.tree_unflatten(structure, changed)

    children: list[Child] = [as_child(name, items[number]) for name, number in at.items()]
    return View(type(value).__name__, children, replace=replace, is_rebuilt=True)


def _name(key: Any) -> str:
    """Return the name of a child: the attribute, the key, the index."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


ADAPTER = JaxAdapter()
