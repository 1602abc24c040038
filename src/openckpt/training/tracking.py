"""What an adapter says of a live object: `View`, made of children, leaves and slots. The one protocol of all frameworks.

    object --view()--> View   children   name -> object      an edge of the object graph (formats 6.3)
                              leaves     the values that the object itself holds: a variable has one
                              slots      an optimizer's state per variable
                              replace    puts new objects in the place of children that cannot be changed

Saving reads leaves; restoring asks every leaf first whether it can take what is stored, and only then assigns. A leaf that is
changed in place returns its own object; one that cannot be (a number, a JAX array) returns a new object, and the parent
replaces it - or, where the parent cannot be changed either, is itself rebuilt, up to something that can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from openckpt.formats.spec import TensorSpec

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

VARIABLE_VALUE = "VARIABLE_VALUE"
"""the attribute under which every variable keeps its value (formats 6.2)"""
PY_STATE = "py_state"
"""the attribute under which Python state is kept, as JSON in a string tensor"""


Family = Literal["tensorflow", "container", "other"]
"""``"tensorflow"``: stock TensorFlow tracks such objects itself (its own, Keras's); ``"container"``: it wraps them (list, dict,
tuple) and tracks what it knows inside; ``"other"``: it knows nothing of them."""


class Leaf(Protocol):
    """One value of a live object. Dtypes are TensorFlow's names, shapes in elements."""

    attribute: str
    """its name in the graph: `VARIABLE_VALUE` or `PY_STATE`

    Four things are said by an attribute, which most leaves do not have: ``in_place = False``, it cannot be changed in place;
    ``is_to_come = True``, it has no memory yet, and a restore makes it; ``copies = True``, it keeps nothing of what it is given
    to `assign`; ``is_stable = True``, what `value` returns is changed by no later update. One that keeps text may have
    ``examine(text, where)``, which is asked before anything is assigned: why the text cannot be taken, or None.
    """

    @property
    def full_name(self) -> str:
        """The variable's name in its framework, for name-based restores; "" where it has none."""
        ...

    def spec(self) -> TensorSpec | None:
        """Return dtype and shape of what would be stored now; None while the variable has no value yet."""
        ...

    def value(self) -> Any:
        """Return what `openckpt.save` stores: an array on the host (maybe the live memory itself), or bytes."""
        ...

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why the stored tensor cannot be put here ("shape (3,) in the file, (4,) in the program"), or None."""
        ...

    def buffer(self) -> Array | None:
        """Return writable, C-contiguous memory of exactly the stored dtype and shape to read into, or None."""
        ...

    def assign(self, value: Array) -> object:
        """Put a value here, which `refusal` allowed; return the object that now holds it (in place: the same object).

        After `buffer` gave memory, ``value`` is that memory, filled.
        """
        ...


class Child(NamedTuple):
    """A named edge to another live object."""

    name: str
    value: object
    stock: bool = True
    """whether stock TensorFlow tracks this edge for such objects, so that it belongs to its object graph"""


@dataclass(slots=True, eq=False)
class Bare:
    """A value without identity in its place of a container: a number, text, None. Every place is a node of its own."""

    value: object


class Places(Protocol):
    """Where the objects of the whole program lie; paths are names from the root, escaped and joined as keys are (formats 6.2)."""

    def path_of(self, value: object) -> str | None:
        """Return the first way to an object; None where the program does not reach it."""
        ...

    def at(self, path: str) -> object | None:
        """Return the object at the end of a way, which may be another one's first way; None where there is none."""
        ...


class Slots(Protocol):
    """An optimizer's state per variable."""

    def names(self) -> Sequence[str]:
        """Return the names of the slots, in the optimizer's order."""
        ...

    def get(self, variable: object, name: str) -> object | None:
        """Return the slot of a variable, None where it has none."""
        ...

    def create(self, variable: object, name: str) -> object | None:
        """Return the slot of a variable, made where that is possible now."""
        ...


@dataclass(slots=True, eq=False)
class View:
    """One live object as its adapter sees it.

    Attributes:
        kind: what to call it in messages: "dict", "Keras layer", "torch module".
        children: its edges, in the order in which the graph lists them.
        leaves: its own values.
        slots: its state per variable, of an optimizer.
        replace: gets ``{name: new object}`` for children that could not be changed in place and returns the object that now
            holds them: itself, or a new one.
        absorb: of objects whose state is one piece (``state_dict``, random generators): gets the decoded `PY_STATE` and the
            arrays of the nodes below by name, all as the file has them, and returns the object that holds the state.
        waits: asks to be told when this object may have got new children, for whose values somebody waits; gets the function to
            call then, and returns the one that ends it. None where the next walk is early enough.
        examine: of the same objects: gets the stored `PY_STATE` before anything is assigned, and the specs of the nodes below by
            name; returns why `absorb` could not take that, or None.
        walked: is called when the whole program has been walked, for state that names other objects by their places.
        refused: why such an object can be neither saved nor restored ("a sparse_coo tensor").
    """

    kind: str
    children: Sequence[Child] = ()
    leaves: Sequence[Leaf] = ()
    slots: Slots | None = None
    replace: Callable[[Mapping[str, object]], object] | None = None
    waits: Callable[[Callable[[], None]], Callable[[], None]] | None = None
    absorb: Callable[[Any, Mapping[str, Array]], object] | None = None
    examine: Callable[[bytes, Mapping[str, TensorSpec]], str | None] | None = None
    walked: Callable[[Places], None] | None = None
    refused: str = ""
    is_value: bool = False
    """whether nothing in it can change: an array of JAX"""
    is_rebuilt: bool = False
    """whether `replace` makes a new object, which then replaces this one in turn"""
    is_optimizer: bool = False
    """people forget to name these"""
    is_optional: bool = False
    """state that programs do without, as metrics and seeds: no loss where a file of stock TensorFlow does not have it"""
    family: Family = "other"
    """how stock TensorFlow would take such an object"""


class Adapter(Protocol):
    """One framework. Found by the module of an object's type, so that no framework is imported to find it."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it is none of this framework's."""
        ...
