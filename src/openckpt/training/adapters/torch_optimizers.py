"""PyTorch optimizers: state per parameter as slots, everything else as JSON that names parameters by their paths.

    slot      every tensor in ``state[parameter]``, under torch's own name: exp_avg, exp_avg_sq, step, momentum_buffer
    py_state  {"params": [["model/0/weight", ...], ...],          of every group
               "param_groups": [{"lr": 0.001, ...}, ...],         without the parameters
               "state": {"0": {"n_iter": 3}},                     what is no tensor, by the number in "params"
               "own": {"round": 2}}                               where it has any: state of no parameter

torch numbers parameters by their place in the groups, so a model with one layer more has other numbers for all that follow;
here a group is restored by whose it is. Slots that the program has not made yet - before the first step - are made of what
is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from openckpt.errors import UnsupportedError, Where
from openckpt.formats.spec import TensorSpec
from openckpt.training.adapters.torch_values import TensorLeaf, is_meta
from openckpt.training.pystate import decode_state, encode_state
from openckpt.training.tracking import PY_STATE, VARIABLE_VALUE, Bare, Child, Places, View
from openckpt.training.wrapping import call_after

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_KIND = "torch optimizer"
_ON_THE_HOST = "step"
"""kept on the CPU whatever the parameter's device, unless the optimizer is captured or fused (torch's own rule)"""


def keeps_plain_state(optimizer: Any) -> bool:
    """Return whether an optimizer's state is what ``torch.optim.Optimizer`` says, and not a ``state_dict`` of its own."""
    kind, base = type(optimizer), torch.optim.Optimizer
    return kind.state_dict is base.state_dict and kind.load_state_dict is base.load_state_dict


def optimizer_view(optimizer: Any) -> View:
    """Return the view of an optimizer."""
    rest = _Rest(optimizer)
    return View(
        _KIND,
        [Child(name, Bare(array)) for name, array in rest.arrays.items()],
        leaves=(rest,),
        slots=_Slots(optimizer),
        absorb=rest.absorb,
        examine=rest.why_not,
        walked=rest.walked,
        waits=lambda call: call_after(optimizer, "add_param_group", call),
        is_optimizer=True,
    )


def _parameters(optimizer: Any) -> Iterator[tuple[int, Any]]:
    """Yield ``(number of its group, parameter)`` in the order of the groups."""
    for number, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            yield number, parameter


class _Rest:
    """What of an optimizer is no slot: one leaf, and the arrays in it as children."""

    attribute = PY_STATE
    full_name = ""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._paths: list[list[str | None]] = []
        self._places: Places | None = None
        groups = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        state: dict[str, Any] = {}
        for number, (_, parameter) in enumerate(_parameters(optimizer)):
            plain = {
                name: value
                for name, value in optimizer.state.get(parameter, {}).items()
                if not isinstance(value, torch.Tensor)
            }
            if plain:
                state[str(number)] = plain
        own = {name: value for name, value in optimizer.state.items() if not isinstance(name, torch.Tensor)}
        whole = {"param_groups": groups, "state": state} | ({"own": own} if own else {})
        self._text, self.arrays = encode_state(whole, Where("", _KIND))

    def walked(self, places: Places) -> None:
        """Learn the paths of the parameters."""
        self._places = places
        self._paths = [
            [places.path_of(parameter) for parameter in group["params"]] for group in self._optimizer.param_groups
        ]

    # -- the leaf -----------------------------------------------------------------------------------------------------

    def spec(self) -> TensorSpec | None:
        return TensorSpec("string", (), None)

    def value(self) -> Any:
        for number, paths in enumerate(self._paths):
            if None in paths:
                raise UnsupportedError(
                    "training.parameter-elsewhere",
                    Where(""),
                    f"parameter {paths.index(None)} of group {number} of the optimizer is not below the root, so nothing "
                    "would say whose state that is",
                )
        return json.dumps({"params": self._paths}, separators=(",", ":")).encode()[:-1] + b"," + self._text[1:]

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        return (
            None
            if stored.dtype == "string" and stored.shape == ()
            else f"{stored.dtype} in the file, JSON in the program"
        )

    def buffer(self) -> Array | None:
        return None

    def assign(self, value: Array) -> object:
        return value.item()

    # -- the state ----------------------------------------------------------------------------------------------------

    def why_not(self, data: bytes, specs: Mapping[str, TensorSpec]) -> str | None:
        """Return why the stored groups cannot be taken."""
        import numpy as np

        where = Where("", _KIND)
        whole = decode_state(
            data, {name: np.empty(0) for name in specs}, where
        )  # raises what is wrong with the text itself
        state = json.loads(data)
        if not _is_optimizer_state(state) or not isinstance(whole.get("own", {}), dict):
            return "what is stored is not the state of a torch optimizer"
        groups = self._stored_groups(state["params"])
        if not groups and any(state["params"]):
            return "none of its parameters is one of the stored optimizer's; name the model as the file does"
        settings = state["param_groups"]
        for number, stored in groups.items():
            first = settings[min(stored)]
            names = {name for other in stored for name in settings[other] if settings[other][name] != first.get(name)}
            if names:
                return (
                    f"the parameters of group {number} are in groups {sorted(stored)} of the file, which differ in "
                    f"{', '.join(sorted(names))}"
                )
        return None

    def absorb(self, data: bytes, arrays: Mapping[str, Array]) -> object:
        """Give the groups their settings, and the parameters what is no slot."""
        optimizer = self._optimizer
        state = decode_state(data, arrays, Where("", _KIND))
        for number, stored in self._stored_groups(state["params"]).items():
            for name, value in state["param_groups"][min(stored)].items():
                _set(optimizer.param_groups[number], name, value)
        paths = [path for group in state["params"] for path in group]
        for number, path in enumerate(paths):
            parameter = self._at(path)
            if parameter is not None:
                self._put(parameter, _moved(state["state"].get(str(number), {}), parameter.device))
        optimizer.state.update(state.get("own", {}))
        return optimizer

    def _put(self, parameter: Any, values: Mapping[str, Any]) -> None:
        """Give a parameter what is no slot, and nothing that it had before."""
        own = self._optimizer.state.get(parameter, {})
        for name in [name for name, value in own.items() if not isinstance(value, torch.Tensor)]:
            del own[name]
        if values:
            self._optimizer.state[parameter].update(values)

    def _at(self, path: str) -> Any:
        found = None if self._places is None else self._places.at(path)
        return found if isinstance(found, torch.Tensor) else None

    def _stored_groups(self, stored: Sequence[Sequence[str]]) -> dict[int, set[int]]:
        """Return number of a group of the program -> numbers of the stored groups that its parameters were in."""
        own = {id(parameter): number for number, parameter in _parameters(self._optimizer)}
        found: dict[int, set[int]] = {}
        for number, paths in enumerate(stored):
            for path in paths:
                group = own.get(id(self._at(path)))
                if group is not None:
                    found.setdefault(group, set()).add(number)
        return found


def _is_optimizer_state(state: Any) -> bool:
    """Return whether parsed JSON has the form that the head of this module draws."""
    if not isinstance(state, dict) or not {"params", "param_groups", "state"} <= state.keys():
        return False
    params, groups, rest = state["params"], state["param_groups"], state["state"]
    if not (isinstance(params, list) and isinstance(groups, list) and isinstance(rest, dict)):
        return False
    count = sum(len(paths) for paths in params if isinstance(paths, list))
    return (
        len(params) == len(groups)
        and all(isinstance(paths, list) and all(isinstance(path, str) for path in paths) for paths in params)
        and all(isinstance(group, dict) and not any(name.startswith("!") for name in group) for group in groups)
        and all(isinstance(values, dict) for values in rest.values())
        and all(number.isascii() and number.isdigit() and int(number) < count for number in rest)
    )


def _set(group: dict[str, Any], name: str, value: Any) -> None:
    own = group.get(name)
    if isinstance(own, torch.Tensor):  # a learning rate that captured graphs have a pointer to
        with torch.no_grad():
            own.copy_(torch.as_tensor(value))
    else:
        group[name] = value


def _moved(value: Any, device: Any) -> Any:
    """Return plain state with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, device) for item in value)
    return value


class _Slots:
    """The tensors of ``optimizer.state``."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._groups = 0
        self._numbers: dict[int, int] = {}

    @property
    def _own(self) -> dict[int, int]:
        """Id of every parameter -> number of its group; groups may come later."""
        if self._groups != len(self._optimizer.param_groups):
            self._groups = len(self._optimizer.param_groups)
            self._numbers = {id(parameter): number for number, parameter in _parameters(self._optimizer)}
        return self._numbers

    def names(self) -> Sequence[str]:
        state = self._optimizer.state
        found: dict[str, None] = {}
        for _, parameter in _parameters(self._optimizer):
            for name, value in state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    found[name] = None
        return list(found)

    def get(self, variable: object, name: str) -> object | None:
        if id(variable) not in self._own:
            return None
        value = self._optimizer.state.get(variable, {}).get(name)
        return value if isinstance(value, torch.Tensor) else None

    def create(self, variable: object, name: str) -> object | None:
        number = self._own.get(id(variable))
        if number is None:
            return None
        return _NewSlot(self._optimizer, self._optimizer.param_groups[number], variable, name)


class _NewSlot:
    """A slot that the optimizer would make in its first step; a restore makes it of what is stored."""

    attribute = VARIABLE_VALUE
    full_name = ""
    is_to_come = True
    copies = True

    def __init__(self, optimizer: Any, group: Mapping[str, Any], parameter: Any, name: str) -> None:
        self._optimizer, self._group, self._parameter, self._name = optimizer, group, parameter, name
        self._new: TensorLeaf | None = None
        self._stored: TensorSpec | None = None

    def __openckpt_view__(self) -> View:
        return View("slot to come", leaves=(self,))

    def spec(self) -> TensorSpec | None:
        return None

    def value(self) -> Any:
        raise AssertionError("only a restore makes new slots")

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        """Return why torch has no such tensor; shape and type are the stored ones, as in ``load_state_dict``."""
        if not hasattr(torch, stored.dtype) or stored.shape is None:
            return f"torch has no type {stored.dtype}"
        self._stored = stored
        return None

    def buffer(self) -> Array | None:
        """Make the tensor, and return its memory."""
        self._new = TensorLeaf(self._make())
        return self._new.buffer()

    def assign(self, value: Array) -> object:
        """Give it to the optimizer."""
        assert self._new is not None
        new = self._new.assign(value)
        self._optimizer.state[self._parameter][self._name] = new
        return new

    def _make(self) -> Any:
        parameter, stored = self._parameter, self._stored
        assert stored is not None and stored.shape is not None
        dtype = getattr(torch, stored.dtype)
        on_host = self._name == _ON_THE_HOST and not (self._group.get("capturable") or self._group.get("fused"))
        device = "cpu" if on_host or is_meta(parameter) else parameter.device
        lazy = torch.nn.parameter.is_lazy(parameter)
        if not lazy and stored.shape == tuple(parameter.shape):
            return torch.empty_like(parameter.detach(), dtype=dtype, device=device)  # its strides, as torch makes them
        return torch.empty(stored.shape, dtype=dtype, device=device)
