"""npz: the header parser against literal bytes, every dtype of numpy.savez, and nothing ever unpickled."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from containers import zipped
from openckpt.errors import CheckpointError, CorruptionError, UnsafeError, UnsupportedError, Where
from openckpt.formats.npy import NpyHeader, header_length, parse_header
from openckpt.formats.npz import open_npz
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore


def opened(data: bytes) -> Any:
    return open_npz(MemoryStore({"x.npz": data}), "x.npz")


def npz(*, compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def npy(
    header: str | bytes, data: bytes = b"", *, version: tuple[int, int] = (1, 0), length: int | None = None
) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    size = (len(text) if length is None else length).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


def dict_of(descr: str = "'<f4'", fortran: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def refusal(reader: Any, key: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        reader.read(key)
    return caught.value


HEADERS = {
    "numpy's own": (dict_of() + "   \n", ("float32", "number", 4, False, False, (2,))),
    "double quotes, other order, no spaces": ('{"shape":(2,3),"fortran_order":True,"descr":">i8"}', ("int64", "number", 8, True, True, (2, 3))),
    "python 2": (dict_of(shape="(10L, 3L)"), ("float32", "number", 4, False, False, (10, 3))),
    "a scalar": (dict_of(shape="()"), ("float32", "number", 4, False, False, ())),
    "bool": (dict_of("'|b1'"), ("bool", "number", 1, False, False, (2,))),
    "complex": (dict_of("'<c16'"), ("complex128", "number", 16, False, False, (2,))),
    "bytes": (dict_of("'|S5'"), ("string", "bytes", 5, False, False, (2,))),
    "text": (dict_of("'>U3'"), ("string", "text", 12, True, False, (2,))),
    "objects": (dict_of("'|O'"), ("unknown-object", "object", 0, False, False, (2,))),
    "void": (dict_of("'<V2'"), ("unknown-void16", "void", 2, False, False, (2,))),
    "structured": (dict_of("[('a', '<f4'), ('b', '|u1', (2, 2))]"), ("unknown-structured", "other", 0, False, False, (2,))),
    "dates": (dict_of("'<M8[ns]'"), ("unknown-datetime64", "other", 8, False, False, (2,))),
    "long double": (dict_of("'<f16'"), ("unknown-float128", "other", 16, False, False, (2,))),
}  # fmt: skip

BAD_HEADERS = {
    "nothing": "",
    "no dict": "(1, 2)",
    "a field too few": "{'descr': '<f4', 'shape': (2,)}",
    "a field too many": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}",
    "negative size": dict_of(shape="(-1,)"),
    "size above 63 bits": dict_of(shape=f"({1 << 63},)"),
    "a billion digits": dict_of(shape="(" + "9" * 60_000 + ",)"),
    "sizes in a list": dict_of(shape="[2]"),
    "a flag as size": dict_of(shape="(True,)"),
    "order as number": dict_of(fortran="1"),
    "no type": dict_of("'float'"),
    "type as number": dict_of("4"),
    "code": "__import__('os').system('id')",
    "code in the shape": dict_of(shape="(__import__('os').getpid(),)"),
    "arithmetic": dict_of(shape="(9**9**9,)"),
    "minus signs": dict_of(shape="(" + "-" * 30_000 + "1,)"),
    "nested brackets": dict_of(shape="(" * 30_000 + ")" * 30_000),
    "nested dicts": "{'descr':" * 5_000,
    "escapes": dict_of("'\\x3cf4'"),
    "unclosed": "{'descr': '<f4",
    "bytes": b"\xff\xfe{}",
    "zero byte": dict_of().replace("False", "False\0"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_accepted_headers(name: str) -> None:
    """What NumPy and other writers put there."""
    text, expected = HEADERS[name]

    assert parse_header(text.encode(), 128, Where("x"), DEFAULT_LIMITS) == NpyHeader(*expected, 128)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_rejected_headers(name: str) -> None:
    """Anything but three plain fields is corrupt, and nothing of it is evaluated."""
    text = BAD_HEADERS[name]

    with pytest.raises(CorruptionError) as caught:
        parse_header(text.encode() if isinstance(text, str) else text, 128, Where("x"), DEFAULT_LIMITS)

    assert caught.value.code == "npz.header"


STARTS = {
    "short": (b"\x93NUMPY\1\0", "npz.magic"),
    "another file": (b"PK\3\4" + bytes(20), "npz.magic"),
    "version 4": (b"\x93NUMPY\4\0" + bytes(20), "npz.version"),
    "a header of 4 GiB": (b"\x93NUMPY\2\0" + b"\xff" * 4, "npz.header"),
}


@pytest.mark.parametrize("name", STARTS)
def test_rejected_starts(name: str) -> None:
    """The fixed part of a member."""
    data, code = STARTS[name]

    with pytest.raises(CheckpointError) as caught:
        header_length(data, Where("x"))

    assert caught.value.code == code


VALUES: dict[str, Any] = {
    "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big": np.arange(6, dtype=">f8").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    "both": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
    "scalar": np.array(True),
    "empty": np.zeros((0, 4), np.uint16),
    **{name: np.array([0, 1, 1], name) for name in ("float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64",
                                                    "complex64", "complex128", "bool")},
}  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_every_number_of_the_stock_writer_reads_equal(tmp_path: Path, compressed: bool) -> None:
    """Copies and bulk reads are native and C-contiguous, in the order in which numpy wrote them."""
    path = tmp_path / "x.npz"
    path.write_bytes(npz(compressed=compressed, **VALUES))
    reader = open_npz(LOCAL, str(path))
    targets = {key: np.zeros(value.shape, value.dtype.newbyteorder("=")) for key, value in VALUES.items()}

    many, into = reader.read_many(reader.keys()), reader.read_many(reader.keys(), out=targets)

    assert list(reader.keys()) == list(VALUES)
    for key, value in VALUES.items():
        for read in (reader.read(key), many[key], into[key]):
            assert read.dtype == value.dtype.newbyteorder("=")
            assert read.flags.c_contiguous
            assert read.tolist() == value.tolist()
        assert into[key] is targets[key]
    assert reader.view("a/b").tolist() == VALUES["a/b"].tolist()
    assert list(reader.validate()) == []
    reader.close()


@pytest.mark.parametrize("key", ["big", "fortran", "strings"])
def test_no_view_of_what_must_be_turned(key: str) -> None:
    """Swapped, column-major and text members have no C-contiguous native bytes to look at."""
    with pytest.raises(UnsupportedError) as caught:
        opened(npz(big=VALUES["big"], fortran=VALUES["fortran"], strings=np.array(["a"]))).view(key)

    assert caught.value.code == "spec.no-view"


@pytest.mark.parametrize("compressed", [False, True])
def test_strings(compressed: bool) -> None:
    """Bytes as they are, text as UTF-8, column order turned."""
    reader = opened(
        npz(
            compressed=compressed,
            s=np.array([b"x", b"y\0z"]),
            u=np.asfortranarray([["é", "漢字"], ["", "😀"]]),
            none=np.array([], "S3"),
        )
    )

    assert reader.read("s").tolist() == [b"x", b"y\0z"]
    assert reader.read("u").tolist() == [["é".encode(), "漢字".encode()], [b"", "😀".encode()]]
    assert reader.read("none").tolist() == []
    assert reader.spec("u") == ("string", (2, 2), 32)


def test_a_number_that_is_no_character() -> None:
    """Text is code points, and not every number is one."""
    reader = opened(zipped({"u.npy": npy(dict_of("'<U1'"), b"\xff" * 8)}))

    assert refusal(reader, "u").code == "npz.text"


def test_pickled_members_are_listed_and_never_read() -> None:
    """An object array says so by its dtype; the pickle is not even looked at."""
    reader = opened(npz(o=np.array([{}, None], object), ok=np.ones(2)))

    assert reader.spec("o") == ("unknown-object", (2,), None)
    assert isinstance(refusal(reader, "o"), UnsafeError)
    assert [(f.code, f.severity) for f in reader.validate()] == [("npz.pickled", "error")]
    assert reader.read("ok").tolist() == [1.0, 1.0]


def test_ml_dtypes_lose_their_name() -> None:
    """NumPy writes bfloat16 as raw bytes (formats 8.5): the size is known, and the fix says how to go on."""
    reader = opened(npz(b=np.ones(3, ml_dtypes.bfloat16)))

    assert reader.spec("b") == ("unknown-void16", (3,), 6)
    error = refusal(reader, "b")
    assert error.code == "npz.void"
    assert error.fix is not None
    assert "bfloat16" in error.fix


DAMAGED = {
    "short data": (npy(dict_of(), bytes(7)), "npz.size-mismatch"),
    "long data": (npy(dict_of(), bytes(9)), "npz.size-mismatch"),
    "huge shape": (npy(dict_of(shape="(1000000000000000, 1000000000000000)"), bytes(8)), "npz.size-mismatch"),
    "header past the end": (npy(dict_of(), length=500), "npz.header"),
    "no npy": (b"hello world, this is text", "npz.magic"),
    "nothing": (b"", "npz.magic"),
    "elements of no size": (npy(dict_of("'|S0'", shape="(1000000000000000,)")), "limits.exceeded"),
    "too many dimensions": (npy(dict_of(shape="(" + "1," * 300 + ")"), bytes(4)), "limits.exceeded"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_members_keep_the_others_readable(name: str, method: int) -> None:
    """The member is listed as damaged; its error and its finding have the code of the damage."""
    data, code = DAMAGED[name]
    reader = opened(zipped({"bad.npy": data, "good.npy": npy(dict_of(), np.float32([1, 2]).tobytes())}, method))

    assert reader.spec("bad").dtype == "unknown-damaged"
    assert refusal(reader, "bad").code == code
    assert reader.read("good").tolist() == [1.0, 2.0]
    assert [finding.code for finding in reader.validate()] == [code]


def test_a_changed_byte_is_found_by_the_crc_of_the_zip() -> None:
    """On a verified read, in bulk too, and by validate; not when the caller says verify=False."""
    value = np.arange(100, dtype=np.int64)
    data = bytearray(npz(a=value, s=np.array([b"abcdefgh"])))
    data[data.index(value.tobytes()) + 9] ^= 1
    data[data.index(b"abcdefgh")] ^= 1
    reader = opened(bytes(data))

    for key in ("a", "s"):
        assert refusal(reader, key).code == "archive.crc-mismatch"
    with pytest.raises(CorruptionError):
        reader.read_many(["a"])
    assert reader.read("a", verify=False).shape == (100,)
    assert [finding.code for finding in reader.validate()] == ["archive.crc-mismatch"] * 2
    assert list(reader.validate(data=False)) == []


def test_members_that_are_no_arrays_are_a_note() -> None:
    """They are passed over, and said."""
    reader = opened(zipped({"readme.txt": b"hello", "a.npy": npy(dict_of(), bytes(8))}))

    assert list(reader.keys()) == ["a"]
    assert [(f.code, f.severity) for f in reader.validate()] == [("npz.other-member", "note")]


def test_a_name_that_leads_out_is_only_a_name() -> None:
    """Keys are data; nothing is opened or written under them."""
    reader = opened(zipped({"../../etc/passwd.npy": npy(dict_of(), bytes(8))}))

    assert list(reader.keys()) == ["etc/passwd"]
    assert reader.read("etc/passwd").tolist() == [0.0, 0.0]
    assert [finding.code for finding in reader.validate()] == ["archive.unsafe-name"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x93NUMPY\1\0" + bytes(100)])
def test_what_is_no_zip(data: bytes) -> None:
    """A single .npy file is no npz either."""
    with pytest.raises(CorruptionError) as caught:
        opened(data)

    assert caught.value.code == "npz.not-an-archive"
