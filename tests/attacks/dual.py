"""Hostile data shards that are safetensors files: metadata whose own checksum is right, and which lies about everything else."""

from __future__ import annotations

from typing import Any

from attacks import craft
from attacks.attack import Attack
from dual_bytes import digits, forged

_BLOB = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
_STRING = {"key": "k", "dtype": "string", "shape": []}


def _meta(described: Any, *, crcs: str | None = None, count: int = 1, **more: Any) -> dict[str, Any]:
    text = digits([0] * count) if crcs is None else crcs
    return {"version": 1, "header": "00000000", "crc32c": text, "tensors": described, **more}


def _file(name: str, code: str, inner: Any, *, data: bytes = bytes(4), tensors: Any = None) -> Attack:
    return Attack(name, lambda: {"x.safetensors": forged(tensors or {"a": _BLOB}, inner, data)}, "x.safetensors", code)


def _said(name: str, code: str, *, data: bytes = bytes(4), **changes: Any) -> Attack:
    return _file(name, code, _meta({"a": {**_STRING, **changes}}), data=data)


def _pieces(
    name: str, code: str, shape: list[int], slices: list[str], *, dtype: str = "uint8", size: int = 1
) -> Attack:
    """One tensor in pieces of ``size`` bytes each."""

    def files() -> dict[str, bytes]:
        tensors = {
            f"w{n}": {"dtype": "U8", "shape": [size], "data_offsets": [n * size, (n + 1) * size]}
            for n in range(len(slices))
        }
        described = {
            f"w{n}": {"key": "w", "dtype": dtype, "shape": shape, "slice": text} for n, text in enumerate(slices)
        }
        return {"x.safetensors": forged(tensors, _meta(described, count=len(slices)), bytes(size * len(slices)))}

    return Attack(name, files, "x.safetensors", code)


def _wrong_checksum() -> dict[str, bytes]:
    data = forged({"a": _BLOB}, _meta({"a": _STRING}), bytes(4))
    return {"x.safetensors": data.replace(b"string", b"uint8_")}


def _beside_an_index(header: bytes) -> dict[str, bytes]:
    """A checkpoint of one uint8[4] right behind ``header``."""
    entry = craft.entry(bytes(4), 4, dtype=4, offset=len(header))
    return {
        "ckpt.index": craft.table([(b"", craft.header()), (b"a", entry)]),
        "ckpt.data-00000-of-00001": header + bytes(4),
    }


def _header_that_lies() -> dict[str, bytes]:
    shard = forged({"a": _BLOB}, _meta({"a": {"key": "a", "dtype": "quint8", "shape": [4]}}), b"")
    return _beside_an_index(shard)


def _header_of_megabytes() -> dict[str, bytes]:
    """Thirty thousand empty tensors in front of the one that the index knows."""
    empty = {f"{n:05d}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}
    return _beside_an_index(forged({**empty, "a": _BLOB}, _meta({}, count=30_001), b""))


CASES = [
    _file("version-of-the-future", "dual.version", {**_meta({"a": _STRING}), "version": 2}),
    Attack("header-with-a-wrong-checksum", _wrong_checksum, "x.safetensors", "dual.header-checksum"),
    _file("no-version", "dual.metadata", {"header": "00000000", "crc32c": digits([0]), "tensors": {}}),
    _file("one-checksum-too-few", "dual.metadata", _meta({"a": _STRING}, crcs="")),
    _file("a-million-checksums", "dual.metadata", _meta({"a": _STRING}, crcs="0" * 8_000_000)),
    _file("checksums-with-spaces", "dual.metadata", _meta({"a": _STRING}, crcs="00 00 00")),
    _file("more-than-is-known", "dual.metadata", _meta({"a": _STRING}, code="import os")),
    _file(
        "metadata-nested-without-end", "dual.metadata", '{"version":1,"header":"00000000","tensors":' + "[" * 1_000_000
    ),
    _file(
        "metadata-with-an-endless-number", "dual.metadata", '{"version":1,"header":"00000000","x":' + "9" * 1_000_000
    ),
    _file("metadata-of-backslashes", "dual.metadata", '{"version":1,"header":"00000000","x":"' + "\\" * 4_000_000),
    _file("tensor-that-is-not-there", "dual.contradiction", _meta({"a": _STRING, "b": _STRING})),
    _said("shape-of-two-to-the-thousands", "dual.contradiction", shape=[(1 << 63) - 1] * 254),
    _said("strings-without-end-in-four-bytes", "dual.contradiction", shape=[1 << 40]),
    _said("type-that-is-wider-than-its-bytes", "dual.contradiction", dtype="complex128", shape=[4]),
    _said("type-of-the-header-denied", "dual.contradiction", dtype="float32", shape=[1]),
    _said("resource", "spec.unknown-dtype", dtype="resource"),
    _said("empty-key", "dual.metadata", key=""),
    _said("key-of-half-a-character", "dual.metadata", key="\ud800"),
    _said("rank-above-the-limit", "limits.exceeded", shape=[1] * 100_000),
    _said("slice-of-a-million-dimensions", "limits.exceeded", shape=[1], slice=":".join(["-"] * 1_000_000)),
    _said("slice-outside-its-tensor", "slices.bad-extent", dtype="uint8", shape=[4], slice="1,4"),
    _said("slice-that-is-a-path", "slices.bad-extent", dtype="uint8", shape=[4], slice="../../etc/passwd"),
    _said("string-lengths-that-lie", "bundle.string-lengths", shape=[1], data=b"\xff\xff\xff\x7f"),
    _said("variant-that-claims-gigabytes", "bundle.variant", dtype="variant", shape=[], data=b"\xff\xff\xff\x7f"),
    _said("string-whose-checksum-is-another", "bundle.crc-mismatch", shape=[0]),
    _file(
        "empty-tensor-that-no-memory-holds",
        "limits.exceeded",
        _meta({"a": {"key": "k", "dtype": "int4", "shape": [0, 1 << 62, 1 << 62]}}),
        tensors={"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}},
        data=b"",
    ),
    _file(
        "one-key-for-two-tensors",
        "dual.duplicate-key",
        _meta({"a": {"key": "b", "dtype": "uint8", "shape": [4]}}, count=2),
        tensors={"a": _BLOB, "b": {**_BLOB, "data_offsets": [4, 8]}},
        data=bytes(8),
    ),
    _file(
        "key-that-is-the-slice-key-of-another",
        "dual.duplicate-key",
        _meta(
            {
                "a": {
                    "key": craft.slice_key(b"w", (0, 4)).decode("utf-8", "surrogateescape"),
                    "dtype": "string",
                    "shape": [4],
                },
                "b": {"key": "w", "dtype": "uint8", "shape": [8], "slice": "0,4"},
            },
            count=2,
        ),
        tensors={"a": _BLOB, "b": {**_BLOB, "data_offsets": [4, 8]}},
        data=bytes(8),
    ),
    _pieces("one-piece-of-an-endless-tensor", "slices.gap", [1 << 62], ["0,1"]),
    _pieces("pieces-that-overlap", "slices.overlap", [3], ["0,2", "1,2"], size=2),
    Attack("header-that-contradicts-the-index", _header_that_lies, "ckpt", "dual.differs", "doctor"),
    Attack("header-of-megabytes-before-one-tensor", _header_of_megabytes, "ckpt", "dual.differs", "doctor"),
]
