"""Program structures, each built twice: of stock TensorFlow's objects, and of plain Python and NumPy ones.

Mod(a=Var("w"))          tf.Module with attributes            an object with attributes
Var("w", (2,))           tf.Variable; one name, one object    numpy array
[..], {..}, (..)         tracked containers                   list, dict, tuple
Ref("m")                 the Mod that is called so, again: shared objects and cycles
Opt(["w"])               a TF1 optimizer with slots           an object whose view has slots
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openckpt.training.tracking import View


@dataclass(frozen=True)
class Var:
    """A variable."""

    name: str
    shape: tuple[int, ...] = (2,)
    dtype: str = "float32"


class Mod:
    """An object with attributes; ``name`` is for `Ref`."""

    def __init__(self, name: str = "", /, **attributes: Any) -> None:
        self.name, self.attributes = name, attributes


@dataclass(frozen=True)
class Ref:
    """The `Mod` of this name."""

    name: str


class Opt:
    """An optimizer that has a slot ``momentum`` for each of these variables, which must stand before it."""

    def __init__(self, variables: Sequence[str] = ()) -> None:
        self.variables = variables


def value_of(name: str, shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray[Any, Any]:
    """Return the values of a variable: others for every name and seed."""
    start = sum(map(ord, name)) * 7 + seed * 1000
    return np.arange(start, start + int(np.prod(shape))).reshape(shape).astype(dtype)


class Plain:
    """Stands for tf.Module."""


class PlainOptimizer:
    """Stands for an optimizer: it makes a slot when it is asked for one."""

    def __init__(self) -> None:
        self.momentum: dict[int, tuple[Any, Any]] = {}

    def __openckpt_view__(self) -> View:
        return View("optimizer", slots=_Slots(self), is_optimizer=True)

    def make(self, variable: Any) -> Any:
        return self.momentum.setdefault(id(variable), (variable, np.zeros_like(variable)))[1]


class _Slots:
    def __init__(self, optimizer: PlainOptimizer) -> None:
        self._optimizer = optimizer

    def names(self) -> Sequence[str]:
        return ["momentum"] if self._optimizer.momentum else []

    def get(self, variable: object, name: str) -> object | None:
        return self._optimizer.momentum.get(id(variable), (None, None))[1]

    def create(self, variable: object, name: str) -> object | None:
        return self._optimizer.make(variable)


class Mirror:
    """One structure as live objects of one kind.

    Attributes:
        children: what to give a Checkpoint, by name.
        variables: every variable, the slots as ``w's momentum``, by name.
    """

    def __init__(self, structure: dict[str, Any], seed: int) -> None:
        self.seed = seed
        self.variables: dict[str, Any] = {}
        self._modules: dict[str, Any] = {}
        self._optimizers: list[tuple[Any, Sequence[str]]] = []
        self.children = {name: self._build(item) for name, item in structure.items()}
        for optimizer, names in self._optimizers:
            for name in names:
                self.variables[f"{name}'s momentum"] = self._slot(optimizer, self.variables[name], name)

    def _build(self, item: Any) -> Any:
        if isinstance(item, Var):
            if item.name not in self.variables:
                self.variables[item.name] = self._variable(value_of(item.name, item.shape, item.dtype, self.seed))
            return self.variables[item.name]
        if isinstance(item, Mod):
            module = self._modules[item.name] = self._module()
            for name, value in item.attributes.items():
                setattr(module, name, self._build(value))
            return module
        if isinstance(item, Ref):
            return self._modules[item.name]
        if isinstance(item, Opt):
            optimizer = self._optimizer()
            self._optimizers.append((optimizer, item.variables))
            return optimizer
        if isinstance(item, dict):
            return {key: self._build(value) for key, value in item.items()}
        return type(item)(self._build(value) for value in item)

    def names(self) -> dict[int, str]:
        """Return ``id -> name`` of every variable."""
        return {id(variable): name for name, variable in self.variables.items()}


class Numpy(Mirror):
    """Of plain objects."""

    def _variable(self, value: Any) -> Any:
        return value

    def _module(self) -> Any:
        return Plain()

    def _optimizer(self) -> Any:
        return PlainOptimizer()

    def _slot(self, optimizer: Any, variable: Any, name: str) -> Any:
        slot = optimizer.make(variable)
        slot[...] = value_of(name + "m", variable.shape, variable.dtype.name, self.seed)
        return slot

    def values(self) -> dict[str, list[Any]]:
        """Return every variable's values."""
        return {name: variable.tolist() for name, variable in self.variables.items()}


class TensorFlow(Mirror):
    """Of stock TensorFlow's."""

    def __init__(self, tf: Any, structure: dict[str, Any], seed: int) -> None:
        self._tf = tf
        super().__init__(structure, seed)

    def _variable(self, value: Any) -> Any:
        return self._tf.Variable(value)

    def _module(self) -> Any:
        return self._tf.Module()

    def _optimizer(self) -> Any:
        return self._tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)

    def _slot(self, optimizer: Any, variable: Any, name: str) -> Any:
        tf = self._tf
        before = variable.numpy()
        optimizer.apply_gradients([(tf.zeros_like(variable), variable)])
        variable.assign(before)
        slot = optimizer.get_slot(variable, "momentum")
        slot.assign(value_of(name + "m", variable.shape, variable.dtype.name, self.seed))
        return slot

    def values(self) -> dict[str, list[Any]]:
        """Return every variable's values."""
        return {name: variable.numpy().tolist() for name, variable in self.variables.items()}
