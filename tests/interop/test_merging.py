"""The merged index has the bytes of stock TensorFlow's MergeV2Checkpoints, and its data files the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interop.written import assert_reads_equal, save_slices
from openckpt.formats.bundle import encode_header, header_of
from openckpt.formats.bundle.merging import MergedIndex, merge_indexes
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.formats.sstable import Table, encode_table
from openckpt.storage.memory import MemorySource

pytestmark = pytest.mark.interop

Part = list[tuple[str, str, Any]]


def _parts(seed: int, count: int) -> tuple[list[Part], dict[str, np.ndarray]]:
    """Random tensors dealt to parts at random, keys and parts in no common order; two of them in slices over the parts."""
    rng = np.random.default_rng((seed, count))
    parts: list[Part] = [[] for _ in range(count)]
    expected: dict[str, np.ndarray] = {}
    for number in range(int(rng.integers(1, 6)) * count):
        name = f"{rng.choice(list('azM/_'))}{number}"
        expected[name] = rng.integers(0, 99, rng.integers(0, 4, int(rng.integers(0, 3)))).astype(np.int32)
        parts[number % count if number < count else int(rng.integers(count))].append((name, "", expected[name]))
    for name in ("w", "B/sliced"):
        rows = 2 * count + 1
        expected[name] = rng.random((rows, 3)).astype(np.float32)
        for row in rng.permutation(rows).tolist():
            piece = (name, f"{rows} 3 {row},1:-", expected[name][row : row + 1])
            parts[int(rng.integers(count))].append(piece)
    for part in parts:
        rng.shuffle(part)  # type: ignore[arg-type]
    return parts, expected


def _write(tf: Any, folder: Path, parts: list[Part]) -> list[str]:
    prefixes = [str(folder / f"part-{number:05d}-of-{len(parts):05d}") for number in range(len(parts))]
    for prefix, part in zip(prefixes, parts, strict=True):
        save_slices(tf, Path(prefix), [(name, text, tf.constant(value)) for name, text, value in part])
    return prefixes


def _index(prefix: str) -> bytes:
    return Path(prefix + INDEX_SUFFIX).read_bytes()


def _merge(prefixes: list[str]) -> tuple[MergedIndex, list[bytes]]:
    """Our index, and what the data files are to hold, before TensorFlow renames them."""
    merged = merge_indexes([(prefix, _index(prefix)) for prefix in prefixes])
    return merged, [Path(shard_name(*origin)).read_bytes() for origin in merged.origins]


def _merge_by_tensorflow(tf: Any, prefixes: list[str], destination: Path) -> None:
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(destination), delete_old_dirs=False
    )


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_merged_files_are_tensorflow_s(tf: Any, tmp_path: Path, seed: int, count: int) -> None:
    """One to twelve parts, tensors and slices dealt at random, in list orders that differ from name order."""
    parts, expected = _parts(seed, count)
    prefixes = _write(tf, tmp_path / "temp", parts)
    np.random.default_rng(seed).shuffle(prefixes)
    merged, data = _merge(prefixes)

    _merge_by_tensorflow(tf, prefixes, tmp_path / "ckpt")

    assert merged.encode() == (tmp_path / "ckpt.index").read_bytes()
    assert [Path(shard_name(str(tmp_path / "ckpt"), shard, count)).read_bytes() for shard in range(count)] == data
    assert_reads_equal(tmp_path / "ckpt", expected)


def test_parts_of_several_data_files_merge_as_tensorflow_merges_them(tf: Any, tmp_path: Path) -> None:
    """A part may be a merged checkpoint itself: its data files are numbered by the first key of each."""
    (first, second, third), expected = _parts(7, 3)
    inner = _write(tf, tmp_path / "inner", [third, first])
    _merge_by_tensorflow(tf, inner, tmp_path / "temp" / "whole")
    other = {f"x{number}": np.int64(number) for number in range(3)}
    prefixes = [
        save_slices(tf, tmp_path / "temp" / "left", [(name, "", tf.constant(value)) for name, value in other.items()]),
        str(tmp_path / "temp" / "whole"),
        *_write(tf, tmp_path / "temp", [second]),
    ]
    merged, data = _merge(prefixes)

    _merge_by_tensorflow(tf, prefixes, tmp_path / "ckpt")

    assert merged.encode() == (tmp_path / "ckpt.index").read_bytes()
    assert [Path(shard_name(str(tmp_path / "ckpt"), shard, 4)).read_bytes() for shard in range(4)] == data
    assert_reads_equal(tmp_path / "ckpt", {**expected, **{name: np.array(value) for name, value in other.items()}})


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_without_tensors_does_not_count_as_a_data_file(tf: Any, tmp_path: Path, place: int) -> None:
    """TensorFlow counts it, and then looks for data files of another count than it made; otherwise the bytes are equal."""
    parts, expected = _parts(3, 2)
    prefixes = _write(tf, tmp_path / "temp", parts)
    empty = tmp_path / "temp" / "empty"
    Path(f"{empty}.index").write_bytes(encode_table([(b"", encode_header(1))]))
    prefixes.insert(place, str(empty))
    merged, _ = _merge(prefixes)

    _merge_by_tensorflow(tf, prefixes, tmp_path / "ckpt")

    def entries(data: bytes) -> dict[bytes, bytes]:
        return dict(Table(MemorySource("x", data)).items())

    theirs, ours = entries((tmp_path / "ckpt.index").read_bytes()), entries(merged.encode())
    assert (theirs.pop(b""), ours.pop(b"")) == (encode_header(3), encode_header(2))
    assert ours == theirs
    with pytest.raises(Exception, match="No such file"):
        tf.train.load_checkpoint(str(tmp_path / "ckpt")).get_tensor("w")
    (tmp_path / "ckpt.index").write_bytes(merged.encode())
    reader = tf.train.load_checkpoint(str(tmp_path / "ckpt"))
    assert all(np.array_equal(reader.get_tensor(name), value) for name, value in expected.items())


@pytest.mark.parametrize("header", ["08011a020802", "08011a0508011a0107", "080110011a020801"])
def test_other_versions_and_byte_orders_pass_through(tf: Any, tmp_path: Path, header: str) -> None:
    """A higher producer, a list of bad consumers, a big-endian host: the merged header says what the parts said."""
    parts: list[Part] = [[("a", "", np.int32([1]))], [("b", "", np.int32([2]))]]
    prefixes = _write(tf, tmp_path / "temp", parts)
    for prefix in prefixes:
        items = dict(Table(MemorySource("x", _index(prefix))).items())
        Path(prefix + INDEX_SUFFIX).write_bytes(encode_table(sorted({**items, b"": bytes.fromhex(header)}.items())))
    merged, _ = _merge(prefixes)

    _merge_by_tensorflow(tf, prefixes, tmp_path / "ckpt")

    assert merged.encode() == (tmp_path / "ckpt.index").read_bytes()
    assert header_of(Table(MemorySource("x", merged.encode()))).num_shards == 2
