"""What `openckpt.convert` writes, read by stock programs: TensorFlow, safetensors, h5py, NumPy, Keras' files read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import openckpt
from trees import differences, numbers, objects, save_tree

pytestmark = pytest.mark.interop

PLAIN = {
    f"layer/{dtype}": (dtype, numbers(dtype, (2, 3), seed))
    for seed, dtype in enumerate(
        "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128".split()
    )
}
TREE = {
    **PLAIN,
    "brain": ("bfloat16", numbers("bfloat16", (4,))),
    "tiny": ("float8_e4m3fn", numbers("float8_e4m3fn", (4,))),
    "nibbles": ("int4", numbers("int4", (4,))),
    "quantised": ("qint8", numbers("qint8", (4,))),
    "words": ("string", objects(b"one", b"", "zwölf".encode())),
    "zeros": ("string", objects(b"a\0")),
    "layer": ("float32", np.float32(3).reshape(())),
    "empty": ("float32", np.zeros((0, 2), "f4")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a checkpoint of TensorFlow's layout, and converted to everything else."""
    home = tmp_path_factory.mktemp("converted")
    save_tree(home / "source", TREE, layout="tensorflow")
    for name in ("dual", "x.safetensors", "x.h5", "x.npz"):
        openckpt.convert(home / "source", home / name, durability="process-crash")
    openckpt.convert(home / "source", home / "m.safetensors", max_shard_size=100, durability="process-crash")
    return home


def test_tensorflow_reads_the_dual_checkpoint(tf: Any, folder: Path) -> None:
    """Every tensor that its Python reader can return."""
    reader = tf.train.load_checkpoint(str(folder / "dual"))

    assert set(reader.get_variable_to_shape_map()) == set(TREE)
    for key, (dtype, value) in TREE.items():
        found = np.asarray(reader.get_tensor(key))
        if dtype == "string":
            assert found.tolist() == value.tolist()
        elif dtype != "qint8":
            assert found.tobytes() == value.tobytes(), key


def test_tensorflow_restores_a_converted_v1_checkpoint(tf: Any, tmp_path: Path) -> None:
    """V1 is what its own Saver no longer writes by default."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", initializer=np.arange(6, dtype="f4").reshape(2, 3))
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver([variable], write_version=v1.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "old"), write_meta_graph=False, write_state=False)
    done = openckpt.convert(prefix, tmp_path / "new", to="tensorflow")

    assert (done.source_format, done.converted) == ("table-v1", 1)
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("w", shape=(2, 3))
        v1.train.Saver([variable]).restore(session, str(tmp_path / "new"))
        assert session.run(variable).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_tensorflow_restores_a_converted_object_graph(tf: Any, tmp_path: Path) -> None:
    """Through safetensors and back: the graph comes along, and every variable finds its value."""
    module = tf.Module()
    module.kernel, module.steps = tf.Variable([[1.5, -2.0]]), [tf.Variable(7), tf.Variable("text")]
    tf.train.Checkpoint(model=module).write(str(tmp_path / "a"))
    openckpt.convert(tmp_path / "a", tmp_path / "a.safetensors")
    openckpt.convert(tmp_path / "a.safetensors", tmp_path / "b")
    fresh = tf.Module()
    fresh.kernel, fresh.steps = tf.Variable([[0.0, 0.0]]), [tf.Variable(0), tf.Variable("")]
    tf.train.Checkpoint(model=fresh).read(str(tmp_path / "b")).assert_consumed()

    assert fresh.kernel.numpy().tolist() == [[1.5, -2.0]]
    assert [int(fresh.steps[0]), fresh.steps[1].numpy()] == [7, b"text"]


def test_what_tensorflow_wrote_converts_to_the_same_bytes(tf: Any, tmp_path: Path) -> None:
    """``--to tensorflow`` of TensorFlow's own checkpoint by way of npz is that checkpoint."""
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "a"),
        tensor_names=sorted(PLAIN),
        shape_and_slices=[""] * len(PLAIN),
        tensors=[tf.constant(PLAIN[key][1]) for key in sorted(PLAIN)],
    )
    openckpt.convert(tmp_path / "a", tmp_path / "a.npz")
    openckpt.convert(tmp_path / "a.npz", tmp_path / "b", to="tensorflow")

    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"a{suffix}").read_bytes()


def test_stock_safetensors_reads_one_file_and_many(folder: Path) -> None:
    """NumPy's types directly; what the format has no type for is there as bytes."""
    from safetensors import safe_open

    index = json.loads((folder / "m.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == set(TREE)
    with safe_open(folder / "x.safetensors", "np") as whole:
        assert set(whole.keys()) == set(TREE)
    for key, (dtype, value) in PLAIN.items():
        if dtype == "complex128":
            continue
        for path in (folder / "x.safetensors", folder / index[key]):
            with safe_open(path, "np") as file:
                assert file.get_tensor(key).tobytes() == value.tobytes()


def test_torch_reads_bfloat16_and_float8(folder: Path) -> None:
    """Types that NumPy lacks, by safetensors' own reader for PyTorch."""
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    with safe_open(folder / "x.safetensors", "pt") as file:
        brain, tiny = file.get_tensor("brain"), file.get_tensor("tiny")
    assert (brain.dtype, tiny.dtype) == (torch.bfloat16, torch.float8_e4m3fn)
    assert brain.view(torch.uint8).numpy().tobytes() == TREE["brain"][1].tobytes()
    assert tiny.view(torch.uint8).numpy().tobytes() == TREE["tiny"][1].tobytes()


def test_stock_h5py_reads_the_hdf5_file(folder: Path) -> None:
    """One dataset per key, the key beside it; strings are strings, narrow types are the integers they stand for."""
    with h5py.File(folder / "x.h5") as file:
        found: dict[str, Any] = {}
        file.visititems(
            lambda _, item: found.update({item.attrs["openckpt_key"]: item} if hasattr(item, "shape") else {})
        )
        assert set(found) == set(TREE)
        for key, (_, value) in PLAIN.items():
            assert file[key][()].tobytes() == value.tobytes()
            assert file[key].dtype == value.dtype
        assert found["layer"].name == "/layer/__value__"
        assert file["words"].asstr()[()].tolist() == ["one", "", "zwölf"]
        assert file["nibbles"][()].tolist() == TREE["nibbles"][1].astype(int).tolist()
        assert file["quantised"][()].tolist() == TREE["quantised"][1].tolist()
        assert file["brain"].attrs["dtype"] == "bfloat16"
        brain = np.frombuffer(file["brain"][()].tobytes(), ml_dtypes.bfloat16)
        assert brain.tobytes() == TREE["brain"][1].tobytes()
        assert file["zeros"].attrs["openckpt_dtype"] == "string"


def test_stock_numpy_reads_the_npz(folder: Path) -> None:
    """Without pickles; types that it lacks come as raw elements, and the side entry says what they are."""
    with np.load(folder / "x.npz", allow_pickle=False) as file:
        assert set(file.files) == {*TREE, "openckpt.json"}
        for key, (_, value) in PLAIN.items():
            assert file[key].dtype == value.dtype
            assert file[key].tobytes() == value.tobytes()
        assert file["words"].tolist() == TREE["words"][1].tolist()
        assert file["nibbles"].tolist() == TREE["nibbles"][1].astype(int).tolist()
        assert file["brain"].view(ml_dtypes.bfloat16).tobytes() == TREE["brain"][1].tobytes()
        side = json.loads(file["openckpt.json"])["tensors"]
    assert side["brain"] == {"key": "brain", "dtype": "bfloat16", "shape": [4]}
    assert "words" not in side


def test_a_plain_npz_holds_nothing_but_arrays(folder: Path, tmp_path: Path) -> None:
    """Where NumPy can say it all there is no side entry."""
    openckpt.convert(folder / "source", tmp_path / "x.npz", include="layer/*")
    with np.load(tmp_path / "x.npz") as file:
        assert set(file.files) == set(PLAIN)


def test_keras_files_become_checkpoints(keras: Any, tf_keras: Any, tmp_path: Path) -> None:
    """.keras, .weights.h5 and legacy .h5, with a note about what is no tensor."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.save(tmp_path / "new.keras")
    model.save_weights(tmp_path / "new.weights.h5")
    old = tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2, name="dense")])
    old.save(tmp_path / "old.h5")
    for name, kernel, notes in (
        ("new.keras", model.layers[0].kernel, 1),
        ("new.weights.h5", model.layers[0].kernel, 0),
        ("old.h5", old.layers[0].kernel, 1),
    ):
        done = openckpt.convert(tmp_path / name, tmp_path / f"{name}-converted")
        with openckpt.open(done.target) as ckpt:
            values = [ckpt[key] for key in ckpt]
        assert any(np.array_equal(value, np.asarray(kernel)) for value in values)
        assert (done.converted, len(done.notes)) == (done.total, notes)


def test_everything_reads_as_the_source(folder: Path) -> None:
    """By openckpt itself, exactly."""
    for name in ("dual", "x.safetensors", "x.h5", "x.npz", "m.safetensors.index.json"):
        assert differences(folder / name, TREE) == []
