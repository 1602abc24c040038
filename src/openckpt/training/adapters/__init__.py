"""One file per framework, each turning live objects into `openckpt.training.tracking.View`.

A framework's adapter is asked only about objects of a program that has imported it: the class of the object, or one of its
bases, says which. Plain Python comes last, because everything is a Python object. A class of yours can say itself what it holds, by a
method ``__openckpt_view__`` that returns a `View`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from openckpt.training.tracking import Adapter, View

_ADAPTERS = ("tensorflow", "keras", "torch", "jax", "plain")
"""In the order in which they are asked: a Keras 3 variable on the TensorFlow backend is Keras's."""

_ROOTS = {
    "keras": ("keras", "tf_keras"),
    "tensorflow": ("tensorflow", "tf_keras"),
    "torch": ("torch",),
    "jax": ("jax", "jaxlib", "flax", "optax"),
}
"""adapter -> the packages whose classes it knows"""

_BY_TYPE: dict[type, Callable[[object], View | None]] = {}
_LOADED: dict[str, Adapter] = {}


def view_of(value: object) -> View | None:
    """Return what the adapter of an object's framework sees in it, None where nobody can save such a thing."""
    kind = type(value)
    known = _BY_TYPE.get(kind)
    if known is not None:
        return known(value)
    own = getattr(kind, "__openckpt_view__", None)
    if own is not None:
        said: View = own(value)
        return said
    roots = {base.__module__.partition(".")[0] for base in kind.__mro__}
    for name in _candidates(roots):
        adapter = _load(name)
        view = adapter.view(value)
        if view is not None:
            _BY_TYPE[kind] = adapter.view
            return view
    return None


def _candidates(roots: set[str]) -> list[str]:
    return [name for name in _ADAPTERS if _may_know(name, roots)]


def _may_know(name: str, roots: set[str]) -> bool:
    if name in ("plain", "jax"):  # a program may register any class of its own with JAX
        return name == "plain" or "jax" in sys.modules
    return bool(roots & set(_ROOTS[name])) and _is_imported(name)


def _is_imported(name: str) -> bool:
    return any(root in sys.modules for root in _ROOTS[name])


def _load(name: str) -> Adapter:
    if name not in _LOADED:
        module = import_module(f"{__name__}.{name}")
        adapter: Adapter = module.ADAPTER
        _LOADED[name] = adapter
    return _LOADED[name]
