"""Random trees of every type, shape and key go through every format and come back as they were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import openckpt
from openckpt.formats.hdf5.encoder import HDF5Writer
from openckpt.formats.hdf5.plain import plan_paths
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.formats.npz import open_npz
from openckpt.formats.npz_encoder import NpzWriter, is_member_name
from openckpt.storage.memory import MemoryStore
from strategies import arrays, shapes, tensor_keys
from trees import check_reads_as, differences, encoded, objects, save_tree

# Elements that end in zeros, hold them, are no text, or are much longer than the others.
_elements = st.one_of(st.binary(max_size=6), st.sampled_from([b"", b"\0", b"a\0", b"text", b"x" * 3000]))


@st.composite
def _opaque(draw: Any) -> tuple[str, np.ndarray]:
    dims = draw(shapes)
    count = int(np.prod(dims))
    kind = draw(st.sampled_from(["string", "variant"]))
    return kind, objects(*draw(st.lists(_elements, min_size=count, max_size=count)), shape=dims)


# Keys that contain each other, and names that openckpt itself gives.
_keys = st.one_of(
    tensor_keys,
    st.lists(st.sampled_from(["a", "b", "__value__", "key-0", "", ".", "..", "é"]), min_size=1, max_size=4).map(
        "/".join
    ),
).filter(bool)
trees = st.dictionaries(_keys, st.one_of(arrays(), _opaque()), min_size=1, max_size=8)


@pytest.mark.parametrize(("make", "opened", "name"), [(HDF5Writer, open_hdf5, "x.h5"), (NpzWriter, open_npz, "x.npz")])
@settings(max_examples=60, deadline=None)
@given(tree=trees)
def test_a_file_holds_any_tree(
    make: Callable[..., Any], opened: Callable[..., Any], name: str, tree: dict[str, tuple[str, np.ndarray]]
) -> None:
    """Specs and bits, with nothing for the doctor to say; and the same tree is the same file."""
    data = encoded(make, tree)
    reader = opened(MemoryStore({name: data}), name)

    check_reads_as(reader, tree)
    reader.close()
    assert encoded(make, tree) == data


@settings(max_examples=12, deadline=None)
@given(tree=trees)
def test_a_tree_goes_round_all_formats(tree: dict[str, tuple[str, np.ndarray]]) -> None:
    """Checkpoint, npz, HDF5, safetensors, checkpoint: the last one is the first, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        path = save_tree(home / "first", dict(sorted(tree.items(), key=_raw)))
        for name in ("x.npz", "x.h5", "x.safetensors", "last"):
            openckpt.convert(path, home / name, durability="process-crash")
            path = str(home / name)
            assert differences(path, tree) == []
        for suffix in (".index", ".data-00000-of-00001"):
            assert (home / f"last{suffix}").read_bytes() == (home / f"first{suffix}").read_bytes()


def _raw(item: tuple[str, Any]) -> bytes:
    return item[0].encode("utf-8", "surrogateescape")


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(_keys, unique=True, max_size=12))
def test_paths_of_datasets_never_meet(keys: list[str]) -> None:
    """No two equal, none the group of another, none that HDF5 reads as another path."""
    paths = list(plan_paths(keys).values())

    assert len(set(paths)) == len(keys)
    for path in paths:
        assert not any(other.startswith(f"{path}/") for other in paths)
        assert all(part not in ("", ".") for part in path.split("/"))
        assert "\0" not in path


@settings(max_examples=150, deadline=None)
@given(key=_keys)
def test_a_member_name_comes_back_from_a_zip(key: str) -> None:
    """What is used as a name unchanged is read as the same key without the side entry."""
    data = encoded(NpzWriter, {key: ("uint8", np.zeros(2, np.uint8))})

    assert (b"openckpt.json" in data) == (not is_member_name(key))
    assert list(open_npz(MemoryStore({"x": data}), "x").keys()) == [key]
