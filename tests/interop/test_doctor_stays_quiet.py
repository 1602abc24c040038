"""Directories that TensorFlow's own savers leave after honest trainings: the doctor has nothing above a note to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.written import assert_sound

pytestmark = pytest.mark.interop


def _fit_once(tf: Any, model: Any, optimizer: Any) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(tf.ones((2, 4))) ** 2)
    optimizer.apply_gradients(
        zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
    )


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_optimizer_that_gets_its_slots_after_the_first_save(
    tf: Any, request: pytest.FixtureRequest, tmp_path: Path, library: str
) -> None:
    """ckpt-1 before the first step, ckpt-2 after it: keys appear, and with Keras 3 some of them move (formats 6.5)."""
    keras = request.getfixturevalue(library)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam()
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "run"), max_to_keep=5)
    manager.save()
    _fit_once(tf, model, optimizer)
    manager.save()

    assert_sound(tmp_path / "run")
    codes = {finding.code for finding in openckpt.diagnose(tmp_path / "run").all_findings()}
    assert "run.grown" in codes


def test_numbers_of_another_counter(tf: Any, tmp_path: Path) -> None:
    """Steps in the names that are not the save_counter in the data, hours kept apart, and a swept manifest."""
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(step=step, w=tf.Variable(np.arange(5.0)))
    manager = tf.train.CheckpointManager(
        checkpoint, str(tmp_path / "run"), max_to_keep=2, keep_checkpoint_every_n_hours=1e-7
    )
    for _ in range(4):
        step.assign_add(250)
        manager.save(checkpoint_number=step)

    assert_sound(tmp_path / "run")


def test_plain_saves_and_writes_without_a_manager(tf: Any, tmp_path: Path) -> None:
    """save keeps every step and lists one; write leaves no manifest at all."""
    checkpoint = tf.train.Checkpoint(w=tf.Variable(np.arange(5.0)))
    for number in range(3):
        checkpoint.w.assign_add(np.full(5, number))
        checkpoint.save(str(tmp_path / "saved" / "ckpt"))
    checkpoint.write(str(tmp_path / "written" / "weights"))

    assert_sound(tmp_path / "saved")
    assert_sound(tmp_path / "written")
    assert_sound(tmp_path)


def test_checkpoint_overwritten_in_place(tf: Any, tmp_path: Path) -> None:
    """The same prefix again and again, with another number of shards in between."""
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=100)
    checkpoint = tf.train.Checkpoint(w=tf.Variable(np.arange(40.0)))
    for options in (None, None):
        checkpoint.write(str(tmp_path / "ckpt"), options=options)
    assert_sound(tmp_path / "ckpt")
    checkpoint.write(
        str(tmp_path / "pieces"), options=tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    )
    assert_sound(tmp_path / "pieces")


def test_saver_with_retention_and_absolute_paths(tf: Any, tmp_path: Path) -> None:
    """A TF1 Saver: absolute paths of this very directory in the manifest, five kept, padded step numbers."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", initializer=np.zeros(3, np.float32))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(max_to_keep=3, pad_step_number=True)
        for step in (1, 20, 300, 4000):
            session.run(variable.assign(np.full(3, step, np.float32)))
            saver.save(session, str(tmp_path / "run" / "model.ckpt"), global_step=step)

    assert_sound(tmp_path / "run")
    report = openckpt.diagnose(tmp_path / "run")
    assert [checkpoint.step for checkpoint in report.checkpoints] == [4000, 300, 20]


def test_keras_callbacks(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """ModelCheckpoint in the TF format, best and per epoch, beside each other."""
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(2)])
    model.compile("adam", "mse")
    callbacks = [
        tf_keras.callbacks.ModelCheckpoint(str(tmp_path / "run" / "epoch-{epoch}"), save_weights_only=True),
        tf_keras.callbacks.ModelCheckpoint(
            str(tmp_path / "run" / "best"), save_weights_only=True, save_best_only=False
        ),
    ]
    model.fit(np.ones((4, 4)), np.ones((4, 2)), epochs=3, verbose=0, callbacks=callbacks)

    assert_sound(tmp_path / "run")


def test_lookup_tables_that_grow(tf: Any, tmp_path: Path) -> None:
    """The tensors of a mutable table change their shape from save to save."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    checkpoint = tf.train.Checkpoint(table=table)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "run"), max_to_keep=5)
    for count in (3, 9):
        table.insert(tf.range(count, dtype=tf.int64), tf.range(count, dtype=tf.int64))
        manager.save()

    assert_sound(tmp_path / "run")
