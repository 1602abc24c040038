"""Plain Python and NumPy: containers, dataclasses, object attributes, arrays, numbers, text, generators, ``state_dict``.

Names where TensorFlow has no rule: a dict's key as ``str(key)`` in insertion order, a list's and tuple's index, a namedtuple's
fields first and then its indices (formats 6.4), an object's attributes, fields of a dataclass first, without those that begin
with an underscore. Arrays are restored in place; numbers and text are put back into their container.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import logging
import sys
import types
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from openckpt.errors import UnsupportedError, Where
from openckpt.training.adapters.states import stateful_view
from openckpt.training.leaves import ArrayLeaf, NumberLeaf, TextLeaf, VacantLeaf
from openckpt.training.tracking import Bare, Child, Family, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    functools.partial,
    type,
    property,
    np.dtype,
    logging.Logger,
)
_CODE_OF_TORCH = ("device", "dtype", "layout", "memory_format")
_BARE = (bool, int, float, complex, str, bytes, type(None))
_IS_BARE: dict[type, bool] = {}
_IS_CODE: dict[type, bool] = {}


class PlainAdapter:
    """See the module."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it has no state that can be named."""
        if isinstance(value, np.ndarray):
            return _array(value)
        if isinstance(value, Bare):
            return _bare(value)
        if isinstance(value, dict):
            return _dict(value)
        if isinstance(value, list):
            family: Family = "container" if type(value) is list else "other"
            return View("list", _indexed(value), replace=lambda new: _replace_items(value, new), family=family)
        if isinstance(value, tuple):
            return _tuple(value)
        view = stateful_view(value)
        if view is not None:
            return view
        if isinstance(value, enum.Enum):
            return View("enum", refused=f"{value} cannot be saved: no checkpoint holds members of an enumeration")
        return None if is_code(value) else _object(value)


def is_code(value: object) -> bool:
    """Return whether this says what a program is or where it runs, so that its next run has it again: no state of an object."""
    kind = type(value)
    known = _IS_CODE.get(kind)
    if known is None:
        of_torch = kind.__module__ == "torch" and kind.__name__ in _CODE_OF_TORCH
        known = _IS_CODE[kind] = issubclass(kind, _CODE) or of_torch
    return known


def as_child(name: str, value: object) -> Child:
    """Return the edge to a value in a container; numbers, text and None have no identity of their own."""
    kind = type(value)
    bare = _IS_BARE.get(kind)
    if bare is None:
        bare = _IS_BARE[kind] = issubclass(kind, (*_BARE, np.generic, *_jax_arrays()))
    return Child(name, Bare(value) if bare else value)


def _jax_arrays() -> tuple[type, ...]:
    """Return the classes of JAX's values: two places may hold the same one without being one variable."""
    jax: Any = sys.modules.get("jax")
    found = (getattr(jax, name, None) for name in ("Array", "ShapeDtypeStruct"))
    return tuple(kind for kind in found if isinstance(kind, type))


def _array(value: Array) -> View:
    leaf = ArrayLeaf(value)
    if leaf.spec() is None:
        return View("array", refused=f"an array of {value.dtype} cannot be saved: no checkpoint holds such values")
    if type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        return View("array", refused="a masked array cannot be saved: a checkpoint has no place for the mask")
    return View("array", leaves=(leaf,))


def _bare(place: Bare) -> View:
    value = place.value
    if isinstance(value, np.ndarray):
        return _array(value)
    name = type(value).__name__
    if isinstance(value, (str, bytes)):
        return View(name, leaves=(TextLeaf(value),))
    if value is None:
        return View("None", leaves=(TextLeaf(None), VacantLeaf()))
    if isinstance(value, _jax_arrays()):
        from openckpt.training.adapters.jax_values import array_view

        return array_view(value)
    leaf = NumberLeaf(value)
    if leaf.spec() is not None:
        return View(name, leaves=(leaf,))
    why = "an integer of a checkpoint has 64 bits" if isinstance(value, int) else "no checkpoint holds such values"
    return View(name, refused=f"the {name} {value!r} cannot be saved: {why}")


def names_of_keys(keys: Iterable[Any]) -> dict[str, Any]:
    """Return the keys of a dict by their names in a checkpoint.

    Raises:
        UnsupportedError: two of them have the same (``training.same-name``).
    """
    names: dict[str, Any] = {}
    for key in keys:
        other = names.setdefault(str(key), key)
        if other is not key:
            where = Where("", str(key))
            raise UnsupportedError(
                "training.same-name", where, f"the keys {other!r} and {key!r} of a dict have the same name"
            )
    return names


def _dict(value: dict[Any, object]) -> View:
    names = names_of_keys(value)

    def replace(new: Mapping[str, object]) -> object:
        for name, item in new.items():
            value[names[name]] = item
        return value

    family: Family = "container" if type(value) in (dict, OrderedDict) else "other"
    return View("dict", [as_child(name, value[key]) for name, key in names.items()], replace=replace, family=family)


def _indexed(value: list[object] | tuple[object, ...]) -> list[Child]:
    return [as_child(str(number), item) for number, item in enumerate(value)]


def _replace_items(value: list[object], new: Mapping[str, object]) -> object:
    for name, item in new.items():
        value[int(name)] = item
    return value


def _tuple(value: tuple[object, ...]) -> View:
    children = _indexed(value)
    fields: tuple[str, ...] = getattr(type(value), "_fields", ())
    if fields:
        children = [
            Child(name, child.value) for name, child in zip(fields, children, strict=True)
        ] + children  # same nodes

    def replace(new: Mapping[str, object]) -> object:
        at = {**{name: number for number, name in enumerate(fields)}, **{str(n): n for n in range(len(value))}}
        items = list(value)
        for name, item in new.items():
            items[at[name]] = item
        make: Any = type(value)
        return make(*items) if fields else make(items)

    kind = "namedtuple" if fields else "tuple"
    return View(kind, children, replace=replace, is_rebuilt=True, family="container")


def _object(value: object) -> View | None:
    """Return the view of an object with attributes, None of one that has none and no place for any."""
    kind = type(value)
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    slots = [name for base in reversed(kind.__mro__) for name in _slots_of(base)]
    names = dict.fromkeys((*fields, *slots, *getattr(value, "__dict__", ())))
    held = {name: getattr(value, name) for name in names if not name.startswith("_") and hasattr(value, name)}
    held = {name: item for name, item in held.items() if not is_code(item)}
    if not held and not hasattr(value, "__dict__"):
        return None
    hidden = _hidden_state(value)
    if hidden:
        return View(kind.__name__, refused=f"a {kind.__name__} cannot be saved: {hidden}")

    def replace(new: Mapping[str, object]) -> object:
        try:
            for name, item in new.items():
                setattr(value, name, item)
        except (AttributeError, TypeError):  # so says a frozen dataclass, and what imitates it
            return _changed(value, new)
        return value

    return View(
        "dataclass" if fields else kind.__name__,
        [as_child(name, item) for name, item in held.items()],
        replace=replace,
        is_rebuilt=kind.__setattr__ is not object.__setattr__,
    )


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _hidden_state(value: object) -> str:
    """Return what of an object's state is not in its attributes, in words; "" of nearly all."""
    kind = type(value)
    if hasattr(kind, "__array__"):
        return "it is like an array and none that is known; save its to_numpy(), or what numpy.asarray makes of it"
    if isinstance(value, types.SimpleNamespace) or callable(value):
        return ""
    for base in kind.__mro__[:-1]:
        if isinstance(vars(base).get("__new__"), types.BuiltinFunctionType):
            return f"what a {base.__name__} holds is not in its attributes"
    return ""


def _changed(value: object, new: Mapping[str, object]) -> object:
    """Return a copy of an object that lets nobody set its attributes, with other ones."""
    other = copy.copy(value)
    for name, item in new.items():
        object.__setattr__(other, name, item)
    return other


ADAPTER = PlainAdapter()
