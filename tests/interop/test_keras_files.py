"""What Keras 2 and Keras 3 write beside checkpoints: .keras, .weights.h5 (whole and sharded), legacy .h5, save_weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.written import assert_reads_as_tensorflow, assert_same_array, assert_sound
from oracle import sha256_of

pytestmark = pytest.mark.interop


def _model(library: Any) -> Any:
    layers = library.layers
    model = library.Sequential(
        [layers.Input((8, 4)), layers.LSTM(5), layers.Dense(3, name="head"), layers.BatchNormalization()]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((2, 8, 4)), np.ones((2, 3)), verbose=0)
    return model


def _assert_holds_weights(path: Path, model: Any) -> None:
    """Every weight of the model is in the file, bit for bit; every dataset of the file reads as h5py reads it."""
    with openckpt.open(path) as ckpt:
        hashes = {sha256_of(ckpt[key]) for key in ckpt}
    assert {sha256_of(np.asarray(weight)) for weight in model.get_weights()} <= hashes


def _assert_reads_as_h5py(path: Path, opened: Path | None = None) -> None:
    import h5py

    expected: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: expected.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    with openckpt.open(opened or path) as ckpt:
        assert sorted(ckpt) == sorted(expected)
        for name, value in expected.items():
            assert_same_array(ckpt[name], np.asarray(value))


def test_keras_3_archive(keras: Any, tmp_path: Path) -> None:
    """A .keras archive: weights and optimizer, read in place inside the zip."""
    model = _model(keras)
    model.save(tmp_path / "model.keras")

    _assert_holds_weights(tmp_path / "model.keras", model)
    with openckpt.open(tmp_path / "model.keras") as ckpt:
        assert ckpt.format == "keras-v3"
        assert "optimizer/vars/0" in ckpt
    assert_sound(tmp_path / "model.keras")


def test_keras_3_weights(keras: Any, tmp_path: Path) -> None:
    """A .weights.h5 file, keys are the datasets' full paths."""
    model = _model(keras)
    model.save_weights(tmp_path / "model.weights.h5")

    _assert_holds_weights(tmp_path / "model.weights.h5", model)
    _assert_reads_as_h5py(tmp_path / "model.weights.h5")
    assert_sound(tmp_path / "model.weights.h5")


def test_keras_3_bfloat16_weights(keras: Any, tmp_path: Path) -> None:
    """bfloat16 is stored as opaque two-byte values with a note; it comes back as bfloat16."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16", kernel_initializer="ones")])
    model.save_weights(tmp_path / "model.weights.h5")

    _assert_holds_weights(tmp_path / "model.weights.h5", model)
    with openckpt.open(tmp_path / "model.weights.h5") as ckpt:
        assert "bfloat16" in {spec.dtype for spec in ckpt.specs.values()}


def test_keras_3_sharded_weights(keras: Any, tmp_path: Path) -> None:
    """Weights split over several files by a .weights.json."""
    model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(64) for _ in range(6))])
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=40_000 / 1024**3)

    assert len(list(tmp_path.glob("model_*.weights.h5"))) > 1
    _assert_holds_weights(tmp_path / "model.weights.json", model)
    assert_sound(tmp_path / "model.weights.json")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_legacy_h5(request: pytest.FixtureRequest, tmp_path: Path, library: str, whole: bool) -> None:
    """The old .h5 layout, whole model or weights only, of both Keras generations."""
    kind = request.getfixturevalue(library)
    model = _model(kind)
    path = tmp_path / ("model.h5" if whole or library == "tf_keras" else "model.weights.h5")
    if whole:
        model.save(path)
    else:
        model.save_weights(path)

    _assert_holds_weights(path, model)
    _assert_reads_as_h5py(path)
    assert_sound(path)


def test_tf_keras_save_weights(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """Keras 2's save_weights in the TensorFlow format, with the manifest that goes with it."""
    model = _model(tf_keras)
    model.save_weights(str(tmp_path / "weights"), save_format="tf")

    read = assert_reads_as_tensorflow(tf, str(tmp_path / "weights"))

    hashes = {sha256_of(value) for value in read.values()}
    assert {sha256_of(weight) for weight in model.get_weights()} <= hashes
    assert_sound(tmp_path)


def test_tf_keras_archive(tf_keras: Any, tmp_path: Path) -> None:
    """Keras 2.15's own .keras archive."""
    model = _model(tf_keras)
    model.save(str(tmp_path / "model.keras"), save_format="keras")

    _assert_holds_weights(tmp_path / "model.keras", model)
    assert_sound(tmp_path / "model.keras")
