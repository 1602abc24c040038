"""Keras's HDF5 files: layouts, in which order tensors are listed, configurations, shards under an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdf5_bytes import ONES, codes, datasets, hdf5, legacy_weights, opened
from openckpt.errors import CorruptionError, UnsafeError
from openckpt.formats.hdf5.walk import natural
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore
from refusals import error_of


def test_legacy_weights_come_in_the_order_of_the_attributes() -> None:
    """Layers and weights as the model had them, not as HDF5 sorts them."""
    layers = {
        "zeta": {"zeta/kernel:0": ONES, "zeta/bias:0": ONES[0]},
        "drop": {},
        "alpha": {"alpha/kernel:0": ONES},
    }

    reader = opened(hdf5(legacy_weights(layers)))

    assert list(reader.keys()) == ["zeta/zeta/kernel:0", "zeta/zeta/bias:0", "alpha/alpha/kernel:0"]
    attributes = reader.attributes
    assert attributes.layout == "keras-legacy-weights"
    assert attributes.layer_names == ("zeta", "drop", "alpha")
    assert attributes.weight_names == {"zeta": ("zeta/kernel:0", "zeta/bias:0"), "alpha": ("alpha/kernel:0",)}
    assert (attributes.keras_version, attributes.backend, attributes.has_model_config) == ("2.2.4", "tensorflow", False)


def test_whole_legacy_model() -> None:
    """Weights below model_weights, then the optimizer's in its order; the configuration is read, nothing is built."""

    def build(file: Any) -> None:
        file.attrs["keras_version"] = "2.14.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": []}})
        file.attrs["training_config"] = "{}"
        legacy_weights({"b": {"b/k:0": ONES}, "a": {"a/k:0": ONES}})(file.create_group("model_weights"))
        optimizer = file.create_group("optimizer_weights")
        optimizer.attrs["weight_names"] = [b"z:0", b"a:0"]
        optimizer["z:0"] = optimizer["a:0"] = np.float32(1)

    reader = opened(hdf5(build))

    assert list(reader.keys()) == [
        "model_weights/b/b/k:0", "model_weights/a/a/k:0", "optimizer_weights/z:0", "optimizer_weights/a:0",
    ]  # fmt: skip
    attributes = reader.attributes
    assert attributes.layout == "keras-legacy-model"
    assert attributes.class_name == "Functional"
    assert attributes.has_training_config
    assert attributes.optimizer_weight_names == ("z:0", "a:0")


def test_split_lists_of_names_are_joined() -> None:
    """Keras splits lists above 64 kB into numbered attributes."""
    import h5py

    names = [f"layer_{'x' * 500}_{number:04d}".encode() for number in range(300)]

    def build(file: Any) -> None:
        for piece in range(3):
            file.attrs[f"layer_names{piece}"] = names[100 * piece : 100 * (piece + 1)]
        file.attrs["keras_version"] = b"2.2.4"
        group = file.create_group(names[250])
        group.attrs["weight_names"] = np.array(["w:0"], h5py.string_dtype())
        group["w:0"] = ONES

    attributes = opened(hdf5(build)).attributes

    assert attributes.layout == "keras-legacy-weights"
    assert [name.encode() for name in attributes.layer_names] == names
    assert list(attributes.weight_names.values()) == [("w:0",)]


def test_keras_3_numbers_are_numbers() -> None:
    """vars/2 comes before vars/10; the names of layers are those of their attributes."""

    def build(file: Any) -> None:
        layer = file.create_group("layers/dense_10")
        layer.attrs["name"] = "head"
        for number in range(12):
            file[f"layers/dense_2/vars/{number}"] = ONES
        layer["vars/0"] = ONES
        file.create_group("vars")

    reader = opened(hdf5(build))

    assert list(reader.keys()) == [f"layers/dense_2/vars/{n}" for n in range(12)] + ["layers/dense_10/vars/0"]
    assert reader.attributes.layout == "keras3-weights"
    assert reader.attributes.object_names == {"layers/dense_10": "head"}


def test_plain_files_have_no_keras_layout() -> None:
    """Any HDF5 file opens."""
    reader = opened(datasets({"b": ONES, "a/c": ONES}))

    assert list(reader.keys()) == ["a/c", "b"]
    assert reader.attributes.layout == "plain"


def test_natural_order() -> None:
    """Digits compare as numbers within a part of a path, and a million of them cost nothing."""
    names = ["a/10", "a/9", "a", "a_2/0", "a_10/0", "b" + "9" * 1_000_000, "b1"]

    assert sorted(names, key=natural) == ["a", "a/9", "a/10", "a_2/0", "a_10/0", "b1", "b" + "9" * 1_000_000]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"class_name": "Lambda", "config": {"name": "twice", "function": ["4wEA", None, None], "function_type": "lambda"}}, ["twice"]),
        ({"class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "__lambda__", "config": {"code": "4wEA"}}}}, ["l"]),
        ({"class_name": "Lambda", "config": {"name": "l", "function": "relu", "function_type": "function"}}, []),
        ({"class_name": "Dense", "config": {"name": "d"}}, []),
    ],
)  # fmt: skip
def test_lambda_layers_are_a_note(config: Any, found: list[str]) -> None:
    """Code inside a configuration is named; it is never run here, and Keras is not imported."""

    def build(file: Any) -> None:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [config]}})
        legacy_weights({})(file.create_group("model_weights"))

    reader = opened(hdf5(build))

    assert list(reader.attributes.lambda_layers) == found
    assert [(f.code, f.severity) for f in reader.validate()] == [("keras.lambda-layer", "note")] * bool(found)


def test_a_damaged_configuration_is_a_warning() -> None:
    """The weights read all the same."""

    def build(file: Any) -> None:
        file.attrs["model_config"] = "{" * 100_000
        legacy_weights({"a": {"a/k:0": ONES}})(file.create_group("model_weights"))

    reader = opened(hdf5(build, libver="latest"))

    assert reader.read("model_weights/a/a/k:0").tolist() == ONES.tolist()
    assert [(f.code, f.severity) for f in reader.validate()] == [("keras.config", "warning")]


INDEX = "model.weights.json"


def sharded(weight_map: Any, **files: bytes) -> MemoryStore:
    return MemoryStore(
        {
            INDEX: json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode(),
            **{f"{n}.h5": d for n, d in files.items()},
        }
    )


ZERO = datasets({"layers/dense/vars/0": ONES})
ONE = datasets({"layers/dense/vars/1": ONES + 1, "layers/dense_1/vars/0": ONES + 2})
MAP = {"/layers/dense/vars": ["zero.h5", "one.h5"], "/layers/dense_1/vars": "one.h5"}


def test_shards_open_as_one_checkpoint() -> None:
    """A group may be spread over files; keys come in path order."""
    reader = open_hdf5(sharded(MAP, zero=ZERO, one=ONE), INDEX)

    assert list(reader.keys()) == ["layers/dense/vars/0", "layers/dense/vars/1", "layers/dense_1/vars/0"]
    assert [float(reader.read(key)[0, 0]) for key, _ in reader.items()] == [1.0, 2.0, 3.0]
    assert reader.files == ("memory:model.weights.json", "memory:zero.h5", "memory:one.h5")
    assert reader.attributes.layout == "keras3-weights"
    assert codes(reader) == []


def test_a_missing_shard_costs_only_its_own_groups() -> None:
    """The groups that it should hold are listed, and say which file is missing."""
    reader = open_hdf5(sharded(MAP, zero=ZERO), INDEX)

    assert reader.read("layers/dense/vars/0").tolist() == ONES.tolist()
    assert error_of(reader.read, "layers/dense_1/vars").code == "hdf5.shard-missing"
    assert codes(reader) == ["hdf5.shard-missing"]


def test_one_key_in_two_shards_is_found() -> None:
    """The first file wins, and it is said."""
    reader = open_hdf5(sharded(MAP, zero=ZERO, one=ZERO), INDEX)

    assert codes(reader) == ["hdf5.duplicate-key"]


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (b"{", "hdf5.index"),
        (b"[]", "hdf5.index"),
        (b'{"weight_map": 3}', "hdf5.index"),
        (b'{"weight_map": {"/a": 3}}', "hdf5.index"),
        (b'{"weight_map": {"/a": ["x.h5", ""]}}', "hdf5.index"),
        (b'{"weight_map": {"/a": "../x.h5"}}', "hdf5.unsafe-shard-name"),
        (b'{"weight_map": {"/a": ["/etc/passwd"]}}', "hdf5.unsafe-shard-name"),
    ],
)
def test_bad_index_of_shards(index: bytes, code: str) -> None:
    """An index that Keras did not write, and one that leads out of its directory."""
    with pytest.raises((CorruptionError, UnsafeError)) as caught:
        open_hdf5(MemoryStore({INDEX: index}), INDEX)

    assert caught.value.code == code


def test_reading_leaves_the_file_closed(tmp_path: Path) -> None:
    """libhdf5 holds nothing once an operation is over: the reader works after the writer's file is gone, in threads too."""
    path = tmp_path / "x.h5"
    path.write_bytes(hdf5(lambda file: file.create_dataset("a", data=ONES, compression="gzip")))
    reader = open_hdf5(LOCAL, str(path))
    path.unlink()

    assert reader.read("a").tolist() == ONES.tolist()
    reader.close()
