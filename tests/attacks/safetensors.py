"""Hostile safetensors files (formats 8.4): headers that lie about lengths, offsets and names, and an index that leads away."""

from __future__ import annotations

import json
from typing import Any

from attacks.attack import Attack


def _file(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _header(name: str, code: str, header: Any, data: bytes = b"", *, length: int | None = None) -> Attack:
    return Attack(name, {"x.safetensors": _file(header, data, length=length)}, "x.safetensors", code)


def _index(name: str, code: str, weight_map: Any, **files: bytes) -> Attack:
    index = weight_map if isinstance(weight_map, bytes) else json.dumps({"weight_map": weight_map}).encode()
    path = "model.safetensors.index.json"
    return Attack(name, {path: index, **{f"{key}.safetensors": data for key, data in files.items()}}, path, code)


def _million_names() -> dict[str, bytes]:
    """A million entries on the same byte: all but one overlap."""
    one = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    return {"x.safetensors": _file(b"{" + b",".join(b'"%d":%s' % (n, one) for n in range(20_000)) + b"}", b"x")}


_ONE = _entry("U8", [1], 0, 1)
_RAW = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'

CASES = [
    _header("header-length-above-the-file", "detect.unknown", {"a": _ONE}, b"x", length=1 << 62),
    _header("header-length-one-too-many", "safetensors.header-past-end", {}, length=3),
    _header("deeply-nested-json", "safetensors.header-text", b'{"a":' + b"[" * 1_000_000),
    _header(
        "integer-of-a-million-digits",
        "safetensors.header-text",
        b'{"a":{"dtype":"U8","shape":[' + b"9" * 1_000_000 + b"]}}",
    ),
    _header(
        "not-a-number", "safetensors.header-text", b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"
    ),
    _header("name-that-is-half-a-surrogate", "safetensors.header-text", b'{"\\ud800":' + _RAW + b"}", b"x"),
    _header("header-that-is-not-utf8", "safetensors.header-text", b'{"\xff":' + _RAW + b"}", b"x"),
    _header("second-document-behind-the-first", "safetensors.header-text", b'{"a":' + _RAW + b"}{}", b"x"),
    _header("one-name-twice", "safetensors.duplicate-name", b'{"a":' + _RAW + b',"a":' + _RAW + b"}", b"x"),
    _header(
        "one-name-twice-by-escape", "safetensors.duplicate-name", b'{"a":' + _RAW + b',"\\u0061":' + _RAW + b"}", b"x"
    ),
    _header(
        "field-twice",
        "safetensors.duplicate-name",
        b'{"a":{"dtype":"U8","dtype":"F64","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    _header(
        "overlapping-tensors",
        "safetensors.offsets",
        {"a": _entry("U8", [4], 0, 4), "b": _entry("U8", [4], 3, 7)},
        bytes(7),
    ),
    _header("hole-between-tensors", "safetensors.offsets", {"a": _ONE, "b": _entry("U8", [1], 2, 3)}, bytes(3)),
    _header("tensor-before-the-data", "safetensors.header-entry", {"a": _entry("U8", [1], -1, 0)}),
    _header(
        "offsets-beyond-64-bits", "safetensors.header-entry", {"a": _entry("U8", [1], 1 << 64, (1 << 64) + 1)}, b"x"
    ),
    _header("tensor-beyond-the-file", "safetensors.truncated", {"a": _entry("U8", [1 << 40], 0, 1 << 40)}, b"x"),
    _header(
        "shape-whose-product-overflows", "safetensors.size-mismatch", {"a": _entry("U8", [1 << 32, 1 << 32], 0, 0)}
    ),
    _header("shape-that-is-negative", "safetensors.header-entry", {"a": _entry("U8", [-1, -1], 0, 1)}, b"x"),
    _header("empty-tensor-with-huge-sides", "limits.exceeded", {"a": _entry("U8", [0, 1 << 62, 1 << 62], 0, 0)}),
    _header("rank-of-ten-thousand", "limits.exceeded", {"a": _entry("U8", [1] * 10_000, 0, 1)}, b"x"),
    _header("bytes-behind-the-last-tensor", "safetensors.trailing-bytes", {"a": _ONE}, b"x" + b"#!/bin/sh"),
    _header("metadata-that-is-no-text", "safetensors.metadata", {"__metadata__": {"a": {"b": []}}, "a": _ONE}, b"x"),
    _header("unknown-type", "spec.unknown-dtype", {"a": _entry("PICKLE", [1], 0, 1)}, b"x"),
    Attack("many-tensors-on-one-byte", _million_names, "x.safetensors", "safetensors.offsets"),
    _index("index-that-climbs-out", "safetensors.unsafe-shard-name", {"a": "../outside.safetensors"}),
    _index("index-with-an-absolute-path", "safetensors.unsafe-shard-name", {"a": "/etc/passwd"}),
    _index("index-with-a-backslash", "safetensors.unsafe-shard-name", {"a": "..\\outside.safetensors"}),
    _index("index-into-an-archive", "safetensors.unsafe-shard-name", {"a": "outside.zip!x.safetensors"}),
    _index("index-of-a-shard-that-is-not-there", "safetensors.shard-missing", {"a": "one.safetensors"}),
    _index("index-that-names-itself", "safetensors.header-past-end", {"a": "model.safetensors.index.json"}),
    _index(
        "index-that-promises-another-tensor",
        "safetensors.shard-key-missing",
        {"b": "one.safetensors"},
        one=_file({"a": _ONE}, b"x"),
    ),
    _index(
        "shard-whose-header-length-is-above-the-file",
        "safetensors.header-past-end",
        {"a": "one.safetensors"},
        one=_file({"a": _ONE}, b"x", length=1 << 62),
    ),
    _index("index-that-is-nested", "safetensors.header-text", b'{"weight_map":' * 100_000),
    _index("index-whose-map-is-a-list", "safetensors.index-entry", []),
]
