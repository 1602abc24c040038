"""The save counter: how many times a `Checkpoint` was saved, a variable of the program like any other (formats 6.3, 6.7).

It is the int64 variable ``save_counter`` below the root, made when it is first needed. A root that has a child of that name
itself counts with that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters import view_of
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import VARIABLE_VALUE, Leaf, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

SAVE_COUNTER = "save_counter"
_INT64 = TensorSpec("int64", (), 8)


class Counting(Protocol):
    """Something that counts saves."""

    number: int


class Counter:
    """A counter of openckpt's own."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __openckpt_view__(self) -> View:
        """Return the view: one value."""
        return View("save counter", leaves=(_CounterLeaf(self),), family="container")


class _CounterLeaf:
    """The value of a `Counter`."""

    __slots__ = ("_counter",)

    attribute = VARIABLE_VALUE
    full_name = SAVE_COUNTER

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def spec(self) -> TensorSpec | None:
        return _INT64

    def value(self) -> Any:
        return self._counter.number

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        return refusal_of(_INT64, stored, cast=cast)

    def buffer(self) -> Array | None:
        return None

    def assign(self, value: Array) -> object:
        self._counter.number = int(value)
        return self._counter


class RootCounter:
    """The child ``save_counter`` that a root has of its own, in whatever framework."""

    def __init__(self, root: View, value: object, leaf: Leaf) -> None:
        import numpy as np

        self._root, self._value, self._leaf = root, value, leaf
        self._number = int(np.asarray(leaf.value()).item())

    @property
    def number(self) -> int:
        """The count."""
        return self._number

    @number.setter
    def number(self, number: int) -> None:
        import numpy as np

        self._number = number
        spec = self._leaf.spec() or _INT64
        new = self._leaf.assign(np.asarray(number, spec.numpy_dtype))
        if new is not self._value and self._root.replace is not None:
            self._root.replace({SAVE_COUNTER: new})


def find_root_counter(root: View) -> RootCounter | None:
    """Return the counter that a root has of its own, None where it has none."""
    value = next((child.value for child in root.children if child.name == SAVE_COUNTER), None)
    view = None if value is None else view_of(value)
    if view is None or len(view.leaves) != 1 or view.leaves[0].attribute != VARIABLE_VALUE:
        return None
    return RootCounter(root, value, view.leaves[0])
