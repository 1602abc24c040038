"""What TensorFlow's savers write: object-based checkpoints, V1 and V2 Savers, many shards, merges, SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.written import assert_reads_as_tensorflow, assert_same_array, assert_sound, save_v2

pytestmark = pytest.mark.interop

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def _graph_of(tf: Any, prefix: str) -> Any:
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    serialized = tf.train.load_checkpoint(prefix).get_tensor(GRAPH_KEY)
    return trackable_object_graph_pb2.TrackableObjectGraph.FromString(serialized)


def _assert_graph_equal(tf: Any, prefix: str) -> None:
    """openckpt's object graph has the nodes, children, attributes and slots of TensorFlow's own proto."""
    expected = [
        (
            [(child.local_name, child.node_id) for child in node.children],
            [(attribute.name, attribute.full_name, attribute.checkpoint_key) for attribute in node.attributes],
            [
                (slot.original_variable_node_id, slot.slot_name, slot.slot_variable_node_id)
                for slot in node.slot_variables
            ],
        )
        for node in _graph_of(tf, prefix).nodes
    ]
    with openckpt.open(prefix) as ckpt:
        graph = ckpt.graph
        assert graph is not None
        read = [
            (
                [(child.local_name, child.node_id) for child in node.children],
                [(attribute.name, attribute.full_name, attribute.checkpoint_key) for attribute in node.attributes],
                [
                    (slot.original_variable_node_id, slot.slot_name, slot.slot_variable_node_id)
                    for slot in node.slot_variables
                ],
            )
            for node in graph.nodes
        ]
    assert read == expected


def _train(tf: Any, model: Any, optimizer: Any) -> None:
    """One step of training, so that the optimizer has slots."""
    x = tf.constant(np.random.default_rng(0).normal(size=(8, 4)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def test_checkpoint_with_legacy_optimizer_slots(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """Keras 2 model with the old Adam: slots are slot variables of the graph."""
    model = tf_keras.Sequential([tf_keras.layers.Dense(3), tf_keras.layers.Dense(2)])
    optimizer = tf_keras.optimizers.legacy.Adam(0.01)
    _train(tf, model, optimizer)
    prefix = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "ckpt"))

    read = assert_reads_as_tensorflow(tf, prefix)

    assert sum("/.OPTIMIZER_SLOT/optimizer/" in key for key in read) == 8
    _assert_graph_equal(tf, prefix)
    assert_sound(prefix)
    assert_sound(tmp_path)


def test_checkpoint_with_new_optimizer(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """Keras 2 model with the new Adam: slots are ordinary variables in a list."""
    model = tf_keras.Sequential([tf_keras.layers.Dense(3), tf_keras.layers.Dense(2)])
    optimizer = tf_keras.optimizers.Adam(0.01)
    _train(tf, model, optimizer)
    prefix = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "ckpt"))

    read = assert_reads_as_tensorflow(tf, prefix)

    assert any(key.startswith("optimizer/_variables/") for key in read)
    _assert_graph_equal(tf, prefix)
    assert_sound(prefix)


def test_checkpoint_of_a_keras_3_model(tf: Any, keras: Any, tmp_path: Path) -> None:
    """Keras 3 objects inside a tf.train.Checkpoint."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    optimizer = keras.optimizers.Adam(0.01)
    _train(tf, model, optimizer)
    prefix = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "ckpt"))

    assert_reads_as_tensorflow(tf, prefix)
    _assert_graph_equal(tf, prefix)
    assert_sound(prefix)


def test_shared_nodes_and_cycles(tf: Any, tmp_path: Path) -> None:
    """One variable reachable in four ways, and objects that contain each other: every way is a path to the same key."""
    shared = tf.Variable([1.0, 2.0])
    a, b = tf.Module(), tf.Module()
    a.twin, b.twin = b, a
    a.weight = b.weight = shared
    prefix = tf.train.Checkpoint(a=a, b=b, listed=[shared, {"deep": shared}]).save(str(tmp_path / "ckpt"))

    read = assert_reads_as_tensorflow(tf, prefix)

    _assert_graph_equal(tf, prefix)
    assert_sound(prefix)
    [key] = [key for key in read if key not in (GRAPH_KEY, f"save_counter{VALUE}")]
    with openckpt.open(prefix) as ckpt:
        paths = {path for path, _ in ckpt.graph.paths(key)}
    ways = ("a/weight", "b/weight", "a/twin/weight", "b/twin/weight", "listed/0", "listed/1/deep")
    assert paths == {f"{way}{VALUE}" for way in ways}


def test_containers_escapes_and_python_state(tf: Any, tmp_path: Path) -> None:
    """Lists, tuples, dicts with slashes and dots in their keys, and a Python state string."""

    class State(tf.train.experimental.PythonState):  # type: ignore[misc]
        def serialize(self) -> str:
            return "état 7"

        def deserialize(self, value: str) -> None:
            raise AssertionError("only written here")

    mapping = {"a/b": tf.Variable(1), "c.d": tf.Variable(2), ".x": tf.Variable(3)}
    prefix = tf.train.Checkpoint(
        mapping=mapping, pair=(tf.Variable(4.0), [tf.Variable(5.0)]), state=State(), table=tf.Variable(["x", "yy"])
    ).write(str(tmp_path / "ckpt"))

    read = assert_reads_as_tensorflow(tf, prefix)

    assert f"mapping/a.Sb{VALUE}" in read
    _assert_graph_equal(tf, prefix)
    assert_sound(prefix)


def test_manager_directory_is_sound_and_gives_its_newest(tf: Any, tmp_path: Path) -> None:
    """A CheckpointManager that has swept old steps: the directory opens as its newest step."""
    step = tf.Variable(0, dtype=tf.int64)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step), str(tmp_path / "run"), max_to_keep=2)
    for _ in range(5):
        step.assign_add(10)
        manager.save(checkpoint_number=step)

    assert_sound(tmp_path / "run")
    with openckpt.open(tmp_path / "run") as ckpt:
        assert ckpt.step == 50
        assert_same_array(ckpt[f"step{VALUE}"], np.array(50))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_saver_files_read_equal(tf: Any, tmp_path: Path, version: int, sharded: bool) -> None:
    """tf.compat.v1.train.Saver, formats V1 and V2, one file and one shard per device; every dtype that variables take."""
    v1 = tf.compat.v1
    rng = np.random.default_rng(5)
    values = {
        "layer/kernel": rng.normal(size=(3, 4)).astype(np.float32), "layer/bias": np.zeros(4, np.float32), "double": np.array(2.5),
        "steps": np.array(7, np.int64), "flags": np.array([True, False]), "small": np.arange(-3, 3, dtype=np.int8),
        "big": np.arange(5, dtype=np.uint8), "name": np.array([b"a", b"", b"\xff"], object), "half": np.arange(3, dtype=np.float16),
        "complex": np.array([1 + 2j], np.complex64), "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        for number, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{number % 2}"):
                dtype = tf.string if value.dtype == object else None
                v1.get_variable(name, initializer=tf.constant(value, dtype), use_resource=True)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=version, sharded=sharded)
        prefix = saver.save(session, str(tmp_path / "model.ckpt"), global_step=1234)

    with openckpt.open(prefix) as ckpt:
        assert ckpt.format == ("table-v1" if version == 1 else "bundle-v2")
        assert ckpt.step == 1234
        assert sorted(ckpt) == sorted(values)
        for name, value in values.items():
            assert_same_array(ckpt[name], value)
    if version == 2:  # of a V1 file TensorFlow's Python reader cannot return half and complex values
        assert_reads_as_tensorflow(tf, prefix)
    assert_sound(prefix)
    assert_sound(tmp_path)


def test_forty_shards_merged(tf: Any, tmp_path: Path) -> None:
    """Forty writers, one merge: forty data files under one index."""
    parts, values = [], {}
    for number in range(40):
        own = {f"part{number:02d}/{name}": np.full((number,), number, np.float32) for name in "abc"}
        values.update(own)
        parts.append(save_v2(tf, tmp_path / f"ckpt_temp/part-{number:05d}-of-00040", own))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "ckpt"), delete_old_dirs=True
    )

    read = assert_reads_as_tensorflow(tf, str(tmp_path / "ckpt"))

    assert len(read) == 120
    assert len(list(tmp_path.glob("ckpt.data-*"))) == 40
    assert_sound(tmp_path / "ckpt")


def test_merge_with_more_shards_stated_than_named_still_opens(tf: Any, tmp_path: Path) -> None:
    """A part without data makes TensorFlow write a header that its own reader cannot follow; openckpt follows the files."""
    first = save_v2(tf, tmp_path / "p/part-0", {"a": np.arange(3.0)})
    piece = tf.constant(np.arange(2.0))
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "p/part-1"), tensor_names=["b"], shape_and_slices=["0 -"], tensors=[piece[:0]]
    )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[first, str(tmp_path / "p/part-1")],
        destination_prefix=str(tmp_path / "ckpt"),
        delete_old_dirs=False,
    )

    with openckpt.open(tmp_path / "ckpt") as ckpt:
        assert_same_array(ckpt["a"], np.arange(3.0))
        assert ckpt["b"].shape == (0,)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_async_checkpoint(tf: Any, tmp_path: Path, asynchronous: bool) -> None:
    """An asynchronous save writes the same kind of files."""
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=asynchronous)
    checkpoint = tf.train.Checkpoint(w=tf.Variable(np.arange(1000.0)))
    prefix = checkpoint.save(str(tmp_path / "ckpt"), options=options)
    checkpoint.sync()

    assert_reads_as_tensorflow(tf, prefix)
    assert_sound(prefix)


def test_saved_models_open_as_their_variables(tf: Any, tf_keras: Any, keras: Any, tmp_path: Path) -> None:
    """SavedModels of a tf.Module, of Keras 2 and of a Keras 3 export; the directory opens as variables/variables."""
    module = tf.Module()
    module.w = tf.Variable(np.arange(6.0).reshape(2, 3))
    tf.saved_model.save(module, str(tmp_path / "module"))
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
    model.save(str(tmp_path / "keras2"), save_format="tf")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).export(str(tmp_path / "keras3"), verbose=False)

    for name in ("module", "keras2", "keras3"):
        read = assert_reads_as_tensorflow(tf, str(tmp_path / name / "variables" / "variables"))
        with openckpt.open(tmp_path / name) as ckpt:
            assert ckpt.format == "bundle-v2"
            assert sorted(ckpt) == sorted(read)
        _assert_graph_equal(tf, str(tmp_path / name / "variables" / "variables"))
        assert_sound(tmp_path / name)


def test_tf1_saved_model(tf: Any, tmp_path: Path) -> None:
    """A SavedModel of graph mode, without an object graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=tf.constant([1.0, 2.0]))
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "export"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()

    with openckpt.open(tmp_path / "export") as ckpt:
        assert_same_array(ckpt["w"], np.array([1.0, 2.0], np.float32))
        assert ckpt.graph is None
    assert_sound(tmp_path / "export")
