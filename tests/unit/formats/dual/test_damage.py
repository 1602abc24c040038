"""What the header of a dual file may say, and what is found when it, or a tensor, is damaged or rewritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dual_bytes import digits, encode_shard, forged, opened, parts_of, shard_of
from openckpt.errors import CheckpointError, CorruptionError, LimitError
from openckpt.formats.bundle import Sliced, Strings
from openckpt.formats.dual import index_of_dual
from openckpt.formats.spec import TensorSpec
from openckpt.limits import Limits


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
