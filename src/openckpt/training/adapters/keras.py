"""Keras 3 on every backend: models, layers, optimizers, metrics, losses with state, seed generators, variables.

On the TensorFlow backend stock TensorFlow tracks some attributes of such objects, and silently not others (formats 6.5). What it
would track is derived here from an object's own attributes, by `RULES`, so that a program on any backend has the same graph,
and every other piece of state is an edge that stock TensorFlow does not know.

    attribute of                 a layer, a model        an optimizer      a metric, a loss, a seed generator
    variable, layer, optimizer   tracked                 tracked           not: TensorFlow tracks no such object
    list, dict                   only of the exact type  tracked           not
    tuple                        tracked                 tracked           not

A layer's lists and dicts are of Keras's own types, and so not tracked, unless they were assigned while Keras's tracking is
off, as all those of a functional model are. An optimizer wraps its lists for TensorFlow before it wraps them for Keras.

Edges come in the order of the attributes. On the torch backend layers are kept apart from other attributes, and the order in
between is lost: there they come where ``compile`` put the optimizer.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from openckpt.errors import CheckpointWarning
from openckpt.training.adapters.kerascallback import callback_view
from openckpt.training.adapters.kerasvariable import VariableLeaf, mark, settle_after
from openckpt.training.adapters.kerasvocabulary import learned_by
from openckpt.training.adapters.plain import names_of_keys
from openckpt.training.tracking import Bare, Child, Family, View
from openckpt.training.wrapping import call_after

CHECKED = ("3.15",)
"""the Keras versions whose tracking `RULES` was compared with, object by object (tests/interop/test_keras_tracking.py)"""

Kind = Literal["variable", "layer", "optimizer", "metric", "loss", "seed generator"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the objects of one kind are tracked.

    Attributes:
        classes: public names of the base classes, below ``keras``.
        family: ``"tensorflow"`` where stock TensorFlow tracks such objects, on its backend.
        any_list: it tracks Keras's lists and dicts too, not only those of the exact type.
        hidden: attributes that are no edges: Keras's own lists of what other attributes hold.
        stores: of those, the ones whose members are nevertheless state, where no attribute holds them.
        optional: programs do without such state.
        int64: integer variables that are int64 on the TensorFlow backend and int32 on others.
    """

    classes: tuple[str, ...]
    family: Family
    any_list: bool = False
    hidden: frozenset[str] = frozenset()
    stores: tuple[str, ...] = ()
    optional: bool = False
    int64: frozenset[str] = frozenset()


_LAYER_STORES = ("_layers", "_trainable_variables", "_non_trainable_variables", "_metrics", "_seed_generators")
RULES: dict[Kind, Rule] = {
    "variable": Rule(("Variable",), "tensorflow"),
    "layer": Rule(
        ("Layer",),
        "tensorflow",
        hidden=frozenset((*_LAYER_STORES, "_operations_by_depth", "_nodes_by_depth", "_compiled_trainable_state")),
        stores=_LAYER_STORES,
        int64=frozenset(("count",)),  # Normalization
    ),
    "optimizer": Rule(
        ("optimizers.Optimizer",),
        "tensorflow",
        any_list=True,
        hidden=frozenset(("_trainable_variables_indices",)),
        int64=frozenset(("_iterations", "step_counter")),
    ),
    "metric": Rule(
        ("metrics.Metric",),
        "other",
        hidden=frozenset(("_variables", "_metrics")),
        stores=("_variables", "_metrics"),
        optional=True,
    ),
    "loss": Rule(("losses.Loss",), "other", hidden=frozenset(("_metrics",)), stores=("_metrics",), optional=True),
    "seed generator": Rule(("random.SeedGenerator",), "other", optional=True),
}
"""The rule. A loss is an object of the graph only where it has metrics: that of a compiled model."""

_OWN_NAMES = ("_tracker", "_tracked", "_modules")
_TENSORFLOWS = "_self_"  # what TensorFlow keeps of its own tracking, under names that begin so

_CONTAINERS = (list, tuple, dict)
_KINDS: dict[type, Kind | None] = {}
_DULL: set[type] = (
    set()
)  # types of values that hold no state: most attributes of a layer are numbers, text and functions
_OF_TENSORFLOW: dict[type, bool] = {}
_said: set[str] = set()


class KerasAdapter:
    """See the module."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it is not Keras 3's."""
        kind = kind_of(value)
        if kind is None:
            return _collection(value) or callback_view(value)
        _say_unknown_version()
        if kind == "variable":
            return View("Keras variable", leaves=(VariableLeaf(value),), family="tensorflow")
        _sync(value)
        rule = RULES[kind]
        return View(
            f"Keras {kind}",
            list(_children(value, rule)),
            waits=_waiter(value),
            is_optimizer=kind == "optimizer",
            is_optional=rule.optional,
            family=rule.family,
        )


def kind_of(value: object) -> Kind | None:
    """Return what an object is to Keras 3, None where it is nothing that has state."""
    cls = type(value)
    try:
        return _KINDS[cls]
    except KeyError:
        kind: Kind | None = None
        if any(base.__module__.partition(".")[0] == "keras" for base in cls.__mro__):
            kind = next((name for name, rule in RULES.items() if isinstance(value, _classes(rule))), None)
        _KINDS[cls] = kind
        return kind


def _classes(rule: Rule) -> tuple[type, ...]:
    found = []
    for name in rule.classes:
        part: Any = sys.modules["keras"]
        for word in name.split("."):
            part = getattr(part, word)
        found.append(part)
    return tuple(found)


def _say_unknown_version() -> None:
    version = str(getattr(sys.modules["keras"], "__version__", "?"))
    if version in _said:
        return
    _said.add(version)
    if not any(re.match(rf"{re.escape(known)}(\.|$)", version) for known in CHECKED):
        warnings.warn(
            f"openckpt knows what TensorFlow tracks of Keras {', '.join(CHECKED)}, and this is Keras {version}: openckpt restores "
            "what it saves, but try whether stock TensorFlow does too before you rely on it",
            CheckpointWarning,
            stacklevel=2,
        )


# -- edges --------------------------------------------------------------------------------------------------------------


def _children(owner: Any, rule: Rule) -> Iterator[Child]:
    reached: set[int] = set()
    for name, value in _attributes(owner, rule):
        kind = kind_of(value)
        if kind is None:
            if isinstance(value, _CONTAINERS) and not value:
                continue  # most of them are empty
            held = _held(value, exact=not rule.any_list, reached=reached)
            if held is not None:
                yield Child(name, held, held.is_tracked and rule.family == "tensorflow")
            elif _is_tensorflows(value):
                yield Child(name, value)
            elif hasattr(type(value), "named_buffers"):
                buffers = _buffers_of(value)
                if buffers:
                    yield Child(name, buffers, False)
            elif not isinstance(value, _CONTAINERS) and not _is_of_tensorflow(type(value)):
                _DULL.add(type(value))
        elif kind != "loss" or hasattr(value, "_tracker"):
            reached.add(id(value))
            if name in rule.int64:
                mark(value, "int64")
            elif kind == "variable" and RULES["seed generator"] is rule:
                mark(value, "seed")
            if kind == "variable" and callable(getattr(owner, "finalize_state", None)):
                settle_after(value, owner)
            yield Child(name, value, rule.family == "tensorflow")
    learned = learned_by(owner)
    if learned is not None:
        yield Child(*learned, stock=False)
    for store in rule.stores:
        left = [item for item in vars(owner).get(store, ()) if id(item) not in reached and not _is_input(item)]
        if left:
            yield Child(store, Held(left, is_tracked=False), False)


def _attributes(owner: Any, rule: Rule) -> Iterator[tuple[str, object]]:
    own = vars(owner)
    modules: dict[str, object] = own.get("_modules") or {}  # where torch keeps layers
    dull, hidden = _DULL, rule.hidden
    for name, value in own.items():
        if modules and name == "optimizer":
            yield from modules.items()
            modules = {}
        if (
            type(value) not in dull
            and name not in hidden
            and name not in _OWN_NAMES
            and not name.startswith(_TENSORFLOWS)
        ):
            yield name, value
    yield from modules.items()


def _is_input(value: object) -> bool:
    """Whether this is the input layer, which a Sequential model has only when it is built: it would shift the others' numbers."""
    return type(value).__name__ == "InputLayer"


class Held(Bare):
    """A container in an attribute, of which only what holds Keras's state belongs to the program."""

    def __init__(self, value: Any, *, is_tracked: bool, exact: bool = True) -> None:
        super().__init__(value)
        self.is_tracked = is_tracked
        self._exact = exact

    def __openckpt_view__(self) -> View:
        """Return the view: a child for each member that holds state."""
        children = []
        for name, item in _members(self.value):
            if kind_of(item) is not None or _is_tensorflows(item):
                children.append(Child(name, item, self.is_tracked))
            else:
                held = _held(item, exact=self._exact)
                if held is not None:
                    children.append(Child(name, held, self.is_tracked and held.is_tracked))
        return View("list" if isinstance(self.value, (list, tuple)) else "dict", children, family="container")


def _held(value: object, *, exact: bool, reached: set[int] | None = None) -> Held | None:
    """Return a container as a part of the program, None where it holds no state."""
    if not isinstance(value, _CONTAINERS) or not _holds_state(value, set() if reached is None else reached):
        return None
    is_plain = isinstance(value, tuple) or type(value) in (list, dict, OrderedDict) or _is_wrapper(value)
    return Held(value, is_tracked=is_plain or not exact, exact=exact)


def _members(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((name, value[key]) for name, key in names_of_keys(value).items())
        return
    fields: tuple[str, ...] = getattr(type(value), "_fields", ())
    yield from zip(fields, value, strict=False)
    yield from ((str(number), item) for number, item in enumerate(value))


def _holds_state(value: Any, reached: set[int]) -> bool:
    found = False
    for item in value.values() if isinstance(value, dict) else value:
        if kind_of(item) is not None:
            reached.add(id(item))
            found = True
        elif isinstance(item, _CONTAINERS):
            found = _holds_state(item, reached) or found
        else:
            found = found or _is_tensorflows(item)
    return found


def _is_wrapper(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "tensorflow"


def _is_tensorflows(value: object) -> bool:
    """Whether TensorFlow tracks this object as one of its own: a variable, a module, a lookup table; not a function."""
    if not _is_of_tensorflow(type(value)):
        return False
    if isinstance(value, _CONTAINERS):
        return False
    from openckpt.training.adapters import view_of

    view = view_of(value)
    return view is not None and bool(view.children or view.leaves)


def _is_of_tensorflow(cls: type) -> bool:
    known = _OF_TENSORFLOW.get(cls)
    if known is None:
        known = _OF_TENSORFLOW[cls] = any(base.__module__.partition(".")[0] == "tensorflow" for base in cls.__mro__)
    return known


def _buffers_of(module: Any) -> dict[str, object]:
    """Return the buffers of a torch module inside of a layer; its parameters are variables of the layer already."""
    parameters = dict(module.named_parameters())
    state = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if name not in parameters}


def _collection(value: object) -> View | None:
    """Return the view of a Keras list or dict that the program itself names."""
    held = _held(value, exact=True) if type(value).__name__.startswith("Tracked") else None
    if held is None:
        return None
    view = held.__openckpt_view__()
    view.family = "other"  # tf.train.Checkpoint refuses it
    return view


# -- Keras's own ways ---------------------------------------------------------------------------------------------------


def _sync(value: Any) -> None:
    """Give the variables of a model their values, which JAX keeps elsewhere while ``fit`` runs."""
    sync = getattr(value, "jax_state_sync", None)
    if sync is not None and getattr(value, "_jax_state", None):
        sync()


def _waiter(value: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Return the way to hear when an object has got new state: it was built or compiled."""

    def wait(call: Callable[[], None]) -> Callable[[], None]:
        methods = [name for name in ("build", "compile") if callable(getattr(value, name, None))]
        undo = [call_after(value, name, call) for name in methods]

        def stop() -> None:
            for one in undo:
                one()

        return stop

    return wait


ADAPTER = KerasAdapter()
