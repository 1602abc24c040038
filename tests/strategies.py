"""Hypothesis strategies that every property test shares: keys, values, tables and whole bundles."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from openckpt.formats.bundle import Sliced, Strings, Variants
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import FULL

# Bytes that meet: equal runs make shared prefixes, 00 and ff are escaped in slice keys, 7f/80 lie around a varint's edge.
table_keys = st.one_of(
    st.binary(min_size=0, max_size=12),
    st.lists(st.sampled_from([b"a", b"b", b"/", b"\x00", b"\x7f", b"\x80", b"\xff"]), max_size=10).map(b"".join),
    st.integers(0, 300).map(lambda n: b"layer/" + b"x" * n),
)
"""keys of a table; any bytes"""

table_items = st.dictionaries(table_keys, st.binary(max_size=300), max_size=120).map(
    lambda items: sorted(items.items())
)
"""the contents of a table, sorted by key"""

tensor_keys = st.one_of(
    st.text(min_size=1, max_size=20),
    st.binary(min_size=1, max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.sampled_from(["a", "a/b", "A", "_", "/", "model/layer_00/kernel", "x" * 500]),
).filter(lambda key: not key.startswith("\x00") and not _lone_surrogates(key))
"""names of tensors: any str that stands for bytes"""

NUMERIC = sorted(name for name, dtype in BY_NAME.items() if dtype.is_numeric)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def _lone_surrogates(key: str) -> bool:
    try:
        return key.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") != key
    except UnicodeEncodeError:
        return True


@st.composite
def arrays(draw: Any, names: list[str] = NUMERIC, shape: tuple[int, ...] | None = None) -> tuple[str, np.ndarray]:
    """``(TensorFlow's dtype name, array)`` of any numeric type, any bits."""
    name = draw(st.sampled_from(names))
    dims = draw(shapes) if shape is None else shape
    dtype = BY_NAME[name].numpy()
    count = int(np.prod(dims))
    if name == "bool":
        raw = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    elif name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        low, high = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}.get(name, (0, 6))
        small = np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), np.int8)
        raw = small.astype(dtype)
    else:
        size = count * dtype.itemsize
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype)
    return name, raw.reshape(dims)


@st.composite
def strings(draw: Any) -> Strings:
    """A string tensor."""
    dims = draw(shapes)
    count = int(np.prod(dims))
    element = st.one_of(st.binary(max_size=6), st.integers(120, 140).map(bytes))
    return Strings(tuple(draw(st.lists(element, min_size=count, max_size=count))), dims)


@st.composite
def variants(draw: Any) -> Variants:
    """A variant tensor of opaque elements."""
    count = draw(st.integers(0, 3))
    return Variants(tuple(draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))), (count,))


@st.composite
def sliced(draw: Any) -> tuple[str, np.ndarray, Sliced]:
    """``(dtype name, whole array, the same in pieces)``: cut again and again along random axes."""
    dims = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
    name, whole = draw(arrays(shape=dims))
    regions = [tuple((0, length) for length in dims)]
    for _ in range(draw(st.integers(1, 6))):
        number = draw(st.integers(0, len(regions) - 1))
        axis = draw(st.integers(0, len(dims) - 1))
        start, length = regions[number][axis]
        if length > 1:
            cut = draw(st.integers(1, length - 1))
            region = regions.pop(number)
            for piece in ((start, cut), (start + cut, length - cut)):
                regions.append((*region[:axis], piece, *region[axis + 1 :]))
    pieces = {}
    for region in draw(st.permutations(regions)):
        part = whole[tuple(slice(start, start + length) for start, length in region)]
        spelled = tuple(
            FULL if extent == (0, size) and draw(st.booleans()) else extent
            for extent, size in zip(region, dims, strict=True)
        )
        pieces[spelled] = np.ascontiguousarray(part)
    return name, whole, Sliced(dims, pieces)
