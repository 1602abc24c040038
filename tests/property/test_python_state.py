"""Python state as JSON beside arrays: every plain value comes back as it was, and no file makes more of it than a value or an error."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.training.pystate import decode_state, encode_state

WHERE = Where("ckpt", "state")
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
TAGS = (
    "!tuple",
    "!bytes",
    "!float",
    "!complex",
    "!dict",
    "!array",
    "!number",
    "!counter",
    "!torch",
    "!jax",
    "!text",
    "!raw",
    "!keys",
    "!new",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(("a", "AA==", "nan", "1")),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(TAGS) | st.text(), inner, max_size=2),
    max_leaves=20,
)
ARRAYS = {"a": np.arange(3), "1": np.array(2.5)}


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, with NaN equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(VALUES)
def test_plain_values_come_back(value: Any) -> None:
    """With their types, in their order."""
    text, arrays = encode_state(value, WHERE)
    assert arrays == {}
    assert same(decode_state(text, {}, WHERE), value)


@given(JSON)
@example({"!complex": [1]})
@example({"!complex": [10**400, 0]})
@example({"!complex": 5})
@example({"!dict": [[{"!array": "a"}, 1]]})
@example({"!counter": [[[], 1]]})
@example({"!counter": [["a", "b"]]})
@example({"!torch": "a"})
@example({"!text": "a"})
@example({"!keys": ["threefry2x32", "a"]})
def test_any_json_is_a_value_or_corruption(value: Any) -> None:
    """Nothing else is raised, whatever stands under the tags."""
    _decode(json.dumps(value).encode())


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"!tuple":' * 5_000 + b"[]" + b"}" * 5_000)
@example(b"1" * 10_000)
def test_any_bytes_are_a_value_or_corruption(data: bytes) -> None:
    """Text that is no JSON, nested too deeply, or a number without end."""
    _decode(data)


def _decode(data: bytes) -> None:
    try:
        decode_state(data, ARRAYS, WHERE)
    except CorruptionError as error:
        assert error.code == "training.bad-state"


def test_what_is_nested_too_deeply_is_refused_when_it_is_saved() -> None:
    """By name, long before Python's own limit."""
    value: list[Any] = []
    for _ in range(1000):
        value = [value]
    with pytest.raises(UnsupportedError, match="nested too deeply"):
        encode_state(value, WHERE)
