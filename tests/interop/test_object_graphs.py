"""Object graphs of stock TensorFlow, tf_keras and Keras 3: the same nodes, the same bytes, and every key on its own path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openckpt.formats.objectgraph import (
    Attribute,
    Child,
    ObjectGraph,
    RegisteredSaver,
    SlotVariable,
    encode_object_graph,
    parse_object_graph,
    validate_graph,
)

pytestmark = pytest.mark.interop
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def check(tf: Any, prefix: str) -> ObjectGraph:
    """Compare our reading of a checkpoint's graph with TensorFlow's, field by field."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    reader = tf.train.load_checkpoint(prefix)
    data = reader.get_tensor(KEY)
    graph = parse_object_graph(data, prefix)
    message = TrackableObjectGraph.FromString(data)

    assert encode_object_graph(graph) == data
    assert len(graph.nodes) == len(message.nodes)
    for ours, theirs in zip(graph.nodes, message.nodes, strict=True):
        assert ours.children == tuple(Child(c.node_id, c.local_name) for c in theirs.children)
        assert ours.attributes == tuple(Attribute(a.name, a.full_name, a.checkpoint_key) for a in theirs.attributes)
        assert ours.slot_variables == tuple(
            SlotVariable(s.original_variable_node_id, s.slot_name, s.slot_variable_node_id)
            for s in theirs.slot_variables
        )
        assert ours.has_checkpoint_values == theirs.has_checkpoint_values.value
        saver = RegisteredSaver(theirs.registered_saver.name, theirs.registered_saver.object_name)
        assert ours.registered_saver == (saver if theirs.HasField("registered_saver") else None)
    keys = reader.get_variable_to_shape_map()
    assert list(validate_graph(graph, keys, prefix)) == []
    first: dict[str, str] = {}
    for path, key in graph.paths():
        first.setdefault(key, path)
    assert first == {key: key for key in graph.attributes}
    assert all(graph.find_attribute(key) for key in keys if key != KEY)
    return graph


def test_modules_shared_nodes_cycles_and_odd_names(tf: Any, tmp_path: Path) -> None:
    """tf.Module with one variable under three names, a parent that its child knows, dots and slashes."""
    root = tf.Module()
    root.a = tf.Module()
    root.a.v = tf.Variable(1.0)
    root.a.parent = root
    root.again = root.a
    root.direct = root.a.v
    root.named = {
        "x/y": tf.Variable(2.0),
        ".ATTRIBUTES": tf.Variable(3.0),
        "": tf.Variable(4.0),
        "a.b": [tf.Variable(5.0)],
    }
    graph = check(tf, tf.train.Checkpoint(root).save(str(tmp_path / "ckpt")))

    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert [path for path, _ in graph.paths("direct" + value)] == [
        "direct" + value, "a/v" + value, "again/v" + value,
    ]  # fmt: skip
    assert "named/x.Sy" + value in graph.attributes
    assert "named/..ATTRIBUTES" + value in graph.attributes


def test_python_state_tables_iterators_and_lists(tf: Any, tmp_path: Path) -> None:
    """Attributes that are no variables, and keys of which only the first part is recorded."""
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(["a"], [1])
    iterator = iter(tf.data.Dataset.range(3))
    next(iterator)
    prefix = tf.train.Checkpoint(table=table, it=iterator, many=[tf.Variable(float(i)) for i in range(12)]).save(
        str(tmp_path / "ckpt")
    )
    graph = check(tf, prefix)
    assert any(a.name == "VARIABLE_VALUE" for node in graph.nodes for a in node.attributes)
    assert {a.name for node in graph.nodes for a in node.attributes} > {"VARIABLE_VALUE"}


def test_legacy_optimizers_have_slots(tf: Any, tmp_path: Path) -> None:
    """tf_keras with OptimizerV2: slot variables without a parent."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="d")])
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    graph = check(tf, tf.train.Checkpoint(model=model, opt=model.optimizer).save(str(tmp_path / "ckpt")))

    slots = [i for i, node in enumerate(graph.nodes) for s in node.slot_variables for i in [s.slot_variable_node_id]]
    assert len(slots) == 4
    assert graph.name(slots[0]) == "(root).opt's state 'm' for (root).model.layer_with_weights-0.kernel"
    assert "d/kernel" in graph.keys_by_full_name


def test_tf_keras_weights_and_new_optimizers(tf: Any, tmp_path: Path) -> None:
    """save_weights: the model is the root."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,)), tf_keras.layers.BatchNormalization()])
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    model.save_weights(str(tmp_path / "w"), save_format="tf")
    graph = check(tf, str(tmp_path / "w"))
    assert "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE" in graph.attributes


def test_keras_3_models_with_their_optimizer(tf: Any, tmp_path: Path) -> None:
    """The kernel's key lies below the optimizer, and the way through the model is listed all the same."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d1"), keras.layers.BatchNormalization()])
    model.compile("adam", "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    prefix = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "ckpt"))
    graph = check(tf, prefix)
    kernel = "optimizer/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE"
    ways = [path for path, _ in graph.paths(kernel)]
    assert any(way.startswith("model/") and way.endswith("/_kernel/.ATTRIBUTES/VARIABLE_VALUE") for way in ways)


def test_saved_models_number_their_nodes_alike(tf: Any, tmp_path: Path) -> None:
    """The variable of node i is the tensor of the checkpoint's node i (formats 5.2)."""
    from openckpt.formats.savedmodel import read_saved_model, validate_saved_model
    from openckpt.storage import LOCAL

    root = tf.Module()
    root.w = tf.Variable(np.ones((2, 3), np.float32), name="weights")
    root.more = [tf.Variable(1, dtype=tf.int64, trainable=False)]
    root.f = tf.function(lambda x: x + root.w[0, 0], input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(root, str(tmp_path))

    model = read_saved_model(LOCAL, str(tmp_path))
    graph = check(tf, str(tmp_path / "variables" / "variables"))

    assert (model.style, model.tensorflow_version) == ("tf2", tf.__version__)
    assert model.has_fingerprint
    assert validate_saved_model(LOCAL, str(tmp_path)) == []
    (meta,) = model.meta_graphs
    found = {v.name: (graph.name(v.node_id), v.dtype, v.shape, v.trainable) for v in meta.object_variables}
    assert found == {
        "weights": ("(root).w", "float32", (2, 3), True),
        "Variable": ("(root).more.0", "int64", (), False),
    }
    assert meta.saver is not None
    assert (meta.tags, meta.saver.version) == (("serve",), 2)
