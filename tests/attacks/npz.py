"""Hostile npz files (formats 8.5): headers that are programs, pickles, shapes without bytes, and zips that lie."""

from __future__ import annotations

import pickle
import struct
import zlib

from attacks.attack import Attack
from containers import zipped


class _Bomb:
    def __reduce__(self) -> object:
        return exec, ("import os; os.abort()",)


def _npy(header: str, data: bytes = b"", *, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    text = header.encode()
    size = (len(text) if length is None else length).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + text + data


def _dict(descr: str = "'|u1'", fortran: str = "False", shape: str = "(1,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def _member(name: str, code: str, data: bytes) -> Attack:
    return Attack(name, {"x.npz": zipped({"a.npy": data})}, "x.npz", code)


def _header(name: str, code: str, header: str, data: bytes = b"") -> Attack:
    return _member(name, code, _npy(header, data))


def _bomb() -> dict[str, bytes]:
    """A member of 1 GiB of zeros in a file of 1 MiB, its header in order."""
    size = 1 << 30
    packer = zlib.compressobj(9, wbits=-15)
    head = _npy(_dict(shape=f"({size},)"))
    crc, body = zlib.crc32(head), packer.compress(head)
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        body += packer.compress(block)
        crc = zlib.crc32(block, crc)
    body += packer.flush()
    return {"x.npz": _raw_zip(b"a.npy", body, crc=crc, size=len(head) + size, method=8)}


def _raw_zip(name: bytes, body: bytes, *, crc: int, size: int, method: int, count: int = 1) -> bytes:
    """One member, its directory repeated ``count`` times."""
    fields = struct.pack("<HHHHHLLLHH", 20, 0, method, 0, 33, crc, len(body), size, len(name), 0)
    local = b"PK\3\4" + fields + name + body
    central = (b"PK\1\2\x14\0" + fields + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name) * count
    return local + central + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, count, count, len(central), len(local), 0)


def _stored(data: bytes, *, count: int = 1) -> bytes:
    return _raw_zip(b"a.npy", data, crc=zlib.crc32(data), size=len(data), method=0, count=count)


def _wrong_crc() -> bytes:
    data = _npy(_dict(), b"x")
    return _raw_zip(b"a.npy", data, crc=zlib.crc32(data) ^ 1, size=len(data), method=0)


CASES = [
    _header("pickled-object", "npz.pickled", _dict("'|O'"), pickle.dumps(_Bomb())),
    _header("pickled-object-in-a-field", "spec.unknown-dtype", _dict("[('a', '|O')]"), pickle.dumps(_Bomb())),
    _member("pickle-instead-of-npy", "npz.magic", pickle.dumps(_Bomb())),
    _header("header-that-calls-a-function", "npz.header", "__import__('os').abort()"),
    _header("header-that-computes", "npz.header", _dict(shape="(9**9**9**9,)")),
    _header("header-of-nested-brackets", "npz.header", _dict(shape="(" * 30_000 + ")" * 30_000)),
    _header("header-of-minus-signs", "npz.header", _dict(shape="(" + "-" * 60_000 + "1,)")),
    _header("header-of-nested-dicts", "npz.header", "{'descr':" * 5_000 + "1" + "}" * 5_000),
    _header("integer-of-60000-digits", "npz.header", _dict(shape="(" + "9" * 60_000 + ",)")),
    _header("negative-shape", "npz.header", _dict(shape="(-1,)")),
    _header("shape-without-bytes", "npz.size-mismatch", _dict(shape="(1000000000000,)")),
    _header("shape-whose-product-overflows", "npz.size-mismatch", _dict("'<f8'", shape="(4294967296, 4294967296)")),
    _header(
        "empty-array-with-huge-sides", "limits.exceeded", _dict(shape="(0, 4611686018427387904, 4611686018427387904)")
    ),
    _header("strings-of-no-bytes", "limits.exceeded", _dict("'|S0'", shape="(1000000000000,)")),
    _header("texts-of-no-characters", "limits.exceeded", _dict("'<U0'", shape="(1000000000000,)")),
    _header("rank-of-300", "limits.exceeded", _dict(shape="(" + "1," * 300 + ")"), b"x"),
    _header("text-beyond-unicode", "npz.text", _dict("'<U1'"), b"\xff\xff\xff\xff"),
    _header("item-of-a-billion-bytes", "npz.size-mismatch", _dict("'|S999999999'"), b"x"),
    _member("header-longer-than-the-member", "npz.header", _npy(_dict(), length=60_000)),
    _member("header-of-4-gib", "npz.header", _npy(_dict(), version=b"\2\0", length=0xFFFFFFFF)),
    _member("version-from-the-future", "npz.version", _npy(_dict(), version=b"\7\0")),
    Attack("member-that-unpacks-to-a-gibibyte", _bomb, "x.npz", "limits.exceeded"),
    Attack("wrong-checksum", {"x.npz": _wrong_crc()}, "x.npz", "archive.crc-mismatch"),
    Attack(
        "members-that-share-their-bytes",
        {"x.npz": _stored(_npy(_dict(), b"x"), count=1000)},
        "x.npz",
        "archive.overlap",
    ),
    Attack(
        "stored-size-that-lies",
        {"x.npz": _raw_zip(b"a.npy", b"x", crc=0, size=1 << 31, method=0)},
        "x.npz",
        "archive.header-mismatch",
    ),
    Attack(
        "packed-size-that-lies",
        {"x.npz": _raw_zip(b"a.npy", zlib.compress(bytes(100))[2:-4], crc=0, size=50, method=8)},
        "x.npz",
        "archive.size-mismatch",
    ),
    Attack(
        "name-that-climbs-out",
        {"x.npz": zipped({"../../outside.npy": _npy(_dict(), b"x")})},
        "x.npz",
        "archive.unsafe-name",
        "doctor",
    ),
]
