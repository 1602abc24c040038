"""JAX arrays and NumPy arrays: copies both ways, because a JAX array never changes.

jax.Array            gathered to the host; a new array takes its place, with its sharding; a donated one is a target still
key array            the data of the keys, and the name of their implementation
ShapeDtypeStruct     a target without values: a restore puts an array there, sharded as it says
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.dtypes import dtype_of_numpy
from openckpt.formats.spec import TensorSpec
from openckpt.training.leaves import StateLeaf, refusal_of
from openckpt.training.pystate import decode_state, encode_state
from openckpt.training.tracking import VARIABLE_VALUE, Bare, Child, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


def is_array(value: object) -> bool:
    """Return whether this is an array of JAX or stands for one."""
    return isinstance(value, (jax.Array, jax.ShapeDtypeStruct))


_GONE = "this array was donated or deleted: its values are gone; save what the step returned"


def why_not_stored(value: Any) -> str:
    """Return what keeps an array out of a checkpoint, in words; "" where nothing does."""
    return why_no_place(value) or (_GONE if isinstance(value, jax.Array) and value.is_deleted() else "")


def why_no_place(value: Any) -> str:
    """Return why an array can be neither saved nor restored, in words; "" where it can."""
    if isinstance(value, jax.core.Tracer):
        return "a traced value cannot be saved: it has none before the traced function runs; save outside of it"
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return "an array that spans several processes cannot be saved as it is: this process has only a part of it"
    if not is_key(value) and dtype_of_numpy(value.dtype) is None:
        return f"an array of type {value.dtype} cannot be saved: no checkpoint holds such values"
    return ""


def is_key(value: Any) -> bool:
    """Return whether this is an array of random keys, or stands for one."""
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key))


def key_data(keys: Any) -> Array:
    """Return the numbers of random keys on the host: uint32, one dimension more than the keys have."""
    data: Array = np.asarray(jax.random.key_data(keys))
    return data


def wrapped(data: Array, impl: str) -> Any:
    """Return random keys of their numbers and the name of who makes numbers of them; the data itself where there is none."""
    return jax.random.wrap_key_data(jax.numpy.array(data), impl=impl) if data.size else data


def to_array(value: Any) -> Array:
    """Return the values on the host, put together from all devices; read-only."""
    return np.asarray(value)


def from_array(array: Array) -> Any:
    """Return a JAX array with the values of an array, on the default device."""
    return jax.numpy.array(array)


def array_view(value: Any) -> View:
    """Return the view of an array, of keys or of something that stands for either."""
    why = why_no_place(value)
    if why:
        return View("JAX array", refused=why)
    return _keys(value) if is_key(value) else View("JAX array", leaves=(JaxLeaf(value),), is_value=True)


class JaxLeaf:
    """An array, or a `jax.ShapeDtypeStruct` in its place."""

    __slots__ = ("_array",)

    attribute = VARIABLE_VALUE
    full_name = ""
    in_place = False
    copies = True
    is_stable = True
    """on the CPU its memory itself, which JAX gives to no other array as long as somebody refers to it; else a copy"""

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def is_to_come(self) -> bool:
        """Whether it stands for an array that a restore makes: its memory is not there, or not any more."""
        return not _has_values(self._array)

    def spec(self) -> TensorSpec | None:
        """Return its spec."""
        dtype = dtype_of_numpy(self._array.dtype)
        assert dtype is not None  # `why_no_place` has looked
        return TensorSpec(dtype.name, tuple(self._array.shape), self._array.size * dtype.itemsize)

    def value(self) -> Any:
        """Return the values on the host; raises UnsupportedError where there are none (``training.no-value``)."""
        if self.is_to_come:
            raise _no_value(self._array)
        return to_array(self._array)

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        dtype = self._array.dtype
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            return f"JAX would make {jax.dtypes.canonicalize_dtype(dtype)} of {dtype}: switch jax_enable_x64 on"
        if _is_number(self._array) and stored.shape == () and stored.dtype == _PYTHONS.get(dtype.kind):
            return None  # a Python number was saved, or the target was made of one
        return refusal_of(self.spec(), stored, cast=cast)

    def buffer(self) -> Array | None:
        """The memory of a JAX array is nobody's to write to."""
        return None

    def assign(self, value: Array) -> object:
        """Return a new array, placed like this one."""
        return _placed(value, self._array)


class RefLeaf:
    """A `jax.Ref`, the one array of JAX that can be changed: restored in place."""

    __slots__ = ("_inner", "_ref")

    attribute = VARIABLE_VALUE
    full_name = ""
    copies = True

    def __init__(self, ref: Any) -> None:
        self._ref = ref
        self._inner = JaxLeaf(ref[...])

    def spec(self) -> TensorSpec | None:
        """Return its spec."""
        return self._inner.spec()

    def value(self) -> Any:
        """Return the values on the host."""
        return self._inner.value()

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        return self._inner.refusal(stored, cast=cast)

    def buffer(self) -> Array | None:
        """Its memory is JAX's."""
        return None

    def assign(self, value: Array) -> object:
        """Change what it refers to."""
        self._ref[...] = self._inner.assign(value)
        return self._ref


_PYTHONS = {"i": "int64", "f": "float64", "c": "complex128"}
"""kind of number -> Python's"""


def _has_values(value: Any) -> bool:
    return isinstance(value, jax.Array) and not value.is_deleted()


def _no_value(value: Any) -> UnsupportedError:
    why = _GONE if isinstance(value, jax.Array) else "a ShapeDtypeStruct has no values to save"
    return UnsupportedError("training.no-value", Where(""), why)


def _is_number(like: Any) -> bool:
    """Return whether this was made of a Python number, and so stays in any operation what the other side is."""
    return bool(like.weak_type and not like.shape)


def _placed(value: Any, like: Any) -> Any:
    """Return values as an array on the devices of ``like``, in memory of its own, which can be donated."""
    if _is_number(like):
        weak = jax.numpy.asarray(value.item())
        if weak.dtype == like.dtype:
            return weak
    sharding = None if isinstance(like, jax.Array) and not like.committed else like.sharding
    # The memory of the value is used again: JAX copies while we go on, and on the CPU device_put may not copy at all.
    if sharding is None:
        return jax.numpy.array(value).block_until_ready()
    if all(device.platform == "cpu" for device in sharding.device_set):
        return jax.device_put(value.copy(), sharding)
    return jax.device_put(value, sharding).block_until_ready()


def _keys(keys: Any) -> View:
    """Return the view of random keys: in a checkpoint they are numbers and the name of who makes numbers of them."""
    kind = keys.dtype._impl  # JAX says it publicly of arrays only, not of what stands for one
    shape = (*keys.shape, *kind.key_shape)
    is_real = _has_values(keys)
    data = key_data(keys) if is_real else np.zeros(0, np.uint32)
    text, arrays = encode_state({"impl": kind.name, "data": data}, Where("", "random keys"))

    def examine(stored: bytes, specs: Mapping[str, TensorSpec]) -> str | None:
        try:
            state = decode_state(stored, {name: np.empty(0) for name in specs}, Where("", "random keys"))
            impl, spec = state["impl"], specs["data"]
        except (CorruptionError, LookupError, TypeError):
            return "what is stored are no random keys"
        if impl != kind.name:
            return f"keys of {impl} in the file, of {kind.name} in the program"
        return refusal_of(TensorSpec("uint32", shape), spec, cast=False)

    def absorb(stored: bytes, found: Mapping[str, Array]) -> object:
        decode_state(stored, found, Where("", "random keys"))
        new = jax.random.wrap_key_data(jax.numpy.array(found["data"]), impl=kind.name)
        is_placed = keys.sharding is not None and (not isinstance(keys, jax.Array) or keys.committed)
        return jax.device_put(new, keys.sharding) if is_placed else new

    children = [Child(name, Bare(array)) for name, array in arrays.items()]
    leaf = StateLeaf(text) if is_real else _NoKeys(keys)
    return View("random keys", children, leaves=(leaf,), absorb=absorb, examine=examine, is_value=True)


class _NoKeys(StateLeaf):
    """Stands for keys that are to come."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Any) -> None:
        super().__init__(b"")
        self._keys = keys

    def value(self) -> Any:
        """Raise UnsupportedError (``training.no-value``)."""
        raise _no_value(self._keys)
