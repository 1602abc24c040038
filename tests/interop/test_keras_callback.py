"""`openckpt.keras.SaveCheckpoint` on Keras's TensorFlow backend."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openckpt.errors import CheckpointWarning, MismatchError

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def resume(keras_module: Callable[[str], Any]) -> Any:
    return keras_module("keras_resume")


@pytest.fixture(scope="module")
def build(resume: Any) -> Any:
    """Returns a model; TensorFlow takes longer to compile one than to train it."""
    return lambda: resume.build(run_eagerly=True)


@pytest.fixture
def saving(resume: Any, tmp_path: Path) -> Any:
    """Makes a callback that saves into one directory."""
    import openckpt.keras

    return lambda **options: openckpt.keras.SaveCheckpoint(tmp_path / "run", **options)


def test_every_batch(resume: Any, tmp_path: Path) -> None:
    """Each checkpoint has the values of its batch."""
    assert resume.every_batch(tmp_path, run_eagerly=True) == {"saves": 8, "same": True, "place": [1, 4]}


def test_every_few_batches_counts_over_epochs(resume: Any, build: Any, saving: Any) -> None:
    """Four batches an epoch, a save after every third: the place says which."""
    callback = saving(every=3, max_to_keep=None)
    places = []

    class Watch(resume.keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            places.append((callback.manager.checkpoint.save_counter, callback.epoch, callback.batch))

    resume.train(build(), [callback, Watch()], epochs=2)
    assert places == [(0, 0, 0), (0, 0, 0), (1, 0, 3), (1, 0, 3), (1, 0, 3), (2, 1, 2), (2, 1, 2), (2, 1, 2)]


def test_a_run_that_is_over_is_not_trained_again(resume: Any, build: Any, saving: Any) -> None:
    """The same script, run twice; with more epochs it trains these."""
    resume.train(build(), [saving()], epochs=2)
    assert resume.train(build(), [saving()], epochs=2).epoch == []
    assert resume.train(build(), [saving()], epochs=3).epoch == [2]


def test_a_second_fit_begins_where_its_caller_says(resume: Any, build: Any, saving: Any) -> None:
    """The callback restores once."""
    resume.train(build(), [saving()], epochs=1)
    model, callback = build(), saving()
    assert resume.train(model, [callback], epochs=2).epoch == [1]
    assert resume.train(model, [callback], epochs=1).epoch == [0]
    assert callback.manager.checkpoint.save_counter == 3


def test_a_fit_that_was_interrupted_goes_on(keras: Any, resume: Any, build: Any, saving: Any) -> None:
    """The same callback again, as in a notebook whose cell is run anew: from the newest checkpoint, not from the weights of that moment."""

    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if len(callback.manager.checkpoints) == 2:
                raise KeyboardInterrupt

    model, callback = build(), saving(blocking=False)
    with pytest.raises(KeyboardInterrupt):
        resume.train(model, [callback, Interrupts()], epochs=4)
    assert resume.train(model, [callback], epochs=4).epoch == [2, 3]
    never_stopped = build()
    resume.train(never_stopped, [], epochs=4)
    assert resume.same(resume.values_of(model), resume.values_of(never_stopped))


def test_one_callback_is_of_one_model(resume: Any, build: Any, saving: Any) -> None:
    """It would go on saving the first one."""
    callback = saving()
    resume.train(build(), [callback], epochs=1)
    with pytest.raises(ValueError, match="SaveCheckpoint of its own"):
        resume.train(build(), [callback], epochs=2)


def test_restore_says_the_epoch_before_fit(resume: Any, build: Any, saving: Any) -> None:
    """For ``initial_epoch``, also where there is nothing yet."""
    callback = saving()
    with pytest.raises(ValueError, match="restore"):
        callback.manager
    assert callback.restore(build()) == 0
    resume.train(build(), [saving()], epochs=2)
    assert saving().restore(build()) == 2
    assert saving(resume=False).restore(build()) == 0


def test_the_best_stay(resume: Any, build: Any, saving: Any) -> None:
    """By a metric of validation, high or low, beside the newest."""
    model = build()
    callback = saving(max_to_keep=1, best="val_loss", mode="max")
    model.fit(
        resume.X, resume.Y, epochs=3, batch_size=8, verbose=0, shuffle=False,
        validation_data=(resume.X, resume.Y), callbacks=[callback],
    )  # fmt: skip
    losses = model.history.history["val_loss"]
    steps = {step.path[-1]: step.metrics["val_loss"] for step in callback.manager.steps}
    assert steps == {str(n + 1): losses[n] for n in {int(np.argmax(losses)), 2}}
    assert callback.manager.best_checkpoint.endswith(f"-{np.argmax(losses) + 1}")


def test_the_best_by_validation_where_batches_are_saved(resume: Any, build: Any, saving: Any) -> None:
    """Only the end of an epoch has the metric, so that there is a save then too."""
    callback = saving(every=3, best="val_loss", max_to_keep=None)
    build().fit(
        resume.X,
        resume.Y,
        epochs=2,
        batch_size=8,
        verbose=0,
        validation_data=(resume.X, resume.Y),
        callbacks=[callback],
    )
    saved = [sorted(step.metrics) for step in callback.manager.steps]
    assert saved == [["loss", "mae"], ["loss", "mae", "val_loss", "val_mae"]] * 2
    assert callback.manager.best_checkpoint is not None


def test_a_metric_that_there_is_not_is_said_at_once(resume: Any, build: Any, saving: Any) -> None:
    """With the names of those that there are, and once."""
    with pytest.warns(CheckpointWarning, match="'val_los'.*'loss', 'mae'") as caught:
        resume.train(build(), [saving(best="val_los")], epochs=2)
    assert len(caught) == 1


def test_random_generators_and_other_objects_come_back(keras: Any, resume: Any, build: Any, saving: Any) -> None:
    """Python's, NumPy's and Keras's global ones, and what the program adds."""
    own = {"best": 0.5, "table": np.zeros(2)}

    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(keras.random.uniform(()))

    resume.train(build(), [saving(also={"own": own})], epochs=1)
    expected = drawn()
    keras.utils.set_random_seed(1)

    fresh = {"best": 0.0, "table": np.ones(2)}
    saving(also={"own": fresh}).restore(build())
    assert drawn() == expected
    assert fresh["best"] == 0.5
    np.testing.assert_array_equal(fresh["table"], [0, 0])


def test_stock_tensorflow_restores_what_it_tracks(tf: Any, resume: Any, build: Any, saving: Any) -> None:
    """Weights and optimizer, by ``tf.train.Checkpoint(model=model)``."""
    model, callback = build(), saving()
    resume.train(model, [callback], epochs=1)
    other = build()
    other.optimizer.build(other.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=other)
    checkpoint.restore(callback.manager.latest_checkpoint).assert_consumed()
    for one, theirs in zip(model.weights, other.weights, strict=True):
        if "seed" not in one.path:
            np.testing.assert_array_equal(one, theirs)


def test_another_model_is_refused_before_anything_is_trained(keras: Any, resume: Any, build: Any, saving: Any) -> None:
    """The directory is another run's."""
    resume.train(build(), [saving()], epochs=1)
    other = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(9), keras.layers.Dense(2)])
    other.compile(optimizer="adam", loss="mse")
    before = [np.array(weight) for weight in other.weights]
    with pytest.raises(MismatchError):
        resume.train(other, [saving()])
    for one, two in zip(before, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_asking_for_the_random_generators_draws_from_none(keras: Any) -> None:
    """Keras seeds its own with a number of Python's, should that be its first use."""
    import openckpt.keras

    keras.utils.set_random_seed(3)
    expected = random.random()
    keras.utils.set_random_seed(3)
    assert set(openckpt.keras.random_state()) == {"python", "numpy", "keras"}
    assert random.random() == expected


def test_what_another_callback_has_counted_comes_back(keras: Any, resume: Any, build: Any, saving: Any) -> None:
    """Where it is named, and `SaveCheckpoint` comes after it: Keras's callbacks begin anew when training begins."""

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append((epoch, early.wait, early.best is not None, reduce.wait))

    def train(epochs: int) -> None:
        resume.train(build(), [early, reduce, saving(also={"early": early, "reduce": reduce}), Watch()], epochs=epochs)

    def make(kind: Any) -> Any:
        return kind(monitor="loss", patience=9, min_delta=100.0)

    seen: list[Any] = []
    early, reduce = make(keras.callbacks.EarlyStopping), make(keras.callbacks.ReduceLROnPlateau)
    train(2)
    early, reduce = make(keras.callbacks.EarlyStopping), make(keras.callbacks.ReduceLROnPlateau)
    train(4)
    assert seen == [(0, 0, False, 0), (1, 0, True, 0), (2, 1, True, 1), (3, 2, True, 2)]


def test_the_best_weights_of_another_run_come_back(keras: Any, resume: Any, build: Any, saving: Any) -> None:
    """A run that was resumed and only gets worse ends with the best weights of the run before, and warns of nothing."""

    class Worse(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.seen += 1
            if epoch >= 2:
                self.model.set_weights([value + 5 for value in self.model.get_weights()])

    def train(epochs: int) -> tuple[Any, Any, Any]:
        model, worse = build(), Worse()
        early = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
        resume.train(model, [worse, early, saving(also={"early": early, "worse": worse})], epochs=epochs)
        return model, early, worse

    _, early, _ = train(2)
    best = early.best_weights
    model, early, worse = train(4)

    assert all(map(np.array_equal, early.best_weights, best))
    assert all(map(np.array_equal, model.get_weights(), best))
    assert worse.seen == 4 and worse.params["epochs"] == 4


@pytest.mark.parametrize("every", [0, -1, "batch", 1.5, True])
def test_nonsense_is_refused(saving: Any, every: Any) -> None:
    """When the callback is made."""
    with pytest.raises(ValueError, match="every"):
        saving(every=every)


def test_saves_in_the_background(resume: Any, build: Any, saving: Any) -> None:
    """The last one is on the disk when training ends, with the values of its moment."""
    model, callback = build(), saving(blocking=False, every=1, max_to_keep=None)
    resume.train(model, [callback], epochs=2)
    assert len(callback.manager.checkpoints) == 8
    other = build()
    assert saving().restore(other) == 1
    other.optimizer.build(other.trainable_variables)
    assert resume.same(resume.values_of(model), resume.values_of(other))
