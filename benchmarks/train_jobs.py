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
    for cached in (_program, _small_arrays):
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
