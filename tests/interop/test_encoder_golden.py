"""The bundle encoder writes TensorFlow's bytes: for equal input every file is byte-identical."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interop.test_dtypes import _tensor, _values
from interop.written import save_v2
from openckpt.formats.bundle import encode_bundle, open_bundle
from openckpt.formats.dtypes import BY_NAME
from openckpt.storage import LOCAL

pytestmark = pytest.mark.interop


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _assert_same_files(folder: Path, encoded: dict[str, bytes]) -> None:
    written = _files(folder)
    assert sorted(encoded) == sorted(written)
    for name, data in written.items():
        assert len(encoded[name]) == len(data), name
        differs = next((i for i, (a, b) in enumerate(zip(encoded[name], data, strict=True)) if a != b), None)
        assert differs is None, f"{name} differs from byte {differs}"


@pytest.mark.parametrize(
    "name", [name for name, dtype in BY_NAME.items() if dtype.is_numeric and not name.startswith("q")]
)
def test_dtype(tf: Any, tmp_path: Path, name: str) -> None:
    """Every numeric type that numpy can name."""
    values = {key: _values(name, shape) for key, shape in {"b": (3, 2), "a": (), "c": (0, 2), "d": (5,)}.items()}
    save_v2(tf, tmp_path / "ckpt", {key: _tensor(tf, name, value) for key, value in values.items()})

    _assert_same_files(tmp_path, encode_bundle(values, "ckpt"))


def test_twenty_thousand_keys_in_several_blocks(tf: Any, tmp_path: Path) -> None:
    """An index of several blocks: separators, restart points, shared prefixes."""
    values = {
        f"model/layer_{n % 200:03d}/block_{n // 200:05d}/kernel": np.array([n, -n], np.int32) for n in range(20_000)
    }
    save_v2(tf, tmp_path / "ckpt", values)

    _assert_same_files(tmp_path, encode_bundle(values, "ckpt"))


def test_keys_that_make_separators_interesting(tf: Any, tmp_path: Path) -> None:
    """Keys that are prefixes of each other, end in 0xff or differ in one step, around every block boundary."""
    rng = np.random.default_rng(9)
    alphabet = [b"a", b"b", b"\xfe", b"\xff"]
    keys = {b"".join(alphabet[i] for i in rng.integers(0, 4, rng.integers(1, 400))) for _ in range(6000)}
    values = {key: np.array(number, np.int64) for number, key in enumerate(sorted(keys))}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "ckpt"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(map(tf.constant, values.values())),
    )

    _assert_same_files(
        tmp_path,
        encode_bundle({key.decode("utf-8", "surrogateescape"): value for key, value in values.items()}, "ckpt"),
    )


def test_an_entry_over_half_a_megabyte(tf: Any, tmp_path: Path) -> None:
    """A key of 600 KB forces a block of its own; small entries lie before and after it."""
    values = {"a": np.arange(3), "k" * 600_000: np.arange(4), "z": np.arange(5), "zz" * 300_000: np.arange(6)}
    save_v2(tf, tmp_path / "ckpt", values)

    _assert_same_files(tmp_path, encode_bundle(values, "ckpt"))


def test_strings(tf: Any, tmp_path: Path) -> None:
    """Scalars, matrices, empty tensors and long strings."""
    values = {
        "scalar": np.array(b"", object), "matrix": np.array([[b"a", b"bc"], [b"", b"\xff" * 200]], object),
        "none": np.empty((0, 2), object), "long": np.array([b"x" * 100_000], object),
    }  # fmt: skip
    save_v2(
        tf,
        tmp_path / "ckpt",
        {
            key: tf.constant(value, tf.string, shape=value.shape) if value.size else tf.zeros(value.shape, tf.string)
            for key, value in values.items()
        },
    )

    _assert_same_files(tmp_path, encode_bundle(values, "ckpt"))


def test_object_graph_checkpoint(tf: Any, tmp_path: Path) -> None:
    """A tf.train.Checkpoint: values in TensorFlow's order with the graph string last give TensorFlow's files."""
    checkpoint = tf.train.Checkpoint(b=tf.Variable([1.0, 2.0]), a=tf.Variable(3), nested=[tf.Variable(b"s")])
    prefix = checkpoint.write(str(tmp_path / "ckpt"))
    with closing(open_bundle(LOCAL, prefix)) as ckpt:
        in_file_order = sorted(ckpt.keys(), key=lambda key: ckpt.locate(key)[0].offset)
        values = {key: ckpt.read(key) for key in in_file_order}

    _assert_same_files(tmp_path, encode_bundle(values, "ckpt"))
