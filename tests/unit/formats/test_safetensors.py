"""The safetensors reader: every rule of the header, every dtype, one file and many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from openckpt.errors import (
    CheckpointError,
    CorruptionError,
    MismatchError,
    NotFoundError,
    UnsafeError,
    UnsupportedError,
)
from openckpt.formats.safetensors import open_safetensors, parse_weight_map
from openckpt.formats.spec import TensorSpec
from openckpt.limits import Limits
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore


def file_of(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def opened(data: bytes) -> Any:
    return open_safetensors(MemoryStore({"x.safetensors": data}), "x.safetensors")


GOOD = {"a": entry("F32", [2], 0, 8)}

ACCEPTED = {
    "no tensors": (file_of({}), {}),
    "a scalar": (file_of({"s": entry("I64", [], 0, 8)}, bytes(8)), {"s": TensorSpec("int64", (), 8)}),
    "an empty tensor": (file_of({"e": entry("U8", [0, 3], 0, 0)}), {"e": TensorSpec("uint8", (0, 3), 0)}),
    "padded header": (
        file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   ', b"x"),
        {"a": TensorSpec("uint8", (1,), 1)},
    ),
    "an unknown dtype": (
        file_of({"a": entry("F128", [1], 0, 16)}, bytes(16)),
        {"a": TensorSpec("unknown-F128", (1,), 16)},
    ),
    "packed four-bit floats": (file_of({"a": entry("F4", [4], 0, 2)}, b"xy"), {"a": TensorSpec("unknown-F4", (4,), 2)}),
    "names with slashes, dots and nothing": (
        file_of({"../a": entry("U8", [1], 0, 1), "": entry("U8", [1], 1, 2)}, b"xy"),
        {"../a": TensorSpec("uint8", (1,), 1), "": TensorSpec("uint8", (1,), 1)},
    ),
}

REJECTED = {
    "safetensors.too-short": [b"", b"\x01" * 7],
    "safetensors.header-past-end": [
        b"\xff" * 8,
        file_of(GOOD, bytes(8), length=1 << 40),
        (9).to_bytes(8, "little") + b"{}",
        b"<!DOCTYPE html><html></html>",
    ],
    "safetensors.header-text": [
        bytes(8),
        file_of(b"[]"),
        file_of(b" {}"),
        file_of(b'{"a": NaN}'),
        file_of(b"{" + b"\xff" + b"}"),
        file_of(b'{"a":'),
        file_of(b"{}{}"),
        file_of(b'{"a":' + b"[" * 100_000),
        file_of(b'{"a":' + b"9" * 5000 + b"}"),
        file_of(b'{"\\ud800": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    ],
    "safetensors.duplicate-name": [
        file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
        file_of(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    ],
    "safetensors.metadata": [file_of({"__metadata__": [1]}), file_of({"__metadata__": {"a": 1}})],
    "safetensors.header-entry": [
        file_of({"a": 1}),
        file_of({"a": {"dtype": "U8", "shape": [1]}}),
        file_of({"a": {**entry("U8", [1], 0, 1), "extra": 1}}, b"x"),
        file_of({"a": entry("U8", [-1], 0, 1)}, b"x"),
        file_of({"a": entry("U8", [True], 0, 1)}, b"x"),
        file_of({"a": entry("U8", [1.0], 0, 1)}, b"x"),
        file_of({"a": entry("U8", [1 << 63], 0, 1)}, b"x"),
        file_of({"a": entry("U8", [1], 1, 0)}, b"x"),
        file_of({"a": {"dtype": 5, "shape": [1], "data_offsets": [0, 1]}}, b"x"),
        file_of({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"x"),
    ],
    "safetensors.size-mismatch": [
        file_of({"a": entry("F32", [3], 0, 8)}, bytes(8)),
        file_of({"a": entry("F4", [3], 0, 2)}, bytes(2)),
        file_of({"a": entry("F32", [1 << 62, 1 << 62, 4], 0, 8)}, bytes(8)),
    ],
    "safetensors.offsets": [
        file_of({"a": entry("U8", [4], 1, 5)}, bytes(5)),
        file_of({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6)),
        file_of({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 5, 9)}, bytes(9)),
    ],
    "safetensors.truncated": [file_of(GOOD, bytes(7)), file_of(GOOD)],
    "safetensors.trailing-bytes": [file_of(GOOD, bytes(9)), file_of({}, b"x")],
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    """Odd but valid files open, and list what they hold."""
    data, expected = ACCEPTED[name]

    assert dict(opened(data).items()) == expected


@pytest.mark.parametrize(
    ("code", "data"),
    [pytest.param(code, data, id=f"{code}-{n}") for code, all_ in REJECTED.items() for n, data in enumerate(all_)],
)
def test_rejected(code: str, data: bytes) -> None:
    """Each broken rule has its code, and the message can be made."""
    with pytest.raises(CheckpointError) as caught:
        opened(data)

    assert caught.value.code == code
    assert "x.safetensors" in str(caught.value)


def test_header_above_the_limit_is_refused_before_it_is_read() -> None:
    """The cap of the reference reader holds; a caller can lower or raise it."""
    store = MemoryStore({"x.safetensors": file_of(GOOD, bytes(8))})

    with pytest.raises(CheckpointError) as caught:
        open_safetensors(store, "x.safetensors", limits=Limits(header_bytes=10))

    assert caught.value.code == "limits.exceeded"


VALUES: dict[str, np.ndarray] = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f64": np.array(2.5),
    "f16": np.ones((3, 0, 2), np.float16),
    "bf16": np.arange(4).astype(ml_dtypes.bfloat16),
    "e4m3": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.arange(4).astype(ml_dtypes.float8_e5m2),
    "bool": np.array([True, False, True]),
    "c64": np.array([1 + 2j], np.complex64),
    **{name: np.array([1, 2, 127], name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file(VALUES, tmp_path / "model.safetensors", {"format": "np"})
    return tmp_path / "model.safetensors"


def test_every_dtype_of_the_stock_writer_reads_equal(written: Path) -> None:
    """Copies, views and bulk reads give what stock safetensors wrote, with its dtypes and shapes."""
    reader = open_safetensors(LOCAL, str(written))
    many = reader.read_many(reader.keys(), threads=2)
    for key, value in VALUES.items():
        for read in (reader.read(key), reader.view(key), many[key]):
            assert read.dtype == value.dtype
            assert read.shape == value.shape
            assert read.tobytes() == value.tobytes()
        assert not reader.view(key).flags.writeable
    assert sorted(reader.keys()) == sorted(VALUES)
    assert reader.metadata == {"format": "np"}
    assert reader.files == (str(written),)
    assert list(reader.validate()) == []


def test_a_view_outlives_the_reader(written: Path) -> None:
    """The map stays as long as an array looks at it."""
    reader = open_safetensors(LOCAL, str(written))
    view = reader.view("f32")
    reader.close()

    assert view.tolist() == VALUES["f32"].tolist()


def test_located_bytes_are_those_of_the_tensor(written: Path) -> None:
    """`locate` names the file, the offset and the length of the raw bytes."""
    (place,) = open_safetensors(LOCAL, str(written)).locate("f32")

    assert written.read_bytes()[place.offset : place.offset + place.nbytes] == VALUES["f32"].tobytes()


def test_values_go_into_given_arrays(written: Path) -> None:
    """`out` is filled in place; an array that does not fit is refused before anything is read."""
    reader = open_safetensors(LOCAL, str(written))
    target = np.zeros((2, 3), np.float32)

    assert reader.read_many(["f32"], out={"f32": target})["f32"] is target
    assert target.tolist() == VALUES["f32"].tolist()
    with pytest.raises(MismatchError):
        reader.read_many(["f32"], out={"f32": np.zeros((3, 2), np.float32)})


def test_a_missing_key_names_the_nearest(written: Path) -> None:
    """A KeyError kind, so that `in` and `get` work."""
    with pytest.raises(NotFoundError, match="f32"):
        open_safetensors(LOCAL, str(written)).read("f33")


def test_unknown_dtypes_are_listed_and_not_read() -> None:
    """A dtype that TensorFlow has no name for keeps the others readable."""
    reader = opened(file_of({"a": entry("F8_E8M0", [1], 0, 1), "b": entry("U8", [1], 1, 2)}, b"xy"))

    assert reader.read("b").tolist() == [ord("y")]
    for read in (reader.read, reader.view):
        with pytest.raises(UnsupportedError):
            read("a")


def test_any_nonzero_byte_is_true() -> None:
    """A bool that is neither 0 nor 1 would break numpy's arithmetic."""
    value = opened(file_of({"t": entry("BOOL", [3], 0, 3)}, b"\0\1\xff")).read("t")

    assert value.view(np.uint8).tolist() == [0, 1, 1]


def test_shape_that_numpy_cannot_hold_is_a_limit() -> None:
    """Zero elements make every size legal in the file; numpy still refuses such a shape."""
    reader = opened(file_of({"a": entry("U8", [0, 1 << 62, 1 << 62], 0, 0)}))

    for read in (reader.read, reader.view):
        with pytest.raises(CheckpointError) as caught:
            read("a")
        assert caught.value.code == "limits.exceeded"


INDEX = "model.safetensors.index.json"


def sharded(weight_map: Any, **files: bytes) -> MemoryStore:
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    return MemoryStore({INDEX: index, **{f"{name}.safetensors": data for name, data in files.items()}})


ONE, TWO = file_of({"a": entry("U8", [1], 0, 1)}, b"x"), file_of({"b": entry("U8", [1], 0, 1)}, b"y")


def test_shards_open_as_one_checkpoint() -> None:
    """Keys come in the order of the index, values from the file that it names."""
    store = sharded({"b": "two.safetensors", "a": "one.safetensors"}, one=ONE, two=TWO)

    reader = open_safetensors(store, INDEX)

    assert list(reader.keys()) == ["b", "a"]
    assert {key: bytes(value) for key, value in reader.read_many(reader.keys()).items()} == {"a": b"x", "b": b"y"}
    assert reader.files == ("memory:" + INDEX, "memory:two.safetensors", "memory:one.safetensors")
    assert list(reader.validate()) == []


def test_a_missing_shard_costs_only_its_own_tensors() -> None:
    """The others read; the error and the finding name the file."""
    reader = open_safetensors(sharded({"a": "one.safetensors", "b": "two.safetensors"}, one=ONE), INDEX)

    assert reader.read("a").tolist() == [ord("x")]
    assert reader.spec("b").dtype == "unknown-missing-shard"
    with pytest.raises(CorruptionError, match=r"two\.safetensors") as caught:
        reader.read("b")
    assert caught.value.code == "safetensors.shard-missing"
    assert [finding.code for finding in reader.validate()] == ["safetensors.shard-missing"]


def test_index_and_files_that_disagree_are_findings() -> None:
    """A tensor that is not where the index says is an error; one that the index forgot is a note."""
    reader = open_safetensors(sharded({"b": "one.safetensors"}, one=ONE), INDEX)

    found = {finding.code: finding.severity for finding in reader.validate()}

    assert found == {"safetensors.shard-key-missing": "error", "safetensors.unlisted-key": "note"}


def test_a_damaged_shard_keeps_its_own_code() -> None:
    """The first rule that the shard breaks is what its tensors raise."""
    reader = open_safetensors(sharded({"a": "one.safetensors"}, one=ONE[:-1]), INDEX)

    with pytest.raises(CorruptionError) as caught:
        reader.read("a")
    assert caught.value.code == "safetensors.truncated"


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "a\\b", "..", ".", "C:x", "zoo.zip!x", "a\0b"])
def test_index_that_names_a_path_is_unsafe(name: str) -> None:
    """A file of a checkpoint lies beside its index; nothing else is opened."""
    with pytest.raises(UnsafeError) as caught:
        open_safetensors(sharded({"a": name}), INDEX)

    assert caught.value.code == "safetensors.unsafe-shard-name"


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}', b'{"weight_map": {"a": ""}}']
)
def test_index_without_a_weight_map(data: bytes) -> None:
    """A JSON file that is no index has a code of its own."""
    with pytest.raises(CorruptionError) as caught:
        parse_weight_map(data, "x")

    assert caught.value.code == "safetensors.index-entry"
