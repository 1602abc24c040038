"""Partitioned tensors: whatever pieces TensorFlow was given, openckpt puts the whole together, also where TensorFlow cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.test_dtypes import NUMERIC, _tensor, _values
from interop.written import assert_reads_equal, assert_same_array, assert_sound, save_slices, save_v2

pytestmark = pytest.mark.interop

# What TensorFlow 2.21 cannot put together again, though it writes it (formats 2.9).
UNREADABLE = {
    "float16", "uint16", "uint32", "uint64", "qint16", "quint16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e4m3b11fnuz", "float8_e5m2fnuz", "int2", "uint2", "float4_e2m1fn",
}  # fmt: skip


def _pieces(tf: Any, name: str, key: str, value: np.ndarray) -> list[tuple[str, str, Any]]:
    """A [5, 300] matrix in the three pieces of the worked example: rows 0-1, and rows 2-4 in two halves."""
    spans = [
        (slice(0, 2), slice(0, 300), "0,2:-"),
        (slice(2, 5), slice(0, 100), "2,3:0,100"),
        (slice(2, 5), slice(100, 300), "2,3:100,200"),
    ]
    return [
        (key, f"5 300 {text}", _tensor(tf, name, np.ascontiguousarray(value[rows, columns])))
        for rows, columns, text in spans
    ]


@pytest.mark.parametrize("name", NUMERIC)
def test_sliced_tensor_of_every_dtype_reads_whole(tf: Any, tmp_path: Path, name: str) -> None:
    """Three pieces of one matrix, of every data type."""
    value = _values(name, (5, 300))
    prefix = save_slices(tf, tmp_path / "ckpt", _pieces(tf, name, "w", value))

    assert_reads_equal(prefix, {"w": value})


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_tensorflow_cannot_read_these_slices_back(tf: Any, tmp_path: Path, name: str) -> None:
    """The reason why openckpt's reading them matters; fails when TensorFlow learns it."""
    prefix = save_slices(tf, tmp_path / "ckpt", _pieces(tf, name, "w", _values(name, (5, 300))))

    with pytest.raises((ValueError, tf.errors.OpError), match="not supported"):
        tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.dtypes.as_dtype(name)]
        )


@pytest.mark.parametrize("name", sorted(set(NUMERIC) - UNREADABLE))
def test_sound_slices_are_no_finding(tf: Any, tmp_path: Path, name: str) -> None:
    """The doctor has nothing to say of slices that TensorFlow reads."""
    assert_sound(save_slices(tf, tmp_path / "ckpt", _pieces(tf, name, "w", _values(name, (5, 300)))))


def test_sliced_strings_read_whole(tf: Any, tmp_path: Path) -> None:
    """A vector of strings in two pieces."""
    value = np.array([b"a", b"", b"ccc", b"dddd"], object)
    pieces = [("s", "4 0,1", tf.constant(value[:1])), ("s", "4 1,3", tf.constant(value[1:]))]
    prefix = save_slices(tf, tmp_path / "ckpt", pieces)

    assert_reads_equal(prefix, {"s": value})


def test_slices_in_any_order_among_other_tensors(tf: Any, tmp_path: Path) -> None:
    """Two partitioned tensors of odd names, their pieces mixed and out of order, beside whole ones."""
    a = np.arange(60.0).reshape(3, 4, 5)
    b = np.arange(12, dtype=np.int16)
    odd = b"n\xff\x00a"
    pieces: list[tuple[Any, str, Any]] = [
        ("a", "3 4 5 2,1:-:-", a[2:]), (odd, "12 6,6", b[6:]), ("plain", "", a),
        ("a", "3 4 5 0,2:0,2:-", a[:2, :2]), (odd, "12 0,6", b[:6]), ("a", "3 4 5 0,2:2,2:0,5", a[:2, 2:]),
    ]  # fmt: skip
    prefix = save_slices(tf, tmp_path / "ckpt", [(name, spec, tf.constant(value)) for name, spec, value in pieces])

    assert_reads_equal(prefix, {"a": a, "plain": a, odd.decode("utf-8", "surrogateescape"): b})
    assert_sound(prefix)


def test_a_piece_that_is_the_whole_tensor_is_a_plain_entry(tf: Any, tmp_path: Path) -> None:
    """Given as full or as explicit extents, one piece that covers everything needs no putting together."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    pieces = [("full", "2 3 -:-", tf.constant(value)), ("explicit", "2 3 0,2:0,3", tf.constant(value))]
    prefix = save_slices(tf, tmp_path / "ckpt", pieces)

    assert_reads_equal(prefix, {"full": value, "explicit": value})
    with openckpt.open(prefix) as ckpt:
        assert_same_array(ckpt.view("full"), value)


def test_a_gap_between_slices_is_named(tf: Any, tmp_path: Path) -> None:
    """TensorFlow writes half a tensor happily; reading says what is missing, and the rest of the checkpoint reads."""
    prefix = save_slices(
        tf, tmp_path / "ckpt", [("w", "4 0,1", tf.zeros(1)), ("w", "4 2,2", tf.zeros(2)), ("ok", "", tf.ones(3))]
    )

    with openckpt.open(prefix) as ckpt:
        with pytest.raises(openckpt.CorruptionError) as caught:
            ckpt["w"]
        assert_same_array(ckpt["ok"], np.ones(3, np.float32))
    assert caught.value.code == "slices.gap"


def test_a_partitioned_variable_of_tf1(tf: Any, tmp_path: Path) -> None:
    """tf.compat.v1 with a partitioner: the Saver writes one slice per partition."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        parts = v1.get_variable(
            "emb",
            [10, 4],
            partitioner=v1.fixed_size_partitioner(3),
            initializer=v1.random_normal_initializer(seed=1),
            use_resource=True,
        )
        whole = tf.concat(list(parts), 0)
        session.run(v1.global_variables_initializer())
        expected = session.run(whole)
        prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=5)

    assert_reads_equal(prefix, {"emb": expected})
    assert_sound(prefix)


def test_max_shard_size_policy_tiles_irregularly(tf: Any, tmp_path: Path) -> None:
    """MaxShardSizePolicy cuts tensors along any axis into many shards; every key reads as it was."""
    rng = np.random.default_rng(3)
    values = {
        "big": rng.normal(size=(37, 53)),
        "tall": rng.normal(size=(501, 3)),
        "small": rng.normal(size=(2, 2)),
        "scalar": np.float64(1.5),
    }
    checkpoint = tf.train.Checkpoint(**{name: tf.Variable(value) for name, value in values.items()})
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(max_shard_size=1000)
    )
    prefix = checkpoint.write(str(tmp_path / "ckpt"), options=options)

    assert len(list(tmp_path.glob("ckpt.data-*"))) > 20
    with openckpt.open(prefix) as ckpt:
        for name, value in values.items():
            assert_same_array(ckpt[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"], np.asarray(value))
    assert_sound(prefix)


def test_float16_split_by_policy_reads_though_tensorflow_cannot(tf: Any, tmp_path: Path) -> None:
    """A half-precision model saved with a shard limit is lost to TensorFlow, not to openckpt."""
    value = np.arange(4000, dtype=np.float16).reshape(40, 100)
    checkpoint = tf.train.Checkpoint(w=tf.Variable(value))
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(max_shard_size=1000)
    )
    prefix = checkpoint.write(str(tmp_path / "ckpt"), options=options)

    with pytest.raises((ValueError, tf.errors.OpError)):
        tf.train.load_checkpoint(prefix).get_tensor("w/.ATTRIBUTES/VARIABLE_VALUE")
    with openckpt.open(prefix) as ckpt:
        assert_same_array(ckpt["w/.ATTRIBUTES/VARIABLE_VALUE"], value)


def test_plain_save_reads(tf: Any, tmp_path: Path) -> None:
    """A save without slices has no slice keys in its listing."""
    prefix = save_v2(tf, tmp_path / "ckpt", {"w": np.zeros((2, 2), np.float32)})

    with openckpt.open(prefix) as ckpt:
        assert list(ckpt) == ["w"]
