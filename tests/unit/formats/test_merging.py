"""Merging part indexes: numbers of data files, duplicates, parts that do not belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from openckpt.errors import ConflictError, CorruptionError, LimitError
from openckpt.formats.bundle import BundleEntry, Sliced, encode_bundle, encode_entry, encode_header
from openckpt.formats.bundle.merging import Origin, merge_indexes
from openckpt.formats.slicekeys import FULL, encode_slice_key
from openckpt.formats.sstable import Table, encode_table
from openckpt.limits import Limits
from openckpt.storage.memory import MemorySource

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def part(tensors: dict[str, Any], shards: int = 1, **options: Any) -> bytes:
    return encode_bundle(tensors, "p", shards=shards, **options)["p.index"]


def rows(start: int, length: int, shape: tuple[int, ...] = (4, 3), dtype: Any = np.float32) -> Sliced:
    return Sliced(shape, {((start, length), FULL): ROWS[start : start + length].astype(dtype)})


def crafted(entries: dict[bytes, BundleEntry], header: bytes = encode_header(1)) -> bytes:
    stored = {key: encode_entry(entry) for key, entry in entries.items()}
    return encode_table(sorted({b"": header, **stored}.items()))


def merge(*parts: bytes, **options: Any) -> Any:
    return merge_indexes([(f"p{number}", index) for number, index in enumerate(parts)], **options)


def test_data_files_are_numbered_part_by_part_and_in_key_order_inside_a_part() -> None:
    """The second data file of the first part comes first when the first key lies in it."""
    merged = merge(part({"b": ROWS, "a": ROWS}, 2), part({"A": ROWS}))

    assert merged.origins == (Origin("p0", 1, 2), Origin("p0", 0, 2), Origin("p1", 0, 1))
    assert {key: entry.shard for key, entry in merged.entries.items()} == {b"A": 2, b"a": 0, b"b": 1}
    assert list(merged.entries) == [b"A", b"a", b"b"]
    assert merged.header.num_shards == 3


def test_one_part_merges_to_itself() -> None:
    """Nothing to join, nothing to renumber."""
    index = part({"a": ROWS, "w": Sliced((4, 3), {((0, 4), (0, 1)): ROWS[:, :1], ((0, 4), (1, 2)): ROWS[:, 1:]})})

    assert merge(index).encode() == index


def test_open_tables_and_bytes_merge_alike() -> None:
    """The caller may have the indexes open already."""
    indexes = [part({"a": ROWS}), part({"b": ROWS})]
    tables = [(f"p{number}", Table(MemorySource("x", index))) for number, index in enumerate(indexes)]

    assert merge_indexes(tables) == merge(*indexes)


def test_parts_without_tensors_are_one_empty_data_file() -> None:
    """No data file is referred to; the header must still state one."""
    merged = merge(crafted({}), crafted({}))

    assert (merged.header.num_shards, merged.origins, dict(merged.entries)) == (1, (), {})
    assert merged.encode() == crafted({})


def test_no_parts_are_refused() -> None:
    """There is no version and no byte order to write."""
    with pytest.raises(ValueError, match="nothing to merge"):
        merge_indexes([])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": ROWS}, {"a": ROWS}),
        ({"a": ROWS}, {"a": rows(0, 2)}),
        ({"a": rows(0, 2)}, {"a": ROWS}),
        ({"a": rows(0, 2)}, {"a": rows(0, 2)}),
    ],
    ids=["whole-whole", "whole-slice", "slice-whole", "same-slice"],
)
def test_the_same_tensor_in_two_parts_is_refused(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Only other slices of the same tensor may lie in another part. The error names key and both parts."""
    with pytest.raises(ConflictError) as caught:
        merge(part(first), part(second))

    assert caught.value.code == "bundle.merge-duplicate"
    assert caught.value.where.path == "p1"
    assert (caught.value.where.key or "").strip("\0").startswith("a")
    assert "'p0'" in caught.value.message


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (part({"w": rows(2, 2, (5, 3))}), "bundle.merge-contradicts"),
        (part({"w": rows(2, 2, dtype=np.int32)}), "bundle.merge-contradicts"),
        (part({"b": ROWS}, big_endian=True), "bundle.merge-contradicts"),
        (crafted({}, bytes.fromhex("08011a020802")), "bundle.merge-contradicts"),
        (crafted({}, bytes.fromhex("08011a0508011a0107")), "bundle.merge-contradicts"),
        (part({"w": rows(3, 1)}), "slices.gap"),
        (part({"w": rows(1, 3)}), "slices.overlap"),
        (crafted({b"w": BundleEntry(1, (4, 3), 0, 0, 0, 0, (((2, 2), FULL),))}), "bundle.slice-missing"),
        (
            crafted(
                {
                    b"w": BundleEntry(1, (4, 3), 0, 0, 0, 0, (((2, 2), FULL),)),
                    encode_slice_key(b"w", ((2, 2), FULL)): BundleEntry(1, (2, 4), 0, 0, 32, 0),
                }
            ),
            "bundle.slice-contradicts",
        ),
        (crafted({b"b": BundleEntry(1, (1,), 1, 0, 4, 0)}), "bundle.shard-range"),
        (encode_table([(b"b", b"")]), "bundle.no-header"),
        (encode_table([(b"", encode_header(1)), (b"b", b"\xff")]), "bundle.bad-entry"),
        (b"junk", "table.too-short"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(second: bytes, code: str) -> None:
    """Each contradiction and each damage has its code."""
    with pytest.raises(CorruptionError) as caught:
        merge(part({"w": rows(0, 2)}), second)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("parts", "limits"),
    [
        ([part({"w": rows(0, 2)}), part({"w": rows(2, 2)})], Limits(slices=1)),
        ([part({"a": ROWS}), part({"b": ROWS})], Limits(shards=1)),
    ],
)
def test_the_whole_keeps_the_limits_too(parts: list[bytes], limits: Limits) -> None:
    """Each part may be within them and the sum not."""
    with pytest.raises(LimitError):
        merge(*parts, limits=limits)
