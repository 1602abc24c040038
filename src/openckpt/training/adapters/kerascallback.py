"""Keras callbacks: what they have counted, not what they were made with or told by ``fit``.

`keras.callbacks.EarlyStopping` turns the sign of its ``min_delta`` once, and would turn a restored one again. Its best weights are None
until there are some, and then a list of arrays: one piece of state, so that a new callback gets them, which has none.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import Any

from openckpt.training.adapters.plain import ADAPTER as PLAIN
from openckpt.training.adapters.states import state_view
from openckpt.training.tracking import Child, View

_TOLD = frozenset(("params", "monitor_op"))
"""attributes that ``fit`` sets"""
_BEST_WEIGHTS = "best_weights"


def callback_view(value: object) -> View | None:
    """Return the view of a callback, None of anything else; of a program's own class all that is not Keras's is counted."""
    keras: Any = sys.modules["keras"]
    if not isinstance(value, keras.callbacks.Callback):
        return None
    view = PLAIN.view(value)
    if view is None or view.absorb is not None:  # with a state_dict of its own
        return view
    given = set(_TOLD)
    for base in type(value).__mro__:
        if base.__module__.partition(".")[0] == "keras":
            given.update(inspect.signature(base).parameters)
    view.children = [
        Child(_BEST_WEIGHTS, _best_weights_of(value)) if child.name == _BEST_WEIGHTS else child
        for child in view.children
        if child.name not in given
    ]
    return view


class _BestWeights:
    """The best weights of one callback."""

    def __init__(self, callback: Any) -> None:
        self._callback = weakref.ref(callback)

    def __openckpt_view__(self) -> View:
        """Return the view: one piece of state."""
        return state_view("best weights", lambda: getattr(self._callback(), _BEST_WEIGHTS), self._put, self)

    def _put(self, weights: object) -> None:
        setattr(self._callback(), _BEST_WEIGHTS, weights)


_KNOWN: weakref.WeakKeyDictionary[Any, _BestWeights] = weakref.WeakKeyDictionary()


def _best_weights_of(callback: Any) -> _BestWeights:
    """Return what stands for the best weights of a callback, always the same object."""
    return _KNOWN.get(callback) or _KNOWN.setdefault(callback, _BestWeights(callback))
