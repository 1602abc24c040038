"""The npz that openckpt writes: NumPy's own bytes where NumPy can say it, and a side entry where it cannot."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest

from openckpt.errors import UnsupportedError
from openckpt.formats.npz import open_npz
from openckpt.formats.npz_encoder import NpzWriter, encode_npy_header, is_member_name
from openckpt.storage.memory import MemoryStore
from trees import ODD_KEYS, check_reads_as, encoded, everything, numbers, objects, same


def written(tree: dict[str, tuple[str, np.ndarray]]) -> bytes:
    return encoded(NpzWriter, tree)


def side_of(data: bytes) -> dict[str, Any]:
    return dict(json.loads(zipfile.ZipFile(io.BytesIO(data)).read("openckpt.json"))["tensors"])


@pytest.mark.parametrize("dtype", ["<f4", "|b1", "<c16", "|S5", "|V2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1,) * 60, (10**15,) * 3])
def test_the_header_is_numpys(dtype: str, shape: tuple[int, ...]) -> None:
    """Byte for byte, so that whatever reads NumPy's files reads ours."""
    expected = io.BytesIO()
    np.lib.format.write_array_header_1_0(expected, {"descr": dtype, "fortran_order": False, "shape": shape})
    assert encode_npy_header(dtype, shape) == expected.getvalue()


def test_members_are_those_of_numpy_save() -> None:
    """Header and elements of every type that NumPy has."""
    for dtype in ("bool", "int8", "uint64", "float16", "float32", "complex128"):
        value = numbers(dtype, (2, 3))
        expected = io.BytesIO()
        np.save(expected, value)
        assert zipfile.ZipFile(io.BytesIO(written({"a": (dtype, value)}))).read("a.npy") == expected.getvalue()


def test_the_side_entry_is_there_only_when_it_is_needed() -> None:
    """A key, a type, a form that NumPy cannot give back."""
    plain = {"a/b": ("float32", np.zeros(2, "f4")), "text": ("string", objects(b"x", b""))}
    assert b"openckpt.json" not in written(plain)
    for odd in ("bfloat16", "float8_e5m2", "int4", "qint8", "float4_e2m1fn"):
        assert side_of(written({**plain, "odd": (odd, numbers(odd, (2,)))})) == {
            "odd": {"key": "odd", "dtype": odd, "shape": [2]}
        }
    assert side_of(written({"../x": plain["a/b"]})) == {"key-0": {"key": "../x", "dtype": "float32", "shape": [2]}}


@pytest.mark.parametrize(
    ("elements", "form"),
    [
        ([b"abc", b"", b"de"], "|S3"),
        ([b"", b""], "|S1"),
        ([b"inner\0zero"], "|S10"),
        ([b"end\0"], "|u1"),
        ([b"x" * 5000, *[b""] * 100], "|u1"),
        ([b"\xff\xfe"], "|S2"),
        ([], "|S1"),
    ],
)
def test_strings_are_padded_unless_that_would_change_or_swell_them(elements: list[bytes], form: str) -> None:
    """NumPy takes zeros at the end for padding, and pads each to the longest."""
    data = written({"a": ("string", objects(*elements))})
    member = zipfile.ZipFile(io.BytesIO(data)).read("a.npy")
    assert f"'descr': '{form}'".encode() in member
    assert open_npz(MemoryStore({"x": data}), "x").read("a").tolist() == elements


def test_everything_comes_back_and_the_doctor_is_quiet() -> None:
    """Every type, odd keys, deep shapes."""
    tree = everything()
    reader = open_npz(MemoryStore({"x.npz": written(tree)}), "x.npz")
    check_reads_as(reader, tree)


def test_types_of_whole_bytes_are_viewed_in_place() -> None:
    """bfloat16 needs no decoding; int4 does."""
    tree = {key: (key, numbers(key, (4,))) for key in ("bfloat16", "float8_e4m3fn", "qint16", "int4")}
    reader = open_npz(MemoryStore({"x": written(tree)}), "x")
    for key in ("bfloat16", "float8_e4m3fn", "qint16"):
        assert same(reader.view(key), tree[key][1])
    with pytest.raises(UnsupportedError) as caught:
        reader.view("int4")
    assert caught.value.code == "spec.no-view"


@pytest.mark.parametrize("key", ["a", "a/b", ".hidden", "a.b.npy", "é", "..x", "x..", "a b", "C", "key-0"])
def test_names_that_a_zip_gives_back(key: str) -> None:
    """These are used as they are."""
    assert is_member_name(key)


@pytest.mark.parametrize(
    "key", ["../x", "/x", "a//b", "a/./b", "a/../b", "C:/x", "a\\b", "\udcff", "n\0l", "x" * 60_001]
)
def test_names_that_a_zip_does_not_give_back(key: str) -> None:
    """Some tool makes another name of them, or writes outside of its folder."""
    assert not is_member_name(key)


def test_equal_tensors_give_equal_bytes_at_any_time() -> None:
    """No clock, no system: the times in the zip are those of 1980."""
    data = written(everything())
    assert data == written(everything())
    infos = zipfile.ZipFile(io.BytesIO(data)).infolist()
    assert {(info.date_time, info.create_system, info.compress_type) for info in infos} == {
        ((1980, 1, 1, 0, 0, 0), 3, 0)
    }


def test_an_abandoned_writer_writes_nothing_more() -> None:
    """Also when it is collected."""
    file = io.BytesIO()
    writer = NpzWriter(file, ["a", *ODD_KEYS])
    writer.add("a", np.zeros(3), "float64")
    size = len(file.getvalue())
    writer.abandon()
    del writer
    assert len(file.getvalue()) == size


def test_twelve_thousand_members_are_still_an_npz() -> None:
    """The directory of the zip is larger than a mebibyte, which no other archive of weights has."""
    from openckpt.formats.detect import detect
    from openckpt.storage.memory import MemorySource

    value = np.zeros((), np.int8)
    data = written({f"model/a_layer_with_a_long_name/{n:05d}/kernel": ("int8", value) for n in range(12_000)})

    assert detect(MemorySource("x", data)).kind == "npz"
    assert len(open_npz(MemoryStore({"x": data}), "x")) == 12_000
