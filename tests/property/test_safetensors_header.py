"""safetensors headers, sound and mangled: what is accepted is what stock safetensors accepts, and only our errors come out."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from openckpt.errors import CheckpointError
from openckpt.formats.safetensors import open_safetensors
from openckpt.storage.memory import MemoryStore

SIZES = {"BOOL": 1, "U8": 1, "I16": 2, "F16": 2, "BF16": 2, "F32": 4, "I64": 8, "C64": 8, "F8_E4M3": 1}
NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).filter(lambda name: name != "__metadata__")
TENSORS = st.dictionaries(
    NAMES, st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 4), max_size=3)), max_size=5
)
METADATA = st.none() | st.dictionaries(NAMES, st.text(max_size=8), max_size=2)

# Where we are stricter on purpose: a name twice (formats 8.4), and an entry that says more than it should.
STRICTER = {"safetensors.duplicate-name", "safetensors.header-entry", "limits.exceeded"}


def build(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape) in tensors.items():
        end = at + prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return header, bytes(index % 251 for index in range(at))


def pack(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def ours(file: bytes) -> dict[str, tuple[tuple[int, ...] | None, bytes]] | str:
    """Return shape and bytes of every tensor, or the code of the refusal."""
    try:
        reader = open_safetensors(MemoryStore({"x": file}), "x")
    except CheckpointError as error:
        assert str(error)
        return error.code
    found: dict[str, tuple[tuple[int, ...] | None, bytes]] = {}
    for key, spec in reader.items():
        if not spec.dtype.startswith("unknown-"):
            (place,) = reader.locate(key)
            found[key] = (spec.shape, file[place.offset :][: place.nbytes])
    return found


def stock(file: bytes) -> dict[str, tuple[tuple[int, ...], bytes]] | None:
    try:
        return {name: (tuple(info["shape"]), bytes(info["data"])) for name, info in deserialize(file)}
    except SafetensorError:
        return None


@given(TENSORS, METADATA, st.integers(0, 9))
def test_sound_files_read_as_stock_safetensors_reads_them(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None, padding: int
) -> None:
    """Any names, dtypes, shapes and metadata, with padding behind the header."""
    header, data = build(tensors, metadata)
    file = pack(json.dumps(header).encode() + b" " * padding, data)

    assert ours(file) == stock(file)


@given(TENSORS, st.data())
def test_a_changed_number_or_name_is_judged_as_stock_safetensors_judges_it(
    tensors: dict[str, tuple[str, list[int]]], data: st.DataObject
) -> None:
    """One byte of the header replaced: the same answer, a stricter refusal, or a type that stock does not know."""
    header, content = build(tensors, None)
    text = bytearray(json.dumps(header).encode())
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] = data.draw(st.sampled_from(b'0123456789[]{},:"-.eE \\/abF') | st.integers(0, 255))
    file = pack(bytes(text), content)

    mine, theirs = ours(file), stock(file)

    if isinstance(mine, str):
        assert theirs is None or mine in STRICTER
    elif theirs is not None:
        assert mine == theirs
    else:
        listed = dict(open_safetensors(MemoryStore({"x": file}), "x").items())
        assert any(spec.dtype.startswith("unknown-") for spec in listed.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_opened_or_refused(data: bytes) -> None:
    """No exception but ours, for a file and for a header of these bytes."""
    ours(data)
    ours(pack(data, b""))


@given(TENSORS, st.integers(1, 40))
def test_every_truncation_is_refused(tensors: dict[str, tuple[str, list[int]]], cut: int) -> None:
    """A shorter file never opens: the tensors must fill it exactly."""
    header, data = build(tensors, None)
    file = pack(json.dumps(header).encode(), data)

    assert isinstance(ours(file[:-cut]), str)


@pytest.mark.parametrize("extra", [b"\0", b" ", b"\n{}", bytes(4096)])
def test_appended_bytes_are_refused(extra: bytes) -> None:
    """Nor a longer one."""
    header, data = build({"a": ("F32", [2])}, None)

    assert ours(pack(json.dumps(header).encode(), data) + extra) == "safetensors.trailing-bytes"
