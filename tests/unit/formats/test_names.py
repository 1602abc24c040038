"""File names of checkpoints are parsed as they are made: nothing else is a shard, and no name is too long to look at."""

from __future__ import annotations

import pytest

from openckpt.formats.names import (
    is_part_file,
    is_same_v1_set,
    is_save_lock,
    parse_part_name,
    parse_shard_name,
    parse_unfinished_name,
    parse_v1_shard_name,
    prefix_of,
    shard_name,
    v1_pattern,
    v1_shard_name,
)

DIGITS = "9" * 5_000  # Python refuses to convert so many


@pytest.mark.parametrize("shard, count", [(0, 1), (99_998, 99_999), (99_999, 100_000), (1_234_567, 2_000_000)])
def test_shard_names_read_back(shard: int, count: int) -> None:
    """Ids of more than five digits simply have more of them (formats 2.1)."""
    assert parse_shard_name(shard_name("a/b", shard, count)) == ("a/b", shard, count)
    assert parse_v1_shard_name(v1_shard_name("a/b", shard, count)) == ("a/b", shard, count)


@pytest.mark.parametrize("name", [f"a.data-{DIGITS}-of-00001", f"a.data-00000-of-{DIGITS}"])
def test_a_shard_number_of_thousands_of_digits_is_no_shard(name: str) -> None:
    """Members of archives and entries of manifests may be called anything."""
    assert parse_shard_name(name) is None
    assert parse_v1_shard_name(name.replace(".data", "")) is None
    assert parse_part_name(name.replace("a.data", "part")) is None


@pytest.mark.parametrize("digits", ["000000", "000001", "0000000000", "٠٠٠٠٠", "-0000", "0000"])
def test_a_number_that_no_writer_spells_so_is_no_shard(digits: str) -> None:
    """Six digits that begin with zero, or digits of another script, would be read as a file of another name."""
    assert parse_shard_name(f"a.data-{digits}-of-00002") is None
    assert parse_v1_shard_name(f"a-{digits}-of-00002") is None
    assert parse_part_name(f"part-{digits}-of-00002") is None


def test_the_pattern_of_a_v1_checkpoint_reads_back() -> None:
    """A manifest calls the shards by a pattern, which names no one of them (formats 3.1)."""
    assert v1_pattern("m", 2) == "m-?????-of-00002"
    assert parse_v1_shard_name(v1_pattern("m", 2)) == ("m", None, 2)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("m", True), ("m-?????-of-00002", True), ("m-00001-of-00002", True),
        ("m-?????-of-00003", False), ("n", False), ("m-", False),
    ],
)  # fmt: skip
def test_what_names_a_sharded_v1_checkpoint(name: str, same: bool) -> None:
    """Its bare prefix, its pattern and each of its shards; another count is another checkpoint."""
    assert is_same_v1_set(name, "m-?????-of-00002") is same
    assert is_same_v1_set(name, "m") is False


def test_parts_of_a_save_are_told_from_other_files() -> None:
    """Other programs write part-... files into ..._temp directories as well."""
    assert is_part_file("part-00000-of-00001.index")
    assert is_part_file("part-00000-of-00001.data-00000-of-00001")
    assert not is_part_file("part-r-00000.parquet")
    assert not is_part_file("part-00000")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("ckpt-7.index", "ckpt-7"), ("ckpt-7.meta", "ckpt-7"), ("ckpt-7.data-00000-of-00001", "ckpt-7"),
        ("ckpt-7.index.tempstate123", "ckpt-7"), ("ckpt-7.openckpt-lock", "ckpt-7"), ("ckpt-7.3.openckpt-tmp", "ckpt-7"),
        (".openckpt-lock", ""), ("ckpt-7", None), ("ckpt-7.openckpt-tmp", None), ("ckpt-7.openckpt-lock~", None),
    ],
)  # fmt: skip
def test_every_file_of_a_prefix_names_it(name: str, prefix: str | None) -> None:
    """Also those of a save that has not come to its end, TensorFlow's or ours."""
    assert prefix_of(name) == prefix


def test_lock_and_temporary_files_of_a_save_are_told_apart() -> None:
    """Only the lock says whether the save still runs."""
    assert parse_unfinished_name("ckpt-7.openckpt-lock") == parse_unfinished_name("ckpt-7.0.openckpt-tmp") == "ckpt-7"
    assert parse_unfinished_name("ckpt-7.index") is None
    assert is_save_lock("ckpt-7.openckpt-lock")
    assert not is_save_lock("ckpt-7.0.openckpt-tmp")
