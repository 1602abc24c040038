"""Objects whose state is one piece: generators of random numbers, and what has ``state_dict`` and ``load_state_dict``.

    py_state    the state as JSON            (`openckpt.training.pystate`)
    children    the arrays in it, by their path

The modules `random` and `numpy.random` stand for the generator whose methods their functions are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from openckpt.errors import Where
from openckpt.training.leaves import StateLeaf
from openckpt.training.pystate import decode_state, encode_state
from openckpt.training.tracking import Bare, Child, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array, TensorSpec

_GENERATOR = "random generator"


def stateful_view(value: Any) -> View | None:
    """Return the view of an object whose state is one piece, None of any other."""
    if isinstance(value, (np.random.Generator, np.random.BitGenerator)):
        return _numpy_generator(value)
    if value is random or value is np.random:
        own: Any = random.getstate if value is random else np.random.get_state
        return _generator(own.__self__, value)
    if isinstance(value, (np.random.RandomState, random.Random)):
        return _generator(value, value)
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        return state_view(type(value).__name__, value.state_dict, value.load_state_dict, value)
    return None


def state_view(kind: str, get: Callable[[], Any], put: Callable[[Any], object], value: object) -> View:
    """Return the view of an object whose whole state is one plain Python value with arrays in it.

    Args:
        kind: what to call it in messages.
        get: returns its state.
        put: gives it one.
        value: the object.
    """
    text, arrays = encode_state(get(), Where("", kind))

    def absorb(data: bytes, found: Mapping[str, Array]) -> object:
        put(decode_state(data, found, Where("", kind)))
        return value

    def examine(data: bytes, specs: Mapping[str, TensorSpec]) -> str | None:
        decode_state(data, {name: np.empty(0) for name in specs}, Where("", kind))
        return None

    children = [Child(name, Bare(array)) for name, array in arrays.items()]  # known by place: a load makes new ones
    return View(kind, children, leaves=(StateLeaf(text),), absorb=absorb, examine=examine)


def _generator(source: Any, value: object) -> View:
    if isinstance(source, random.SystemRandom):
        return View(_GENERATOR, refused="a SystemRandom cannot be saved: the system makes its numbers of no state")
    if isinstance(source, random.Random):
        return state_view(_GENERATOR, source.getstate, source.setstate, value)
    return state_view(_GENERATOR, lambda: source.get_state(legacy=False), source.set_state, value)


def _numpy_generator(value: Any) -> View:
    source = getattr(value, "bit_generator", value)

    def put(state: Any) -> None:
        source.state = state

    view = state_view(_GENERATOR, lambda: source.state, put, value)

    def examine(data: bytes, specs: Mapping[str, TensorSpec]) -> str | None:
        stored = decode_state(data, {name: np.empty(0) for name in specs}, Where("", _GENERATOR))
        kind = stored.get("bit_generator") if isinstance(stored, dict) else None
        own = type(source).__name__
        return None if kind == own else f"the state of {kind or 'something else'} in the file, a {own} in the program"

    view.examine = examine
    return view
