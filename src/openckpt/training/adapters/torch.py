"""PyTorch: modules by attribute name, tensors in place, optimizers with their state as slots, random generators.

    module      its _parameters, its persistent _buffers, its _modules; tied ones are one node
    optimizer   see `openckpt.training.adapters.torch_optimizers`
    generator   the bytes of get_state()

`torch.compile`, `DataParallel` and `DistributedDataParallel` add nothing to a module but a name; they are seen through. What
has ``state_dict`` and ``load_state_dict`` and is none of these (schedulers, GradScaler) is left to the adapter of plain Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from openckpt.errors import with_article
from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters.torch_optimizers import keeps_plain_state, optimizer_view
from openckpt.training.adapters.torch_values import TensorLeaf, from_array, why_not_stored
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import VARIABLE_VALUE, Bare, Child, View

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_SHARDED = ("FullyShardedDataParallel",)
_DATA = (torch.utils.data.DataLoader, torch.utils.data.Dataset, torch.utils.data.Sampler)
"""seen as any object of Python they would be saved with every example in them"""


class TorchAdapter:
    """See the module."""

    def view(self, value: object) -> View | None:
        """Return the view of an object, None where it is none of PyTorch's or its state is one piece."""
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if isinstance(value, torch.nn.Module):
            return _module(value)
        if isinstance(value, torch.optim.Optimizer):
            return optimizer_view(value) if keeps_plain_state(value) else None
        if isinstance(value, torch.Generator):
            return View("torch generator", leaves=(_GeneratorLeaf(value),))
        if isinstance(value, _DATA) and not hasattr(value, "state_dict"):
            return View(
                "data",
                refused=f"{with_article(type(value).__name__)} has no state that could be saved, only the data itself",
            )
        return None


def _tensor(tensor: Any) -> View:
    lazy = torch.nn.parameter.is_lazy(tensor)
    return View("tensor", leaves=(TensorLeaf(tensor),), refused="" if lazy else why_not_stored(tensor))


def _seen_through(module: Any) -> Any:
    """Return the module inside wrappers that only add a name to its path."""
    while True:
        if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
            module = module._modules["_orig_mod"]
        else:
            return module


def _module(wrapped: Any) -> View:
    module = _seen_through(wrapped)
    kind = type(module).__name__
    if kind in _SHARDED:
        return View(
            kind, refused=f"{with_article(kind)} cannot be saved as it is: each process has a piece of its parameters"
        )
    parameters, buffers = module._parameters, module._buffers
    passing = getattr(module, "_non_persistent_buffers_set", ())
    children = [Child(name, tensor) for name, tensor in parameters.items() if tensor is not None]
    children += [Child(name, tensor) for name, tensor in buffers.items() if tensor is not None and name not in passing]
    if type(module).get_extra_state is not torch.nn.Module.get_extra_state:
        children.append(Child("_extra_state", _ExtraState(module)))
    children += [Child(name, below) for name, below in module._modules.items() if below is not None]

    def replace(new: Mapping[str, object]) -> object:
        for name, item in new.items():
            (parameters if name in parameters else buffers)[name] = item
        return wrapped

    return View(f"torch {kind}", children, replace=replace)


class _ExtraState(Bare):
    """What a module adds by ``get_extra_state``, known by its place."""

    def __openckpt_view__(self) -> View:
        from openckpt.training.adapters.states import state_view

        module: Any = self.value
        return state_view(
            f"{type(module).__name__}'s extra state", module.get_extra_state, module.set_extra_state, self
        )


class _GeneratorLeaf:
    """The state of a random generator: uint8, 5056 of them on the CPU."""

    attribute = VARIABLE_VALUE
    full_name = ""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def spec(self) -> TensorSpec | None:
        state = self._generator.get_state()
        return TensorSpec("uint8", tuple(state.shape), state.numel())

    def value(self) -> Any:
        return self._generator.get_state().numpy()

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        return refusal_of(self.spec(), stored, cast=False)

    def buffer(self) -> Array | None:
        return None

    def assign(self, value: Array) -> object:
        self._generator.set_state(from_array(value))
        return self._generator


ADAPTER = TorchAdapter()
