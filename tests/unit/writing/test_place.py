"""What lies under a prefix, the shard count of the next save, and what becomes of the data of a dead one."""

from __future__ import annotations

from typing import Any

import pytest

from openckpt.formats.bundle.header import encode_header
from openckpt.formats.bundle.saving import SaveRecord, encode_record, parse_record
from openckpt.formats.sstable import encode_table
from openckpt.testing import PowerLossFS
from openckpt.writing.place import Taken, look_at, record_of, settle_dead, shard_names


def files(*names: str, index: int | None = None) -> PowerLossFS:
    """A directory with these files, and an index that names so many data files."""
    found = {f"run/{name}": b"x" for name in names}
    if index is not None:
        found["run/ckpt.index"] = encode_table([(b"", encode_header(index))]) if index else b"not a table"
    return PowerLossFS(found)


def left(fs: PowerLossFS) -> list[str]:
    return sorted(stat.name for stat in fs.scan("run"))


def test_what_is_there_is_told_by_count() -> None:
    """Of this prefix only, and only data files of the exact form."""
    fs = files("ckpt.data-00000-of-00002", "ckpt.data-00001-of-00002", "ckpt.data-00000-of-00001", "ckpt-1.data-00000-of-00003",
               "ckpt.data-0-of-4", "ckpt.data-00000-of-00005.bak", "ckpt.meta", index=2)  # fmt: skip
    taken = look_at(fs, "run", "ckpt")
    assert taken.index and taken.shards.keys() == {1, 2} and len(taken.shards[2]) == 2
    assert look_at(fs, "run", "other") == Taken(False, {})


@pytest.mark.parametrize(
    ("taken", "wanted", "count"), [((), 1, 1), ((1,), 1, 2), ((1, 2, 3), 1, 4), ((2,), 1, 1), ((5, 6), 5, 7)]
)
def test_the_smallest_free_count(taken: Any, wanted: int, count: int) -> None:
    """At least as many as are wanted."""
    assert Taken(True, {number: ["x"] for number in taken}).free_count(wanted) == count
    assert shard_names("ckpt", 2) == ["ckpt.data-00000-of-00002", "ckpt.data-00001-of-00002"]


def test_a_record_says_what_is_replaced_only_where_an_index_is() -> None:
    """Data of a lost index is nobody's to remove."""
    shards = {1: ["a"], 3: ["b"]}
    assert parse_record(record_of(2, Taken(True, shards))) == SaveRecord(2, (1, 3))
    assert parse_record(record_of(2, Taken(False, shards))) == SaveRecord(2)
    many = record_of(1, Taken(True, {number: [] for number in range(1, 50_000)}))
    assert len(many) < 4096 and parse_record(many) is not None


ONE, TWO = "ckpt.data-00000-of-00001", "ckpt.data-00000-of-00002"


@pytest.mark.parametrize(
    ("index", "record", "stays"),
    [
        (1, SaveRecord(2, (1,)), [ONE, "ckpt.index"]),  # died before the switch
        (2, SaveRecord(2, (1,)), [TWO, "ckpt.index"]),  # died behind it
        (3, SaveRecord(2, (1,)), [ONE, TWO, "ckpt.index"]),  # somebody else's index: nothing is known
        (0, SaveRecord(2, (1,)), [ONE, TWO, "ckpt.index"]),  # an index that cannot be read: nothing is known
        (None, SaveRecord(2), [ONE]),  # a first save died: what lay there before stays
        (None, SaveRecord(2, (1,)), [ONE, TWO]),  # the old index is gone as well: either may be all that is left
        (1, SaveRecord(9, (8,)), [ONE, TWO, "ckpt.index"]),
    ],
)
def test_the_index_says_which_side_goes(index: int | None, record: SaveRecord, stays: list[str]) -> None:
    """Numbers from the record, the side from the index on the disk; where that is no answer, nothing goes."""
    fs = files(ONE, TWO, index=index)
    settle_dead(fs, "run", "ckpt", encode_record(record))
    assert left(fs) == stays


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b'{"writes": 2}', b'{"writes": "2", "replaces": []}', b'{"writes": 2, "replaces": [true]}',
               b'{"writes": -1, "replaces": [1]}', b'{"writes": 2, "replaces": ["../x"]}', b"[" * 4000],
)  # fmt: skip
def test_a_record_that_is_none_removes_nothing(record: bytes) -> None:
    """Torn, hostile, of another program."""
    fs = files(ONE, TWO, index=1)
    settle_dead(fs, "run", "ckpt", record)
    assert left(fs) == [ONE, TWO, "ckpt.index"]
