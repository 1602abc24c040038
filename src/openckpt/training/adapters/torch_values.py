"""PyTorch tensors and NumPy arrays: one memory seen from both sides wherever that is possible.

CPU, contiguous                 one memory; read from a file straight into it
bfloat16, float8                the same memory, through bytes: torch lends NumPy no types of ml_dtypes
strided, conjugated, CUDA ...   copied through the host
meta                            has no values; a restore makes them, on the CPU
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from openckpt.errors import UnsupportedError, Where, with_article
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.spec import TensorSpec
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import VARIABLE_VALUE

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_THROUGH_BYTES = frozenset(
    name for name in BY_NAME if name == "bfloat16" or (name.startswith("float8_") and hasattr(torch, name))
)
_STORED = frozenset(
    """float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128""".split()
) | {name for name in _THROUGH_BYTES if hasattr(torch, name)}


def dtype_name(tensor: Any) -> str:
    """Return TensorFlow's name of a tensor's type, which is torch's too for every type that both have."""
    return str(tensor.dtype).removeprefix("torch.")


def why_not_stored(tensor: Any) -> str:
    """Return what keeps a tensor out of a checkpoint, in words; "" where nothing does."""
    kind = type(tensor)
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        name = with_article(kind.__name__)
        return f"{name} cannot be saved as it is: its values lie elsewhere; make it a plain tensor first"
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"a {layout} tensor cannot be saved: a checkpoint holds dense arrays; save its indices and values, or to_dense()"
    if tensor.is_quantized:
        return f"a quantised tensor ({dtype_name(tensor)}) cannot be saved: a checkpoint has no place for its scale; save int_repr() and the scale"
    if dtype_name(tensor) not in _STORED:
        return f"a tensor of type {dtype_name(tensor)} cannot be saved: no checkpoint holds such values"
    return ""


def to_array(tensor: Any) -> Array:
    """Return the values of a tensor on the host; its own memory where it lies there."""
    host = tensor.detach()
    if host.device.type != "cpu":
        host = host.cpu()
    host = host.resolve_conj().resolve_neg()
    name = dtype_name(host)
    if name in _THROUGH_BYTES:
        flat = host.contiguous().reshape(-1).view(torch.uint8).numpy()
        typed: Array = flat.view(BY_NAME[name].numpy()).reshape(tuple(host.shape))
        return typed
    array: Array = host.numpy()
    return array


def lent(array: Array) -> Any:
    """Return a tensor over the memory of an array; over a copy where that cannot be written to."""
    import numpy as np

    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    name = array.dtype.name
    if name in _THROUGH_BYTES:
        flat = torch.from_numpy(array.reshape(-1).view(np.uint8))
        return flat.view(getattr(torch, name)).reshape(array.shape)
    return torch.from_numpy(array)


def from_array(array: Array) -> Any:
    """Return a new tensor with the values of an array.

    In torch's own memory: kernels add in another order where memory begins elsewhere than torch would let it, and a program that
    goes on would not be, bit for bit, the one that never stopped (seen with LBFGS).
    """
    return lent(array).clone()


def is_meta(tensor: Any) -> bool:
    """Return whether a tensor has a shape and a type but no values."""
    return bool(tensor.device.type == "meta")


def _has_own_memory(tensor: Any) -> bool:
    """Return whether the elements of a tensor lie on the host, one after the other."""
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _overlaps(tensor: Any) -> bool:
    """Return whether one element of memory is several of the tensor, as `expand` makes them."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


class TensorLeaf:
    """A tensor: restored in place, so that whatever else refers to it sees the new values."""

    __slots__ = ("_lent", "_new", "_tensor")

    attribute = VARIABLE_VALUE
    full_name = ""
    copies = True

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self._new: Any = None  # the memory that a meta tensor gets
        self._lent: Array | None = None

    @property
    def is_to_come(self) -> bool:
        """Whether a restore gives it memory that it does not have yet."""
        return bool(torch.nn.parameter.is_lazy(self._tensor) or is_meta(self._tensor))

    def spec(self) -> TensorSpec | None:
        """Return its spec; None of a lazy parameter, whose shape only the first call settles."""
        tensor = self._tensor
        if torch.nn.parameter.is_lazy(tensor):
            return None
        return TensorSpec(dtype_name(tensor), tuple(tensor.shape), tensor.numel() * tensor.element_size())

    def value(self) -> Any:
        """Return its values; raises UnsupportedError for a meta tensor, which has none (``training.no-value``)."""
        if is_meta(self._tensor):
            raise UnsupportedError("training.no-value", Where(""), "a meta tensor has no values that could be saved")
        return to_array(self._tensor)

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why it does not fit."""
        own = self.spec() or TensorSpec(dtype_name(self._tensor), None)
        return refusal_of(own, stored, cast=cast)

    def buffer(self) -> Array | None:
        """Return the tensor's own memory, where its elements lie in it in order; a meta tensor is given some."""
        tensor = self._tensor
        if torch.nn.parameter.is_lazy(tensor):
            return None
        if is_meta(tensor):
            self._new = tensor = torch.empty(tensor.shape, dtype=tensor.dtype)
        self._lent = to_array(tensor) if _has_own_memory(tensor) else None
        return self._lent

    def assign(self, value: Array) -> object:
        """Give the tensor its values; it stays the same object wherever torch allows that."""
        tensor = self._tensor
        in_place = value is self._lent
        if torch.nn.parameter.is_lazy(tensor):
            tensor.materialize(value.shape)
        elif is_meta(tensor):
            return _filled(tensor, self._new if in_place else from_array(value))
        elif in_place:
            if not tensor.is_inference():
                torch.autograd.graph.increment_version(tensor)  # a graph that saved the old values says so
            return tensor
        elif _overlaps(tensor):
            return _filled(tensor, from_array(value))
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():  # so nested: the first turns gradients on
            tensor.copy_(lent(value))
        return tensor


def _filled(tensor: Any, values: Any) -> object:
    """Return a tensor of these values that takes the place of one without memory of its own."""
    new = values
    if isinstance(tensor, torch.nn.Parameter):
        new = torch.nn.Parameter(values, requires_grad=tensor.requires_grad)
    elif tensor.requires_grad:
        new = values.requires_grad_()
    if type(new) is type(tensor):
        try:
            torch.utils.swap_tensors(tensor, new)
        except RuntimeError:  # something in torch itself holds the old one
            return new
        return tensor  # the same object, so optimizers and tied layers have the values too
    return new
