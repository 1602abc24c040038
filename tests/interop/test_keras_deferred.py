"""Restores before anything is built, on Keras's TensorFlow backend: values wait for layers, optimizers, compiled models."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_graphs import check_waiting
from openckpt.errors import MismatchError, PartialRestoreWarning
from openckpt.training import Checkpoint

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def waiting(keras_module: Callable[[str], Any]) -> Any:
    return keras_module("keras_waiting")


def test_models_of_every_kind_built_in_every_way(waiting: Any, tmp_path: Path, record_property: Any) -> None:
    """Sequential, functional in subclass, subclassed, layers made in build x call, build, fit, predict."""
    cases = list(waiting.deferred_cases(tmp_path))
    assert len(cases) == 16
    for case in cases:
        check_waiting(case)
    record_property("proof", f"Keras on tensorflow: {len(cases)} restores before anything was built")


def test_a_file_of_stock_tensorflow_waits_too(tf: Any, waiting: Any, tmp_path: Path) -> None:
    """The values that it has."""
    model = waiting.filled("sequential")
    expected = waiting.by_path(model)
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "theirs"))
    model = waiting.compiled("sequential")
    status = Checkpoint(model=model, optimizer=model.optimizer).read(path, partial=True)

    model(waiting.models.X)
    model.optimizer.build(model.trainable_variables)

    status.assert_consumed()
    for name, value in waiting.by_path(model).items():
        if "seed" not in name:
            np.testing.assert_array_equal(value, expected[name])


def test_the_files_may_go_while_values_wait(waiting: Any, tmp_path: Path) -> None:
    """The opened checkpoint stays open, and is closed with the last value or with the program's last object."""
    model = waiting.compiled("subclassed")
    model(waiting.models.X)
    expected = waiting.by_path(model)
    path = Checkpoint(model=model).write(tmp_path / "run" / "ckpt")
    model = waiting.compiled("subclassed")
    checkpoint = Checkpoint(model=model)
    checkpoint.read(path, partial=True)
    (deferral,) = checkpoint._deferrals
    stored = deferral._stored
    shutil.rmtree(tmp_path / "run")
    del checkpoint, deferral
    gc.collect()

    model(waiting.models.X)

    for name, value in waiting.by_path(model).items():
        np.testing.assert_array_equal(value, expected[name])
    assert stored.closed


def test_a_program_that_goes_away_closes_the_file(waiting: Any, tmp_path: Path) -> None:
    """Nothing but the objects that wait keeps it open."""
    model = waiting.compiled("subclassed")
    model(waiting.models.X)
    path = Checkpoint(model=model).write(tmp_path / "ckpt")
    model = waiting.compiled("subclassed")
    checkpoint = Checkpoint(model=model)
    checkpoint.read(path, partial=True)
    stored = checkpoint._deferrals[0]._stored
    assert not stored.closed
    del model, checkpoint
    gc.collect()
    assert stored.closed


def test_the_newest_restore_wins(waiting: Any, tmp_path: Path) -> None:
    """Also where the older one finds its objects later than the newer one did."""
    paths = []
    for seed in (0, 1):
        model = waiting.filled("subclassed", seed)
        paths.append(Checkpoint(model=model, optimizer=model.optimizer).write(tmp_path / str(seed)))
    expected = waiting.by_path(model)

    for built_between in (False, True):
        model = waiting.compiled("subclassed")
        checkpoint = Checkpoint(model=model, optimizer=model.optimizer)
        checkpoint.read(paths[0], partial=True)
        if built_between:
            model(waiting.models.X)
        checkpoint.read(paths[1], partial=True)
        model(waiting.models.X)
        model.optimizer.build(model.trainable_variables)
        for name, value in waiting.by_path(model).items():
            np.testing.assert_array_equal(value, expected[name])


def test_an_optimizer_that_compile_brings(keras: Any, waiting: Any, tmp_path: Path) -> None:
    """The model was restored without one; the optimizer gets its values when there is one, its slots when it is built."""
    model = waiting.filled("subclassed")
    expected = waiting.by_path(model)
    path = Checkpoint(model).write(tmp_path / "ckpt")
    keras.utils.clear_session()
    model = waiting.Subclassed()
    model(waiting.models.X)
    status = Checkpoint(model).read(path, partial=True)

    model.compile(optimizer=keras.optimizers.SGD(0.5, momentum=0.5), loss="mse")
    np.testing.assert_allclose(model.optimizer.learning_rate.numpy(), expected["sgd/learning_rate"])
    model.optimizer.build(model.trainable_variables)

    for name, value in waiting.by_path(model).items():
        np.testing.assert_array_equal(value, expected[name])
    status.assert_existing_objects_matched()


def test_metrics_that_are_not_made_yet_are_not_missed(keras: Any, waiting: Any, tmp_path: Path) -> None:
    """Keras makes them in the first step of a training: until then `assert_consumed` holds, as with stock TensorFlow."""

    def make() -> Any:
        keras.utils.clear_session()
        model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse", metrics=["mae"])
        model.optimizer.build(model.trainable_variables)
        return model

    trained, model = make(), make()
    trained.train_on_batch(waiting.models.X, waiting.models.Y)
    totals = [float(variable) for variable in trained.metrics_variables]
    status = Checkpoint(model=model).read(Checkpoint(model=trained).write(tmp_path / "ckpt"))
    status.assert_consumed()
    assert status.report.waiting == 1

    model._symbolic_build(data_batch=(waiting.models.X, waiting.models.Y))

    assert [float(variable) for variable in model.metrics_variables] == totals
    assert status.assert_consumed().report.waiting == 0


def test_metrics_that_the_file_has_not_are_warned_of_and_no_more(keras: Any, waiting: Any, tmp_path: Path) -> None:
    """The program has got a metric since: TensorFlow's questions are about weights and optimizers."""
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    path = Checkpoint(model=model).write(tmp_path / "ckpt")
    model.mean = keras.metrics.Mean()
    with pytest.warns(PartialRestoreWarning, match="bound 3 of 5"):
        Checkpoint(model=model).read(path)
    Checkpoint(model=model).read(path, partial=True).assert_consumed()


def test_another_size_is_refused_when_it_is_built(keras: Any, waiting: Any, tmp_path: Path) -> None:
    """By name, and once: the program may go on with what it made."""
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
    path = Checkpoint(model=model).write(tmp_path / "ckpt")
    other = keras.Sequential([keras.layers.Dense(5)])
    checkpoint = Checkpoint(model=other)
    checkpoint.read(path, partial=True)

    with (
        pytest.warns(PartialRestoreWarning, match="_kernel"),
        pytest.raises(MismatchError, match="_kernel") as caught,
    ):
        other(waiting.models.X)

    assert caught.value.code == "training.mismatch"
    assert "(root).model." in str(caught.value)
    assert other.layers[0].kernel.path in str(caught.value)
    other(waiting.models.X)
    checkpoint.write(tmp_path / "new")


def test_a_refusal_that_keras_swallows_is_heard(keras: Any, waiting: Any, tmp_path: Path) -> None:
    """A model without ``build`` is built by trying a call, whose failure Keras keeps to itself."""

    class Nested(keras.Model):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.inner = keras.Sequential([keras.layers.Dense(units)])

        def call(self, x: Any) -> Any:
            return self.inner(x)

    model, other = Nested(3), Nested(5)
    model(waiting.models.X)
    checkpoint = Checkpoint(model=other)
    checkpoint.read(Checkpoint(model=model).write(tmp_path / "ckpt"))
    with pytest.warns(PartialRestoreWarning, match=r"not restored.*shape \(6, 3\) in the file"):
        other(waiting.models.X)


def test_weights_in_lists_that_stock_tensorflow_lost_are_named(tf: Any, waiting: Any, tmp_path: Path) -> None:
    """They are not in its file; its own assertions hold, with these weights random."""
    model, other = waiting.models.Lists(), waiting.models.Lists()
    model(waiting.models.X), other(waiting.models.X)
    stock = tf.train.Checkpoint(model=model)
    path = stock.write(str(tmp_path / "theirs"))
    stock.read(path).assert_consumed()

    status = Checkpoint(model=other).read(path, partial=True)

    assert len(status.report.untracked) == 8
    assert "(root).model.blocks.0._kernel" in status.report.untracked
    with pytest.raises(AssertionError):
        status.assert_existing_objects_matched()
