"""What `interop/test_keras_backends.py` runs in a process per backend: ``python keras_child.py BACKEND DIRECTORY [train]``.

Every architecture is saved, restored from its own file and from the one that the TensorFlow backend wrote; then come the cases of
`keras_waiting` and `keras_resume`. A line of JSON says what was found in each. With ``train`` it is the first of the two processes of
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
    from keras_waiting import deferred_cases

    for case in deferred_cases(directory / f"{backend}-waiting"):
        print(json.dumps({"waiting": case}), flush=True)
    if backend != "numpy":  # which does not train
        from keras_resume import every_batch, second_run

        print(json.dumps({"resumed": second_run(directory / f"{backend}-training")}), flush=True)
        print(json.dumps({"every batch": every_batch(directory / f"{backend}-batches")}), flush=True)


def train(backend: str, directory: Path) -> None:
    """Train, and be killed."""
    os.environ["KERAS_BACKEND"] = backend
    from keras_resume import first_run

    target = directory / f"{backend}-training"
    target.mkdir()
    first_run(target)


if __name__ == "__main__":
    (train if "train" in sys.argv else main)(sys.argv[1], Path(sys.argv[2]))
