"""What is timed of live programs: each function saves or restores one program one way and returns ``[seconds, digest]``.

A program is built before the clock starts, and kept. Both sides have the same structure under the same names, walk it, and write
or read the object graph; before the first timing the digests of all that is stored are compared, key by key. Every side imports
every library, because imports change the heap.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Timed, arrays_digest, peak_growth, timed

import openckpt

_PER_BLOCK = 10  # small variables in one object


def _import_all() -> None:
    import torch.distributed.checkpoint  # noqa: F401


# -------------------------------------------------------------------------------------------------------- the programs


class Block:
    """An object with attributes, as tf.Module is one."""


@functools.cache
def _small_arrays(count: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return [rng.random(100, np.float32) for _ in range(count)]


def _fill(make: Any, variable: Any, count: int) -> Any:
    model = make()
    model.blocks = []
    for start in range(0, count, _PER_BLOCK):
        block = make()
        for number, array in enumerate(_small_arrays(count)[start : start + _PER_BLOCK]):
            setattr(block, f"w{number}", variable(array))
        model.blocks.append(block)
    return model


@functools.cache
def _program(kind: str, side: str, count: int) -> Any:
    """Return the ``Checkpoint`` of a program: ``keras`` or ``small``, of openckpt's or of TensorFlow's."""
    import tensorflow as tf

    _import_all()
    make = {"ours": openckpt.Checkpoint, "tf": tf.train.Checkpoint}[side.partition("-")[0]]
    if kind == "keras":
        return make(model=_keras_model(count))
    if side == "ours":
        return make(model=_fill(Block, np.array, count))  # ours-of-tf and tf share one kind of program
    return make(model=_fill(tf.Module, tf.Variable, count))


def _keras_model(count: int) -> Any:
    """A Keras model on the TensorFlow backend with ``count`` weights of 64 to 64."""
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(64) for _ in range(count // 2)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    assert len(model.weights) == count
    return model


def forget_trained() -> None:
    """Drop what is kept between calls."""
    for cached in (_saver, _program, _small_arrays, _state):
        cached.cache_clear()
    gc.collect()


# ------------------------------------------------------------------------------------------------- save and restore


def _stored(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint but the object graphs, whose unordered details may differ."""
    arrays = openckpt.load(str(path))
    return {key: value for key, value in arrays.items() if not key.startswith("_")}


def train_save(directory: str, kind: str, side: str, count: int, digest: bool = False) -> Timed:
    """Walk the program, describe it and write it, without a sync: TensorFlow never syncs."""
    checkpoint = _program(kind, side, count)
    place = Path(directory) / f"trained-{os.getpid()}"
    place.mkdir()
    os.sync()
    options = {"durability": "process-crash"} if side.startswith("ours") else {}
    try:
        return timed(
            lambda: checkpoint.write(str(place / "ckpt"), **options),
            lambda _: arrays_digest(_stored(place / "ckpt")),
            digest,
        )
    finally:
        shutil.rmtree(place)


def train_restore(directory: str, kind: str, side: str, count: int, digest: bool = False) -> Timed:
    """Read what this side itself has written into the program as it is, and assert that all of it was consumed."""
    checkpoint = _program(kind, side, count)
    place = Path(directory) / f"restored-{side}-{kind}-{count}-{os.getpid()}"
    if not place.exists():
        place.mkdir()
        checkpoint.write(str(place / "ckpt"))
    return timed(
        lambda: checkpoint.read(str(place / "ckpt")).assert_consumed(),
        lambda _: arrays_digest(_stored(place / "ckpt")),
        digest,
    )


def train_restore_growth(directory: str, count: int, nbytes: int) -> int:
    """Peak memory of a restore into existing arrays above what the process held before, in bytes."""
    arrays = {f"w{number}": np.ones(nbytes // count // 4, np.float32) for number in range(count)}
    checkpoint = openckpt.Checkpoint(model=arrays)
    path = checkpoint.write(str(Path(directory) / "growth"), durability="process-crash")
    return peak_growth(lambda: checkpoint.read(path).assert_consumed())


# -------------------------------------------------------------------------------------------------------------- async


@functools.cache
def _state(framework: str, count: int, nbytes: int) -> Any:
    """A training state: ``count`` float32 tensors, ``nbytes`` together, of ``torch``, ``jax``, ``tf`` or ``numpy``."""
    _import_all()
    rng = np.random.default_rng(1)
    arrays = {f"layer_{n:05d}": rng.random(nbytes // count // 4, np.float32) for n in range(count)}
    if framework == "torch":
        import torch

        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    if framework == "jax":
        import jax

        return jax.block_until_ready({name: jax.device_put(array) for name, array in arrays.items()})
    if framework == "tf":
        import tensorflow as tf

        return {name: tf.Variable(array) for name, array in arrays.items()}
    return arrays


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
        import orbax.checkpoint as ocp

        self._state, self._args = state, ocp.args
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save(self, place: Path) -> Any:
        self._checkpointer.save(place / "ckpt", args=self._args.StandardSave(self._state))

    def wait(self, handle: Any) -> None:
        self._checkpointer.wait_until_finished()

    def read(self, place: Path) -> dict[str, Any]:
        restored: dict[str, Any] = self._checkpointer.restore(
            place / "ckpt", args=self._args.StandardRestore(self._state)
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
    """tf.train.Checkpoint with enable_async."""

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


def train_async(directory: str, saver: str, framework: str, count: int, nbytes: int, digest: bool = False) -> Timed:
    """The time for which an async save keeps the program waiting; the writing is waited for behind the clock."""
    made = _saver(saver, framework, count, nbytes)
    place = Path(directory) / f"async-{os.getpid()}"
    place.mkdir()
    os.sync()
    gc.collect()
    try:
        start = time.perf_counter()
        handle = made.save(place)
        seconds = time.perf_counter() - start
        made.wait(handle)
        return [seconds, _values_digest(made.read(place)) if digest else None]
    finally:
        shutil.rmtree(place)


def _values_digest(arrays: dict[str, Any]) -> str:
    """Hash of the tensors alone, in the order of their names, whatever stands around these."""
    named = {key.split("/")[1] if "/" in key else key: np.asarray(value) for key, value in arrays.items()}
    return arrays_digest({name: value for name, value in named.items() if name.startswith("layer_")})


def train_async_growth(directory: str, framework: str, count: int, nbytes: int) -> int:
    """Peak memory of an async save until it is written, above what the process, with the state, held before, in bytes."""
    state = _state(framework, count, nbytes)
    return peak_growth(lambda: train_async(directory, "ours", framework, count, nbytes)) if state else 0


# --------------------------------------------------------------------------------------------------------------- loop


def _step(rounds: int) -> None:
    """Work for one core, as a training step on another device leaves the rest of the machine alone."""
    array = np.linspace(-1, 1, 4096, dtype=np.float32)
    for _ in range(rounds):
        np.tanh(array, out=array)


def train_step_rounds(seconds: float) -> int:
    """How much work takes so long here."""
    _step(1000)
    start = time.perf_counter()
    _step(5000)
    return round(5000 * seconds / (time.perf_counter() - start))


def train_loop(
    directory: str, rounds: int, steps: int, every: int, nbytes: int, saves: bool, digest: bool = False
) -> Timed:
    """Steps of the same work, with an async save after every so many of them, until the last one is written."""
    state = _state("numpy", 64, nbytes)
    checkpoint = openckpt.Checkpoint(state=state)
    place = Path(directory) / f"loop-{os.getpid()}"
    place.mkdir()
    os.sync()

    def job() -> None:
        handle: Any = None
        for step in range(1, steps + 1):
            _step(rounds)
            if saves and step % every == 0:
                handle = checkpoint.write(str(place / "ckpt"), blocking=False)
        if handle is not None:
            handle.result()

    try:
        return timed(job, lambda _: "", digest)
    finally:
        shutil.rmtree(place)
