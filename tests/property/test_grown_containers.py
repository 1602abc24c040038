"""Plain values of a program that was saved, in a program that has just begun: all of it comes back, of its own types and sharing."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openckpt import Checkpoint

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
LEAVES = st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | st.text(max_size=3) | st.binary(max_size=3)
KEYS = st.text("ab/._-09%", max_size=3)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(NUMBERS, inner, max_size=3)
        | inner.map(lambda value: [value, {"again": value}])
    ),
    max_leaves=12,
)


def typed(value: Any, seen: dict[int, int]) -> Any:
    """The value with the types of all that is in it, and which container is which."""
    if not isinstance(value, (list, tuple, dict)):
        return type(value), value
    if value and id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return type(value), [(type(key), key, typed(item, seen)) for key, item in items]


@given(st.dictionaries(KEYS, TREES, max_size=3), st.lists(TREES, max_size=3), TREES, st.integers(0, 3))
def test_all_of_it_comes_back(mapping: dict[str, Any], items: list[Any], best: Any, kept: int) -> None:
    """Into an empty dict, a list that is shorter, the place of None."""
    with tempfile.TemporaryDirectory() as directory:
        saved = Checkpoint(mapping=mapping, items=items, best=best, w=np.ones(1))
        path = saved.write(f"{directory}/ckpt", durability="process-crash")
        own: dict[str, Any] = {}
        first = deepcopy(items[:kept])
        checkpoint = Checkpoint(mapping=own, items=first, best=None, w=np.zeros(1))

        checkpoint.read(path).assert_consumed()

        assert typed([checkpoint.mapping, checkpoint.best], {}) == typed([mapping, best], {})
        assert typed(checkpoint.items, {}) == typed(items, {})
        assert (checkpoint.mapping, checkpoint.items) == (own, first) and checkpoint.w[0] == 1
