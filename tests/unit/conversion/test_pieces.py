"""The parts of a conversion one by one: which format a name means, casts, memory under a budget."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.conversion.casting import FLOATS, Casting, parse_casts
from openckpt.conversion.memory import CancelledError, Memory
from openckpt.conversion.moving import LEAST_MEMORY, move
from openckpt.conversion.planning import plan_conversion
from openckpt.conversion.targets import choose_format
from openckpt.errors import UnsupportedError, Where
from trees import numbers, save_tree

MIB = 1 << 20


@pytest.mark.parametrize(
    ("target", "to", "expected"),
    [
        ("run/ckpt-7", None, "dual"),
        ("model.ckpt", None, "dual"),
        ("v1.5", None, "dual"),
        ("model.safetensors", None, "safetensors"),
        ("MODEL.SAFETENSORS", None, "safetensors"),
        ("model.safetensors.index.json", None, "safetensors"),
        ("model.h5", None, "hdf5"),
        ("model.weights.h5", None, "hdf5"),
        ("model.hdf5", None, "hdf5"),
        ("model.npz", None, "npz"),
        ("model.npz", "hdf5", "hdf5"),
        ("model.bin", "npz", "npz"),
        ("model.h5", "tensorflow", "tensorflow"),
    ],
)
def test_the_format_of_a_target(target: str, to: str | None, expected: str) -> None:
    """The caller's word, else the suffix, else a dual prefix."""
    assert choose_format(target, to) == expected


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        (None, {}),
        ((), {}),
        ("float32=bfloat16", {"float32": "bfloat16"}),
        ({"int64": "int32", "float64": "float32"}, {"int64": "int32", "float64": "float32"}),
        ("float16", {name: "float16" for name in FLOATS if name != "float16"}),
        (["bfloat16", "float64=float32"], {**{n: "bfloat16" for n in FLOATS if n != "bfloat16"}, "float64": "float32"}),
        (["float64=float32", "bfloat16"], {**{n: "bfloat16" for n in FLOATS if n != "bfloat16"}, "float64": "float32"}),
        (["bfloat16", "float32=float32"], {n: "bfloat16" for n in FLOATS if n not in ("bfloat16", "float32")}),
        ("complex128=complex64", {"complex128": "complex64"}),
    ],
)
def test_casts_as_words(cast: Any, expected: dict[str, str]) -> None:
    """What is said of one type wins over what is said of all floats, in whatever order."""
    assert parse_casts(cast) == expected


@pytest.mark.parametrize(("source", "target"), [("float32", "float16"), ("float16", "float32"), ("float16", "bfloat16"),
                                                ("float8_e5m2", "float64"), ("int16", "int64"), ("complex128", "complex64")])  # fmt: skip
def test_a_cast_in_place_is_numpys_cast(source: str, target: str) -> None:
    """Over several pieces, in the memory of the tensor itself: at its end for a wider type."""
    from openckpt.formats.dtypes import BY_NAME

    old, new = BY_NAME[source].numpy(), BY_NAME[target].numpy()
    value = (np.arange(900_000) % 50_000).reshape(3, 300_000).astype(old)
    memory = np.zeros(value.size * max(old.itemsize, new.itemsize), np.uint8)
    place = memory[memory.size - value.nbytes :] if new.itemsize > old.itemsize else memory[: value.nbytes]
    place[:] = value.reshape(-1).view(np.uint8)
    inside = place.view(old).reshape(value.shape)
    with np.errstate(over="ignore"):
        expected = value.astype(new)
    result = Casting({source: target}).cast("k", inside, source, memory, Where("x"))

    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()
    assert np.shares_memory(result, memory)


def test_memory_beyond_the_largest_piece_stays_under_the_budget() -> None:
    """One piece of any size always fits; two large ones do not."""
    memory = Memory(4 * MIB)
    large = memory.take(100 * MIB)
    small = memory.take(3 * MIB)
    waited = threading.Event()

    def taker() -> None:
        memory.take(2 * MIB)
        waited.set()

    thread = threading.Thread(target=taker)
    thread.start()
    assert not waited.wait(0.05)
    memory.give(small)
    thread.join()
    assert waited.is_set()
    memory.give(large)


def test_memory_is_used_again() -> None:
    """A piece of fitting size is the same piece, its pages touched already."""
    memory = Memory(4 * MIB)
    first = memory.take(2 * MIB)
    memory.give(first)
    assert memory.take(2 * MIB - 5) is first
    assert memory.take(100) is not first


def test_nobody_waits_for_a_side_that_gave_up() -> None:
    """Cancelling wakes who waits, and whoever comes later."""
    memory = Memory(1)
    memory.reserve(10 * MIB)
    caught: list[BaseException] = []

    def taker() -> None:
        try:
            memory.reserve(10 * MIB)
        except CancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=taker)
    thread.start()
    memory.cancel()
    thread.join()
    assert len(caught) == 1


def _plan(path: str, casts: dict[str, str]) -> Any:
    ckpt = openckpt.open(path)
    return ckpt, plan_conversion(ckpt, "dual", casts=casts).rows


def test_tensors_come_in_the_order_asked_for(tmp_path: Path) -> None:
    """Whole, whatever the sizes: in batches, or alone."""
    tree = {f"k{n}": ("float32", numbers("float32", (n * 7919 % 300_000,), n)) for n in range(40)}
    ckpt, rows = _plan(save_tree(tmp_path / "a", tree), {})
    with ckpt:
        order = rows[::-1]
        seen = []
        for batch in move(ckpt, order, max_memory=LEAST_MEMORY):
            for moved in batch:
                assert bytes(moved.stored.data) == tree[moved.row.key][1].tobytes()
                seen.append(moved.row)
        assert seen == list(order)


def test_giving_up_ends_the_reading_thread(tmp_path: Path) -> None:
    """Also where it waits for memory."""
    tree = {f"k{n}": ("float32", numbers("float32", (MIB,), n)) for n in range(8)}
    ckpt, rows = _plan(save_tree(tmp_path / "a", tree), {})
    with ckpt:
        before = threading.active_count()
        moved = move(ckpt, rows, max_memory=LEAST_MEMORY)
        next(moved)
        assert threading.active_count() == before + 1
        moved.close()
        assert threading.active_count() == before


def test_an_error_of_the_reader_reaches_the_caller(tmp_path: Path) -> None:
    """With its code and key, and the thread is gone."""
    prefix = save_tree(tmp_path / "a", {"x": ("float32", np.ones(100, "f4"))})
    shard = tmp_path / "a.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    ckpt, rows = _plan(prefix, {})
    with ckpt, pytest.raises(openckpt.CorruptionError) as caught:
        list(move(ckpt, rows))
    assert (caught.value.code, caught.value.where.key) == ("bundle.crc-mismatch", "x")


def test_a_cast_without_a_number_type_is_refused() -> None:
    """The message says which words there are."""
    with pytest.raises(UnsupportedError) as caught:
        parse_casts("float99")
    assert caught.value.found == "float99"
