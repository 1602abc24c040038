"""HDF5 files: what is listed, in which order, of which type; links and lies that are named and never followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hdf5_bytes import ONES, datasets, hdf5, legacy_weights
from openckpt.errors import CheckpointError, CorruptionError, LimitError, UnsafeError, UnsupportedError
from openckpt.formats.hdf5.walk import natural
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.limits import Limits
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore


def opened(data: bytes, **options: Any) -> Any:
    return open_hdf5(MemoryStore({"x.h5": data}), "x.h5", **options)


def codes(reader: Any) -> list[str]:
    return [finding.code for finding in reader.validate()]


def refusal(reader: Any, key: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        reader.read(key)
    return caught.value


# Types.

NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
           "complex64", "complex128"]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 2, 2)])
def test_numbers_of_h5py_read_equal(name: str, shape: tuple[int, ...]) -> None:
    """Every number type and rank: copy, view and bulk read give what h5py stored."""
    value = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(name)
    reader = opened(datasets({"a/b": value}))

    assert reader.spec("a/b")[:2] == (name, shape)
    assert reader.spec("a/b").nbytes == value.nbytes
    for read in (reader.read("a/b"), reader.read_many(["a/b"])["a/b"]):
        assert (read.dtype, read.shape, read.tolist()) == (value.dtype, shape, value.tolist())
    if value.size:
        assert reader.view("a/b").tolist() == value.tolist()
    assert codes(reader) == []


@pytest.mark.parametrize("name", [">f4", ">i2", ">u8", ">c16"])
def test_big_endian_numbers_become_native(name: str) -> None:
    """A copy is native; a view of swapped bytes cannot be given."""
    value = np.array([1, 2, 3]).astype(name)
    reader = opened(datasets({"a": value}))

    assert reader.read("a").dtype.isnative
    assert reader.read("a").tolist() == value.tolist()
    assert refusal_of_view(reader, "a") == "spec.no-view"


def refusal_of_view(reader: Any, key: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        reader.view(key)
    return caught.value.code


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_opaque_bytes_with_a_type_attribute(name: str) -> None:
    """Keras 3 stores bfloat16 as two opaque bytes and names the type beside them (formats 8.2)."""
    value = np.arange(4).astype(getattr(ml_dtypes, name))

    def build(file: Any) -> None:
        dataset = file.create_dataset("a", data=value.view(f"V{value.dtype.itemsize}"))
        dataset.attrs["dtype"] = name

    read = opened(hdf5(build)).read("a")

    assert read.dtype == value.dtype
    assert read.tobytes() == value.tobytes()


def test_opaque_bytes_without_a_type_are_listed() -> None:
    """Their size is known, their meaning is not; a wrong name does not help."""

    def build(file: Any) -> None:
        file.create_dataset("a", data=np.zeros(3, "V2"))
        file.create_dataset("b", data=np.zeros(3, "V2")).attrs["dtype"] = "float32"

    reader = opened(hdf5(build))

    assert {key: spec.dtype for key, spec in reader.items()} == {"a": "unknown-opaque16", "b": "unknown-opaque16"}
    assert refusal(reader, "a").code == "spec.unknown-dtype"


def test_strings_of_every_kind() -> None:
    """Fixed and variable, padded and terminated, empty and non-ASCII: object arrays of bytes, as h5py reads them."""
    import h5py

    names = np.array([b"one", b"", "drei ü".encode()])
    terminated = h5py.h5t.C_S1.copy()
    terminated.set_size(6)

    def build(file: Any) -> None:
        file.create_dataset("fixed", data=names)
        file.create_dataset("variable", data=names.astype(object), dtype=h5py.string_dtype())
        file.create_dataset("scalar", data="text", dtype=h5py.string_dtype())
        file.create_dataset("packed", data=names, chunks=(2,), compression="gzip")
        file.create_dataset(
            "packed variable", data=names.astype(object), dtype=h5py.string_dtype(), chunks=(2,), compression="gzip"
        )
        file.create_dataset("unwritten", (2,), h5py.string_dtype())
        space = h5py.h5s.create_simple((1,))
        h5py.h5d.create(file.id, b"terminated", terminated, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab\0xy"], "S6"), terminated
        )

    reader = opened(hdf5(build))

    expected = names.tolist()
    read = {key: reader.read(key).tolist() for key, _ in reader.items()}
    assert read == {
        "fixed": expected, "variable": expected, "scalar": b"text", "packed": expected, "packed variable": expected,
        "unwritten": [b"", b""], "terminated": [b"ab"],
    }  # fmt: skip
    assert {spec.dtype for _, spec in reader.items()} == {"string"}
    assert codes(reader) == []


def test_types_without_a_name_are_listed_and_not_read() -> None:
    """Compounds, lists, references and enumerations keep their shape and keep the rest readable."""
    import h5py

    def build(file: Any) -> None:
        file["ok"] = ONES
        file["compound"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        file.create_dataset("list", (2,), h5py.vlen_dtype(np.int32))
        file.create_dataset("reference", (1,), h5py.ref_dtype)
        file.create_dataset("enum", (2,), h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 2}))
        file.create_dataset("long", data=np.zeros(2, np.longdouble))

    reader = opened(hdf5(build))

    assert {key: spec.dtype for key, spec in reader.items() if key != "ok"} == {
        "compound": "unknown-compound", "enum": "unknown-enum", "list": "unknown-vlen", "long": "unknown-float128",
        "reference": "unknown-reference",
    }  # fmt: skip
    for key in ("compound", "enum", "list", "reference", "long"):
        assert isinstance(refusal(reader, key), UnsupportedError)
    assert reader.read("ok").tolist() == ONES.tolist()


def test_dataset_without_elements_is_no_array() -> None:
    """A null dataspace has a type and nothing else."""
    import h5py

    reader = opened(hdf5(lambda file: file.create_dataset("a", data=h5py.Empty("f4"))))

    assert reader.spec("a") == ("float32", None, 0)
    assert refusal(reader, "a").code == "hdf5.null-dataspace"


# Storage.


def test_compact_and_unwritten_datasets() -> None:
    """Values inside the object header, and values that are only a fill value."""
    import h5py

    def build(file: Any) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 3))
        h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32BE, space, plan).write(h5py.h5s.ALL, h5py.h5s.ALL, ONES)
        file.create_dataset("filled", (2, 2), ">i4", fillvalue=7)
        file.create_dataset("zeros", (2,), "f8")
        file.create_dataset("flags", (2,), bool, fillvalue=True)

    reader = opened(hdf5(build))

    assert reader.read("compact").tolist() == ONES.tolist()
    assert reader.read("filled").tolist() == [[7, 7], [7, 7]]
    assert reader.read("zeros").tolist() == [0.0, 0.0]
    assert reader.read("flags").tolist() == [True, True]


def test_located_bytes_are_those_of_the_dataset() -> None:
    """Contiguous bytes lie where `locate` says, behind a user block too."""
    data = hdf5(lambda file: file.create_dataset("a", data=ONES), userblock_size=512)
    reader = opened(data)

    (place,) = reader.locate("a")

    assert data[place.offset : place.offset + place.nbytes] == ONES.tobytes()
    assert reader.read("a").tolist() == ONES.tolist()


def test_declared_elements_without_bytes_are_not_allocated() -> None:
    """A petabyte of fill values is a limit, named by its code; the file lists."""
    data = hdf5(lambda file: file.create_dataset("a", (10**15,), "f8", chunks=(10**6,)))

    reader = opened(data)

    assert reader.spec("a").shape == (10**15,)
    assert isinstance(refusal(reader, "a"), LimitError)
    assert codes(reader) == ["hdf5.declared-size"]


def test_nearly_empty_array_reads_when_the_caller_raises_the_limit() -> None:
    """64 MiB are free; beyond that `archive_ratio` counts, and the message says how far to raise it."""
    data = hdf5(lambda file: file.create_dataset("a", data=np.zeros(10 << 20), compression="gzip"))

    error = refusal(opened(data, limits=Limits(archive_ratio=1)), "a")

    assert error.code == "hdf5.declared-size"
    needed = int(error.message.rpartition(" ")[2])
    assert opened(data, limits=Limits(archive_ratio=needed)).read("a").shape == (10 << 20,)


def test_shape_that_numpy_cannot_hold_is_a_limit() -> None:
    """No elements, and sides beyond any address."""
    reader = opened(
        hdf5(
            lambda file: file.create_dataset(
                "a", (0, 1 << 40, 1 << 40), "f8", chunks=(1, 1, 1), maxshape=(None, None, None)
            )
        )
    )

    assert refusal(reader, "a").code == "limits.exceeded"
    assert codes(reader) == ["limits.exceeded"]


# Order and attributes.


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


# Links and lies.


def _link(make: Callable[[Any], None]) -> bytes:
    def build(file: Any) -> None:
        file["ok"] = ONES
        make(file)

    return hdf5(build)


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (2,))
    file.create_virtual_dataset("bad", layout)


def _external(file: Any) -> None:
    file.create_dataset("bad", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _soft(target: str) -> Callable[[Any], None]:
    import h5py

    def make(file: Any) -> None:
        file["bad"] = h5py.SoftLink(target)

    return make


def _outside(file: Any) -> None:
    import h5py

    file["bad"] = h5py.ExternalLink("/etc/passwd", "/data")


REFUSED = {
    "external link": (_outside, "hdf5.external-link", "error"),
    "soft link": (_soft("/ok"), "hdf5.soft-link", "warning"),
    "dangling soft link": (_soft("/etc/passwd"), "hdf5.soft-link", "warning"),
    "virtual dataset": (_virtual, "hdf5.virtual-dataset", "error"),
    "external storage": (_external, "hdf5.external-storage", "error"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leads_elsewhere_is_named_and_not_followed(name: str) -> None:
    """It is listed under its name, refused when read, a finding of the doctor, and the rest reads."""
    make, code, severity = REFUSED[name]
    reader = opened(_link(make))

    assert sorted(reader.keys()) == ["bad", "ok"]
    assert reader.spec("bad").dtype.startswith("unknown-")
    error = refusal(reader, "bad")
    assert isinstance(error, UnsafeError)
    assert error.code == code
    assert refusal_of_view(reader, "bad") == code
    assert [(finding.code, finding.severity) for finding in reader.validate()] == [(code, severity)]
    assert reader.read("ok").tolist() == ONES.tolist()


def test_groups_that_contain_themselves_end() -> None:
    """A loop of hard links is listed once, with a note."""

    def build(file: Any) -> None:
        file["a/w"] = ONES
        file["a/b/c"] = file["a"]
        file["root"] = file["/"]

    reader = opened(hdf5(build))

    assert list(reader.keys()) == ["a/w"]
    assert codes(reader) == ["hdf5.shared-group", "hdf5.shared-group"]


def test_one_dataset_under_two_names_is_listed_twice() -> None:
    """Tied weights may be hard links."""

    def build(file: Any) -> None:
        file["a"] = ONES
        file["b"] = file["a"]

    assert sorted(opened(hdf5(build)).keys()) == ["a", "b"]


def test_nesting_and_number_of_objects_have_limits() -> None:
    """Both are counted while walking, so that nothing is built first."""
    deep = hdf5(lambda file: file.create_dataset("/".join("g" * 70), data=ONES))
    many = datasets({str(number): ONES for number in range(20)})

    for data, limits in ((deep, Limits()), (many, Limits(hdf5_objects=10))):
        with pytest.raises(LimitError):
            opened(data, limits=limits)
    assert len(opened(deep, limits=Limits(hdf5_depth=80))) == 1


def test_contiguous_bytes_beyond_the_end_are_found() -> None:
    """A dataset whose stated address leads out of the file cannot be read, and the others can."""
    data = bytearray(datasets({"a": ONES, "b": ONES + 1}))
    place = data.index(np.uint64(opened(bytes(data)).locate("a")[0].offset).tobytes())
    data[place : place + 8] = np.uint64(len(data) - 4).tobytes()

    reader = opened(bytes(data))

    assert refusal(reader, "a").code in ("hdf5.data-past-end", "hdf5.object-damaged")
    assert reader.read("b").tolist() == (ONES + 1).tolist()


def test_every_flipped_byte_gives_an_answer_or_an_error_of_ours() -> None:
    """Whatever libhdf5 raises becomes a CheckpointError; nothing else comes out."""
    data = hdf5(legacy_weights({"a": {"a/k:0": ONES}}))
    rng = np.random.default_rng(3)
    for position in rng.choice(len(data), 150, replace=False).tolist():
        broken = bytearray(data)
        broken[position] ^= 0xFF
        try:
            reader = opened(bytes(broken))
            for key in list(reader.keys()):
                try:
                    reader.read(key)
                except CheckpointError as error:
                    assert str(error)
        except CheckpointError as error:
            assert str(error)


# Shards.

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
    assert refusal(reader, "layers/dense_1/vars").code == "hdf5.shard-missing"
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
