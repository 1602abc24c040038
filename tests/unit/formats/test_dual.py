"""The layout of a data shard that is a safetensors file too, and what its header says: literal bytes and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dual_bytes import digits, encode_dual, encode_shard, forged, header_of, parts_of, shard_of
from openckpt.errors import CheckpointError, CorruptionError, LimitError
from openckpt.formats.bundle import Sliced, Strings, Variants, open_bundle
from openckpt.formats.bundle.merging import merge_indexes
from openckpt.formats.crc import crc32c
from openckpt.formats.dual import DualTensor, index_of_dual, plan_dual
from openckpt.formats.dual import layout as dual_layout
from openckpt.formats.safetensors import open_safetensors
from openckpt.formats.spec import TensorSpec
from openckpt.limits import Limits
from openckpt.storage.memory import MemoryStore

F32 = TensorSpec("float32", (2,), 8)
ROWS = ((0, 1), (0, -1)), ((1, 2), (0, -1))


def opened(data: bytes, limits: Limits | None = None) -> Any:
    return open_safetensors(MemoryStore({"x.safetensors": data}), "x.safetensors", limits=limits or Limits())


def names_of(*tensors: DualTensor) -> list[str]:
    """Return the names that safetensors sees, in the order of the header."""
    plan = plan_dual(tensors)
    header = plan.header(
        dict.fromkeys(plan.offsets, 0) | dict.fromkeys(plan.unsized, 0), dict.fromkeys(plan.unsized, 0)
    )
    return [name for name in json.loads(header[8:]) if name != "__metadata__"]


# ------------------------------------------------------------------------------------------------------------ layout


def test_the_whole_file_of_one_string_and_one_number() -> None:
    """Every byte: length, header, padding, data."""
    data = encode_shard(parts_of(b"s", Strings([b"hi"])) + parts_of(b"a", np.array([1, 2], "<f4")))

    text = (
        rb'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"s":{"dtype":"U8","shape":[7],"data_offsets":[8,15]},'
        rb'"__metadata__":{"openckpt":"{\"version\":1,\"header\":\"00000000\",\"crc32c\":\"28c0c9b18018b965\",'
        rb'\"tensors\":{\"s\":{\"key\":\"s\",\"dtype\":\"string\",\"shape\":[]}}}"}}'
    ).ljust(312)
    text = text.replace(b"00000000", b"%08x" % crc32c(text))
    values = bytes.fromhex("0000803f 00000040  02 d8d81073 6869")
    assert data == (312).to_bytes(8, "little") + text + values


def test_an_empty_shard_is_a_safetensors_file() -> None:
    """No tensors: the metadata alone."""
    data = encode_shard([])

    assert len(data) == 128
    assert list(header_of(data)) == ["__metadata__"]
    assert shard_of(data).entries == ()


def test_tensors_of_whole_lines_come_first_then_wide_items_then_keys() -> None:
    """The order of the file: size not a multiple of 64, descending item, key."""
    tensors = [
        DualTensor(key, TensorSpec(dtype, shape, None))
        for key, dtype, shape in [
            (b"k", "bool", (3,)), (b"j", "float32", (3,)), (b"i", "string", (1,)), (b"h", "complex128", (1,)),
            (b"g", "int8", (64,)), (b"f", "float16", (32,)), (b"e", "float16", (96,)), (b"d", "float64", (8,)),
            (b"c", "int64", ()), (b"b", "float32", (2,)), (b"a", "qint8", (2, 0)), (b"0", "string", (2,)),
        ]
    ]  # fmt: skip
    tensors = [
        t._replace(spec=t.spec._replace(nbytes=n)) if (n := {b"i": 64, b"0": 70}.get(t.key)) else t for t in tensors
    ]

    plan = plan_dual(tensors)

    assert b"".join(plan.offsets) == b"d" + b"ef" + b"agi" + b"h" + b"c" + b"bj" + b"0k"  # type: ignore[arg-type]
    for tensor in tensors:
        kind = tensor.spec.dtype
        nbytes = tensor.spec.nbytes or tensor.spec.size * tensor.spec.numpy_dtype.itemsize
        item = 1 if kind == "string" else tensor.spec.numpy_dtype.itemsize
        assert plan.offsets[tensor.key] % (64 if nbytes % 64 == 0 else item) == 0


def test_the_order_of_the_input_does_not_matter() -> None:
    """Equal tensors, equal bytes."""
    values = {
        b"a": np.zeros(3),
        b"b\xff": np.ones((2, 2)),
        b"s": Strings([b"x"]),
        b"w": Sliced((3, 2), {ROWS[0]: np.ones((1, 2)), ROWS[1]: np.ones((2, 2))}),
    }
    parts = [part for key, value in values.items() for part in parts_of(key, value)]

    assert encode_shard(parts) == encode_shard(parts[::-1])


NAMES = {
    "plain": ([DualTensor(b"a/b", F32)], ["a/b"]),
    "quotes, escapes, control characters, line ends": (
        [DualTensor(key, F32) for key in (b'"', b"\\", b"\n", b"\x00", b"\x7f", b"\r\n\t")],
        ["\x00", "\n", "\r\n\t", '"', "\\", "\x7f"],
    ),
    "beyond ASCII": ([DualTensor(key.encode(), F32) for key in ("\u00e9", "\U0001f600", "\uffff", "\u2028")], ["\u00e9", "\u2028", "\uffff", "\U0001f600"]),
    "not UTF-8": ([DualTensor(b"b\xff", F32), DualTensor(b"a\xff", F32)], ["key-0", "key-1"]),
    "a surrogate is not UTF-8": ([DualTensor(b"\xed\xa0\x80", F32)], ["key-0"]),
    "the name of the metadata": ([DualTensor(b"__metadata__", F32)], ["key-0"]),
    "key-0 is taken": ([DualTensor(b"key-0", F32), DualTensor(b"\xff", F32)], ["key-0", "key-1"]),
    "key-0 is taken by a string": ([DualTensor(b"key-0", TensorSpec("string", (), 5)), DualTensor(b"\xff", F32)], ["key-1", "key-0"]),
    "slices": ([DualTensor(b"w", F32, ((2, 2),), (4,)), DualTensor(b"w", F32, ((0, 2),), (4,))], ["w::0,2", "w::2,2"]),
    "the name of a slice is taken": (
        [DualTensor(b"w", F32, ((0, 2),), (4,)), DualTensor(b"w::0,2", F32), DualTensor(b"w", F32, ((2, 2),), (4,))],
        ["key-0", "w::2,2", "w::0,2"],
    ),
    "the slice of a key that is not UTF-8": ([DualTensor(b"\xff", F32, ((0, 2),), (4,))], ["key-0"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_names(case: str) -> None:
    """A tensor has its own key as its name where JSON can hold it, else the next free one."""
    tensors, expected = NAMES[case]

    assert names_of(*tensors) == expected
    assert sorted(names_of(*tensors[::-1])) == sorted(expected)
    data = encode_shard([part for tensor in tensors for part in _zeros(tensor)])
    assert {entry.place for entry in shard_of(data).entries} == {tensor.place for tensor in tensors}


def _zeros(tensor: DualTensor) -> list[Any]:
    if tensor.spec.dtype == "string":
        return parts_of(tensor.key, Strings([b""]))
    return [part._replace(tensor=tensor) for part in parts_of(tensor.key, np.zeros(2, "<f4"))]


def test_the_header_has_one_length_whatever_the_checksums() -> None:
    """It is reserved before the data is written, and filled in afterwards."""
    plan = plan_dual([DualTensor(b"a", F32), DualTensor(b"s", TensorSpec("string", (), None))])

    headers = [plan.header({b"a": crc, b"s": crc}, {b"s": size}) for crc, size in ((0, 0), (0xFFFFFFFF, 1 << 62))]

    assert {len(header) for header in headers} == {plan.data_start}
    assert plan.data_start % 64 == 0
    assert [json.loads(header[8:])["s"]["data_offsets"] for header in headers] == [[8, 8], [8, 8 + (1 << 62)]]


def test_tensors_of_unknown_size_lie_in_the_order_in_which_they_came() -> None:
    """Behind all others, each right behind the one before."""
    unsized = [DualTensor(key, TensorSpec("string", (1,), None)) for key in (b"a", b"b", b"c")]
    plan = plan_dual([*unsized, DualTensor(b"n", F32)])

    header = plan.header(dict.fromkeys((b"a", b"b", b"c", b"n"), 7), {b"c": 5, b"a": 6, b"b": 7})

    offsets = {key: entry["data_offsets"] for key, entry in json.loads(header[8:]).items() if key != "__metadata__"}
    assert offsets == {"n": [0, 8], "c": [8, 13], "a": [13, 19], "b": [19, 26]}
    assert plan.end == plan.data_start + 8
    assert set(plan.unsized) == {b"a", b"b", b"c"}


def test_a_tensor_without_checksum_or_size_is_a_bug_of_the_caller() -> None:
    """Nothing is written that would later be refused."""
    plan = plan_dual([DualTensor(b"a", F32), DualTensor(b"s", TensorSpec("string", (), None))])

    for crcs, sizes in (({b"a": 1}, {b"s": 1}), ({b"a": 1, b"s": 1}, {}), ({b"s": 1}, {b"s": 1})):
        with pytest.raises(KeyError):
            plan.header(crcs, sizes)


@pytest.mark.parametrize(
    "tensors",
    [
        [DualTensor(b"a", F32), DualTensor(b"a", F32)],
        [DualTensor(b"\xff", F32), DualTensor(b"\xff", F32)],
        [DualTensor(b"a", TensorSpec("resource", (), None))],
        [DualTensor(b"a", TensorSpec("unknown-99", (), None))],
        [DualTensor(b"a", TensorSpec("float32", None, None))],
        [DualTensor(b"a", TensorSpec("float32", (2,), 7))],
    ],
)
def test_what_no_checkpoint_holds_is_a_bug_of_the_caller(tensors: list[DualTensor]) -> None:
    """The writer refuses it by name before the layout sees it."""
    with pytest.raises(ValueError):
        plan_dual(tensors)


def test_a_header_above_the_cap_of_stock_safetensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a byte is written, with the file and both sizes."""
    tensors = [DualTensor(b"x" * 60 + b"%04d" % number, F32) for number in range(10)]
    length = plan_dual(tensors).data_start - 8
    monkeypatch.setattr(dual_layout, "HEADER_BYTES", length)
    assert plan_dual(tensors).data_start - 8 == length

    monkeypatch.setattr(dual_layout, "HEADER_BYTES", length - 1)
    with pytest.raises(LimitError) as caught:
        plan_dual(tensors, "run/ckpt-1.data-00000-of-00001")

    assert caught.value.code == "dual.header-too-large"
    assert caught.value.where.path == "run/ckpt-1.data-00000-of-00001"
    assert caught.value.found == f"{length} bytes"


def test_the_cap_is_that_of_stock_safetensors(tmp_path: Path) -> None:
    """One byte more, and stock safetensors refuses the file."""
    from safetensors import SafetensorError, safe_open

    path = tmp_path / "x.safetensors"
    for length, accepted in ((dual_layout.HEADER_BYTES, True), (dual_layout.HEADER_BYTES + 1, False)):
        path.write_bytes(length.to_bytes(8, "little") + b"{}".ljust(length))
        if accepted:
            with safe_open(path, "np") as file:
                assert file.keys() == []
        else:
            with pytest.raises(SafetensorError, match="header too large"):
                safe_open(path, "np")


# ----------------------------------------------------------------------------------------------------------- reading

VALUES: dict[bytes, Any] = {
    b"f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    b"bf16": np.arange(64).astype(ml_dtypes.bfloat16),
    b"e4m3b11": np.arange(4).astype(ml_dtypes.float8_e4m3b11fnuz),
    b"f4": np.array([0, 1, 2], ml_dtypes.float4_e2m1fn),
    b"i4": np.array([-8, 7, -1], ml_dtypes.int4),
    b"u2": np.array([0, 3], ml_dtypes.uint2),
    b"q8": ("qint8", np.array([-1, 2], np.int8)),
    b"q16": ("quint16", np.array([1, 65535], np.uint16)),
    b"c128": np.array([1 + 2j]),
    b"flag": np.array([True, False]),
    b"scalar": np.array(7, np.int64),
    b"empty": np.zeros((0, 3), np.float32),
    b"no strings": Strings([], (0,)),
    b"names": Strings([b"a", b"", b"\x00\xff"], (3,)),
    b"state": Variants([b"\x0a\x01x"], (1,)),
    b"b\xff": np.ones(3, np.float32),
    b"__metadata__": np.ones(2, np.int16),
    b"w": Sliced((3, 2), {ROWS[1]: np.arange(2, 6).reshape(2, 2), ROWS[0]: np.arange(2).reshape(1, 2)}),
    b"ws": Sliced((2,), {((0, 1),): Strings([b"x"], (1,)), ((1, 1),): Strings([b"yy"], (1,))}),
    b"w4": Sliced((2,), {((0, 1),): np.array([-1], ml_dtypes.int4), ((1, 1),): np.array([-2], ml_dtypes.int4)}),
}


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


# ------------------------------------------------------------------------------------------------ damage and rewriting


def test_a_file_that_stock_safetensors_wrote_again_is_plain(tmp_path: Path) -> None:
    """Metadata carried over no longer counts: names and values may be others. A note says so."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    path.write_bytes(encode_shard(parts_of(b"s", Strings([b"hi"])) + parts_of(b"a", np.zeros(2))))
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        metadata = file.metadata()
    save_file({**tensors, "a": tensors["a"] + 1}, path, metadata)

    reader = opened(path.read_bytes())

    assert dict(reader.items()) == {"a": TensorSpec("float64", (2,), 16), "s": TensorSpec("uint8", (7,), 7)}
    assert reader.read("a").tolist() == [1.0, 1.0]
    assert [(finding.code, finding.severity) for finding in reader.validate()] == [("dual.rewritten", "note")]


def test_metadata_of_others_is_nothing_to_us() -> None:
    """A file without our member, or with another of that name, is plain safetensors."""
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"format":"pt"}}'
    reader = opened(len(text).to_bytes(8, "little") + text + b"x")

    assert reader.read("a").tolist() == [ord("x")]
    assert list(reader.validate()) == []


ENTRY = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
GOOD = {
    "version": 1,
    "header": "00000000",
    "crc32c": digits([0]),
    "tensors": {"a": {"key": "k", "dtype": "string", "shape": []}},
}


def said(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "tensors": {"a": {"key": "k", "dtype": "string", "shape": [], **changes}}}


REJECTED: dict[str, list[Any]] = {
    "dual.version": [{**GOOD, "version": 2}, {**GOOD, "version": 999_999_999}],
    "dual.metadata": [
        {key: value for key, value in GOOD.items() if key != "tensors"},
        {**GOOD, "more": 1},
        {"header": "00000000", **GOOD},
        {**GOOD, "header": "0"},
        {},
        "no JSON",
        '{"version":-1,"header":"00000000"}',
        {**GOOD, "crc32c": ""},
        {**GOOD, "crc32c": "0" * 9},
        {**GOOD, "crc32c": "0000000G"},
        {**GOOD, "crc32c": "0000 000"},
        {**GOOD, "crc32c": "ABCDEF00"},
        {**GOOD, "crc32c": 0},
        {**GOOD, "tensors": []},
        {**GOOD, "tensors": {"a": []}},
        {**GOOD, "tensors": {"a": {"key": "k", "dtype": "string"}}},
        said(more=1),
        said(key=""),
        said(key=5),
        said(key="\ud800"),
        said(shape=3),
        said(shape=[-1]),
        said(shape=[True]),
        said(shape=[1.0]),
        said(shape=[1 << 63]),
        said(slice=5),
        '{"version":1,"header":"00000000","crc32c":',
        '{"version":1,"header":"00000000","header":"00000000"}',
        '{"version":1,"header":"00000000","x":' + "[" * 100_000,
    ],
    "dual.contradiction": [
        {**GOOD, "tensors": {}, "crc32c": digits([0])},
        {**GOOD, "tensors": {**GOOD["tensors"], "b": GOOD["tensors"]["a"]}},  # type: ignore[dict-item]
        said(dtype="int4", shape=[5]),
        said(dtype="float32", shape=[1]),
        said(dtype="uint8", shape=[5]),
        said(shape=[5]),
        said(dtype="variant", shape=[1 << 40]),
        said(shape=[(1 << 63) - 1] * 200),
    ],
    "spec.unknown-dtype": [said(dtype="resource"), said(dtype="float7"), said(dtype=7), said(dtype=None)],
    "slices.bad-extent": [
        said(shape=[2], slice="2,1"), said(shape=[2], slice="-:-"), said(shape=[2], slice=""), said(shape=[2], slice="00,1"),
        said(shape=[2], slice="0,-1"), said(shape=[2], slice="0,\u0661"), said(shape=[1 << 62], slice="9" * 19 + ",1"),
    ],
    "limits.exceeded": [said(shape=[1] * 255), said(shape=[1], slice=":".join(["-"] * 255))],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "inner"),
    [pytest.param(code, inner, id=f"{code}-{n}") for code, all_ in REJECTED.items() for n, inner in enumerate(all_)],
)
def test_rejected(code: str, inner: Any) -> None:
    """Metadata that passes its own checksum and says what cannot be."""
    entry = {**ENTRY, "dtype": "F4", "shape": [8]} if inner == REJECTED["dual.contradiction"][0] else ENTRY
    with pytest.raises(CheckpointError) as caught:
        opened(forged({"a": entry}, inner, b"\x01\x00\x00\x00"))

    assert caught.value.code == code
    assert "x.safetensors" in str(caught.value)


def test_the_good_case_of_the_table_is_accepted() -> None:
    """What the table above changes is sound before the change."""
    assert dict(opened(forged({"a": ENTRY}, GOOD, bytes(4))).items()) == {"k": TensorSpec("string", (), 4)}


PAIR = {"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 8]}}


@pytest.mark.parametrize(
    ("code", "a", "b"),
    [
        ("dual.duplicate-key", {"key": "b", "dtype": "uint8", "shape": [4]}, None),
        ("dual.duplicate-key", {"key": "b", "dtype": "uint8", "shape": [8], "slice": "0,4"}, None),
        ("dual.duplicate-key", *[{"key": "k", "dtype": "uint8", "shape": [8], "slice": "0,4"}] * 2),
        ("dual.contradiction", {"key": "k", "dtype": "uint8", "shape": [8], "slice": "0,4"}, {"key": "k", "dtype": "uint8", "shape": [9], "slice": "4,4"}),
        ("dual.contradiction", {"key": "k", "dtype": "uint8", "shape": [8], "slice": "0,4"}, {"key": "k", "dtype": "quint8", "shape": [8], "slice": "4,4"}),
    ],
)  # fmt: skip
def test_tensors_that_contradict_one_another(code: str, a: Any, b: Any) -> None:
    """One key for two tensors, and pieces of two wholes."""
    tensors = {"a": a} if b is None else {"a": a, "b": b}
    with pytest.raises(CheckpointError) as caught:
        opened(forged(PAIR, {**GOOD, "crc32c": digits([0, 0]), "tensors": tensors}, bytes(8)))

    assert caught.value.code == code


def test_more_slices_than_the_limit_are_refused() -> None:
    """A header may list a million of them."""
    tensors = {f"w{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(5)}
    described = {f"w{n}": {"key": "w", "dtype": "uint8", "shape": [5], "slice": f"{n},1"} for n in range(5)}
    data = forged(tensors, {**GOOD, "crc32c": digits([0] * 5), "tensors": described}, bytes(5))

    assert opened(data).spec("w").shape == (5,)
    with pytest.raises(LimitError) as caught:
        opened(data, Limits(slices=4))
    assert caught.value.code == "limits.exceeded"


def test_a_key_that_is_the_slice_key_of_another_tensor_makes_no_index() -> None:
    """It would take that piece's place."""
    from openckpt.formats.slicekeys import encode_slice_key

    piece = encode_slice_key(b"w", ((0, 2),))
    data = encode_shard(
        parts_of(piece, Strings([b"x"])) + parts_of(b"w", Sliced((2,), {((0, 2),): np.zeros(2, np.int8)}))
    )

    with pytest.raises(CorruptionError) as caught:
        index_of_dual([shard_of(data)])
    assert caught.value.code == "dual.duplicate-key"


SMALL = encode_shard(
    parts_of(b"a", np.arange(3, dtype=np.int16)) + parts_of(b"s", Strings([b"hi"])) + parts_of(b"b\xff", np.ones(2, np.float16))
)  # fmt: skip


def answer(data: bytes) -> tuple[Any, ...]:
    reader = opened(data)
    return list(reader.items()), {key: value.tolist() for key, value in reader.read_many(reader.keys()).items()}


def test_every_flipped_bit_is_found_or_changes_nothing_but_the_mark() -> None:
    """Header, padding and data. Only in the bytes that mark the metadata a change makes the file plain safetensors."""
    expected = answer(SMALL)
    start = SMALL.find(b'"__metadata__":{"openckpt":"')
    mark = range(start, start + len(b'"__metadata__":{"openckpt":"'))
    codes = set()
    damaged = bytearray(SMALL)
    for position in range(len(SMALL)):
        for bit in range(8):
            damaged[position] ^= 1 << bit
            try:
                found = answer(bytes(damaged))
            except CheckpointError as error:
                codes.add(error.code)
            else:
                assert found == expected or position in mark, f"bit {bit} of byte {position}"
            damaged[position] ^= 1 << bit
    assert {"dual.header-checksum", "bundle.crc-mismatch", "dual.version"} <= codes


def test_a_damaged_tensor_is_named_with_what_it_costs() -> None:
    """One finding with key, offset and parameters; the others read."""
    data = bytearray(SMALL)
    data[-14] ^= 1

    (finding,) = opened(bytes(data)).validate()

    assert finding.code == "bundle.crc-mismatch"
    assert finding.lost is not None and finding.lost.tensors == (finding.where.key,)
    assert finding.where.offset is not None
    assert list(opened(bytes(data)).validate(data=False)) == []
    reader = opened(bytes(data))
    assert reader.read(finding.where.key, verify=False).size
    with pytest.raises(CorruptionError):
        reader.read(finding.where.key)


# ------------------------------------------------------------------------------------------- header against the index

NAMED = {
    b"a": np.arange(3, dtype=np.int16),
    b"s": Strings([b"hi"]),
    b"w": VALUES[b"w"],
    b"\xff": np.ones(2, np.float16),
}


def said_of(files: dict[str, bytes]) -> dict[str, str]:
    """Return the findings about the whole checkpoint, without the one that is always there."""
    reader = open_bundle(MemoryStore(files), "p")
    return {f.code: f.severity for f in reader.validate(data=False) if f.code != "bundle.safetensors-header"}


def with_index_of(values: dict[bytes, Any], other: dict[bytes, Any]) -> dict[str, bytes]:
    """The data file of one checkpoint under the index of another."""
    return {**encode_dual(values, "p"), "p.index": encode_dual(other, "p")["p.index"]}


def test_a_header_that_agrees_with_the_index_is_no_finding() -> None:
    """In one shard and in several, an empty one among them."""
    for shards in (1, 2, 7):
        assert said_of(encode_dual(NAMED, "p", shards=shards)) == {}
    assert said_of(encode_dual({}, "p")) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {b"a": np.arange(1, 4, dtype=np.int16)},
        {b"a": np.arange(3, dtype=np.uint16)},
        {b"a": np.arange(3, dtype=np.int16).reshape(3, 1)},
        {b"\xff": np.ones(2, ml_dtypes.bfloat16)},
        {b"s": Strings([b"ho"])},
        {b"s": Strings([b"hi"], (1,))},
        {b"\xff": np.zeros(2, np.float16)},
        {b"w": Sliced((3, 2), {ROWS[0]: np.ones((1, 2), np.int64), ROWS[1]: np.ones((2, 2), np.int64)})},
    ],
)  # fmt: skip
def test_an_index_that_says_otherwise_is_a_warning(changed: dict[bytes, Any]) -> None:
    """Of value, type, shape or place of one tensor; no tensor is read."""
    assert said_of(with_index_of(NAMED, {**NAMED, **changed})) == {"dual.differs": "warning"}


def index_with(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The same data file under an index whose entry of ``a`` is patched."""
    shard = shard_of(files["p.data-00000-of-00001"])
    entries = tuple(entry._replace(**changes) if entry.key == b"a" else entry for entry in shard.entries)
    return {**files, "p.index": index_of_dual([type(shard)(shard.path, entries)])}


def test_a_tensor_in_another_place_is_a_warning() -> None:
    """A patched offset of a tensor whose bytes are the same elsewhere."""
    files = encode_dual({b"a": np.zeros(3), b"b": np.zeros(3)}, "p")
    (other,) = [entry.offset for entry in shard_of(files["p.data-00000-of-00001"]).entries if entry.key == b"b"]

    assert said_of(index_with(files, offset=other))["dual.differs"] == "warning"


def test_an_index_that_renames_or_leaves_out_is_a_note() -> None:
    """What an index made anew over the same data file looks like."""
    files = encode_dual({b"a": np.arange(3), b"b": np.ones(2)}, "p")

    assert said_of(index_with(files, key=b"c")) == {"dual.other-names": "note"}


def test_a_damaged_header_is_a_warning_and_the_checkpoint_is_whole() -> None:
    """TensorFlow never looks at it."""
    files = encode_dual(NAMED, "p")
    data = bytearray(files["p.data-00000-of-00001"])
    data[data.index(b"I16") + 2] = ord("7")
    damaged = {**files, "p.data-00000-of-00001": bytes(data)}

    assert said_of(damaged) == {"dual.header-checksum": "warning"}
    assert open_bundle(MemoryStore(damaged), "p").read("a").tolist() == [0, 1, 2]


def test_a_data_file_cut_short_is_one_finding() -> None:
    """Its header does not fit any more either, which is the same fault."""
    files = encode_dual(NAMED, "p")
    cut = {**files, "p.data-00000-of-00001": files["p.data-00000-of-00001"][:-1]}

    assert said_of(cut) == {"bundle.data-truncated": "error"}


def test_a_header_that_no_index_accounts_for_is_not_parsed() -> None:
    """Megabytes of header before a tensor of three numbers."""
    many = {b"%06d" % number: np.zeros(0, np.int8) for number in range(2000)}
    files = encode_dual({**many, b"a": np.arange(3)}, "p")
    shard = shard_of(files["p.data-00000-of-00001"])
    few = type(shard)(shard.path, tuple(entry for entry in shard.entries if entry.key == b"a"))

    assert said_of({**files, "p.index": index_of_dual([few])}) == {"dual.differs": "warning"}


def test_a_merge_of_parts_is_what_the_headers_say() -> None:
    """Data files are renamed, not written: the index that their headers give in their new order is the merged one."""
    whole = np.arange(12).reshape(4, 3)
    cuts = [((row, 1), (0, -1)) for row in range(4)]
    parts = [
        encode_dual({b"z": np.zeros(2), b"w": Sliced((4, 3), {cuts[3]: whole[3:], cuts[0]: whole[:1]})}, "part-0"),
        encode_dual({b"a": Strings([b"x"]), b"w": Sliced((4, 3), {cuts[1]: whole[1:2]})}, "part-1"),
        encode_dual({b"\xff": np.ones(3), b"w": Sliced((4, 3), {cuts[2]: whole[2:3]})}, "part-2"),
    ]
    merged = merge_indexes([(f"part-{n}", part[f"part-{n}.index"]) for n, part in enumerate(parts)])
    datas = [parts[int(origin.part[-1])][f"{origin.part}.data-00000-of-00001"] for origin in merged.origins]

    assert index_of_dual([shard_of(data) for data in datas]) == merged.encode()
    files = {f"p.data-{n:05d}-of-00003": data for n, data in enumerate(datas)} | {"p.index": merged.encode()}
    assert said_of(files) == {}
    assert open_bundle(MemoryStore(files), "p").read("w").tolist() == whole.tolist()


def test_twenty_thousand_tensors_tile_the_file() -> None:
    """Of many types and sizes, given in any order: stock safetensors takes the header, and ours finds every one."""
    from safetensors import deserialize

    kinds = [
        ("float32", (3, 3)),
        ("float16", (7,)),
        ("int64", ()),
        ("bool", (5,)),
        ("qint8", (2, 2)),
        ("float64", (8,)),
    ]
    tensors = [
        DualTensor(b"model/layer_%d/kernel" % (n * 7919 % 20_000), TensorSpec(*kinds[n % len(kinds)], None))
        for n in range(20_000)
    ]
    plan = plan_dual(tensors)
    crcs = {tensor.key: number for number, tensor in enumerate(tensors)}
    data = plan.header(crcs).ljust(plan.end, b"\0")

    found = shard_of(data)

    assert len(deserialize(data)) == 20_000
    assert {entry.key: entry.crc for entry in found.entries} == crcs
    assert [(entry.key, entry.offset) for entry in found.entries] == list(plan.offsets.items())
    assert sum(entry.spec.nbytes or 0 for entry in found.entries) == plan.end - plan.data_start
