"""What `fault/test_killed_training.py` runs for a framework: ``python killed_child.py {torch|keras} DIRECTORY DEATHS``.

This process imports the framework, computes nothing with it and so has no thread of it: every life of the training is a fork.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fault.killed import Program, die_often, digest_of
from openckpt import Checkpoint


def batch_of(step: int) -> tuple[Any, Any]:
    """Return the inputs and targets of a step."""
    x = np.random.default_rng(step).normal(size=(4, 64)).astype(np.float32)
    return x, np.sin(x[:, :1])


class Torch:
    """An encoder that is declared frozen and a head with dropout; Adam and a schedule."""

    frozen = ("model/encoder",)

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = torch.nn.ModuleDict(
            {
                "encoder": torch.nn.Linear(64, 256).requires_grad_(False),
                "head": torch.nn.Sequential(torch.nn.Linear(256, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)),
            }
        )
        self.optimizer = torch.optim.Adam(self.model["head"].parameters(), 1e-3)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.999)
        self.checkpoint = Checkpoint(
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            rng=torch.default_generator,
            step=0,
        )

    def train(self, steps: int, after_each: Callable[[], None]) -> None:
        import torch

        for _ in range(steps):
            x, y = map(torch.from_numpy, batch_of(self.checkpoint.step))
            self.optimizer.zero_grad()
            (self.model["head"](self.model["encoder"](x)) - y).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            self.checkpoint.step += 1
            after_each()

    def digest(self) -> str:
        import torch

        slots = [slot for state in self.optimizer.state_dict()["state"].values() for slot in state.values()]
        rates = torch.tensor(self.scheduler.get_last_lr(), dtype=torch.float64)
        return digest_of([*self.model.state_dict().values(), *slots, rates, torch.get_rng_state()])


class Keras:
    """An encoder that is found frozen by its hash and a head with dropout, under `fit`, saved after every batch of it."""

    frozen = ()

    def __init__(self) -> None:
        import keras

        keras.utils.clear_session()

        def dense(units: int, seed: int, **options: Any) -> Any:
            start = keras.initializers.GlorotUniform(seed=seed)
            return keras.layers.Dense(units, kernel_initializer=start, **options)

        self.model = keras.Sequential(
            [
                keras.layers.Input((64,)),
                dense(256, 1, trainable=False),
                dense(8, 2, activation="relu"),
                keras.layers.Dropout(0.2, seed=3),
                dense(1, 4),
            ]
        )
        self.model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
        self.model.optimizer.build(self.model.trainable_variables)
        self.checkpoint = Checkpoint(model=self.model, optimizer=self.model.optimizer, step=0)

    def train(self, steps: int, after_each: Callable[[], None]) -> None:
        import keras

        program = self

        class Counting(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                program.checkpoint.step += 1
                after_each()

        first = self.checkpoint.step
        x, y = map(np.concatenate, zip(*(batch_of(step) for step in range(first, first + steps)), strict=True))
        self.model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[Counting()])

    def digest(self) -> str:
        getattr(self.model, "jax_state_sync", lambda: None)()
        variables = [*self.model.variables, *self.model.optimizer.variables]
        return digest_of(variable.numpy() for variable in variables)


def prepare_torch() -> Callable[[], Program]:
    import torch._dynamo  # noqa: F401 - every optimizer imports it at its first step, for seconds

    return Torch


def prepare_keras(directory: Path) -> Callable[[], Program]:
    import jax
    import keras  # noqa: F401

    # One life compiles the step of `fit`, the others read it.
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return Keras


if __name__ == "__main__":
    framework, place, deaths = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    make = prepare_torch() if framework == "torch" else prepare_keras(place)
    print(die_often(make, place, deaths))
