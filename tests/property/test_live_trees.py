"""Any tree of containers, arrays, numbers and text that a program holds comes back from a checkpoint, bit for bit."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openckpt.training import Checkpoint, restore

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def array_strategy(names: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(names.split()).flatmap(lambda name: hnp.arrays(name, SHAPES))


PLAIN = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.complex_numbers() | st.text() | st.binary() | st.none()
)  # fmt: skip


def tree_strategy(arrays: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    below = st.recursive(
        arrays | PLAIN,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=12,
    )
    return st.dictionaries(st.text(max_size=5), below, max_size=4)


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Return a tree of new containers with every leaf changed."""
    if isinstance(tree, dict):
        return {key: mapped(item, change) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(mapped(item, change) for item in tree)
    return change(tree)


def blank(leaf: Any) -> Any:
    """Return another value of the same type and shape."""
    if isinstance(leaf, np.ndarray):
        return np.zeros_like(leaf)
    return None if leaf is None else type(leaf)()


def same(ours: Any, theirs: Any) -> bool:
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    if isinstance(ours, (float, complex)):
        return np.asarray(ours).tobytes() == np.asarray(theirs).tobytes() or (_is_nan(ours) and _is_nan(theirs))
    return bool(ours == theirs)


def _is_nan(value: complex) -> bool:
    value = complex(value)
    return math.isnan(value.real) or math.isnan(value.imag)


def round_trip(tree: Any, target: Any) -> list[Any]:
    """Return what both forms of a restore make of a target."""
    with tempfile.TemporaryDirectory() as folder:
        path = Checkpoint(state=tree).write(Path(folder) / "ckpt", durability="process-crash")
        ckpt = Checkpoint(state=target)
        ckpt.read(path).assert_consumed()
        return [ckpt.state, restore(path, like=target, select="state")]


@settings(max_examples=60, deadline=None)
@given(
    tree_strategy(
        array_strategy("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64")
    )
)
def test_a_tree_of_numpy_arrays_comes_back(tree: Any) -> None:
    """Into a tree of the same structure with other values."""
    for found in round_trip(tree, mapped(tree, blank)):
        assert same(found, tree)


PLAIN_TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PLAIN_TREES, max_size=4), st.dictionaries(st.text(max_size=5), PLAIN_TREES, max_size=4))
def test_a_tree_of_plain_values_comes_back_into_an_empty_container(items: list[Any], named: dict[str, Any]) -> None:
    """With every type, key and order."""
    for found in round_trip({"items": items, "named": named}, {"items": [], "named": {}}):
        assert same(found, {"items": items, "named": named})


@pytest.mark.torch
@settings(max_examples=20, deadline=None)
@given(tree_strategy(array_strategy("bool int32 int64 uint8 float16 float32 float64 complex64")))
def test_a_tree_of_torch_tensors_comes_back(tree: Any) -> None:
    """The same with tensors."""
    import torch

    def to_torch(leaf: Any) -> Any:
        return torch.from_numpy(leaf.copy()) if isinstance(leaf, np.ndarray) else leaf

    def back(leaf: Any) -> Any:
        return leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf

    saved, target = mapped(tree, to_torch), mapped(mapped(tree, blank), to_torch)
    for found in round_trip(saved, target):
        assert same(mapped(found, back), tree)


@pytest.mark.jax
@settings(max_examples=20, deadline=None)
@given(tree_strategy(array_strategy("bool int32 uint8 float16 float32 complex64")))
def test_a_tree_of_jax_arrays_comes_back(tree: Any) -> None:
    """The same with JAX arrays, which are new ones afterwards."""
    import jax
    import jax.numpy as jnp

    def to_jax(leaf: Any) -> Any:
        return jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf

    def back(leaf: Any) -> Any:
        return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf

    saved, target = mapped(tree, to_jax), mapped(mapped(tree, blank), to_jax)
    for found in round_trip(saved, target):
        assert same(mapped(found, back), mapped(saved, back))
