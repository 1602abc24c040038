"""V2 checkpoints: every dtype, strings, variants, slices, shards; what is refused, and with which code."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from openckpt.errors import (
    CheckpointError,
    ConflictError,
    CorruptionError,
    MismatchError,
    NotFoundError,
    UnsupportedError,
)
from openckpt.formats.bundle import (
    BundleEntry,
    BundleReader,
    Sliced,
    Strings,
    Variants,
    encode_bundle,
    encode_entry,
    encode_header,
    open_bundle,
    parse_entry,
)
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import DTYPES
from openckpt.formats.spec import TensorSpec
from openckpt.formats.sstable import encode_table
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemorySource, MemoryStore
from together import together

NUMERIC = [dtype for dtype in DTYPES.values() if dtype.is_numeric]


def opened(files: Mapping[str, bytes], prefix: str = "ckpt-7") -> BundleReader:
    return open_bundle(MemoryStore(dict(files)), prefix)


def bundle(tensors: Mapping[str | bytes, object], **options: object) -> dict[str, bytes]:
    return encode_bundle(tensors, "ckpt-7", **options)  # type: ignore[arg-type]


def crafted(entries: Mapping[bytes, bytes], data: bytes = b"", shards: int = 1) -> dict[str, bytes]:
    """A checkpoint from raw entry bytes."""
    table = encode_table(sorted({b"": encode_header(shards), **entries}.items()))
    return {"ckpt-7.index": table, f"ckpt-7.data-00000-of-{shards:05d}": data}


def sample(name: str) -> np.ndarray:
    dtype = next(dtype for dtype in NUMERIC if dtype.name == name)
    bits = np.arange(24, dtype=np.uint8)
    if name == "bool":
        return (bits % 3 == 0).reshape(2, 3, 4)
    if name.startswith(("int2", "uint2")):
        return (bits % 2).astype(dtype.numpy()).reshape(2, 3, 4)
    if name == "float4_e2m1fn":
        return (bits % 7).astype(np.uint8).view(dtype.numpy()).reshape(2, 3, 4)
    return (bits % 8).astype(dtype.numpy()).reshape(2, 3, 4)


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("name", [dtype.name for dtype in NUMERIC])
def test_every_numeric_dtype_reads_as_written(name: str, big_endian: bool) -> None:
    """Values, dtype and shape survive in both byte orders, alone, in bulk and into a given array."""
    value = sample(name)
    files = bundle(
        {"x": value, "scalar": value[0, 0, 0], "empty": value[:0]}, dtypes={"x": name}, big_endian=big_endian
    )
    reader = opened(files)
    assert reader.spec("x") == TensorSpec(name, (2, 3, 4), value.nbytes)
    many = reader.read_many(["x", "scalar", "empty"])
    given = {"x": np.empty(value.shape, value.dtype)}
    into = reader.read_many(["x"], out=given)["x"]
    assert into is given["x"]
    for got in (reader.read("x"), many["x"], into):
        assert got.dtype == value.dtype
        assert got.shape == value.shape
        assert got.tobytes() == value.tobytes()
    assert many["scalar"].shape == ()
    assert many["scalar"].tobytes() == value[0, 0, 0].tobytes()
    assert many["empty"].shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("stored", "dtype", "value"),
    [
        (b"\xff\xf7\x08", 29, [-1, 7, -8]),
        (b"\xff\xf0\x08", 30, [15, 0, 8]),
        (b"\x03\xfe", 31, [-1, -2]),
        (b"\x07", 32, [3]),
    ],
)
def test_high_bits_of_sub_byte_types_are_ignored(stored: bytes, dtype: int, value: list[int]) -> None:
    """Only the low bits count, and signed types extend the sign (formats 2.5)."""
    entry = BundleEntry(dtype, (len(stored),), 0, 0, len(stored), crc32c(stored))
    reader = opened(crafted({b"x": encode_entry(entry)}, stored))
    assert reader.read("x").astype(int).tolist() == value


def test_any_nonzero_byte_is_true() -> None:
    """A bool is true when its byte is not zero."""
    stored = b"\x00\x01\x02\xff"
    reader = opened(crafted({b"x": encode_entry(BundleEntry(10, (4,), 0, 0, 4, crc32c(stored)))}, stored))
    assert reader.read("x").tobytes() == b"\x00\x01\x01\x01"


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_strings_are_object_arrays_of_bytes(big_endian: bool) -> None:
    """Strings of any length and content, in any shape; a scalar is a 0-d array."""
    matrix = Strings([b"", b"a", b"\xff" * 300, "ü".encode()], (2, 2))
    reader = opened(bundle({"s": Strings([b"one"]), "m": matrix, "none": Strings([], (0, 3))}, big_endian=big_endian))
    assert reader.read("s").shape == ()
    assert reader.read("s")[()] == b"one"
    assert reader.read("m").dtype == object
    assert reader.read("m").reshape(-1).tolist() == list(matrix.elements)
    assert reader.read("none").shape == (0, 3)
    assert reader.spec("s").dtype == "string"


def test_an_empty_string_tensor_may_have_no_bytes() -> None:
    """Besides TensorFlow's four bytes a size of 0 is accepted (formats 2.7)."""
    reader = opened(crafted({b"x": encode_entry(BundleEntry(7, (0,), 0, 0, 0, 0))}))
    assert reader.read("x").shape == (0,)


def test_variants_are_opaque_bytes() -> None:
    """Variants come as the bytes that were stored."""
    reader = opened(bundle({"v": Variants([b"proto one", b""], (2,))}))
    assert reader.read("v").tolist() == [b"proto one", b""]
    assert reader.spec("v").dtype == "variant"


def sliced(dtype: str = "float32") -> tuple[np.ndarray, Sliced]:
    whole = np.arange(1500, dtype=dtype).reshape(5, 300)
    pieces = {
        ((0, 2), (0, -1)): whole[:2],
        ((2, 3), (0, 100)): np.ascontiguousarray(whole[2:, :100]),
        ((2, 3), (100, 200)): np.ascontiguousarray(whole[2:, 100:]),
    }
    return whole, Sliced((5, 300), pieces)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16", "complex128"])
def test_slices_are_put_together(dtype: str) -> None:
    """Also for dtypes that stock TensorFlow cannot reassemble; the slice keys are not listed."""
    whole, value = sliced(dtype)
    reader = opened(bundle({"w": value, "z": np.zeros(3)}, shards=2))
    assert list(reader.keys()) == ["w", "z"]
    assert len(reader) == 2
    assert reader.spec("w") == TensorSpec(dtype, (5, 300), whole.nbytes)
    np.testing.assert_array_equal(reader.read("w"), whole)
    assert reader.slices("w") == tuple(value.pieces)
    np.testing.assert_array_equal(reader.read_slice("w", ((2, 3), (0, 100))), whole[2:, :100])
    np.testing.assert_array_equal(reader.read_slice("w", ((1, 3), (50, 100))), whole[1:4, 50:150])
    assert len(reader.locate("w")) == 3


def test_a_region_of_an_unsliced_tensor_can_be_read() -> None:
    """read_slice works on any tensor."""
    value = np.arange(20, dtype="int32").reshape(4, 5)
    reader = opened(bundle({"x": value}))
    np.testing.assert_array_equal(reader.read_slice("x", ((1, 2), (0, -1))), value[1:3])


def test_sliced_strings_are_put_together() -> None:
    """TensorFlow writes sliced strings and cannot read them; openckpt can."""
    value = Sliced((3,), {((0, 2),): Strings([b"a", b"b"], (2,)), ((2, 1),): Strings([b"c"], (1,))})
    assert opened(bundle({"s": value})).read("s").tolist() == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("pieces", "code"),
    [([(0, 2), (3, 2)], "slices.gap"), ([(0, 3), (2, 3)], "slices.overlap"), ([(0, 3), (3, 9)], "slices.bad-extent")],
)
def test_slices_that_do_not_tile_are_refused(pieces: list[tuple[int, int]], code: str) -> None:
    """Gaps, overlaps and slices outside the tensor have their codes."""
    value = Sliced((5,), {(piece,): np.zeros(piece[1], "float32") for piece in pieces})
    with pytest.raises(CheckpointError) as caught:
        opened(bundle({"w": value})).read("w")
    assert caught.value.code == code
    assert caught.value.where.key == "w"


def test_keys_are_any_bytes() -> None:
    """Bytes that are not UTF-8, line ends and a leading zero byte are keys like others."""
    keys = [b"\x00start", b"a\nb", b"caf\xe9", "ключ".encode()]
    reader = opened(bundle(dict.fromkeys(keys, np.ones(2, "int8"))))
    assert [key.encode("utf-8", "surrogateescape") for key in list(reader.keys())] == sorted(keys)
    assert all(key in reader for key in list(reader.keys()))
    assert len(reader.read_many(reader.keys())) == 4
    for absent in ("", "caf", "\ud800", 7):
        assert absent not in reader


def test_a_missing_key_names_its_neighbours() -> None:
    """The error is a KeyError and suggests what was meant."""
    reader = opened(bundle({"dense/kernel": np.zeros(1), "dense/bias": np.zeros(1)}))
    with pytest.raises(KeyError, match="dense/kernel") as caught:
        reader.read("dense/kernle")
    assert isinstance(caught.value, NotFoundError)
    assert caught.value.code == "spec.no-such-key"


def test_a_wrong_checksum_names_file_key_offset_and_both_values() -> None:
    """The message carries all that is needed to find the byte; verify=False reads on."""
    value = np.arange(100, dtype="int64")
    files = bundle({"a": np.zeros(3, "int64"), "b": value})
    damaged = bytearray(files["ckpt-7.data-00000-of-00001"])
    damaged[24 + 80] ^= 0x01
    reader = opened({**files, "ckpt-7.data-00000-of-00001": bytes(damaged)})
    with pytest.raises(CorruptionError) as caught:
        reader.read("b")
    error = caught.value
    assert (error.code, error.where.key, error.where.offset) == ("bundle.crc-mismatch", "b", 24)
    assert error.where.path.endswith("ckpt-7.data-00000-of-00001")
    assert f"{crc32c(value.tobytes()):#010x}" in (error.expected or "")
    assert "0x" in (error.found or "")
    np.testing.assert_array_equal(reader.read("a"), np.zeros(3))
    assert reader.read("b", verify=False)[10] != 10


def test_a_missing_shard_is_named_and_the_rest_is_read() -> None:
    """Listing works; only tensors of the missing shard are refused."""
    files = bundle({"a": np.zeros(3), "b": np.ones(3)}, shards=2)
    del files["ckpt-7.data-00001-of-00002"]
    reader = opened(files)
    assert list(reader.keys()) == ["a", "b"]
    np.testing.assert_array_equal(reader.read("a"), np.zeros(3))
    with pytest.raises(CorruptionError) as caught:
        reader.read("b")
    assert caught.value.code == "bundle.shard-missing"
    assert "ckpt-7.data-00001-of-00002" in str(caught.value)
    (finding,) = reader.validate()
    assert finding.lost is not None
    assert (finding.code, finding.lost.tensors, finding.lost.parameters, finding.lost.of_parameters) == (
        "bundle.shard-missing",
        ("b",),
        3,
        6,
    )


def test_a_miscounted_header_falls_back_to_the_complete_set_on_disk() -> None:
    """TensorFlow's merge may state more shards than there are (formats 2.11)."""
    files = bundle({"a": np.arange(3)})
    entries = {b"": encode_header(2)}
    entry = BundleEntry(9, (3,), 0, 0, 24, crc32c(np.arange(3).tobytes()))
    files["ckpt-7.index"] = encode_table(sorted({**entries, b"a": encode_entry(entry)}.items()))
    reader = opened(files)
    np.testing.assert_array_equal(reader.read("a"), np.arange(3))
    assert [finding.code for finding in reader.validate()] == ["bundle.shard-count"]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (BundleEntry(1, (2,), 0, 0, 4, 0), "bundle.size-mismatch"),
        (BundleEntry(1, (2,), 0, 1 << 40, 8, 0), "bundle.data-truncated"),
        (BundleEntry(1, (2,), 7, 0, 8, 0), "bundle.shard-range"),
        (BundleEntry(99, (2,), 0, 0, 8, 0), "spec.unknown-dtype"),
        (BundleEntry(20, (), 0, 0, 8, 0), "bundle.resource"),
        (BundleEntry(1, (1 << 62, 1 << 62), 0, 0, 8, 0), "bundle.size-mismatch"),
        (BundleEntry(7, (1 << 40,), 0, 0, 8, 0), "bundle.string-lengths"),
        (BundleEntry(21, (1 << 40,), 0, 0, 8, 0), "bundle.variant"),
    ],
)
def test_entries_that_lie_are_refused(entry: BundleEntry, code: str) -> None:
    """Every contradiction has its code, is raised on read and reported by validate, and hides no other tensor."""
    good = np.array([1, 2], "float32")
    fine = encode_entry(BundleEntry(1, (2,), 0, 0, 8, crc32c(good.tobytes())))
    files = crafted({b"bad": encode_entry(entry), b"fine": fine}, good.tobytes())
    reader = opened(files)
    assert list(reader.keys()) == ["bad", "fine"]
    with pytest.raises(CheckpointError) as caught:
        reader.read("bad")
    assert caught.value.code == code
    np.testing.assert_array_equal(reader.read("fine"), good)
    assert code in [finding.code for finding in reader.validate()]


@pytest.mark.parametrize(
    "value", [b"\x08", b"\x0a\x05", b"\x12\x02\x12\x09", b"\x12\x0d\x12\x0b\x08" + b"\xff" * 9 + b"\x01"]
)
def test_an_unparsable_entry_is_listed_as_invalid(value: bytes) -> None:
    """TensorFlow aborts the process on such a file (formats 9, row 19); here the other keys still read."""
    reader = opened(crafted({b"bad": value, b"fine": encode_entry(BundleEntry(1, (0,), 0, 0, 0, 0))}))
    assert dict(reader.items())["bad"] == TensorSpec("invalid", None, None)
    with pytest.raises(CorruptionError) as caught:
        reader.read("bad")
    assert caught.value.code in ("bundle.bad-entry", "bundle.bad-shape")
    assert reader.read("fine").shape == (0,)


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"ckpt-7.index": encode_table([])}, "bundle.no-header"),
        ({"ckpt-7.index": encode_table([(b"a", b"")])}, "bundle.no-header"),
        ({"ckpt-7.index": encode_table([(b"", b"\x0a\x00")])}, "bundle.is-v1"),
        ({"ckpt-7.index": encode_table([(b"", b"\x08")])}, "bundle.bad-header"),
        ({"ckpt-7.index": encode_table([(b"", b"")])}, "bundle.bad-header"),
        ({"ckpt-7.index": encode_table([(b"", bytes.fromhex("08011a021002"))])}, "bundle.version"),
        ({"ckpt-7.index": encode_table([(b"", bytes.fromhex("08011a021801"))])}, "bundle.version"),
        ({"ckpt-7.index": encode_table([(b"", bytes.fromhex("08011002"))])}, "bundle.endianness"),
        ({"ckpt-7.index": encode_table([(b"", b"\x08\xff\xff\xff\x07")])}, "limits.exceeded"),
    ],
)
def test_headers_that_make_no_sense_are_refused(files: dict[str, bytes], code: str) -> None:
    """Each has its code."""
    with pytest.raises(CheckpointError) as caught:
        opened(files)
    assert caught.value.code == code


def test_a_higher_producer_is_accepted() -> None:
    """Only min_consumer and bad_consumers bind a reader (formats 2.3)."""
    assert list(opened({"ckpt-7.index": encode_table([(b"", bytes.fromhex("08011a020863"))])}).keys()) == []


def test_repeated_and_unknown_fields_are_tolerated() -> None:
    """Fields in any order, the last of a repeated one counts, unknown ones are skipped (formats 0.2)."""
    entry = bytes.fromhex("2808 08 01 1204 12020803 08 03 1204 12020802 78 01".replace(" ", ""))
    parsed = parse_entry(entry, "x", DEFAULT_LIMITS)  # type: ignore[arg-type]
    assert (parsed.enum, parsed.shape, parsed.size) == (3, (2,), 8)
    reader = opened(crafted({b"a": entry, b"b": entry}))
    assert dict(reader.items()) == {key: TensorSpec("int32", (2,), 8) for key in ("a", "b")}


def test_prefix_sharing_does_not_hide_an_override() -> None:
    """An entry that starts like others but overrides its dtype at the end is listed as what it is read as."""
    plain = encode_entry(BundleEntry(1, (2,), 0, 0, 8, 0))
    reader = opened(crafted({b"a": plain, b"b": plain + b"\x08\x03", b"c": plain}))
    assert [spec.dtype for _, spec in reader.items()] == ["float32", "int32", "float32"]
    assert reader.spec("b").dtype == "int32"


def test_views_are_read_only_and_outlive_the_reader(tmp_path: Path) -> None:
    """A view is the file's own bytes and stays valid after close."""
    value = np.arange(1000, dtype="float32")
    for name, data in bundle({"x": value, "s": Strings([b"a"])}).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    view = reader.view("x")
    with pytest.raises(UnsupportedError) as caught:
        reader.view("s")
    assert caught.value.code == "spec.no-view"
    reader.close()
    np.testing.assert_array_equal(view, value)
    assert not view.flags.writeable
    assert not view.flags.owndata


@pytest.mark.parametrize("bad", [np.empty(5, "f4"), np.empty(6, "f8"), np.empty((6, 2), "f4")[:, 0], b""])
def test_a_target_that_does_not_fit_is_refused_before_anything_is_read(bad: object) -> None:
    """Dtype, shape, layout and writability are compared first."""
    if isinstance(bad, bytes):
        bad = np.zeros(6, "f4")
        bad.flags.writeable = False
    good = np.zeros(6, "f4")
    reader = opened(bundle({"a": np.ones(6, "f4"), "b": np.ones(6, "f4")}))
    with pytest.raises(MismatchError) as caught:
        reader.read_many(["a", "b"], out={"a": good, "b": bad})  # type: ignore[dict-item]
    assert caught.value.code == "spec.bad-target"
    assert not good.any()


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_bulk_reads_equal_single_reads(tmp_path: Path, threads: int | None) -> None:
    """Large and small tensors, strings and slices together, new and into given arrays, on any number of threads."""
    rng = np.random.default_rng(7)
    tensors: dict[str | bytes, object] = {f"small/{n:03d}": rng.integers(0, 99, n % 50, "int32") for n in range(300)}
    tensors |= {f"large/{n}": rng.random((3 << 18) + n) for n in range(6)}
    tensors |= {"odd": rng.integers(0, 9, 3, "int8"), "text": Strings([b"x"]), "w": sliced()[1]}
    for name, data in bundle(tensors, shards=3).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    keys = list(reader.keys())
    singles = {key: reader.read(key) for key in keys}
    many = reader.read_many(keys, threads=threads)
    into = {key: np.empty_like(value) for key, value in singles.items()}
    given = reader.read_many(keys, out=into, threads=threads)
    assert list(many) == keys
    for key in keys:
        assert many[key].flags.c_contiguous
        assert given[key] is into[key]
        assert many[key].tolist() == singles[key].tolist() == into[key].tolist()


def test_a_data_file_that_the_system_refuses_is_one_finding_each(tmp_path: Path) -> None:
    """Directories in the place of data files: named with what they cost, also where slices lie in them."""
    for name, data in bundle({"w": sliced()[1], "z": np.ones(3)}, shards=2).items():
        if name.endswith(".index"):
            (tmp_path / name).write_bytes(data)
        else:
            (tmp_path / name).mkdir()
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    found = [finding for finding in reader.validate() if finding.severity == "error"]
    assert [(finding.code, finding.lost and finding.lost.tensors) for finding in found] == [
        ("storage.unreadable", ("w",)),
        ("storage.unreadable", ("z",)),
    ]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("names", [("a", "b"), tuple(f"{n:03d}" for n in range(300))])
def test_entries_that_share_bytes_make_arrays_that_do_not(names: tuple[str, ...], big_endian: bool) -> None:
    """Two keys over the same bytes, whole or in part: each array is right, and its own."""
    data = np.arange(4, dtype=">i4" if big_endian else "<i4").tobytes()
    whole, part = BundleEntry(3, (4,), 0, 0, 16, crc32c(data)), BundleEntry(3, (2,), 0, 4, 8, crc32c(data[4:12]))
    entries = {name.encode(): encode_entry(part if number % 2 else whole) for number, name in enumerate(names)}
    reader = opened(crafted({**entries, b"": encode_header(1, big_endian=big_endian)}, data))
    for arrays in (reader.read_many(names), {name: reader.read(name) for name in names}):
        for number, name in enumerate(names):
            assert arrays[name].tolist() == ([1, 2] if number % 2 else [0, 1, 2, 3])
            arrays[name][...] = -1


@pytest.mark.parametrize("first", ["a", "b"])
def test_an_entry_that_contradicts_itself_is_listed_alike_in_every_way(first: str) -> None:
    """Alone, in the listing, before and after an honest entry of its dtype and shape; reading names the contradiction."""
    good, bad = BundleEntry(1, (2,), 0, 0, 8, crc32c(bytes(8))), BundleEntry(1, (2,), 0, 0, 7, 0)
    reader = opened(crafted({b"a": encode_entry(good), b"b": encode_entry(bad)}, bytes(8)))
    alone = [reader.spec(first), reader.spec("a"), reader.spec("b")]
    assert alone + list(dict(reader.items()).values()) == [TensorSpec("float32", (2,), 8)] * 5
    with pytest.raises(CorruptionError) as caught:
        reader.read("b")
    assert caught.value.code == "bundle.size-mismatch"


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize("listed", [True, False])
def test_batches_of_a_bulk_read_do_not_show(monkeypatch: pytest.MonkeyPatch, size: int, listed: bool) -> None:
    """A million tensors are read so many at a time; the answer is the same, and in the order that was asked for."""
    monkeypatch.setattr("openckpt.formats.bundle.data._BATCH", size)
    tensors: dict[str | bytes, object] = {f"small/{n:03d}": np.array(n, np.int32) for n in range(300)}
    tensors |= {"text": Strings([b"x"]), "w": sliced()[1], b"bytes \xff": np.ones(2)}
    reader = opened(bundle(tensors, shards=3))
    keys = list(reader.keys()) if listed else [f"small/{n:03d}" for n in range(299, -1, -1)]
    many = reader.read_many(keys)
    assert list(many) == keys
    assert all(many[key].tolist() == reader.read(key).tolist() for key in keys)


@pytest.mark.parametrize("listed", [True, False])
def test_a_bulk_read_of_some_keys_reads_nothing_else(listed: bool) -> None:
    """Hundreds of the keys are asked for; the others are neither read, nor returned, nor wanted in ``out``."""
    files = bundle({f"small/{n:03d}": np.array(n, np.int32) for n in range(600)})
    files["ckpt-7.data-00000-of-00001"] = files["ckpt-7.data-00000-of-00001"][:-4]  # the last one cannot be read
    reader = opened(files)
    keys = [f"small/{n:03d}" for n in range(1, 599)]
    if listed:
        list(reader.items())
    into = {key: np.zeros((), np.int32) for key in keys}
    assert list(reader.read_many(keys)) == keys
    assert {key: int(value) for key, value in reader.read_many(keys, out=into).items()} == {
        key: int(key[-3:]) for key in keys
    }


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_any_thread_reaches_the_caller(tmp_path: Path, threads: int) -> None:
    """A damaged large tensor, and a damaged small one, fail the bulk read with their own key."""
    tensors = {f"large/{n}": np.ones(1 << 18) for n in range(8)} | {f"small/{n}": np.ones(1 << 16) for n in range(60)}
    files = bundle(tensors)
    where = {key: opened(files).locate(key)[0].offset for key in tensors}
    for key in ("large/5", "small/40"):
        data = bytearray(files["ckpt-7.data-00000-of-00001"])
        data[where[key] + 5] ^= 4
        (tmp_path / "ckpt-7.index").write_bytes(files["ckpt-7.index"])
        (tmp_path / "ckpt-7.data-00000-of-00001").write_bytes(data)
        reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
        with pytest.raises(CorruptionError) as caught:
            reader.read_many(tensors, threads=threads)
        assert caught.value.where.key == key
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("openckpt")]


def test_a_shrinking_shard_is_corruption_not_a_crash(tmp_path: Path) -> None:
    """Copies never touch a map, so a file that shrinks under a reader cannot kill the process."""
    for name, data in bundle({"x": np.ones(1 << 19)}).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    os.truncate(tmp_path / "ckpt-7.data-00000-of-00001", 1000)
    with pytest.raises(CorruptionError) as caught:
        reader.read("x")
    assert caught.value.code == "storage.short-read"


def test_an_overwrite_between_open_and_read_is_named(tmp_path: Path) -> None:
    """Data that another save replaced in place is a conflict, not damage."""
    files = bundle({"x": np.zeros(100)})
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    for name, data in bundle({"x": np.ones(100)}).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConflictError) as caught:
        reader.read("x")
    assert caught.value.code == "storage.changed"


def test_a_swept_checkpoint_still_reads_when_it_was_open(tmp_path: Path) -> None:
    """Index and shards are opened together, so deleting the files does not hurt an open reader."""
    for name, data in bundle({"x": np.arange(9), "y": np.ones(2)}, shards=2).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    for file in tmp_path.iterdir():
        file.unlink()
    np.testing.assert_array_equal(reader.read("x"), np.arange(9))
    np.testing.assert_array_equal(reader.read("y"), np.ones(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reader_works_in_a_forked_child(tmp_path: Path) -> None:
    """Positioned reads share no file position and no lock with the parent."""
    for name, data in bundle({"x": np.arange(1000)}).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    child = os.fork()
    if child == 0:
        ok = bool((reader.read("x") == np.arange(1000)).all())
        os._exit(0 if ok else 1)
    np.testing.assert_array_equal(reader.read("x"), np.arange(1000))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_threads_share_one_reader(tmp_path: Path) -> None:
    """Lookups, listing and reads from eight threads give what one thread gives."""
    tensors = {f"k{n:04d}": np.full(50, n) for n in range(2000)}
    for name, data in bundle(tensors).items():
        (tmp_path / name).write_bytes(data)
    reader = open_bundle(LOCAL, str(tmp_path / "ckpt-7"))
    wrong: list[str] = []

    def work(seed: int) -> None:
        for n in np.random.default_rng(seed).integers(0, 2000, 200).tolist():
            key = f"k{n:04d}"
            if reader.read(key)[0] != n or key not in reader or len(reader) != 2000:
                wrong.append(key)

    together(work, range(8))
    assert wrong == []


class TestValidate:
    """What validate reports, and what it leaves in peace."""

    def codes(self, files: Mapping[str, bytes], **options: bool) -> list[str]:
        return [finding.code for finding in opened(files).validate(**options)]

    def test_a_sound_checkpoint_has_no_finding(self) -> None:
        """Several shards, slices, strings, empties: nothing to say."""
        tensors = {"a": np.ones(3), "s": Strings([b"x", b""], (2,)), "w": sliced()[1], "e": np.zeros((0, 4))}
        assert self.codes(bundle(tensors, shards=2)) == []

    def test_alignment_is_a_note_only(self) -> None:
        """Zero padding between tensors is legitimate (formats 2.13)."""
        reader = opened(bundle({"a": np.ones(3), "b": np.ones(5)}, alignment=64))
        assert [(f.code, f.severity) for f in reader.validate()] == [("bundle.padding", "note")]

    def test_a_safetensors_header_is_a_note_only(self) -> None:
        """A shard may be a safetensors file at the same time."""
        header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        head = len(header).to_bytes(8, "little") + header
        data = head + b"\0\0\0\0"
        files = crafted({b"x": encode_entry(BundleEntry(1, (1,), 0, len(head), 4, crc32c(b"\0" * 4)))}, data)
        reader = opened(files)
        assert [(f.code, f.severity) for f in reader.validate()] == [("bundle.safetensors-header", "note")]

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda data: data + b"extra", "bundle.unused-bytes"),
            (lambda data: data[:-1], "bundle.data-truncated"),
            (lambda data: b"", "bundle.data-truncated"),
            (lambda data: data[:3] + b"\x55" + data[4:], "bundle.crc-mismatch"),
        ],
    )
    def test_changes_of_a_shard_are_found(self, change: object, code: str) -> None:
        """Appended, cut, emptied, flipped."""
        files = bundle({"a": np.ones(3), "b": np.ones(5)})
        name = "ckpt-7.data-00000-of-00001"
        assert code in self.codes({**files, name: change(files[name])})  # type: ignore[operator]

    def test_quick_leaves_the_data_unread(self) -> None:
        """data=False sees sizes but not bytes."""
        files = bundle({"a": np.ones(3)})
        files["ckpt-7.data-00000-of-00001"] = b"\x55" * 24
        assert self.codes(files, data=False) == []
        assert self.codes(files) == ["bundle.crc-mismatch"]

    def test_shared_bytes_are_a_warning(self) -> None:
        """TensorFlow never lets two tensors overlap."""
        value = np.ones(4, "float32").tobytes()
        one = encode_entry(BundleEntry(1, (3,), 0, 0, 12, crc32c(value[:12])))
        two = encode_entry(BundleEntry(1, (2,), 0, 8, 8, crc32c(value[8:])))
        assert self.codes(crafted({b"a": one, b"b": two}, value)) == ["bundle.overlap"]

    def test_orphan_and_missing_slices_are_found(self) -> None:
        """A listed slice without entry, and an entry without a tensor that lists it."""
        files = bundle({"w": sliced()[1]})
        items = dict(opened(files).table.items())
        keys = [key for key in items if key.startswith(b"\0")]
        without = {key: value for key, value in items.items() if key != keys[1]}
        assert "bundle.slice-missing" in self.codes({**files, "ckpt-7.index": encode_table(sorted(without.items()))})
        headless = {key: value for key, value in items.items() if key != b"w"}
        codes = self.codes({**files, "ckpt-7.index": encode_table(sorted(headless.items()))})
        assert codes == ["bundle.slice-orphan"] * 3

    def test_the_wrong_byte_order_is_recognised_by_the_strings(self) -> None:
        """A header that claims the other byte order (formats 9, row 22)."""
        files = bundle({"a": np.ones(3), "s": Strings([b"x" * 9])})
        items = dict(opened(files).table.items())
        items[b""] = encode_header(1, big_endian=True)
        assert self.codes({**files, "ckpt-7.index": encode_table(sorted(items.items()))}) == ["bundle.wrong-endian"]

    def test_slices_that_tensorflow_cannot_reassemble_are_a_note(self) -> None:
        """float16 slices read here, and only here (formats 9, row 39)."""
        reader = opened(bundle({"w": sliced("float16")[1]}))
        assert [(f.code, f.severity) for f in reader.validate()] == [("bundle.slice-unreadable", "note")]


def test_opening_waits_for_a_save_that_replaces_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New shards beside the old index, with PREFIX_temp there, is the middle of a save: the open is tried again."""
    old, new = bundle({"x": np.zeros(50)}), bundle({"x": np.ones(50)})
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "ckpt-7_temp").mkdir()
    shard = tmp_path / "ckpt-7.data-00000-of-00001"
    shard.write_bytes(new[shard.name])
    os.utime(tmp_path / "ckpt-7.index", ns=(1, 1))

    def finish_the_save(_: float) -> None:
        (tmp_path / "ckpt-7.index").write_bytes(new["ckpt-7.index"])
        (tmp_path / "ckpt-7_temp").rmdir()
        monkeypatch.setattr("time.sleep", lambda _: None)

    monkeypatch.setattr("time.sleep", finish_the_save)
    np.testing.assert_array_equal(open_bundle(LOCAL, str(tmp_path / "ckpt-7")).read("x"), np.ones(50))


def test_memory_sources_refuse_reads_past_their_end() -> None:
    """The same code as a file that ended early."""
    with pytest.raises(CorruptionError) as caught:
        MemorySource("m", b"abc").read_at(1, 3)
    assert caught.value.code == "storage.short-read"
