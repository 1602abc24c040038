"""Data files of the dual layout read as safetensors files with true keys, types and checksums."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dual_bytes import VALUES, encode_dual, encode_shard, header_of, opened, parts_of, shard_of
from openckpt.errors import CheckpointError, CorruptionError
from openckpt.formats.bundle import Sliced, Strings, open_bundle
from openckpt.formats.dual import index_of_dual
from openckpt.formats.safetensors import open_safetensors
from openckpt.formats.spec import TensorSpec
from openckpt.storage.memory import MemoryStore


@pytest.mark.parametrize("sized", [True, False])
def test_a_shard_opens_as_the_checkpoint_that_it_belongs_to(sized: bool) -> None:
    """Keys and their order, types, shapes, sizes, values, places and checksums are those of the index."""
    files = encode_dual(VALUES, "ckpt", sized=sized)
    data = files["ckpt.data-00000-of-00001"]
    bundle, reader = open_bundle(MemoryStore(files), "ckpt"), opened(data)

    assert list(reader.items()) == list(bundle.items())
    many = reader.read_many(reader.keys(), threads=2)
    for key, _ in bundle.items():
        expected = bundle.read(key)
        for value in (reader.read(key), many[key]):
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
            assert (
                value.tolist() == expected.tolist() if value.dtype == object else value.tobytes() == expected.tobytes()
            )
        assert [place[1:] for place in reader.locate(key)] == [place[1:] for place in bundle.locate(key)]
        assert reader.slices(key) == bundle.slices(key)
    assert list(reader.validate()) == []
    assert reader.files == ("memory:x.safetensors",)


def test_views_are_of_the_files_own_bytes() -> None:
    """Numbers that lie as they are; not what has to be decoded or joined."""
    reader = opened(encode_dual(VALUES, "ckpt")["ckpt.data-00000-of-00001"])

    for key in ("f32", "bf16", "q8", "c128", "scalar", "empty", "__metadata__"):
        assert reader.view(key).tobytes() == reader.read(key).tobytes()
        assert not reader.view(key).flags.owndata
    for key in ("i4", "names", "w"):
        with pytest.raises(CheckpointError) as caught:
            reader.view(key)
        assert caught.value.code == "spec.no-view"


def test_a_region_of_a_tensor_is_read() -> None:
    """Of a partitioned tensor and of a whole one."""
    reader = opened(encode_dual(VALUES, "ckpt")["ckpt.data-00000-of-00001"])

    assert reader.read_slice("w", ((1, 1), (1, 1))).tolist() == [[3]]
    assert reader.read_slice("f32", ((0, -1), (2, 1))).tolist() == [[2.0], [5.0]]


def test_values_go_into_given_arrays() -> None:
    """Also those that are decoded or joined."""
    reader = opened(encode_dual(VALUES, "ckpt")["ckpt.data-00000-of-00001"])
    out = {key: np.zeros(reader.spec(key).shape, reader.spec(key).numpy_dtype) for key, _ in reader.items()}

    for key, value in reader.read_many(list(out), out=out).items():
        assert value is out[key]
        assert value.tolist() == reader.read(key).tolist()


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_the_index_comes_back_from_the_headers(shards: int) -> None:
    """Byte by byte the one that was written, pieces over several shards included."""
    files = encode_dual(VALUES, "ckpt", shards=shards)
    again = index_of_dual([shard_of(data) for name, data in files.items() if ".data-" in name])

    assert again == files["ckpt.index"]
    reader = open_bundle(MemoryStore(files), "ckpt")
    assert {f.code for f in reader.validate()} <= {"bundle.safetensors-header", "bundle.slice-unreadable"}
    assert reader.read("w").tolist() == [[0, 1], [2, 3], [4, 5]]


def test_shards_under_an_index_in_json_open_as_one() -> None:
    """Pieces are joined over files; keys come in the order of the checkpoint."""
    values = {key: value for key, value in VALUES.items() if key != b"__metadata__"}  # one key-0 is enough for the map
    files = encode_dual(values, "ckpt", shards=2)
    datas = {f"{number}.safetensors": files[f"ckpt.data-0000{number}-of-00002"] for number in range(2)}
    names = {name: path for path, data in datas.items() for name in header_of(data) if name != "__metadata__"}
    path = "m.safetensors.index.json"
    reader = open_safetensors(MemoryStore({path: json.dumps({"weight_map": names}).encode(), **datas}), path)
    bundle = open_bundle(MemoryStore(files), "ckpt")

    assert list(reader.items()) == list(bundle.items())
    for key, value in bundle.read_many(bundle.keys()).items():
        assert reader.read(key).tolist() == value.tolist()
    assert list(reader.validate()) == []


def test_a_piece_in_a_shard_that_is_elsewhere_costs_its_tensor() -> None:
    """One of two shards alone lists the whole tensor, and reading it says what is missing."""
    files = encode_dual({b"a": np.zeros(2), b"w": VALUES[b"w"]}, "ckpt", shards=2)
    lone = opened(files["ckpt.data-00001-of-00002"])

    assert lone.spec("w") == TensorSpec("int64", (3, 2), 48)
    with pytest.raises(CorruptionError) as caught:
        lone.read("w")
    assert caught.value.code == "slices.gap"
    assert [finding.code for finding in lone.validate()] == ["slices.gap"]


def test_a_plain_file_beside_a_shard_stays_plain() -> None:
    """An index in JSON may name both."""
    plain = b'{"p":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    files = {
        "m.safetensors.index.json": json.dumps({"weight_map": {"s": "d.safetensors", "p": "p.safetensors"}}).encode(),
        "d.safetensors": encode_shard(parts_of(b"s", Strings([b"hi"]))),
        "p.safetensors": len(plain).to_bytes(8, "little") + plain + b"x",
    }
    reader = open_safetensors(MemoryStore(files), "m.safetensors.index.json")

    assert reader.read("s").item() == b"hi"
    assert reader.read("p").tolist() == [ord("x")]
    assert list(reader.validate()) == []


WHOLE, CUT = np.zeros(2, np.int8), Sliced((2,), {((0, 1),): np.zeros(1, np.int8), ((1, 1),): np.zeros(1, np.int8)})


@pytest.mark.parametrize(
    ("first", "second"),
    [(WHOLE, WHOLE), (WHOLE, CUT), (CUT, WHOLE), (CUT, CUT), (Strings([b""]), CUT), (CUT, Strings([b""])), (WHOLE, Strings([b""]))],
)  # fmt: skip
def test_two_files_with_one_key_are_refused(first: Any, second: Any) -> None:
    """Under two names of safetensors that mean the same tensor, whole or in pieces."""
    datas = {
        "a.safetensors": encode_shard(parts_of(b"\xff", first)),
        "b.safetensors": encode_shard(
            parts_of(b"\xff", second) + parts_of(b"\xfe\xfe", np.zeros(3)) + parts_of(b"\xfe", np.zeros(3))
        ),
    }
    names = {name: path for path, data in datas.items() for name in header_of(data) if name != "__metadata__"} | {
        "key-0": "a.safetensors"
    }
    index = json.dumps({"weight_map": names}).encode()

    with pytest.raises(CorruptionError) as caught:
        open_safetensors(MemoryStore({"m.safetensors.index.json": index, **datas}), "m.safetensors.index.json")

    assert caught.value.code == "dual.duplicate-key"
