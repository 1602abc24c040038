"""`CheckpointWriter.add_many`: announced tensors in batches, as values or as stored bytes whose checksum is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointError
from openckpt.formats.crc import crc32c
from openckpt.writing.values import Stored

A, B = np.arange(3, dtype="f4"), np.arange(4, dtype="i8")
SPECS = {"a": openckpt.TensorSpec("float32", (3,), None), "b": openckpt.TensorSpec("int64", (4,), 32)}


def stored(array: np.ndarray, crc: int | None = None) -> Stored:
    data = array.tobytes()
    return Stored(data, crc32c(data) if crc is None else crc)


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_values_and_stored_bytes_give_the_same_files(tmp_path: Path, layout: Any) -> None:
    """In one batch or one by one; the arrays may be changed as soon as the call returns."""
    a = A.copy()
    with openckpt.create(str(tmp_path / "one"), SPECS, layout) as writer:
        writer.add_many({"a": a, "b": stored(B)})
        a[:] = -1
    with openckpt.create(str(tmp_path / "two"), SPECS, layout) as writer:
        writer.add("a", A)
        writer.add("b", B)
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_tensors_that_a_policy_cuts(tmp_path: Path) -> None:
    """Values are cut as `add` cuts them."""
    big = np.arange(100, dtype="f4").reshape(20, 5)
    specs = {"big": openckpt.TensorSpec("float32", (20, 5), None), **SPECS}
    with openckpt.create(str(tmp_path / "x"), specs, sharding=openckpt.MaxShardSize(100)) as writer:
        writer.add_many({"b": B, "big": big, "a": A})
    with openckpt.open(tmp_path / "x") as ckpt:
        assert np.array_equal(ckpt["big"], big)
        assert np.array_equal(ckpt["b"], B)


@pytest.mark.parametrize(
    ("batches", "code"),
    [
        ([{"a": A}, {"a": A}], "writing.duplicate-key"),
        ([{"a": A, "c": A}], "writing.foreign-key"),
        ([{"a": A, "c": stored(A)}], "writing.foreign-key"),
        ([{"a": B}], "writing.wrong-dtype"),
        ([{"a": A[:2]}], "writing.wrong-shape"),
        ([{"b": stored(B[:2])}], "writing.wrong-size"),
        ([{"a": A}], "writing.missing-keys"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path, batches: list[Any], code: str) -> None:
    """As when tensors are added one by one."""
    with pytest.raises(CheckpointError) as caught, openckpt.create(str(tmp_path / "x"), SPECS) as writer:
        for batch in batches:
            writer.add_many(batch)
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_found_when_the_tensor_is_read(tmp_path: Path) -> None:
    """The checksum that the source stated travels with the bytes: what changed on the way shows."""
    with openckpt.create(str(tmp_path / "x"), SPECS) as writer:
        writer.add_many({"a": A, "b": stored(B, crc=1)})
    with openckpt.open(tmp_path / "x") as ckpt, pytest.raises(openckpt.CorruptionError) as caught:
        ckpt["b"]
    assert caught.value.code == "bundle.crc-mismatch"
