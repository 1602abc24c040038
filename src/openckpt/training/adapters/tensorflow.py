"""TensorFlow's own objects and tf_keras's: what stock TensorFlow tracks of them, asked of themselves.

Variables, `tf.Module` and everything else with automatic tracking, its wrapped lists, dicts and tuples, lookup tables, dataset
iterators, random generators, `tf.train.experimental.PythonState`, tf_keras layers, models and optimizers, the old ones with
slots. Objects whose state only TensorFlow can read are refused by name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openckpt.formats.dtypes import BY_NAME, DType
from openckpt.formats.objectpaths import escape_name
from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters.tensorflow_values import read_variable, write_variable
from openckpt.training.adapters.tensorflow_variants import tensor_of, variants_of
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import PY_STATE, VARIABLE_VALUE, Child, Leaf, View
from openckpt.training.wrapping import call_after

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


_OPTIMIZERS = "tf_keras.src.optimizers.optimizer"
_IN_SESSION = (
    "a variable of a graph cannot be saved: its value is in a session, and tf.compat.v1.train.Saver takes it from there"
)


_VARIABLES: set[type] = set()
_KNOWN: dict[Any, DType | None] = {}


class TensorFlowAdapter:
    """See the module."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it is not TensorFlow's, or Keras 3's on its backend."""
        if type(value) in _VARIABLES:
            return _variable(value)
        tensorflow: Any = sys.modules.get("tensorflow")
        tracking = getattr(getattr(tensorflow, "__internal__", None), "tracking", None)
        if tracking is None or not isinstance(value, tracking.Trackable) or _is_keras_3(value):
            return None
        if isinstance(value, tensorflow.Variable):
            _VARIABLES.add(type(value))  # to ask TensorFlow takes as long as all the rest
            return _variable(value)
        return _trackable(tensorflow, value)


def _variable(value: Any) -> View:
    is_of_graph = getattr(value, "_in_graph_mode", type(value).__name__ == "RefVariable")
    refused = _IN_SESSION if is_of_graph else ""
    return View("TensorFlow variable", leaves=(VariableLeaf(value),), refused=refused, family="tensorflow")


def _is_keras_3(value: object) -> bool:
    keras = sys.modules.get("keras")
    if keras is None:
        return False
    from openckpt.training.adapters.keras import kind_of

    return kind_of(value) is not None


def _trackable(tensorflow: Any, value: Any) -> View:
    name = type(value).__name__
    value = _wrapped_by(value)
    try:
        children = _children_of(tensorflow, value)
    except ValueError as error:  # a list that was changed behind TensorFlow's back (formats 6.4)
        return View(name, refused=str(error).strip().partition("\n")[0])
    leaves, refused = _leaves(tensorflow, value)
    return View(
        f"TensorFlow {name}",
        [Child(edge, child) for edge, child in children.items()],
        leaves=leaves,
        slots=_slots(value),
        waits=_waiter(value),
        is_optimizer=callable(getattr(value, "apply_gradients", None)),
        refused=refused,
        family="tensorflow",
    )


def _wrapped_by(value: Any) -> Any:
    """Return what an object is to a checkpoint: an optimizer with loss scaling, of Keras 2, is the one that it wraps."""
    while any(base.__name__ == "DelegatingTrackableMixin" for base in type(value).__mro__):
        value = value._trackable
    return value


def _children_of(tensorflow: Any, value: Any) -> Mapping[str, Any]:
    """Return what an object tracks, by name.

    An optimizer of Keras 2 gives for ever the answer that it gave first, before it was built maybe. It is asked in a way that it
    does not notice, unless its variables are shards, which only that answer puts together.
    """
    if type(value)._trackable_children.__module__ == _OPTIMIZERS:
        automatic = tensorflow.__internal__.tracking.AutoTrackable
        if isinstance(value, automatic) and not any(hasattr(one, "_sharded_container") for one in value.variables):
            found: Mapping[str, Any] = automatic._trackable_children(value, save_type="checkpoint")
            return found
    children: Mapping[str, Any] = value._trackable_children(save_type="checkpoint")
    return children


def _leaves(tensorflow: Any, value: Any) -> tuple[Sequence[Leaf], str]:
    """Return the values that the object itself holds, or why they cannot be had."""
    if isinstance(value, tensorflow.train.experimental.PythonState):
        return (PythonStateLeaf(value),), ""
    kinds = [base for base in type(value).__mro__ if base.__name__ != "Trackable"]
    if any("_serialize_to_tensors" in vars(base) for base in kinds):
        state = _State(value)
        return [TensorLeaf(state, name) for name in state.names], state.refused
    if value._gather_saveables_for_checkpoint() or _has_saver(value):
        return (), f"the state of a {type(value).__name__} is in a form that only TensorFlow can read; leave it out"
    return (), ""


def _has_saver(value: object) -> bool:
    """Whether the program has registered a saver of its own for such objects (formats 6.10)."""
    registration: Any = sys.modules.get("tensorflow.python.saved_model.registration")
    return registration is not None and registration.get_registered_saver_name(value) is not None


def _waiter(value: Any) -> Callable[[Callable[[], None]], Callable[[], None]] | None:
    """Return the way to hear that an object tracks something new, or was built or compiled."""
    if isinstance(value, dict):
        return None  # a proxy of the program's own dict
    methods = [name for name in ("_track_trackable", "build", "compile") if callable(getattr(value, name, None))]

    def wait(call: Callable[[], None]) -> Callable[[], None]:
        undo = [call_after(value, name, call) for name in methods]

        def stop() -> None:
            for one in undo:
                one()

        return stop

    return wait if methods else None


# -- values -------------------------------------------------------------------------------------------------------------


class VariableLeaf:
    """The value of a `tf.Variable`."""

    __slots__ = ("_spec", "_variable")

    attribute = VARIABLE_VALUE
    is_stable = True

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self._spec: TensorSpec | None = None

    @property
    def full_name(self) -> str:
        """The name that a `tf.compat.v1.train.Saver` knows the variable by."""
        part = getattr(self._variable, "_save_slice_info", None)
        return str(self._variable._shared_name if part is None else part.full_name)

    def spec(self) -> TensorSpec | None:
        """Return dtype and shape of what is stored."""
        if self._spec is None:
            self._spec = _spec_of(self._dtype, self._variable.shape)
        return self._spec

    @property
    def _dtype(self) -> Any:
        """Its own, also where Keras 2 says another one inside of a layer with mixed precision."""
        dtype = getattr(self._variable, "true_dtype", None)
        return self._variable.dtype if dtype is None else dtype

    def value(self) -> Any:
        """Return the value on the host, on the CPU without a copy."""
        return read_variable(self._variable)

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit; a variable of unknown shape takes every shape."""
        return refusal_of(self.spec(), stored, cast=cast)

    def buffer(self) -> Array | None:
        """TensorFlow shows nobody a variable's memory."""
        return None

    def assign(self, value: Array) -> object:
        """Set the value, also from within a function that is being traced."""
        variable = self._variable
        dtype = BY_NAME[self._dtype.base_dtype.name]
        write_variable(variable, value.astype(dtype.numpy(), copy=False) if dtype.is_numeric else value)
        return variable


class PythonStateLeaf:
    """The bytes of a `tf.train.experimental.PythonState`."""

    __slots__ = ("_state",)

    attribute = PY_STATE
    full_name = ""

    def __init__(self, state: Any) -> None:
        self._state = state

    def spec(self) -> TensorSpec | None:
        """Return the spec of a scalar string."""
        return TensorSpec("string", (), None)

    def value(self) -> Any:
        """Return what the object says of itself."""
        said = self._state.serialize()
        return said.encode() if isinstance(said, str) else said

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        return refusal_of(self.spec(), stored, cast=cast)

    def buffer(self) -> Array | None:
        """Bytes have no memory to read into."""
        return None

    def assign(self, value: Array) -> object:
        """Give the object its bytes."""
        self._state.deserialize(value.item())
        return self._state


class _State:
    """What an object serializes itself to: tensors by name, put back all together."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.legacy = str(getattr(owner, "_LEGACY_SAVEABLE_NAME", None) or "")
        self._stored: dict[str, Array] = {}
        self.refused = ""
        self.tensors: dict[str, Any] = owner._serialize_to_tensors()
        odd = [name for name, item in self.tensors.items() if not hasattr(item, "numpy")]
        if odd:
            self.refused = (
                f"{odd[0]!r} of a {type(owner).__name__} is a value that only TensorFlow can read; leave it out"
            )
        self.names = [] if odd else list(self.tensors)

    def put(self, name: str, value: Array) -> None:
        """Take one tensor, and with the last one give all of them to the object."""
        self._stored[name] = value
        if len(self._stored) == len(self.names):
            tensorflow: Any = sys.modules["tensorflow"]
            with _outside():
                tensors = {
                    key: tensor_of(item) if _is_variant(self.tensors[key]) else tensorflow.constant(item)
                    for key, item in self._stored.items()
                }
                self.owner._restore_from_tensors(tensors)
            self._stored.clear()


class TensorLeaf:
    """One tensor of an object that serializes itself: a lookup table's keys, its values."""

    __slots__ = ("_name", "_state", "attribute", "suffix")

    full_name = ""

    def __init__(self, state: _State, name: str) -> None:
        self._state, self._name = state, name
        # Objects of old have one attribute, whose key begins those of all their tensors (formats 6.2).
        self.attribute = state.legacy or escape_name(name)
        self.suffix = name if state.legacy else ""

    def spec(self) -> TensorSpec | None:
        """Return dtype and shape of what is stored."""
        return _spec_of(self._tensor.dtype, self._tensor.shape)

    @property
    def _tensor(self) -> Any:
        return self._state.tensors[self._name]

    def value(self) -> Any:
        """Return a copy on the host."""
        return variants_of(self._tensor) if _is_variant(self._tensor) else self._tensor.numpy()

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit; a table takes any number of entries."""
        own = self.spec()
        assert own is not None
        return refusal_of(TensorSpec(own.dtype, None, None), stored, cast=False)

    def buffer(self) -> Array | None:
        """TensorFlow shows nobody its memory."""
        return None

    def assign(self, value: Array) -> object:
        """Put the tensor back."""
        self._state.put(self._name, value)
        return self._state.owner


def _is_variant(tensor: Any) -> bool:
    return bool(tensor.dtype.base_dtype.name == "variant")


def _spec_of(dtype: Any, shape: Any) -> TensorSpec | None:
    try:
        known = _KNOWN[dtype]
    except KeyError:
        known = _KNOWN[dtype] = BY_NAME.get(dtype.base_dtype.name)
    if known is None:
        return None
    try:
        sizes: tuple[int, ...] | None = tuple(shape.as_list())
    except ValueError:  # not even the rank is known
        sizes = None
    if sizes is not None and None in sizes:
        sizes = None
    nbytes: int | None = known.itemsize
    for size in sizes or ():
        nbytes = None if nbytes is None else nbytes * size
    return TensorSpec(known.name, sizes, nbytes if known.is_numeric and sizes is not None else None)


def _outside() -> Any:
    """Out of the function that is being traced: values are assigned now, not when it runs."""
    return sys.modules["tensorflow"].init_scope()


# -- old optimizers -----------------------------------------------------------------------------------------------------


class _Slots:
    """The slots of an optimizer that keeps them per variable."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def names(self) -> Sequence[str]:
        """Return their names."""
        return list(self._optimizer.get_slot_names())

    def get(self, variable: object, name: str) -> object | None:
        """Return the slot of a variable."""
        if not _is_variable(variable):
            return None
        try:
            slot: object | None = self._optimizer.get_slot(variable, name)
        except (KeyError, AttributeError):
            return None
        return slot

    def create(self, variable: object, name: str) -> object | None:
        """Return the slot of a variable, made as the optimizer would at its first step."""
        add = getattr(self._optimizer, "add_slot", None)
        if add is None or not _is_variable(variable):
            return None
        with _outside():
            made: object = add(variable, name)
        return made


def _is_variable(value: object) -> bool:
    return isinstance(value, sys.modules["tensorflow"].Variable)


def _slots(value: Any) -> _Slots | None:
    has = callable(getattr(value, "get_slot_names", None)) and callable(getattr(value, "get_slot", None))
    return _Slots(value) if has else None


ADAPTER = TensorFlowAdapter()
