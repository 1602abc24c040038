"""The leaves that several adapters share: a NumPy array, a number, text, the place of None, a piece of Python state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openckpt.errors import UnsupportedError, Where, with_article
from openckpt.formats.dtypes import BY_NAME, DType, dtype_of_numpy
from openckpt.formats.spec import TensorSpec
from openckpt.training.tracking import PY_STATE, VARIABLE_VALUE, Leaf

if TYPE_CHECKING:
    from openckpt.formats.spec import Array


def spec_of_array(array: Array) -> TensorSpec | None:
    """Return the spec under which an array is stored, None where no checkpoint holds such values."""
    try:
        dtype = _KNOWN[array.dtype]
    except KeyError:
        dtype = _KNOWN[array.dtype] = dtype_of_numpy(array.dtype)
    if dtype is None:
        return None
    return TensorSpec(dtype.name, array.shape, array.nbytes if dtype.itemsize else None)


_KNOWN: dict[Any, DType | None] = {}  # numpy makes the name of a dtype anew each time it is asked


FLOATS = ("float64", "float32", "bfloat16", "float16", "float8_e5m2", "float8_e4m3fn")


def refusal_of(own: TensorSpec | None, stored: TensorSpec, *, cast: bool) -> str | None:
    """Return why a stored tensor does not fit a variable of spec ``own``, or None.

    With ``cast`` floating-point types of other widths fit each other.
    """
    if own is None:
        return None
    if own.shape is not None and own.shape != stored.shape:
        return f"shape {_shape(stored)} in the file, {_shape(own)} in the program"
    if own.dtype != stored.dtype and not (cast and own.dtype in FLOATS and stored.dtype in FLOATS):
        return f"{stored.dtype} in the file, {own.dtype} in the program"
    return None


def _shape(spec: TensorSpec) -> str:
    return "unknown" if spec.shape is None else str(spec.shape)


def suffix_of(leaf: Leaf) -> str:
    """Return what follows the attribute in a leaf's key, where one attribute has several tensors; "" for nearly all."""
    return getattr(leaf, "suffix", "")


def value_of(leaf: Leaf, key: str, path: str) -> Any:
    """Return what is to be stored of a leaf under a key of the checkpoint ``path``; an error names both."""
    try:
        return leaf.value()
    except UnsupportedError as error:
        if error.where.key is None:
            error.where = Where(path, key)
        raise


class ArrayLeaf:
    """A NumPy array: read and restored in place where it can be written and has room, replaced where not."""

    __slots__ = ("_array", "_spec")

    attribute = VARIABLE_VALUE
    full_name = ""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._spec = spec_of_array(array)

    @property
    def in_place(self) -> bool:
        """Whether the array can be written, whatever is stored: text may be longer than its elements."""
        return self._array.flags.writeable and self._array.dtype.kind not in "SU"

    def spec(self) -> TensorSpec | None:
        """Return its spec; None of an array that no checkpoint holds."""
        return self._spec

    def value(self) -> Any:
        """Return the array itself."""
        return self._array

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        return refusal_of(self._spec, stored, cast=cast)

    def buffer(self) -> Array | None:
        """Return the array's own memory where it can be read into."""
        import numpy as np

        array = self._array
        flags, dtype = array.flags, array.dtype
        plain = flags.c_contiguous and flags.writeable and dtype.kind not in "OSUT" and dtype.isnative
        if not plain:
            return None
        return array if type(array) is np.ndarray else array.view(np.ndarray)  # a matrix reshapes in its own way

    def assign(self, value: Array) -> object:
        """Fill the array; a read-only one, or one of text that is too short, is replaced by the new."""
        array = self._array
        if value is array:
            return array
        if array.dtype.kind in "SUO":
            value = _text_like(array, value)
        has_room = array.dtype.kind not in "SU" or value.dtype.itemsize <= array.dtype.itemsize
        if not array.flags.writeable or not has_room:
            return value if array.dtype.kind in "SU" else value.astype(array.dtype, copy=False)
        array[...] = value
        return array


def _text_like(array: Array, value: Array) -> Array:
    """Return stored text as the kind of text that an array of the program holds."""
    kind = array.dtype.kind
    if kind == "O" and array.size and all(isinstance(item, str) for item in array.flat):
        return text_array(value, "U").astype(object)
    return value if kind == "O" else text_array(value, kind)


def text_array(value: Array, kind: str) -> Array:
    """Return stored text, an object array of bytes, as an array of NumPy's type "U" or "S"; any other array as it is."""
    import numpy as np

    if value.dtype.kind != "O":
        return value
    if kind == "U":
        texts = [item.decode("utf-8", "surrogateescape") for item in value.reshape(-1).tolist()]
        value = np.array(texts, object).reshape(value.shape)
    return value.astype(kind)


class NumberLeaf:
    """A number in a container: int is int64, float is float64, bool is bool; a new one takes its place."""

    __slots__ = ("_value",)

    in_place = False
    attribute = VARIABLE_VALUE
    full_name = ""

    def __init__(self, value: Any) -> None:
        self._value = value

    def spec(self) -> TensorSpec | None:
        """Return its spec; None of what no checkpoint holds, such as an integer beyond 64 bits."""
        import numpy as np

        array = np.asarray(self._value)
        return None if array.dtype.kind == "O" else spec_of_array(array)

    def value(self) -> Any:
        """Return the number."""
        return self._value

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit: a Python number takes every number of its kind, ints and floats each other's."""
        if stored.shape != ():
            return f"shape {_shape(stored)} in the file, a number in the program"
        own = self.spec()
        if own is None or stored.dtype not in BY_NAME or type(self._value) not in (int, float, bool, complex):
            return refusal_of(own, stored, cast=cast)
        kind, other = BY_NAME[own.dtype].numpy().kind, BY_NAME[stored.dtype].numpy().kind
        fits = kind == other or (kind in "if" and (other in "iu" or stored.dtype in FLOATS))
        return None if fits else f"{stored.dtype} in the file, {type(self._value).__name__} in the program"

    def buffer(self) -> Array | None:
        """A number has no memory to read into."""
        return None

    def assign(self, value: Array) -> object:
        """Return the new number, of the same type where that can hold it: 0 may have become 0.5 since the program began."""
        kind: Any = type(self._value)
        if not isinstance(self._value, (int, float, complex)):
            return kind(value[()])
        number = value.item()
        if (
            isinstance(self._value, int)
            and isinstance(number, float)
            and not (number.is_integer() and abs(number) < 1 << 53)
        ):
            return number
        return kind(number)


class TextLeaf:
    """Text, bytes or None in a container, stored as JSON; whatever the file has takes its place."""

    __slots__ = ("_value",)

    in_place = False
    attribute = PY_STATE
    full_name = ""

    def __init__(self, value: str | bytes | None) -> None:
        self._value = value

    def spec(self) -> TensorSpec | None:
        """Return the spec of a scalar string."""
        return TensorSpec("string", (), None)

    def examine(self, text: bytes, where: Where) -> str | None:
        """Return why what is stored is no text; raises CorruptionError where it is no JSON of ours."""
        from openckpt.training.pystate import decode_state

        stored = decode_state(text, {}, where)
        if stored is not None and not isinstance(stored, (str, bytes)):
            own = "None" if self._value is None else "text"
            return f"{with_article(type(stored).__name__)} in the file, {own} in the program"
        try:
            self._as_own(stored)
        except Exception as error:  # whatever the class of such a text raises
            return f"{stored!r} in the file, which is no {type(self._value).__name__}: {error}"
        return None

    def value(self) -> Any:
        """Return the JSON."""
        from openckpt.training.pystate import encode_state

        return encode_state(self._value, Where(""))[0]

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        return refusal_of(self.spec(), stored, cast=cast)

    def buffer(self) -> Array | None:
        """Text has no memory to read into."""
        return None

    def assign(self, value: Array) -> object:
        """Return the new text, of the same class: a member of an enumeration stays one."""
        from openckpt.training.pystate import decode_state

        return self._as_own(decode_state(value.item(), {}, Where("")))

    def _as_own(self, stored: object) -> object:
        own: Any = self._value
        is_same = (isinstance(own, str) and isinstance(stored, str)) or (
            isinstance(own, bytes) and isinstance(stored, bytes)
        )
        return type(own)(stored) if is_same else stored


class VacantLeaf:
    """The place of None, which stores nothing here and takes whatever number or array the file has."""

    __slots__ = ()

    in_place = False
    attribute = VARIABLE_VALUE
    full_name = ""

    def spec(self) -> TensorSpec | None:
        """Return None: there is no value."""
        return None

    def value(self) -> Any:
        """Return None; nobody stores that."""
        return None

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit: NumPy has no such values."""
        return None if stored.dtype in BY_NAME else f"{stored.dtype} in the file, None in the program"

    def buffer(self) -> Array | None:
        """There is no memory to read into."""
        return None

    def assign(self, value: Array) -> object:
        """Return the array, or the number that it holds: Python's where Python has that type."""
        if value.shape:
            return value
        return value.item() if value.dtype.name in _PYTHONS else value[()]


_PYTHONS = ("int64", "float64", "complex128", "bool")


class StateLeaf:
    """The `PY_STATE` of an object whose state is one piece; `View.absorb` puts it back."""

    __slots__ = ("_text",)

    attribute = PY_STATE
    full_name = ""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def spec(self) -> TensorSpec | None:
        """Return the spec of a scalar string."""
        return TensorSpec("string", (), None)

    def value(self) -> Any:
        """Return the JSON."""
        return self._text

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        return refusal_of(self.spec(), stored, cast=cast)

    def buffer(self) -> Array | None:
        """JSON has no memory to read into."""
        return None

    def assign(self, value: Array) -> object:
        """Return the stored JSON, for `View.absorb`."""
        return value.item()
