"""Plain Python and NumPy: containers, dataclasses, object attributes, arrays, numbers, text, generators, ``state_dict``.

Names where TensorFlow has no rule: a dict's key as ``str(key)`` in insertion order, a list's and tuple's index, a namedtuple's
fields first and then its indices (formats 6.4), fields and attributes without a leading underscore. Arrays are restored in
place; numbers and text are put back into their container.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import random
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from openckpt.errors import UnsupportedError, Where
from openckpt.training.leaves import ArrayLeaf, NumberLeaf, StateLeaf, TextLeaf
from openckpt.training.pystate import encode_state
from openckpt.training.tracking import Bare, Child, Family, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array, TensorSpec

CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    functools.partial,
    type,
    property,
)
_BARE = (bool, int, float, complex, str, bytes, type(None))
_IS_BARE: dict[type, bool] = {}


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
        if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random)):
            return _generator(value)
        if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
            return _state_dict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [f.name for f in dataclasses.fields(value) if not f.name.startswith("_") and hasattr(value, f.name)]
            return _attributes(value, "dataclass", names)
        if isinstance(value, enum.Enum):
            return View("enum", refused=f"{value} cannot be saved: no checkpoint holds members of an enumeration")
        if hasattr(value, "__dict__") and not isinstance(value, CODE):
            held = vars(value)
            names = [name for name in held if not name.startswith("_") and not isinstance(held[name], CODE)]
            return _attributes(value, type(value).__name__, names)
        return None


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
    if isinstance(value, np.ma.MaskedArray):
        return View("array", refused="a masked array cannot be saved: a checkpoint has no place for the mask")
    return View("array", leaves=(leaf,))


def _bare(place: Bare) -> View:
    value = place.value
    if isinstance(value, np.ndarray):
        return _array(value)
    name = type(value).__name__
    if isinstance(value, (str, bytes, type(None))):
        return View(name, leaves=(TextLeaf(value),))
    if isinstance(value, _jax_arrays()):
        from openckpt.training.adapters.jax_values import array_view

        return array_view(value)
    leaf = NumberLeaf(value)
    if leaf.spec() is not None:
        return View(name, leaves=(leaf,))
    why = "an integer of a checkpoint has 64 bits" if isinstance(value, int) else "no checkpoint holds such values"
    return View(name, refused=f"the {name} {value!r} cannot be saved: {why}")


def _dict(value: dict[Any, object]) -> View:
    names: dict[str, Any] = {}
    for key in value:
        other = names.setdefault(str(key), key)
        if other is not key:
            where = Where("", str(key))
            raise UnsupportedError(
                "training.same-name", where, f"the keys {other!r} and {key!r} of a dict have the same name"
            )

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


def _attributes(value: object, kind: str, names: list[str]) -> View:
    def replace(new: Mapping[str, object]) -> object:
        try:
            for name, item in new.items():
                setattr(value, name, item)
        except dataclasses.FrozenInstanceError:
            return dataclasses.replace(value, **new)  # type: ignore[type-var]
        return value

    is_frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    return View(
        kind, [as_child(name, getattr(value, name)) for name in names], replace=replace, is_rebuilt=bool(is_frozen)
    )


def _generator(value: Any) -> View:
    if isinstance(value, random.Random):
        return state_view("random generator", value.getstate, value.setstate, value)
    if isinstance(value, np.random.RandomState):
        return state_view("random generator", lambda: value.get_state(legacy=False), value.set_state, value)

    def put(state: Any) -> None:
        value.bit_generator.state = state

    return state_view("random generator", lambda: value.bit_generator.state, put, value)


def _state_dict(value: Any) -> View:
    return state_view(type(value).__name__, value.state_dict, value.load_state_dict, value)


def state_view(kind: str, get: Callable[[], Any], put: Callable[[Any], object], value: object) -> View:
    """Return the view of an object whose whole state is one plain Python value with arrays in it."""
    from openckpt.training.pystate import decode_state

    text, arrays = encode_state(get(), Where("", kind))

    def absorb(data: bytes, found: Mapping[str, Array]) -> object:
        put(decode_state(data, found, Where("", kind)))
        return value

    def examine(data: bytes, specs: Mapping[str, TensorSpec]) -> str | None:
        decode_state(data, {name: np.empty(0) for name in specs}, Where("", kind))
        return None

    children = [Child(name, Bare(array)) for name, array in arrays.items()]  # known by place: a load makes new ones
    return View(kind, children, leaves=(StateLeaf(text),), absorb=absorb, examine=examine)


ADAPTER = PlainAdapter()
