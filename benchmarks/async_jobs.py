"""What is timed of async saves: how long the program waits. Each function returns ``[seconds, digest]``.

A state is made before the clock starts. The moment the call returns the state is changed all over, as a training step would change
it: in place, or, of JAX arrays, by a step to which they are donated. What lies in the file must be the old values: the digest is
that of the file, and it is compared with the state's own, taken before the save. Everything is written before the next call.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Timed, arrays_digest, peak_growth

import openckpt

# ------------------------------------------------------------------------------------------------------------- states


@functools.cache
def _state(framework: str, count: int, nbytes: int) -> dict[str, Any]:
    """A training state: ``count`` float32 tensors, ``nbytes`` together, of ``torch``, ``jax``, ``tf`` or ``numpy``."""
    import torch.distributed.checkpoint  # noqa: F401 - by every side, as all imports

    rng = np.random.default_rng(1)
    make = _MAKE[framework]()
    return {f"layer_{n:05d}": make(rng.random(nbytes // count // 4, np.float32)) for n in range(count)}


def _of_torch() -> Callable[[Any], Any]:
    import torch

    return torch.from_numpy


def _of_jax() -> Callable[[Any], Any]:
    import jax

    # In memory of its own: what shares numpy's cannot be donated.
    return lambda array: jax.block_until_ready(jax.numpy.array(array, copy=True))


def _of_tf() -> Callable[[Any], Any]:
    import tensorflow as tf

    return tf.Variable


_MAKE: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "torch": _of_torch,
    "jax": _of_jax,
    "tf": _of_tf,
    "numpy": lambda: np.array,
}


@functools.cache
def _jax_step() -> Any:
    import jax

    return jax.jit(lambda state: {name: array + 1 for name, array in state.items()}, donate_argnums=0)


def _change(framework: str, state: dict[str, Any]) -> None:
    """Change every value, as a training step does."""
    if framework == "jax":
        import jax

        state.update(jax.block_until_ready(_jax_step()(state)))
    elif framework == "tf":
        for variable in state.values():
            variable.assign_add(variable)
    else:
        for tensor in state.values():
            tensor += 1


def forget_async() -> None:
    """Drop what is kept between calls."""
    for cached in (_saver, _state, _jax_step, _loop_checkpoint):
        cached.cache_clear()
    gc.collect()


# ------------------------------------------------------------------------------------------------------------- savers


class _Ours:
    """openckpt's async save, durable as by default."""

    def __init__(self, state: Any) -> None:
        self._checkpoint = openckpt.Checkpoint(state=state)

    def save(self, place: Path) -> Any:
        return self._checkpoint.write(str(place / "ckpt"), blocking=False)

    def wait(self, handle: Any) -> None:
        handle.result()

    def read(self, place: Path) -> dict[str, Any]:
        return openckpt.load(str(place / "ckpt"))


class _Orbax:
    """Orbax's AsyncCheckpointer."""

    def __init__(self, state: Any) -> None:
        import jax
        import orbax.checkpoint as ocp

        self._state, self._args = state, ocp.args
        self._shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in state.items()}
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save(self, place: Path) -> Any:
        self._checkpointer.save(place / "ckpt", args=self._args.StandardSave(self._state))

    def wait(self, handle: Any) -> None:
        self._checkpointer.wait_until_finished()

    def read(self, place: Path) -> dict[str, Any]:
        restored: dict[str, Any] = self._checkpointer.restore(
            place / "ckpt", args=self._args.StandardRestore(self._shapes)
        )
        return restored


class _DCP:
    """torch.distributed.checkpoint in one process."""

    def __init__(self, state: Any) -> None:
        self._state = {"state": state}

    def save(self, place: Path) -> Any:
        import torch.distributed.checkpoint as dcp

        return dcp.async_save(self._state, checkpoint_id=str(place / "ckpt"))

    def wait(self, handle: Any) -> None:
        handle.result()

    def read(self, place: Path) -> dict[str, Any]:
        import torch
        import torch.distributed.checkpoint as dcp

        target = {"state": {name: torch.zeros_like(tensor) for name, tensor in self._state["state"].items()}}
        dcp.load(target, checkpoint_id=str(place / "ckpt"))
        return {name: tensor.numpy() for name, tensor in target["state"].items()}


class _TensorFlow:
    """tf.train.Checkpoint with enable_async, which was experimental_enable_async_checkpoint."""

    def __init__(self, state: Any) -> None:
        import tensorflow as tf

        self._checkpoint = tf.train.Checkpoint(state=state)
        self._options = tf.train.CheckpointOptions(enable_async=True)

    def save(self, place: Path) -> Any:
        return self._checkpoint.write(str(place / "ckpt"), options=self._options)

    def wait(self, handle: Any) -> None:
        self._checkpoint.sync()

    def read(self, place: Path) -> dict[str, Any]:
        return openckpt.load(str(place / "ckpt"))


_SAVERS = {"ours": _Ours, "orbax": _Orbax, "dcp": _DCP, "tf": _TensorFlow}


@functools.cache
def _saver(saver: str, framework: str, count: int, nbytes: int) -> Any:
    return _SAVERS[saver](_state(framework, count, nbytes))


# ---------------------------------------------------------------------------------------------------------------- jobs


def async_save(
    directory: str, saver: str, framework: str, count: int, nbytes: int, new: bool, digest: bool = False
) -> Timed:
    """The time for which an async save keeps the program waiting; with ``new`` the first save of a saver made for it."""
    state = _state(framework, count, nbytes)
    place = Path(directory) / f"async-{os.getpid()}"
    place.mkdir()
    if new:
        _saver.cache_clear()  # with the memory that it has kept
    gc.collect()
    made = _saver(saver, framework, count, nbytes)
    before = _values_digest(state) if digest else None
    os.sync()
    gc.collect()
    try:
        start = time.perf_counter()
        handle = made.save(place)
        seconds = time.perf_counter() - start
        _change(framework, state)
        made.wait(handle)
        if digest and _values_digest(made.read(place)) != before:
            raise AssertionError(f"{saver}: the file does not hold the values that {framework} had at the call")
        return [seconds, before]
    finally:
        shutil.rmtree(place)


def _values_digest(arrays: dict[str, Any]) -> str:
    """Hash of the tensors alone, in the order of their names, whatever stands around these."""
    named = {key.split("/")[1] if "/" in key else key: value for key, value in arrays.items() if "layer_" in key}
    return arrays_digest({name: np.array(named[name]) for name in sorted(named)})


def async_growth(directory: str, framework: str, count: int, nbytes: int) -> int:
    """Peak memory of an async save and the step behind it, until all is written, above what the process held before.

    A step comes before, for what it needs itself.
    """
    _change(framework, _state(framework, count, nbytes))
    return peak_growth(lambda: async_save(directory, "ours", framework, count, nbytes, new=True))


# --------------------------------------------------------------------------------------------------------------- loop


def _step(rounds: int) -> None:
    """Work for one core, as a training step on another device leaves the rest of the machine alone."""
    array = np.linspace(-1, 1, 4096, dtype=np.float32)
    for _ in range(rounds):
        np.tanh(array, out=array)


@functools.cache
def _rounds(seconds: float) -> int:
    """How much work takes so long here."""
    fastest = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        _step(1000)
        fastest = min(fastest, time.perf_counter() - start)
    return round(1000 * seconds / fastest)


@functools.cache
def _loop_checkpoint(nbytes: int) -> openckpt.Checkpoint:
    return openckpt.Checkpoint(state=_state("numpy", 64, nbytes))


def loop_with_save(directory: str, nbytes: int, steps: int, seconds: float, saves: bool, digest: bool = False) -> Timed:
    """A piece of a long loop: steps of the same work, and in the middle of them an async save, which the end waits for.

    In the middle, because in a loop that goes on a save has the steps behind it to end in.
    """
    checkpoint, rounds = _loop_checkpoint(nbytes), _rounds(seconds)
    place = Path(directory) / f"loop-{os.getpid()}"
    place.mkdir()
    os.sync()
    gc.collect()
    try:
        start = time.perf_counter()
        for step in range(steps):
            _step(rounds)
            if saves and step == steps // 2:
                handle = checkpoint.write(str(place / "ckpt"), blocking=False)
        if saves:
            handle.result()
        return [time.perf_counter() - start, ""]
    finally:
        shutil.rmtree(place)
