"""Flax nnx: modules, optimizers, metrics and streams of random numbers, whose Variables are restored in place.

    Module, Optimizer, Rngs, List ...    the attributes that nnx calls data; sizes and functions are not state
    Variable                             its value lies directly at it: model/linear/kernel

Shared Variables are one node, as in nnx itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from openckpt.errors import with_article
from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters.jax_values import JaxLeaf
from openckpt.training.tracking import Child, Leaf, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_INTERNAL = ("_pytree__", "_object__")


def nnx_view(value: object) -> View | None:
    """Return the view of an object of nnx, None of any other."""
    if isinstance(value, nnx.Variable):
        return _variable(value)
    if isinstance(value, nnx.Pytree):
        return _object(value)
    return None


def _object(value: Any) -> View:
    from openckpt.training.adapters.plain import as_child

    is_data: Mapping[str, bool] = value._pytree__nodes
    children: list[Child] = [
        as_child(name, held)
        for name, held in vars(value).items()
        if not name.startswith(_INTERNAL)
        and (is_data.get(name, False) if value._pytree__is_pytree else _holds_state(held))
    ]

    def replace(new: Mapping[str, object]) -> object:
        for name, item in new.items():
            setattr(value, name, item)
        return value

    kind = f"nnx {type(value).__name__}"
    return View(kind, children, replace=replace, is_optimizer=isinstance(value, nnx.Optimizer))


def _holds_state(value: object) -> bool:
    """Return whether there is state in an attribute of a class that is no pytree, where nnx does not say."""
    if isinstance(value, (list, tuple, set)):
        return any(map(_holds_state, value))
    if isinstance(value, dict):
        return any(map(_holds_state, value.values()))
    return isinstance(value, (nnx.Variable, nnx.Pytree, jax.Array, np.ndarray))


def _variable(variable: Any) -> View:
    """Return the view of what a Variable holds, with the Variable as the object that keeps it."""
    from openckpt.training.adapters import view_of
    from openckpt.training.adapters.plain import as_child

    held = variable.get_raw_value()
    inner = view_of(as_child("value", held).value)
    kind = type(variable).__name__
    if inner is None:
        return View(
            kind, refused=f"{with_article(kind)} that holds {with_article(type(held).__name__)} cannot be saved"
        )
    replace, absorb = inner.replace, inner.absorb

    def put(new: object) -> object:
        if new is not variable.get_raw_value():  # and not "held": a closure over that would keep the old value alive
            variable.set_raw_value(new)
        return variable

    return View(
        kind,
        inner.children,
        leaves=[_Held(leaf, put) for leaf in inner.leaves],
        replace=None if replace is None else lambda new: put(replace(new)),
        absorb=None if absorb is None else lambda state, arrays: put(absorb(state, arrays)),
        examine=inner.examine,
        refused=inner.refused,
    )


class _Held:
    """The value of a Variable: restored by giving the Variable what would have taken its place."""

    __slots__ = ("_leaf", "_put", "attribute", "copies", "full_name", "is_stable", "is_to_come")

    def __init__(self, leaf: Leaf, put: Any) -> None:
        self._leaf, self._put = leaf, put
        self.attribute = leaf.attribute
        self.full_name = leaf.full_name
        self.copies: bool = getattr(leaf, "copies", False)
        self.is_stable: bool = getattr(leaf, "is_stable", False)
        self.is_to_come: bool = getattr(leaf, "is_to_come", False)

    def spec(self) -> TensorSpec | None:
        return self._leaf.spec()

    def value(self) -> Any:
        return self._leaf.value()

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        return self._leaf.refusal(stored, cast=cast)

    def buffer(self) -> Array | None:
        return self._leaf.buffer()

    def assign(self, value: Array) -> object:
        new = self._leaf.assign(value)
        if isinstance(self._leaf, JaxLeaf):
            self._leaf = JaxLeaf(new)  # lets go of the old array
        return self._put(new)
