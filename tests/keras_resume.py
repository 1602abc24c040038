"""A Keras training that is killed and goes on in another process, and one that is saved after every batch, on any backend."""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import openckpt.keras
from openckpt.training import Checkpoint

X = np.linspace(-1, 1, 32 * 6, dtype=np.float32).reshape(32, 6)
Y = X[:, :2] * 2
EPOCHS = 4


class Unseeded(layers.Layer):
    """Draws from the generator of Keras that no layer holds, which Keras itself refuses on JAX."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + keras.random.normal((1,)) * 0.1 if training and keras.backend.backend() != "jax" else x


def build(**options: Any) -> Any:
    """Return a model with everything that has state: dropout, noise, moving statistics, Adam, metrics."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(4),
            layers.Dropout(0.3, seed=3),
            layers.BatchNormalization(),
            layers.GaussianNoise(0.1),
            Unseeded(),
            layers.Dense(2),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"], **options)
    return model


def train(model: Any, callbacks: list[Any], epochs: int = EPOCHS) -> Any:
    """Train on batches in a random order, as Keras does it on its own account."""
    return model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=callbacks)


def values_of(model: Any) -> list[Any]:
    getattr(model, "jax_state_sync", lambda: None)()
    variables = [*model.variables, *model.optimizer.variables]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def same(ones: list[Any], others: list[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(ones, others, strict=True))


class KilledIn(keras.callbacks.Callback):
    """Kills the process in the second batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch, self.now = epoch, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def first_run(directory: Path) -> None:
    """Train to the end, and write what came out; train again, and die."""
    model = build()
    losses = train(model, []).history["loss"]
    np.savez(directory / "never-stopped.npz", *values_of(model))
    (directory / "losses.json").write_text(json.dumps(losses))
    train(build(), [openckpt.keras.SaveCheckpoint(directory / "run"), KilledIn(2)])


def second_run(directory: Path) -> dict[str, Any]:
    """Go on in a new process, by the same line; return how that compares with the training that never stopped."""
    model = build()
    saving = openckpt.keras.SaveCheckpoint(directory / "run")
    history = train(model, [saving])
    with np.load(directory / "never-stopped.npz") as never:
        expected = [never[f"arr_{number}"] for number in range(len(never.files))]
    losses = json.loads((directory / "losses.json").read_text())
    return {
        "epochs": list(history.epoch),
        "losses": history.history["loss"] == losses[2:],
        "values": same(values_of(model), expected),
    }


class Spy(keras.callbacks.Callback):
    """Copies every value after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[Any]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(values_of(self.model))


def every_batch(directory: Path, **options: Any) -> dict[str, Any]:
    """Save after every batch of two epochs; return how many saves there are, and whether each holds the values of its batch."""
    spy = Spy()
    saving = openckpt.keras.SaveCheckpoint(directory, every=1, max_to_keep=None)
    train(build(**options), [saving, spy], epochs=2)
    equal = []
    for path, expected in zip(saving.manager.checkpoints, spy.seen, strict=True):
        model = build(**options)
        model.optimizer.build(model.trainable_variables)
        Checkpoint(model=model, epoch=0, batch=0).read(path, partial=True)
        equal.append(same(values_of(model), expected))
    return {"saves": len(equal), "same": all(equal), "place": [saving.epoch, saving.batch]}
