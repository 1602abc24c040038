"""What Keras layers learn by ``adapt``, saved and restored into layers that were not adapted, on the backend of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from openckpt.training import Checkpoint

X = np.linspace(-5, 9, 8 * 6, dtype=np.float32).reshape(8, 6) ** 2


def _normalizing(*entry: Any) -> Any:
    keras.utils.clear_session()
    return keras.Sequential([*entry, layers.Normalization(), layers.Dense(2)])


def normalization_is_restored(directory: Path) -> bool:
    """Return whether the layer computes with what it got: it keeps what it made of its variables when it was built."""
    model = _normalizing(layers.Input((6,)))
    model.layers[0].adapt(X)
    expected = keras.ops.convert_to_numpy(model(X))
    path = Checkpoint(model=model).write(directory / "normalization")
    built, later = _normalizing(layers.Input((6,))), _normalizing()
    Checkpoint(model=built).read(path).assert_consumed()
    status = Checkpoint(model=later).read(path, partial=True)
    found = [keras.ops.convert_to_numpy(one(X)) for one in (built, later)]
    status.assert_consumed()
    return all(np.allclose(one, expected, 1e-5) for one in found)


def boundaries_are_restored(directory: Path) -> bool:
    """Return whether the bins of a fresh layer are those that another one has learned, and stay where it has learned none."""
    kinds = {"learned": layers.Discretization(num_bins=4), "fixed": layers.Discretization(bin_boundaries=[1.0, 2.0])}
    kinds["learned"].update_state(X)
    kinds["learned"].finalize_state()
    fresh = {"learned": layers.Discretization(num_bins=4), "fixed": layers.Discretization(bin_boundaries=[3.0])}
    nothing = Checkpoint(**fresh).write(directory / "nothing")
    Checkpoint(**fresh).read(Checkpoint(**kinds).write(directory / "boundaries")).assert_consumed()
    Checkpoint(**fresh).read(nothing).assert_consumed()
    same = np.array_equal(*(keras.ops.convert_to_numpy(one["learned"](X)) for one in (kinds, fresh)))
    return same and list(fresh["learned"].bin_boundaries) == list(kinds["learned"].bin_boundaries)


def learned(directory: Path) -> dict[str, bool]:
    """Return what came back."""
    return {"normalization": normalization_is_restored(directory), "boundaries": boundaries_are_restored(directory)}
