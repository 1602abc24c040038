"""Restores before anything is built, on the backend of this process: what `deferred_cases` finds, case by case.

A model is saved whole, then a fresh one, which has no variables yet, is restored and then built in one of four ways. Values are
read after that, and after a step at learning rate 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_models as models
from openckpt.training import Checkpoint


class FunctionalInside(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        entry = layers.Input((6,))
        self.before = layers.Dense(6)
        self.inner = keras.Model(entry, layers.Dense(4)(entry))
        self.after = layers.Dense(2)

    def build(self, shape: Any) -> None:
        self.before.build(shape)
        self.after.build((None, 4))

    def call(self, x: Any) -> Any:
        return self.after(self.inner(self.before(x)))


class Subclassed(models.Subclassed):
    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((None, 3))


class MakesInBuild(keras.Model):
    """Its layers make layers and weights in ``build``, and it keeps more of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.grower = models.Grower(3)
        self.rest = [layers.Dense(3), layers.Dense(2)]

    def build(self, shape: Any) -> None:
        self.grower.build(shape)
        for layer in self.rest:
            layer.build((None, 3))

    def call(self, x: Any) -> Any:
        x = self.grower(x)
        for layer in self.rest:
            x = layer(x)
        return x


def sequential() -> Any:
    return keras.Sequential(
        [layers.Dense(3), layers.Dropout(0.0, seed=1), layers.BatchNormalization(), layers.Dense(2)]
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "sequential": sequential,
    "functional in subclass": FunctionalInside,
    "subclassed": Subclassed,
    "layers made in build": MakesInBuild,
}
WAYS: dict[str, Callable[[Any], object]] = {
    "call": lambda model: model(models.X),
    "build": lambda model: model.build((None, 6)),
    "fit": lambda model: model.fit(models.X, models.Y, batch_size=4, verbose=0),
    "predict": lambda model: model.predict(models.X, verbose=0),
}


def compiled(name: str) -> Any:
    keras.utils.clear_session()
    model = MAKERS[name]()
    model.compile(optimizer=keras.optimizers.SGD(0.0, momentum=0.5), loss="mse")
    return model


def filled(name: str, seed: int = 0) -> Any:
    """Return a model that is built and has values of its own, its optimizer too."""
    model = compiled(name)
    model(models.X)
    model.optimizer.build(model.trainable_variables)
    models.fill(model, seed)
    return model


def by_path(model: Any) -> dict[str, Any]:
    variables = [*model.variables, *model.optimizer.variables, *(seed.state for seed in models.seeds_of(model))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            variable.path: np.array(keras.ops.convert_to_numpy(variable.value)).astype("float64")
            for variable in variables
        }


def after_a_step(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a step at learning rate 0 and momentum 0.5 makes of the values: it goes on in the old direction."""
    new = {}
    for key, value in values.items():
        moved = values.get(f"sgd/{key.replace('/', '_')}_momentum")
        new[key] = value if moved is None else value + 0.5 * moved
        if key.endswith("momentum"):
            new[key] = value * 0.5
    return {**new, "sgd/iteration": values["sgd/iteration"] + 1}


def deferred_cases(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield for every maker and way which variables were wrong or missing, and what still waits or is wrapped."""
    ways = [way for way in WAYS if way != "fit" or keras.backend.backend() != "numpy"]  # NumPy does not train
    for name in MAKERS:
        model = filled(name)
        model.optimizer.learning_rate = 0.0
        saved = by_path(model)
        path = Checkpoint(model=model, optimizer=model.optimizer).write(directory / name.replace(" ", "-"))
        for way in ways:
            model = compiled(name)
            checkpoint = Checkpoint(model=model, optimizer=model.optimizer)
            status = checkpoint.read(path, partial=True)
            waited = status.report.waiting
            WAYS[way](model)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            found, expected = by_path(model), saved
            if way == "fit":  # what a step at learning rate 0 does
                expected = after_a_step(expected)
                found = {key: value for key, value in found.items() if "moving" not in key and "seed" not in key}
            wrapped = [
                layer.name for layer in model._flatten_layers() if hasattr(vars(layer)["build"], "_openckpt_listeners")
            ]
            yield {
                "case": f"{name} x {way}",
                "variables": len(found),
                "waited": waited > 0,
                "wrong": [
                    key for key in found if key not in expected or not np.allclose(found[key], expected[key], 1e-6)
                ],
                "wrapped": wrapped,
                "waiting": status.report.waiting,
            }
