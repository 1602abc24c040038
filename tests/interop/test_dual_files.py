"""One data file, three readers: stock TensorFlow, stock safetensors and openckpt read the same bytes of a dual shard."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from dual_bytes import shard_of
from interop.test_dtypes import NUMERIC, SHAPES, _values
from interop.test_slices import UNREADABLE
from interop.written import assert_reads_as_tensorflow, assert_same_array, assert_sound
from openckpt.formats.dual import index_of_dual
from openckpt.formats.dual.layout import SAFETENSORS_NAMES

pytestmark = pytest.mark.interop

SHARD = ".data-00000-of-00001"


def save_dual(prefix: Path, values: dict[str, Any], **options: Any) -> Path:
    """Save in the dual layout and return the hard link of its data file that stock safetensors opens."""
    dtypes = {key: key.partition("/")[0] for key in values if re.match("q(u)?int", key)}
    openckpt.save(str(prefix), values, dtypes=dtypes, **options)
    link = prefix.with_suffix(".safetensors")
    os.link(f"{prefix}{SHARD}", link)
    return link


def bytes_by_stock_safetensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Return ``{name: (dtype, shape, bytes)}`` as the stock library reads a file."""
    from safetensors import deserialize

    return {name: (info["dtype"], info["shape"], bytes(info["data"])) for name, info in deserialize(path.read_bytes())}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """``(prefix, link, values)``: every type in every shape, strings, and keys that JSON has to escape or cannot hold."""
    values = {f"{name}/{'x'.join(map(str, shape))}": _values(name, shape) for name in NUMERIC for shape in SHAPES}
    values |= {f"{name}/lines": _values(name, (64,)) for name in NUMERIC}
    values |= {
        "strings/scalar": np.array(b"\x00\xff", object),
        "strings/some": np.array([[b"a", b""], [b"x" * 1000, "größer".encode()]], object),
        "strings/none": np.empty((0, 2), object),
        "__metadata__": np.arange(3, dtype=np.int16),
        'quo"te\\\n\x01': np.arange(2.0),
        "größe 🎉": np.arange(5.0),
    }
    prefix = tmp_path_factory.mktemp("dual") / "ckpt"
    return prefix, save_dual(prefix, values), values


def test_stock_tensorflow_reads_every_value(tf: Any, every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """`tf.train.load_checkpoint` lists and returns what was saved."""
    prefix, _, values = every

    read = assert_reads_as_tensorflow(tf, str(prefix))

    assert read.keys() == values.keys()
    for key, value in values.items():
        assert_same_array(read[key], value)
    assert_sound(prefix)


def test_stock_safetensors_reads_every_value(every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """Type, shape and bytes of what safetensors has a type for; the stored bytes of everything else."""
    prefix, link, values = every
    found = bytes_by_stock_safetensors(link)
    raw = Path(f"{prefix}{SHARD}").read_bytes()

    with openckpt.open(prefix) as ckpt:
        assert len(found) == len(values)
        for key, value in values.items():
            spec = ckpt.specs[key]
            (place,) = ckpt.locate(key)
            dtype, shape, stored = found["key-0" if key == "__metadata__" else key]
            assert stored == raw[place.offset : place.offset + place.nbytes]
            if spec.dtype in SAFETENSORS_NAMES:
                assert (dtype, tuple(shape)) == (SAFETENSORS_NAMES[spec.dtype], value.shape)
                assert stored == value.tobytes()
            else:
                assert (dtype, shape) == ("U8", [place.nbytes])


def test_a_key_that_is_not_utf8_has_another_name_in_safetensors(tf: Any, tmp_path: Path) -> None:
    """Stock TensorFlow restores it under its bytes (its own listing dies of such a key), we under its surrogates."""
    link = save_dual(tmp_path / "ckpt", {"\udcff": np.arange(4.0)})

    (value,) = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "ckpt"), tensor_names=[b"\xff"], shape_and_slices=[""], dtypes=[tf.float64]
    )

    assert value.numpy().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert bytes_by_stock_safetensors(link) == {"key-0": ("F64", [4], np.arange(4.0).tobytes())}
    with openckpt.open(link) as alone:
        assert list(alone) == ["\udcff"]


def test_numpy_and_torch_load_the_link(every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """`load_file` of both bindings, bfloat16 and float8 through torch."""
    import safetensors.torch
    import torch
    from safetensors import safe_open

    _, link, values = every
    tensors = safetensors.torch.load_file(link)
    assert len(tensors) == len(values)
    for key, value in values.items():
        kind = key.partition("/")[0]
        if kind in SAFETENSORS_NAMES:
            assert tuple(tensors[key].shape) == value.shape
            assert str(tensors[key].dtype) == f"torch.{kind}"
            assert tensors[key].reshape(-1).view(torch.uint8).numpy().tobytes() == value.tobytes()
    with safe_open(link, "np") as file:
        for key, value in values.items():
            if key.partition("/")[0] in ("float32", "float64", "float16", "int8", "int64", "uint16", "bool"):
                assert_same_array(file.get_tensor(key), value)


def test_the_mapped_file_needs_no_copy(every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """Every tensor lies in the mapped file at its item's alignment, those of whole lines at 64 bytes: views suffice."""
    _, link, values = every
    with openckpt.open(link) as ckpt:
        for key, spec in ckpt.specs.items():
            if spec.dtype not in SAFETENSORS_NAMES or not spec.nbytes:
                continue
            view = ckpt.view(key)
            assert not view.flags.owndata
            assert view.ctypes.data % (64 if spec.nbytes % 64 == 0 else view.dtype.itemsize) == 0
            assert view.tobytes() == values[key].tobytes()


def test_the_link_opens_as_the_checkpoint(every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """The same keys in the same order, the same specs and values, every checksum checked."""
    prefix, link, values = every
    with openckpt.open(prefix) as ckpt, openckpt.open(link) as alone:
        assert list(alone.specs.items()) == list(ckpt.specs.items())
        for key, value in alone.read_many().items():
            assert_same_array(value, values[key])
    assert_sound(link)


def test_a_copy_of_the_shard_is_as_good(tmp_path: Path, every: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    """And one flipped bit in it is found, although safetensors has no checksums."""
    data = bytearray(every[1].read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy.safetensors").write_bytes(data)

    report = openckpt.diagnose(tmp_path / "copy.safetensors")

    assert [f.code for checkpoint in report.checkpoints for f in checkpoint.findings if f.severity == "error"] == [
        "bundle.crc-mismatch"
    ]


@pytest.mark.parametrize("name", sorted(set(NUMERIC) - UNREADABLE))
def test_tensorflow_joins_slices_of_a_dual_shard(tf: Any, tmp_path: Path, name: str) -> None:
    """Three pieces of one matrix, of every type that TensorFlow can join."""
    value = _values(name, (5, 300))
    pieces = {
        ((0, 2), (0, -1)): value[:2],
        ((2, 3), (0, 100)): np.ascontiguousarray(value[2:, :100]),
        ((2, 3), (100, 200)): np.ascontiguousarray(value[2:, 100:]),
    }
    key = f"{name}/w"
    link = save_dual(tmp_path / "ckpt", {key: openckpt.Sliced((5, 300), pieces)})

    (whole,) = tf.raw_ops.RestoreV2(
        prefix=str(tmp_path / "ckpt"), tensor_names=[key], shape_and_slices=[""], dtypes=[tf.dtypes.as_dtype(name)]
    )

    restored = tf.bitcast(whole, name[1:]) if name.startswith("q") else whole
    assert_same_array(np.asarray(restored), value)
    assert [
        len(bytes_by_stock_safetensors(link)[f"{key}::{text}"][2]) for text in ("0,2:-", "2,3:0,100", "2,3:100,200")
    ] == [part.nbytes for part in pieces.values()]
    with openckpt.open(link) as alone:
        assert_same_array(alone[key], value)


def _training(tf: Any) -> Any:
    """A model with an optimizer that has taken a step: slots, counters, lists, an object graph."""
    tf.random.set_seed(7)
    root = tf.train.Checkpoint()
    root.net = tf.Module()
    root.net.layers = [tf.Variable(tf.random.normal((8, 16))), tf.Variable(tf.zeros(16, tf.bfloat16))]
    root.net.names = tf.Variable(["a", "bb", ""])
    root.step = tf.Variable(3, dtype=tf.int64)
    root.half = tf.Variable(tf.ones(3, tf.float16))
    return root


@pytest.mark.parametrize("shards", [1, 3])
def test_checkpoint_restore_consumes_everything(tf: Any, tmp_path: Path, shards: int) -> None:
    """A checkpoint of TensorFlow saved again in the dual layout restores into the same objects, nothing left over."""
    root = _training(tf)
    stock = root.save(str(tmp_path / "stock"))
    with openckpt.open(stock) as ckpt:
        sharding = openckpt.ByGroup(lambda key, spec: hash_of(key) % shards) if shards > 1 else None
        openckpt.save(str(tmp_path / "dual"), ckpt, sharding=sharding)

    again = _training(tf)
    for variable in (again.net.layers[0], again.net.names, again.step, again.half):
        variable.assign(tf.zeros_like(variable))
    again.restore(str(tmp_path / "dual")).assert_consumed()

    assert np.array_equal(again.net.layers[0], root.net.layers[0])
    assert again.net.names.numpy().tolist() == [b"a", b"bb", b""]
    assert int(again.step) == 3
    assert again.half.numpy().tolist() == [1.0, 1.0, 1.0]
    assert_sound(tmp_path / "dual")
    assert_reads_as_tensorflow(tf, str(tmp_path / "dual"))


def hash_of(key: str) -> int:
    """The same in every run."""
    return sum(key.encode())


def test_keras_weights_restore_from_a_dual_checkpoint(tf: Any, tf_keras: Any, tmp_path: Path) -> None:
    """A tf_keras model with its optimizer's slots."""

    def build() -> tuple[Any, Any]:
        model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,)), tf_keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model, tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    model, checkpoint = build()
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    with openckpt.open(checkpoint.save(str(tmp_path / "stock"))) as ckpt:
        openckpt.save(str(tmp_path / "dual"), ckpt)
        graph = ckpt.graph

    other, again = build()
    other.fit(np.zeros((4, 2)), np.ones((4, 1)), verbose=0)
    again.restore(str(tmp_path / "dual")).assert_consumed()

    for restored, original in zip(other.weights, model.weights, strict=True):
        assert np.array_equal(restored, original)
    os.link(tmp_path / f"dual{SHARD}", tmp_path / "dual.safetensors")
    with openckpt.open(tmp_path / "dual.safetensors") as alone:
        assert alone.graph == graph


def test_the_index_comes_back_from_the_headers(tf: Any, tmp_path: Path) -> None:
    """Of a checkpoint in three files, with slices and strings, byte by byte; TensorFlow reads what came back."""
    value = np.arange(15.0).reshape(5, 3)
    pieces = {((2, 3), (0, -1)): value[2:], ((0, 1), (0, -1)): value[:1], ((1, 1), (0, -1)): value[1:2]}
    values = {"w": openckpt.Sliced((5, 3), pieces), "s": np.array([b"x", b""], object)}
    values |= {f"l/{number}": np.full(number, number, np.int16) for number in range(40)}
    openckpt.save(str(tmp_path / "ckpt"), values, sharding=openckpt.ByGroup(lambda key, spec: hash_of(key) % 3))
    index = tmp_path / "ckpt.index"
    written = index.read_bytes()

    index.write_bytes(index_of_dual([shard_of(path.read_bytes()) for path in sorted(tmp_path.glob("ckpt.data*"))]))

    assert index.read_bytes() == written
    assert_reads_as_tensorflow(tf, str(tmp_path / "ckpt"))
    assert_sound(tmp_path / "ckpt")
