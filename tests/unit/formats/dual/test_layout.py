"""The layout of a data file that is a safetensors file too: literal bytes, names, sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dual_bytes import ROWS, encode_shard, header_of, parts_of, shard_of
from openckpt.errors import LimitError
from openckpt.formats.bundle import Sliced, Strings
from openckpt.formats.crc import crc32c
from openckpt.formats.dual import DualTensor, plan_dual
from openckpt.formats.dual import layout as dual_layout
from openckpt.formats.spec import TensorSpec

F32 = TensorSpec("float32", (2,), 8)


def names_of(*tensors: DualTensor) -> list[str]:
    """Return the names that safetensors sees, in the order of the header."""
    plan = plan_dual(tensors)
    header = plan.header(
        dict.fromkeys(plan.offsets, 0) | dict.fromkeys(plan.unsized, 0), dict.fromkeys(plan.unsized, 0)
    )
    return [name for name in json.loads(header[8:]) if name != "__metadata__"]


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
