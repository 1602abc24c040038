"""Whatever is saved is what is loaded: random trees of every type, in both layouts, in any number of data files, over anything."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import openckpt
from openckpt import ByGroup, MaxShardSize, TensorSpec
from openckpt.writing import Sharding
from strategies import arrays, strings, tensor_keys, variants
from strategies import sliced as sliced_tensors
from trees import same

LAYOUTS = st.sampled_from(["dual", "tensorflow"])


@st.composite
def trees(draw: Any) -> dict[str, tuple[str, np.ndarray, Any]]:
    """Key -> ``(type, value as it is read, value as it is saved)``."""
    tree: dict[str, tuple[str, np.ndarray, Any]] = {}
    for key in draw(
        st.lists(tensor_keys, min_size=1, max_size=8, unique_by=lambda key: key.encode("utf-8", "surrogateescape"))
    ):
        kind = draw(st.sampled_from(["number"] * 5 + ["string", "variant", "pieces"]))
        if kind == "number":
            name, array = draw(arrays())
            saved = np.asfortranarray(array) if array.ndim and draw(st.booleans()) else array
            tree[key] = name, array, saved
        elif kind == "pieces":
            name, whole, pieces = draw(sliced_tensors())
            tree[key] = name, whole, openckpt.Sliced(pieces.shape, pieces.pieces)
        else:
            tensor = draw(strings() if kind == "string" else variants())
            array = np.empty(len(tensor.elements), object)
            array[:] = tensor.elements
            array = array.reshape(tensor.shape)
            saved = array.copy()
            if kind == "variant":
                saved = np.array([openckpt.Variant(item) for item in tensor.elements], object).reshape(tensor.shape)
                if not tensor.elements:
                    kind = "string"  # of no element nobody can tell
            tree[key] = kind, array, saved
    return tree


@st.composite
def policies(draw: Any) -> Sharding | None:
    """None, so many groups, or a largest size."""
    count = draw(st.integers(0, 5))
    if count == 0:
        return None
    if draw(st.booleans()):
        return ByGroup(lambda key, spec: sum(key.encode("utf-8", "surrogateescape")) % count)
    return MaxShardSize(draw(st.integers(8, 400)), split_any=draw(st.booleans()))


def save(prefix: Path | str, tree: dict[str, tuple[str, np.ndarray, Any]], **options: Any) -> str:
    dtypes = {key: name for key, (name, _, _) in tree.items() if name.startswith(("q", "int4", "uint4"))}
    values = {key: saved for key, (_, _, saved) in tree.items()}
    return openckpt.save(prefix, values, dtypes=dtypes, durability="process-crash", **options)


def check(prefix: str, tree: dict[str, tuple[str, np.ndarray, Any]]) -> None:
    with openckpt.open(prefix) as ckpt:
        assert set(ckpt) == set(tree)
        for key, (name, value, _) in tree.items():
            assert (ckpt.specs[key].dtype, ckpt.specs[key].shape) == (name, value.shape)
            assert same(ckpt[key], value), key
        assert [finding for finding in ckpt.validate() if finding.severity != "note"] == []


def files(directory: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tree=trees(), layout=LAYOUTS, sharding=policies(), before=st.integers(0, 2), seed=st.integers(0, 9))
def test_what_was_saved_is_what_is_loaded(tree: Any, layout: str, sharding: Any, before: int, seed: int) -> None:
    """By `save`, by `create` in any order, and by saving what is open; onto nothing and over another checkpoint."""
    plain = MaxShardSize(sharding.max_bytes) if isinstance(sharding, MaxShardSize) else sharding
    pieces = any(isinstance(saved, openckpt.Sliced) for _, _, saved in tree.values())
    with TemporaryDirectory() as folder:
        for number in range(before):
            openckpt.save(f"{folder}/ckpt", {"old": number}, overwrite=True, durability="process-crash")
        saved = save(f"{folder}/ckpt", tree, layout=layout, overwrite=True, sharding=None if pieces else sharding)
        check(saved, tree)
        assert {name.partition(".")[0] for name in files(folder)} == {"ckpt"}
        with openckpt.open(saved) as ckpt:
            openckpt.save(f"{folder}/copy", ckpt, layout=layout, sharding=plain, durability="process-crash")  # type: ignore[arg-type]
        check(f"{folder}/copy", tree)
        specs = {key: TensorSpec(name, value.shape) for key, (name, value, _) in tree.items()}
        with openckpt.create(f"{folder}/made", specs, layout, sharding=plain, durability="process-crash") as writer:  # type: ignore[arg-type]
            for key in random.Random(seed).sample(sorted(tree), len(tree)):
                writer.add(key, tree[key][1])
        check(f"{folder}/made", tree)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tree=trees(), layout=LAYOUTS, sharding=policies(), seed=st.integers(0, 9))
def test_equal_input_gives_equal_bytes(tree: Any, layout: str, sharding: Any, seed: int) -> None:
    """In another directory; in one dual file, in another order too."""
    if any(isinstance(saved, openckpt.Sliced) for _, _, saved in tree.values()):
        sharding = None
    again = tree
    if layout == "dual" and sharding is None:
        again = dict(random.Random(seed).sample(sorted(tree.items(), key=lambda item: item[0]), len(tree)))
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        save(f"{one}/ckpt", tree, layout=layout, sharding=sharding)
        save(f"{other}/ckpt", again, layout=layout, sharding=sharding)
        assert files(one) == files(other)


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_twenty_thousand_small_tensors(tmp_path: Path, layout: Any) -> None:
    """In one file and in several; each with a value of its own."""
    tree: dict[str, Any] = {f"layer_{n // 7}/{n}/kernel": np.full((n % 5,), n, np.int32) for n in range(20_000)}
    for sharding in (None, MaxShardSize(40_000)):
        openckpt.save(
            tmp_path / "ckpt", tree, layout=layout, sharding=sharding, overwrite=True, durability="process-crash"
        )
        loaded = openckpt.load(tmp_path / "ckpt")
        assert loaded.keys() == tree.keys()
        assert all(same(loaded[key], value) for key, value in tree.items())


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_long_strings(tmp_path: Path, layout: Any) -> None:
    """A megabyte each, zeros in them, beside empty ones."""
    value = np.empty(6, object)
    value[:] = [bytes(1 << 20), b"", b"a\0" * (1 << 19), b"\0", random.Random(1).randbytes((1 << 20) + 3), b"end\0"]
    openckpt.save(tmp_path / "ckpt", {"text": value, "w": np.ones(3)}, layout=layout)
    assert same(openckpt.load(tmp_path / "ckpt")["text"], value)
