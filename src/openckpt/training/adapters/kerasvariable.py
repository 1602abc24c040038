"""The value of a Keras 3 variable on every backend: read, read into, assigned, or made the initial value of one that has none yet.

Inside a stateless scope or a traced function ``variable.assign`` only records an update, which vanishes; so the backend's value
itself is set here. A variable made there has no value, but an initializer that runs when the scope is left: the stored value
takes its place.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Literal

from openckpt.errors import MismatchError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters.tensorflow_values import read_variable, write_variable
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import VARIABLE_VALUE

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

Role = Literal["int64", "seed"]
"""Integers whose dtype is the backend's choice, int64 on the TensorFlow backend and in every file: counters, which others keep in an
int32; and the state of a seed generator, which they keep in 32 bits, signed or not."""

_INTEGERS = ("int32", "int64", "uint32")
_WIDE = ("float64", "int64", "uint64")
"""of a variable that was asked for with such a dtype JAX holds 32 bits, unless it was told otherwise; other backends hold all of them,
and so do files"""
_ROLES: dict[int, tuple[weakref.ref[Any], Role]] = {}
_OWNERS: dict[int, tuple[weakref.ref[Any], weakref.ref[Any]]] = {}


def mark(variable: Any, role: Role) -> None:
    """Remember what a variable is for; only the object that holds it knows."""
    key = id(variable)
    if key not in _ROLES:
        _ROLES[key] = (weakref.ref(variable, lambda _: _ROLES.pop(key, None)), role)


def _role_of(variable: Any) -> Role | None:
    found = _ROLES.get(id(variable))
    return found[1] if found is not None and found[0]() is variable else None


def settle_after(variable: Any, owner: Any) -> None:
    """Let an object that keeps what it makes of a variable's value make it anew when the variable is restored.

    `keras.layers.Normalization` computes with the mean and the variance that it made of its variables when it was built.
    """
    key = id(variable)
    if key not in _OWNERS:
        _OWNERS[key] = (weakref.ref(variable, lambda _: _OWNERS.pop(key, None)), weakref.ref(owner))


def _settle(variable: Any) -> None:
    found = _OWNERS.get(id(variable))
    owner = found[1]() if found is not None and found[0]() is variable else None
    if owner is not None:
        owner.finalize_state()


class VariableLeaf:
    """The value of a `keras.Variable`."""

    __slots__ = ("_buffer", "_variable")

    attribute = VARIABLE_VALUE

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self._buffer: Array | None = None

    @property
    def full_name(self) -> str:
        """The path of the variable: ``dense/kernel``."""
        return str(self._variable.path)

    def _spec(self) -> TensorSpec:
        variable = self._variable
        name = str(variable._dtype)  # .dtype is another within an autocast scope
        dtype = BY_NAME[name if _role_of(variable) is None else "int64"]
        shape = tuple(map(int, variable._shape))  # .shape makes a TensorShape on TensorFlow's backend
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        return TensorSpec(dtype.name, shape, nbytes)

    def spec(self) -> TensorSpec | None:
        """Return dtype and shape of what is stored; None while the variable waits for its initializer.

        Raises:
            UnsupportedError: the value is inside of a running ``fit`` (``training.inside-fit``).
        """
        variable = self._variable
        if variable._value is not None:
            return self._spec()
        if variable._initializer is None:
            raise UnsupportedError(
                "training.inside-fit", Where("", self.full_name), "this variable has no value while Keras trains on JAX"
            )
        return None

    @property
    def is_stable(self) -> bool:
        """Whether a value that was read stays as it is: TensorFlow's and JAX's do."""
        return _backend_of(self._variable._value) in ("tensorflow", "jax", "jaxlib")

    @property
    def copies(self) -> bool:
        """Whether `assign` copies at once, so that the memory can be used again: into JAX's arrays."""
        value = self._variable._value
        return value is not None and _backend_of(value) in ("jax", "jaxlib")

    def value(self) -> Any:
        """Return the value on the host: the memory itself on the CPU, a copy from other devices."""
        array = _read(self._variable._value)
        role = _role_of(self._variable)
        if role == "seed" and array.dtype.itemsize == 4:
            array = array.view("uint32")  # torch has no such type, and keeps the bits in an int32
        if role is not None:
            return array.astype("int64", copy=False)
        declared = str(self._variable._dtype)
        if array.dtype.itemsize == 4 and declared in _WIDE:
            return array.astype(declared)
        return array

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        own = self._spec()
        if _role_of(self._variable) is not None and stored.dtype in _INTEGERS:
            own = TensorSpec(stored.dtype, own.shape, None)
        return refusal_of(own, stored, cast=cast)

    def buffer(self) -> Array | None:
        """Return the variable's memory on the torch and NumPy backends, where it lies on the CPU."""
        value = self._variable._value
        if _role_of(self._variable) is not None:
            return None
        array = _memory_of(value)
        usable = array is not None and array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
        self._buffer = array if usable else None
        return self._buffer

    def assign(self, value: Array) -> object:
        """Set the value; a variable without one gets it when it is initialized."""
        variable = self._variable
        if value is self._buffer:
            _settle(variable)
            return variable
        array = _of_dtype(value, _held_dtype(variable), _role_of(variable), self.full_name)
        if variable._value is None:
            variable._initializer = _Stored(array, variable)
        else:
            _write(variable, array)
            _settle(variable)
        return variable


class _Stored:
    """An initializer that gives a stored value: once for good, and before that to everybody who asks inside of the scope."""

    def __init__(self, array: Array, variable: Any) -> None:
        self._array, self._variable = array, weakref.ref(variable)
        self._is_asked = False

    def __call__(self, shape: object, dtype: object = None, **options: object) -> Any:
        if not self._is_asked:  # settling asks again
            self._is_asked = True
            _settle(self._variable())
            self._is_asked = False
        return _framework("keras").ops.convert_to_tensor(self._array, dtype=dtype)


def _held_dtype(variable: Any) -> str:
    """Return the dtype of the value itself, which on JAX may be narrower than the variable's."""
    name = str(variable._dtype)
    if name in _WIDE and _backend_of(variable._value) in ("jax", "jaxlib"):
        return str(variable._value.dtype)
    return name


def _of_dtype(array: Array, name: str, role: Role | None, path: str) -> Array:
    import numpy as np

    dtype = BY_NAME[name].numpy()
    if role == "seed" and dtype.itemsize == 4:
        return array.astype("uint32").view(dtype)
    new = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and new is not array and not np.array_equal(new, array):
        raise MismatchError("training.mismatch", path, f"{array} is more than this backend's {name} can count")
    return new


def _framework(name: str) -> Any:
    return sys.modules[name]  # whoever has such a variable has imported it


def _backend_of(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _read(value: Any) -> Array:
    import numpy as np

    match _backend_of(value):
        case "torch":
            memory = _memory_of(value.detach().cpu().contiguous())
            if memory is not None:
                return memory
        case "tensorflow":
            return read_variable(value)
    return np.asarray(value)


def _memory_of(value: Any) -> Array | None:
    import numpy as np

    if isinstance(value, np.ndarray):
        return value if value.flags.owndata else None
    if _backend_of(value) != "torch" or value.device.type != "cpu" or value.layout is not _framework("torch").strided:
        return None
    from openckpt.formats.dtypes import dtype_of_numpy

    torch = _framework("torch")
    value = value.detach()
    try:
        array: Array = value.numpy()
    except TypeError:  # bfloat16 and float8, which NumPy has from ml_dtypes
        name = str(value.dtype).partition(".")[2]
        if name not in BY_NAME:
            return None
        raw = {1: torch.uint8, 2: torch.int16}[value.element_size()]
        array = value.view(raw).numpy().view(BY_NAME[name].numpy())
    return array if dtype_of_numpy(array.dtype) is not None else None


def _write(variable: Any, array: Array) -> None:
    value = variable._value
    match _backend_of(value):
        case "torch":
            torch = _framework("torch")
            with torch.no_grad():
                value.copy_(_tensor_of(torch, array))  # not through the variable: a device scope may be "meta"
        case "tensorflow":
            write_variable(value, array)
        case "numpy":
            variable._value = array.copy()
        case _:
            _write_jax(variable, array)


def _write_jax(variable: Any, array: Array) -> None:
    jax = _framework("jax")
    with jax.ensure_compile_time_eval():  # a value, not a part of the function that is being traced
        variable._direct_assign(jax.numpy.array(array).block_until_ready())  # a copy: that memory is used again


def _tensor_of(torch: Any, array: Array) -> Any:
    import numpy as np

    array = np.require(array, requirements=("C", "W"))
    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(array)
    name = array.dtype.name
    return torch.from_numpy(array.view(f"u{array.dtype.itemsize}" if array.dtype.itemsize == 1 else "i2")).view(
        getattr(torch, name)
    )
