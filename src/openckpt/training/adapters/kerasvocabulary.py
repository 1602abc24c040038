"""What a Keras layer has learned by ``adapt`` and keeps in no variable: state that stock TensorFlow keeps in no checkpoint.

    vocabulary        of `StringLookup`, `IntegerLookup` and the one inside of `TextVectorization`, which hold it in a table
    bin_boundaries    of `Discretization`, where it was given a number of bins

None of it is tracked, because Keras has it in configs and asset files. A restore would leave a layer that was not adapted again
without its words.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import Any

from openckpt.training.adapters.states import state_view
from openckpt.training.tracking import View


class _Learned(ABC):
    """What one layer has learned: one piece of state."""

    kind: str

    def __init__(self, layer: Any) -> None:
        self._layer = weakref.ref(layer)

    def __openckpt_view__(self) -> View:
        """Return the view."""
        view = state_view(self.kind, self._state, self._put, self)
        view.is_optional = True
        return view

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _put(self, state: dict[str, Any]) -> None: ...


class Vocabulary(_Learned):
    """The words of one layer, in order, and their weights where it counts tf-idf."""

    kind = "vocabulary"

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


class Boundaries(_Learned):
    """The numbers between the bins of one layer, in order; none before it is adapted."""

    kind = "bin boundaries"

    def _state(self) -> dict[str, Any]:
        layer: Any = self._layer()
        return {"boundaries": [float(one) for one in layer.bin_boundaries or ()]}

    def _put(self, state: dict[str, Any]) -> None:
        layer: Any = self._layer()
        if state["boundaries"]:
            layer.bin_boundaries = state["boundaries"]


_KNOWN: weakref.WeakKeyDictionary[Any, Vocabulary | Boundaries] = weakref.WeakKeyDictionary()


def learned_by(layer: Any) -> tuple[str, Vocabulary | Boundaries] | None:
    """Return the name and the state of what a layer learns, always the same object; None where there is nothing."""
    if hasattr(layer, "lookup_table") and callable(getattr(layer, "set_vocabulary", None)):
        return "vocabulary", _KNOWN.get(layer) or _KNOWN.setdefault(layer, Vocabulary(layer))
    if hasattr(layer, "bin_boundaries") and getattr(layer, "num_bins", None) is not None:
        return "bin_boundaries", _KNOWN.get(layer) or _KNOWN.setdefault(layer, Boundaries(layer))
    return None
