"""V1 checkpoints and meta graphs of stock TensorFlow: read equal, written back byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interop.written import assert_same_array
from openckpt.formats.bundle.encoder import Sliced
from openckpt.formats.metagraph import parse_meta_graph
from openckpt.formats.slicekeys import FULL
from openckpt.formats.v1 import encode_v1, open_v1
from openckpt.storage import LOCAL

pytestmark = pytest.mark.interop
RNG = np.random.default_rng(3)

VALUES: dict[str, np.ndarray] = {
    "float32": RNG.standard_normal((3, 4)).astype(np.float32),
    "float64": RNG.standard_normal(5),
    "int32": RNG.integers(-(2**31), 2**31, (2, 3), np.int32),
    "int64": RNG.integers(-(2**63), 2**63 - 1, 7, np.int64),
    "int16": RNG.integers(-(2**15), 2**15, 7).astype(np.int16),
    "int8": np.arange(-128, 128).astype(np.int8),
    "uint8": np.arange(256).astype(np.uint8),
    "uint16": np.array([0, 127, 128, 65535], np.uint16),
    "bool": np.array([[True, False], [False, True]]),
    "float16": np.array([1.5, -0.0, np.inf], np.float16),
    "complex64": np.array([1 + 2j, -0.5j], np.complex64),
    "complex128": np.array([[1e300 - 2j]], np.complex128),
    "string": np.array([b"a", b"", b"\x00\xff" * 100], object),
    "scope/scalar": np.array(3.25, np.float32),
    "scope/word": np.array(b"w", object),
    "empty": np.zeros((0, 3), np.float32),
}


def save(tf: Any, prefix: Path, variables: Any, *, sharded: bool = False) -> str:
    """Run ``variables`` to make some in a graph of their own, and save them with the V1 writer; returns TensorFlow's path."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables()
        saver = v1.train.Saver(v1.global_variables(), write_version=v1.train.SaverDef.V1, sharded=sharded)
        session.run(v1.global_variables_initializer())
        return str(saver.save(session, str(prefix)))


def make_all(tf: Any) -> None:
    for name, value in VALUES.items():
        dtype = tf.string if value.dtype == object else tf.dtypes.as_dtype(value.dtype)
        tf.compat.v1.get_variable(name, initializer=tf.constant(value, dtype), use_resource=True)


def test_every_dtype_that_the_v1_writer_takes(tf: Any, tmp_path: Path) -> None:
    """Values equal, and the encoder gives the same file."""
    save(tf, tmp_path / "m", lambda: make_all(tf))
    reader = open_v1(LOCAL, str(tmp_path / "m"))

    assert list(reader.keys()) == sorted(VALUES)
    for key, value in VALUES.items():
        assert_same_array(reader.read(key), value)
    assert list(reader.validate()) == []
    assert encode_v1(VALUES, "m")["m"] == (tmp_path / "m").read_bytes()


def test_quantised_integers(tf: Any, tmp_path: Path) -> None:
    """The bare op takes them; their dtype is in the list only."""
    names = {"qint8": np.int8, "quint8": np.uint8, "qint32": np.int32}
    values = {name: np.array([1, 100, 7], dtype) for name, dtype in names.items()}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        data = [tf.bitcast(tf.constant(value), getattr(tf, name)) for name, value in values.items()]
        session.run(tf.raw_ops.Save(filename=str(tmp_path / "m"), tensor_names=list(values), data=data))
    reader = open_v1(LOCAL, str(tmp_path / "m"))
    for key, value in values.items():
        assert reader.spec(key).dtype == key
        assert_same_array(reader.read(key), value)
    assert encode_v1(values, "m", dtypes={name: name for name in names})["m"] == (tmp_path / "m").read_bytes()


def test_large_tensors_over_many_blocks(tf: Any, tmp_path: Path) -> None:
    """Blocks of 256 KiB, and tensors that get one of their own."""
    values = {f"v{i}": RNG.standard_normal((100 * (i + 1), 173)).astype(np.float32) for i in range(6)}
    values |= {f"n{i}": RNG.integers(-100, 100, 40_000) for i in range(4)}
    save(tf, tmp_path / "m", lambda: [tf.compat.v1.get_variable(k, initializer=v) for k, v in values.items()])
    reader = open_v1(LOCAL, str(tmp_path / "m"))
    for key, value in values.items():
        assert_same_array(reader.read(key), value)
    assert encode_v1(values, "m")["m"] == (tmp_path / "m").read_bytes()


MATRIX = np.arange(1500, dtype=np.float32).reshape(5, 300)


def make_partitioned(tf: Any) -> None:
    def initial(shape: Any, dtype: Any, partition_info: Any) -> Any:
        start = partition_info.var_offset[0]
        return tf.constant(MATRIX[start : start + shape[0]])

    v1 = tf.compat.v1
    with v1.variable_scope("p", partitioner=v1.fixed_size_partitioner(3)):
        v1.get_variable("w", shape=(5, 300), initializer=initial, use_resource=False)
    v1.get_variable("plain", initializer=np.arange(3.0))


def test_partitioned_variables(tf: Any, tmp_path: Path) -> None:
    """Three slices under one name, which TensorFlow's own reader refuses to return."""
    save(tf, tmp_path / "m", lambda: make_partitioned(tf))
    reader = open_v1(LOCAL, str(tmp_path / "m"))
    stored = {piece.extents: MATRIX[_index(piece.extents)] for piece in reader.pieces("p/w")}
    assert len(stored) == 3
    assert_same_array(reader.read("p/w"), MATRIX)
    assert list(reader.validate()) == []
    encoded = encode_v1({"p/w": Sliced((5, 300), stored), "plain": np.arange(3.0)}, "m")["m"]
    assert encoded == (tmp_path / "m").read_bytes()


def _index(extents: Any) -> tuple[slice, ...]:
    return tuple(slice(None) if extent == FULL else slice(extent[0], extent[0] + extent[1]) for extent in extents)


SHARDED = """
import sys, numpy as np, tensorflow as tf
v1 = tf.compat.v1
v1.disable_eager_execution()
config = v1.ConfigProto(device_count={"CPU": 2})
for task in (0, 1):
    with tf.device(f"/job:localhost/replica:0/task:0/device:CPU:{task}"):
        v1.get_variable(f"v{task}", initializer=np.arange(3.0 + task))
with v1.Session(config=config) as session:
    saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, sharded=True)
    session.run(v1.global_variables_initializer())
    print(saver.save(session, sys.argv[1]))
"""


def test_sharded_savers(tf: Any, tmp_path: Path) -> None:
    """The path that TensorFlow hands out is the ????? pattern."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    program = [sys.executable, "-c", SHARDED, str(tmp_path / "m")]
    path = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1]
    reader = open_v1(LOCAL, path)
    assert "?????" in path
    assert {key: reader.read(key).tolist() for key, _ in reader.items()} == {"v0": [0, 1, 2], "v1": [0, 1, 2, 3]}
    assert list(reader.validate()) == []
    values = {"v0": np.arange(3.0), "v1": np.arange(4.0)}
    if len(reader.files) == 2:
        written = {Path(file).name: Path(file).read_bytes() for file in reader.files}
        assert encode_v1(values, "m", shards=2) == written


def test_tensorflow_reads_what_the_encoder_makes(tf: Any, tmp_path: Path) -> None:
    """Its Python reader takes some dtypes, RestoreV2 the rest."""
    for name, data in encode_v1(VALUES, "m", shards=3).items():
        (tmp_path / name).write_bytes(data)
    pattern = str(tmp_path / "m-?????-of-00003")
    for key, value in VALUES.items():
        dtype = tf.string if value.dtype == object else tf.dtypes.as_dtype(value.dtype)
        (restored,) = tf.raw_ops.RestoreV2(prefix=pattern, tensor_names=[key], shape_and_slices=[""], dtypes=[dtype])
        assert_same_array(np.asarray(restored.numpy(), dtype=value.dtype).reshape(value.shape), value)


def test_meta_graphs_say_what_tensorflows_parser_says(tf: Any, tmp_path: Path) -> None:
    """Version, saver, collections, partitioned variables; for both formats of the checkpoint."""
    save(tf, tmp_path / "m", lambda: (make_partitioned(tf), make_all(tf)))
    ours = parse_meta_graph(LOCAL.open(str(tmp_path / "m.meta")))
    theirs = tf.compat.v1.MetaGraphDef.FromString((tmp_path / "m.meta").read_bytes())

    assert ours.tensorflow_version == theirs.meta_info_def.tensorflow_version
    assert ours.tensorflow_git_version == theirs.meta_info_def.tensorflow_git_version
    assert ours.producer == theirs.graph_def.versions.producer
    assert ours.nodes == len(theirs.graph_def.node)
    assert ours.stripped_ops == len(theirs.meta_info_def.stripped_op_list.op)
    assert set(ours.collections) == set(theirs.collection_def)
    assert ours.saver is not None
    saver = theirs.saver_def
    assert (ours.saver.filename_tensor, ours.saver.save_tensor, ours.saver.restore_op, ours.saver.version) == (
        saver.filename_tensor_name, saver.save_tensor_name, saver.restore_op_name, saver.version,
    )  # fmt: skip
    assert ours.saver.keep_every_n_hours == saver.keep_checkpoint_every_n_hours
    assert {variable.key for variable in ours.variables} == {"p/w", "plain", *VALUES}
    assert {v.key for v in ours.variables if v.trainable} >= {"p/w", "plain", "float32"}
    pieces = [v.piece for v in ours.variables if v.key == "p/w" and v.piece is not None]
    assert [piece.full_shape for piece in pieces] == [(5, 300)] * 3
    assert sum(piece.shape[0] for piece in pieces) == 5
