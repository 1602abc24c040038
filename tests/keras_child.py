"""What `interop/test_keras_backends.py` runs in a process per backend: ``python keras_child.py BACKEND DIRECTORY [train]``.

Every architecture is saved, restored from its own file and from the one that the TensorFlow backend wrote; then come those of
`keras_learned`, `keras_waiting` and `keras_resume`. A line of JSON says what was found in each. With ``train`` it is the first of the two processes of
`keras_resume`, and dies.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any


def main(backend: str, directory: Path) -> None:
    os.environ["KERAS_BACKEND"] = backend
    import numpy as np

    import keras_models as models
    from openckpt.training import Checkpoint

    def same(before: list[Any], after: list[Any]) -> bool:
        return all(np.array_equal(a.astype("float64"), b.astype("float64")) for a, b in zip(before, after, strict=True))

    for name in models.BUILDERS:
        model = models.make(name)
        models.fill(model)
        before = models.values_of(model)
        saved = Checkpoint(model=model, optimizer=model.optimizer).write(directory / backend / name)
        said: dict[str, Any] = {"name": name, "variables": len(before)}
        for origin, path in (("own", saved), ("tensorflow's", directory / "tensorflow" / name)):
            models.fill(model, 1)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                status = Checkpoint(model=model, optimizer=model.optimizer).read(path).assert_consumed()
            said[origin] = {"bound": status.report.bound, "same": same(before, models.values_of(model))}
        print(json.dumps({"architecture": said}), flush=True)
    print(json.dumps({"odd": ODD[backend](directory) if backend in ODD else None}), flush=True)
    from keras_learned import learned

    print(json.dumps({"learned": learned(directory / f"{backend}-learned")}), flush=True)
    from keras_waiting import deferred_cases

    for case in deferred_cases(directory / f"{backend}-waiting"):
        print(json.dumps({"waiting": case}), flush=True)
    if backend != "numpy":  # which does not train
        from keras_resume import every_batch, second_run

        print(json.dumps({"resumed": second_run(directory / f"{backend}-training")}), flush=True)
        print(json.dumps({"every batch": every_batch(directory / f"{backend}-batches")}), flush=True)


def torch_module(directory: Path) -> bool:
    """Return whether the buffers of a torch module inside of a Keras layer come back, its parameters only once in the file."""
    import keras
    import torch

    import openckpt
    from openckpt.training import Checkpoint

    def make() -> Any:
        return keras.Sequential([keras.layers.Input((3,)), keras.layers.TorchModuleWrapper(torch.nn.BatchNorm1d(3))])

    model, other = make(), make()
    model.layers[0].module.running_mean.fill_(7)
    path = Checkpoint(model=model).write(directory / "module")
    Checkpoint(model=other).read(path).assert_consumed()
    with openckpt.open(path) as stored:
        sizes = [spec.shape for spec in stored.specs.values() if spec.shape == (3,)]
    return bool((other.layers[0].module.running_mean == 7).all()) and len(sizes) == 4


def no_value(directory: Path) -> bool:
    """Return whether a variable whose value is inside of ``fit`` is refused by name, and left out by nobody."""
    import keras

    from openckpt.errors import UnsupportedError
    from openckpt.training import Checkpoint

    variable = keras.Variable([1.0, 2.0], name="lost")
    variable._value = None  # as the trainer does for the time of an epoch
    try:
        Checkpoint(variable=variable).write(directory / "none")
    except UnsupportedError as error:
        return error.code == "training.inside-fit" and "lost" in str(error)
    return False


ODD = {"torch": torch_module, "jax": no_value}


def train(backend: str, directory: Path) -> None:
    """Train, and be killed."""
    os.environ["KERAS_BACKEND"] = backend
    from keras_resume import first_run

    target = directory / f"{backend}-training"
    target.mkdir()
    first_run(target)


if __name__ == "__main__":
    (train if "train" in sys.argv else main)(sys.argv[1], Path(sys.argv[2]))
