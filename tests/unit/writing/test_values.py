"""What may be handed over: arrays of every type and layout, text, variants, numbers, lists, torch tensors; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import openckpt
from openckpt import Sliced, Variant
from openckpt.errors import CheckpointError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.writing.keys import encode_key, encode_keys, with_text_keys
from openckpt.writing.values import describe, direct_bytes, encode
from trees import differences, everything, numbers, objects, same, save_tree

NUMERIC = sorted(name for name, dtype in BY_NAME.items() if dtype.is_numeric)
LAYOUTS = ("dual", "tensorflow")


def stored(value: Any, named: str | None = None) -> tuple[str, tuple[int, ...], bytes]:
    """What a value is as a tensor: type, shape, bytes."""
    dtype, shape, nbytes = describe(value, named, Where("p", "k"))
    data = bytes(encode(value, dtype, Where("p", "k")).data)
    assert nbytes in (None, len(data))
    return dtype.name, shape, data


def refused(value: Any, named: str | None = None) -> str:
    """The code with which a value is refused."""
    with pytest.raises(CheckpointError) as caught:
        stored(value, named)
    return caught.value.code


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_type_comes_back(tmp_path: Path, layout: Any) -> None:
    """Every type of formats 2.5 but resource, in four shapes, under keys that are no names."""
    tree = everything()
    save_tree(tmp_path / "ckpt", tree, layout=layout)
    assert differences(tmp_path / "ckpt", tree) == []
    assert {dtype for dtype, _ in tree.values()} == set(BY_NAME) - {"resource"}


@pytest.mark.parametrize("name", NUMERIC)
def test_any_memory_layout_is_stored_as_rows(name: str) -> None:
    """Columns first, reversed, every second, broadcast, read-only, big-endian: the bytes are those of the contiguous array."""
    whole = numbers(name, (4, 6), seed=3)
    for view in (
        whole,
        whole.T,
        whole[::-1],
        whole[:, ::2],
        np.asfortranarray(whole),
        np.broadcast_to(whole[0], (3, 6)),
    ):
        expected = np.ascontiguousarray(view)
        if name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
            expected = expected.view(np.uint8) & (0x03 if name.endswith("int2") else 0x0F)
        assert stored(view, name) == (name, view.shape, expected.tobytes())
    swapped = BY_NAME[name].numpy().newbyteorder(">")
    if swapped.itemsize > 1 and swapped.isnative is False:
        assert stored(whole.astype(swapped), name) == (name, (4, 6), whole.tobytes())


@pytest.mark.parametrize(
    ("name", "value", "byte"), [("int4", -1, 0x0F), ("int4", -8, 0x08), ("int2", -2, 0x02), ("uint4", 15, 0x0F)]
)
def test_bits_that_do_not_count_are_zero(name: str, value: int, byte: int) -> None:
    """An int4 of -1 is stored as 0f, whatever the upper half of numpy's byte is (formats 2.5)."""
    assert stored(np.array([value]).astype(BY_NAME[name].numpy())) == (name, (1,), bytes([byte]))
    dirty = np.array([byte | 0xF0 if "4" in name else byte | 0xFC], np.uint8).view(BY_NAME[name].numpy())
    assert stored(dirty)[2] == bytes([byte])


@pytest.mark.parametrize("name", ["qint8", "quint8", "qint16", "quint16", "qint32"])
def test_quantised_types_are_asked_for(tmp_path: Path, name: str) -> None:
    """numpy knows only their integers; the scale is no part of a checkpoint."""
    array = numbers(name, (5,), seed=1)
    openckpt.save(tmp_path / "ckpt", {"w": array, "plain": array}, dtypes={"w": name})
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        assert (ckpt.specs["w"].dtype, ckpt.specs["plain"].dtype) == (name, str(array.dtype))
        assert same(ckpt["w"], array) and same(ckpt["plain"], array)
    assert refused(array.astype(np.float32), name) == "writing.wrong-dtype"


TEXT = {
    "str": ("a\0b", (), [b"a\0b"]),
    "bytes": (b"\xff\0", (), [b"\xff\0"]),
    "empty": ("", (), [b""]),
    "S": (np.array([b"a", b"bc"]), (2,), [b"a", b"bc"]),
    "U": (np.array([["ü", ""]]), (1, 2), ["ü".encode(), b""]),
    "StringDType": (np.array(["x\0", "日"], np.dtypes.StringDType()), (2,), [b"x\0", "日".encode()]),
    "object": (np.array(["text", b"bytes"], object), (2,), [b"text", b"bytes"]),
    "object 0-d": (objects(b"one", shape=()), (), [b"one"]),
    "no element": (np.empty((0, 3), object), (0, 3), []),
    "list": (["a", "b"], (2,), [b"a", b"b"]),
    "list with zeros": ([["a\0", ""], ["\0\0", "bc"]], (2, 2), [b"a\0", b"", b"\0\0", b"bc"]),
    "tuple of bytes": ((b"a\0", b"bc"), (2,), [b"a\0", b"bc"]),
    "list of both": (["ü", b"\xff"], (2,), ["ü".encode(), b"\xff"]),
    "surrogates": ("\udcff", (), [b"\xff"]),
    "a megabyte": (b"\0" * (1 << 20), (), [b"\0" * (1 << 20)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_of_any_kind_becomes_a_string_tensor(tmp_path: Path, layout: Any) -> None:
    """str, bytes, S, U, StringDType and object arrays; zeros inside and at the end of an element stay."""
    openckpt.save(tmp_path / "ckpt", {key: value for key, (value, _, _) in TEXT.items()}, layout=layout)
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        for key, (_, shape, elements) in TEXT.items():
            assert ckpt.specs[key].dtype == "string"
            assert same(ckpt[key], objects(*elements, shape=shape)), key


@pytest.mark.parametrize("layout", LAYOUTS)
def test_variants_are_kept_as_they_are(tmp_path: Path, layout: Any) -> None:
    """One, an array of them, none; a checkpoint's own variants are bytes and are saved again as variants."""
    array = np.array([Variant(b"\x0a\x01x"), Variant(b"")], object)
    values = {"one": Variant(b"abc"), "many": array.reshape(2, 1)}
    openckpt.save(tmp_path / "a", values, layout=layout)
    with openckpt.open(tmp_path / "a") as ckpt:
        assert {spec.dtype for spec in ckpt.specs.values()} == {"variant"}
        openckpt.save(tmp_path / "b", ckpt, layout=layout)
    for name in ("a", "b"):
        assert (
            differences(
                tmp_path / name,
                {
                    "one": ("variant", objects(b"abc", shape=())),
                    "many": ("variant", objects(b"\x0a\x01x", b"", shape=(2, 1))),
                },
            )
            == []
        )
    assert stored(np.empty((0,), object), "variant")[:2] == ("variant", (0,))


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [(3, "int64", ()), (2.5, "float64", ()), (True, "bool", ()), (1j, "complex128", ()), ([1, 2], "int64", (2,)),
     ([[1.0]], "float64", (1, 1)), (np.float16(1), "float16", ()), ([], "float64", (0,)), (range(3), "int64", (3,)),
     (np.array([1, 2], np.int8).view(np.recarray), "int8", (2,)), (memoryview(b"ab"), "uint8", (2,))],
)  # fmt: skip
def test_what_numpy_makes_an_array_of_is_taken(value: Any, dtype: str, shape: tuple[int, ...]) -> None:
    """Python's numbers and lists, numpy's scalars and subclasses."""
    assert stored(value) == (dtype, shape, np.asarray(value).tobytes())


def test_mapped_files_are_arrays(tmp_path: Path) -> None:
    """A memory map and an HDF5 dataset are saved without being loaded by the caller first."""
    import h5py

    mapped = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(3, 2))
    mapped[:] = 7
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["w"] = np.arange(4, dtype=np.int16)
        openckpt.save(tmp_path / "ckpt", {"first": np.ones(1), "map": mapped, "set": file["w"]})
    loaded = openckpt.load(tmp_path / "ckpt")
    assert loaded["map"].tolist() == [[7, 7]] * 3 and loaded["set"].tolist() == [0, 1, 2, 3]


def test_torch_tensors_are_arrays(tmp_path: Path) -> None:
    """A state_dict goes in as it is; what numpy cannot take is refused with the key."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    openckpt.save(tmp_path / "ckpt", {key: value.numpy() for key, value in layer.state_dict().items()})
    openckpt.save(tmp_path / "same", layer.state_dict())
    loaded = openckpt.load(tmp_path / "ckpt")
    assert loaded["weight"].tolist() == layer.weight.tolist()
    assert all(same(value, loaded[key]) for key, value in openckpt.load(tmp_path / "same").items())
    with pytest.raises(UnsupportedError) as caught:
        openckpt.save(tmp_path / "no", {"w": torch.ones(2, requires_grad=True) * 2})
    assert caught.value.code == "writing.no-array" and caught.value.where.key == "w"


class Opaque:
    """Nothing that numpy knows."""


REFUSED = {
    "dates": (np.array(["2026-01-01"], "datetime64[D]"), "writing.dtype"),
    "durations": (np.array([1], "timedelta64[s]"), "writing.dtype"),
    "records": (np.zeros(2, [("a", "f4"), ("b", "i4")]), "writing.dtype"),
    "raw bytes": (np.zeros(2, "V3"), "writing.dtype"),
    "masked": (np.ma.array([1, 2], mask=[True, False]), "writing.no-array"),
    "ragged": ([[1, 2], [3]], "writing.no-array"),
    "None": (None, "writing.element"),
    "a dictionary": ({"a": 1}, "writing.element"),
    "an object": (Opaque(), "writing.element"),
    "text and numbers": (["a", 1], "writing.element"),
    "numbers as objects": (np.array([1, "a"], object), "writing.element"),
    "text and variants": (np.array(["a", Variant(b"b")], object), "writing.element"),
    "variants and text": (np.array([Variant(b"b"), "a"], object), "writing.element"),
    "too large a number": (1 << 70, "writing.element"),
    "missing text": (np.array(["a", None], np.dtypes.StringDType(na_object=None)), "writing.element"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_holds_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """With key and code, before anything is written."""
    value, code = REFUSED[name]
    assert refused(value) == code
    with pytest.raises(CheckpointError) as caught:
        openckpt.save(tmp_path / "run" / "ckpt", {"fine": np.ones(2), "bad": value})
    assert caught.value.code == code and caught.value.where.key == "bad"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="here a long double is a double")
def test_extended_precision_is_refused() -> None:
    """TensorFlow has no type of ten or sixteen bytes for one number."""
    assert refused(np.ones(2, np.longdouble)) == refused(np.ones(2, np.clongdouble)) == "writing.dtype"


@pytest.mark.parametrize(
    ("named", "code"),
    [("resource", "writing.resource"), ("floatish", "writing.dtype"), ("float64", "writing.wrong-dtype"),
     ("string", "writing.wrong-dtype"), ("qint8", "writing.wrong-dtype")],
)  # fmt: skip
def test_types_that_an_array_cannot_have_are_refused(named: str, code: str) -> None:
    """``dtypes`` names what the array is, it does not convert."""
    assert refused(np.ones(2, np.float32), named) == code


def test_dtypes_that_name_no_tensor_are_refused(tmp_path: Path) -> None:
    """A slip of the pen in a key must not lose the type."""
    with pytest.raises(openckpt.NotFoundError) as caught:
        openckpt.save(tmp_path / "ckpt", {"w": np.ones(2, np.int8)}, dtypes={"v": "qint8"})
    assert caught.value.code == "writing.foreign-key" and list(tmp_path.iterdir()) == []


def test_contiguous_numbers_are_not_copied() -> None:
    """The bytes that are written are the caller's own memory."""
    for array in (np.arange(6.0).reshape(2, 3), np.ones(4, np.complex64), np.ones((), np.bool_)):
        direct = direct_bytes(array)
        assert direct is not None and np.shares_memory(np.frombuffer(direct, np.uint8), array)
        again = encode(array, describe(array, None, Where("p"))[0], Where("p")).data
        assert np.shares_memory(np.frombuffer(again, np.uint8), array)
    short = np.arange(3).astype(ml_dtypes.bfloat16)
    describe(short, None, Where("p"))
    direct = direct_bytes(short)
    assert direct is not None and np.shares_memory(np.frombuffer(direct, np.uint8), short)
    assert direct_bytes(short[::2]) is None
    packed = np.arange(3).astype(ml_dtypes.int4)  # only half of each byte is stored
    describe(packed, None, Where("p"))
    assert direct_bytes(packed) is None
    assert np.shares_memory(np.frombuffer(encode(short, BY_NAME["bfloat16"], Where("p")).data, np.uint8), short)
    for other in (np.ones((2, 3)).T, np.ones(2, ">f4"), np.ones(0), np.ma.ones(2), [1.0], "text"):
        assert direct_bytes(other) is None


# ------------------------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keys_are_any_bytes(tmp_path: Path, layout: Any) -> None:
    """No text, zeros in front, one byte, the longest that readers take."""
    raws = [b"\xff\xfe", b"\0", b"\0a", b"a\0", b"\xc3\xa9", b"\x80", b"k" * (1 << 20)]
    keys = [raw.decode("utf-8", "surrogateescape") for raw in raws]
    openckpt.save(tmp_path / "ckpt", {key: np.float32(n) for n, key in enumerate(keys)}, layout=layout)
    assert {key: float(value) for key, value in openckpt.load(tmp_path / "ckpt").items()} == {
        key: float(n) for n, key in enumerate(keys)
    }


@pytest.mark.parametrize(
    "key",
    ["", b"", "k" * (2 << 20), "\ud800", 5, None, ("a", 1), b"\0w\0\1\1\1\x80\x82", "\0w\0\1\0"],
    ids=lambda key: repr(key)[:20],
)
def test_what_is_no_key_is_refused(tmp_path: Path, key: Any) -> None:
    """The header's key, too long a one, text that no bytes are, other types, and the key of a piece of another tensor."""
    for keys in ([key], ["fine", key]):
        with pytest.raises(UnsupportedError) as caught:
            openckpt.save(tmp_path / "ckpt", dict.fromkeys(keys, np.ones(1)))
        assert caught.value.code == "writing.key"
        assert len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_two_keys_of_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """Bytes and text, or bytes that are text written as surrogates."""
    for keys in (["é", "\udcc3\udca9"], ["a", b"a"]):
        with pytest.raises(UnsupportedError) as caught:
            openckpt.save(tmp_path / "ckpt", dict.fromkeys(keys, np.ones(1)))  # type: ignore[arg-type]
        assert caught.value.code == "writing.duplicate-key"


def test_keys_that_are_bytes_come_back_as_text(tmp_path: Path) -> None:
    """As readers give them; surrogates of bytes that are text are that text."""
    openckpt.save(tmp_path / "ckpt", {b"a": 1, "\udcc3\udca9": 2}, dtypes={})  # type: ignore[dict-item]
    assert set(openckpt.load(tmp_path / "ckpt")) == {"a", "é"}
    plain = {"a": 1, "é/日": 2}
    assert with_text_keys(plain, "p") is plain
    assert encode_keys(plain, "p") == [encode_key(key, "p") for key in plain] == [b"a", "é/日".encode()]


# ---------------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["float32", "float16", "int4", "qint8"])
def test_a_tensor_in_pieces_is_read_as_one(tmp_path: Path, layout: Any, name: str) -> None:
    """Pieces in any order, with whole dimensions spelled either way."""
    whole = numbers(name, (4, 5), seed=2)
    value = Sliced(
        (4, 5), {((2, 2), (0, -1)): whole[2:], ((0, 2), (3, 2)): whole[:2, 3:], ((0, 2), (0, 3)): whole[:2, :3]}
    )
    openckpt.save(tmp_path / "ckpt", {"w": value, "b": np.ones(2)}, dtypes={"w": name}, layout=layout)
    with openckpt.open(tmp_path / "ckpt") as ckpt:
        assert ckpt.specs["w"].dtype == name and same(ckpt["w"], whole)
        assert len(ckpt.locate("w")) == 3


@pytest.mark.parametrize(
    ("pieces", "code"),
    [({((0, 1),): np.ones(1)}, "writing.slices"), ({((0, 2),): np.ones(2), ((1, 2),): np.ones(2)}, "writing.slices"),
     ({((0, 9),): np.ones(9)}, "writing.slices"), ({}, "writing.slices"),
     ({((0, 2),): np.ones(3), ((2, 1),): np.ones(1)}, "writing.slices"),
     ({((0, 2),): np.ones(2), ((2, 1),): np.ones(1, np.float32)}, "writing.slices")],
)  # fmt: skip
def test_pieces_that_are_not_the_tensor_are_refused(tmp_path: Path, pieces: Any, code: str) -> None:
    """A gap, an overlap, a piece of another shape or type than the rest."""
    with pytest.raises(CheckpointError) as caught:
        openckpt.save(tmp_path / "ckpt", {"w": Sliced((3,), pieces)})
    assert caught.value.code == code and list(tmp_path.iterdir()) == []


def test_one_piece_that_is_everything_is_a_plain_tensor(tmp_path: Path) -> None:
    """As TensorFlow stores it (formats 2.9)."""
    for name, extents in (("a", ((0, -1),)), ("b", ((0, 3),))):
        openckpt.save(tmp_path / name, {"w": Sliced((3,), {extents: np.arange(3)})}, layout="tensorflow")
        with openckpt.open(tmp_path / name) as ckpt:
            assert len(ckpt.locate("w")) == 1 and ckpt["w"].tolist() == [0, 1, 2]
