"""Reading tensors for nothing but their checksums: `check_many` says what `read_many` would, and makes no arrays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointError, CorruptionError, NotFoundError
from openckpt.formats.crc import crc32c
from openckpt.formats.extents import Request, prove_requests
from openckpt.limits import MIB
from openckpt.storage.memory import MemorySource

DATA = np.random.default_rng(1).integers(0, 256, 3 * MIB, np.uint8).tobytes()


def mismatch(request: Request, computed: int) -> CorruptionError:
    return CorruptionError("bundle.crc-mismatch", request.key, f"{computed}")


def requests(places: list[tuple[int, int]]) -> list[Request]:
    source = MemorySource("data", DATA)
    return [
        Request(f"{at}+{size}", source, at, size, np.dtype(np.uint8), (size,), crc32c(DATA[at : at + size]))
        for at, size in places
    ]


PLACES = {
    "neighbours": [(n * 1000, 1000) for n in range(200)],
    "apart": [(n * 50_000, 10) for n in range(40)],
    "one large": [(5, 2 * MIB + 77)],
    "a large one between small ones": [(0, 10), (10, 2 * MIB), (10 + 2 * MIB, 10)],
    "empty": [(0, 0), (100, 0), (100, 5)],
    "overlapping": [(0, 3 * MIB), (0, 3 * MIB), (10, MIB), (20, 5)],
    "backwards": [(9000, 9), (300, 9), (0, 9)],
    "none": [],
}


@pytest.mark.parametrize("name", PLACES)
def test_every_wrong_checksum_is_found(name: str) -> None:
    """Right ones pass; any single wrong one is named, wherever it lies."""
    good = requests(PLACES[name])
    prove_requests(good, mismatch=mismatch)
    for number in range(0, len(good), max(1, len(good) // 5)):
        bad = list(good)
        bad[number] = bad[number]._replace(crc=bad[number].crc ^ 1)  # type: ignore[operator]
        with pytest.raises(CorruptionError) as caught:
            prove_requests(bad, mismatch=mismatch)
        assert caught.value.where.path == bad[number].key


def saved(path: Path) -> str:
    """A checkpoint with every way of storing a tensor, and enough small ones of one kind that they are read as a group."""
    rng = np.random.default_rng(2)
    small = {f"small/{n:03d}": rng.random(7, np.float32) for n in range(100)}
    pieces = {((0, 2), (0, -1)): np.ones((2, 3)), ((2, 2), (0, -1)): np.zeros((2, 3))}
    return str(
        openckpt.save(
            path,
            {
                **small,
                "large": rng.random((3, 100_000)),
                "text": np.array([b"a", b"bc"], object),
                "flags": np.array([True, False]),
                "empty": np.zeros((0, 3)),
                "pieces": openckpt.Sliced((4, 3), pieces),
                "odd": openckpt.Variant(b"\x0a\x03abc"),
            },
        )
    )


def test_a_whole_checkpoint_is_proved_and_every_flipped_bit_found(tmp_path: Path) -> None:
    """Each tensor in turn: checking says what reading says."""
    path = saved(tmp_path / "ckpt")
    shard = Path(path + ".data-00000-of-00001")
    data = shard.read_bytes()
    with openckpt.open(path) as ckpt:
        keys = list(ckpt)
        ckpt.check_many(keys)
        ckpt.check_many(iter(keys[:3]))
        places = {key: ckpt.locate(key) for key in keys}
    for key in ("small/000", "small/099", "large", "text", "flags", "pieces", "odd"):
        last = places[key][-1]
        damaged = bytearray(data)
        damaged[last.offset + last.nbytes - 1] ^= 4
        shard.write_bytes(damaged)
        with openckpt.open(path) as ckpt:
            assert code_of(lambda: ckpt.check_many(keys)) == code_of(lambda: ckpt.read_many(keys))
            assert code_of(lambda: ckpt.check_many([key])) is not None  # noqa: B023
            ckpt.check_many([other for other in keys if other != key])


def code_of(job: Callable[[], Any]) -> str | None:
    try:
        job()
    except CheckpointError as error:
        return error.code
    return None


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As by reading."""
    with openckpt.open(saved(tmp_path / "ckpt")) as ckpt, pytest.raises(NotFoundError) as caught:
        ckpt.check_many(["flags", "flag"])
    assert caught.value.code == "spec.no-such-key"


def test_formats_without_checksums_are_read(tmp_path: Path) -> None:
    """A cut file is found; there is nothing else that could be."""
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with openckpt.open(tmp_path / "x.npz") as ckpt:
        ckpt.check_many(["a"])
        with pytest.raises(NotFoundError):
            ckpt.check_many(["b"])
    with pytest.raises(CheckpointError):
        ckpt.check_many(["a"])


def test_a_large_tensor_is_proved_in_little_memory(tmp_path: Path) -> None:
    """It is never in memory as a whole."""
    path = openckpt.save(tmp_path / "ckpt", {"w": np.ones(24 * MIB // 8)})
    with openckpt.open(path) as ckpt:
        ckpt.check_many(["w"])  # imports
        tracemalloc.start()
        ckpt.check_many(["w"])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 * MIB
