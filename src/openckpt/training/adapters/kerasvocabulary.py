"""The vocabulary that a Keras lookup layer has learned by ``adapt``: state that stock TensorFlow keeps in no checkpoint.

`StringLookup`, `IntegerLookup` and the one inside of `TextVectorization` hold it in a table that is not tracked, because their
configs and asset files have it. A restore would leave a layer that was not adapted again without its words.
"""

from __future__ import annotations

import weakref
from typing import Any

from openckpt.training.adapters.states import state_view
from openckpt.training.tracking import View


class Vocabulary:
    """The words of one layer, in order, and their weights where it counts tf-idf."""

    def __init__(self, layer: Any) -> None:
        self._layer = weakref.ref(layer)

    def __openckpt_view__(self) -> View:
        """Return the view: one piece of state."""
        view = state_view("vocabulary", self._state, self._put, self)
        view.is_optional = True
        return view

    def _state(self) -> dict[str, Any]:
        layer: Any = self._layer()
        words = [getattr(word, "item", lambda word=word: word)() for word in layer.get_vocabulary(False)]
        weights = getattr(layer, "idf_weights", None)
        state: dict[str, Any] = {"words": words}
        if weights is not None and words:
            state["weights"] = weights.numpy()[-len(words) :]
        return state

    def _put(self, state: dict[str, Any]) -> None:
        layer: Any = self._layer()
        if state["words"] and state["words"] != self._state()["words"]:
            layer.set_vocabulary(state["words"], state.get("weights"))


_KNOWN: weakref.WeakKeyDictionary[Any, Vocabulary] = weakref.WeakKeyDictionary()


def vocabulary_of(layer: Any) -> Vocabulary:
    """Return the vocabulary of a lookup layer, always the same object."""
    known = _KNOWN.get(layer)
    if known is None:
        known = _KNOWN[layer] = Vocabulary(layer)
    return known
