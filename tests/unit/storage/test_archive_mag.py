"""Magenta bundles, told from meta graphs by the table inside."""

from __future__ import annotations

import pytest

from attacks import craft, craft_archive
from openckpt.errors import CheckpointError
from openckpt.storage.archive import ArchiveStore, archive_kind, open_archive
from openckpt.storage.memory import MemorySource

# The value of a V1 table's first key is a message whose field 1 is a message.
TABLE = craft.table([(b"", b"\x0a\x00"), (b"a", b"x")])
META = b"\x0a\x05meta!" + b"\x12\x03abc"


def opened(data: bytes) -> ArchiveStore:
    return open_archive(MemorySource("rnn.mag", data))


def test_one_checkpoint_and_its_meta_graph() -> None:
    """The members carry the names that Magenta gives them, and are windows on the bundle."""
    store = opened(craft_archive.mag(TABLE, meta=META) + b"\x22\x04\x12\x02id")

    assert store.format == "mag"
    assert {stat.name: stat.size for stat in store.scan("")} == {"model.ckpt": len(TABLE), "model.ckpt.meta": len(META)}
    assert store.open("model.ckpt").map() == TABLE
    assert store.open("model.ckpt.meta").read_at(0, 7) == META[:7]
    assert list(store.validate()) == []


def test_several_checkpoint_files_are_shards() -> None:
    """The field is repeated "so we can eventually support sharded checkpoints"."""
    store = opened(craft_archive.mag(TABLE, TABLE, meta=None))

    assert [stat.name for stat in store.scan("")] == ["model.ckpt-00000-of-00002", "model.ckpt-00001-of-00002"]


@pytest.mark.parametrize("cut", [20, 60, len(TABLE) + 15, len(TABLE) + 16])
def test_a_cut_bundle_says_so(cut: int) -> None:
    """Cut in the checkpoint or in the meta graph: still a bundle, and what is whole is read."""
    data = craft_archive.mag(TABLE, meta=META)
    assert archive_kind(MemorySource("x", data[:cut])) == "mag"
    store = opened(data[:cut])

    damage = store.damage()
    assert damage is not None
    assert (damage.code, damage.where.offset) == ("archive.truncated", cut)
    member = "model.ckpt" if cut < len(TABLE) else "model.ckpt.meta"
    with pytest.raises(CheckpointError) as caught:
        store.open(member)
    assert caught.value.code == "archive.truncated"


def test_junk_behind_a_bundle() -> None:
    """What follows the last field is said; the members are there."""
    store = opened(craft_archive.mag(TABLE) + b"\xff\xff")

    assert store.damage().code == "archive.bad-header"  # type: ignore[union-attr]
    assert store.open("model.ckpt").size == len(TABLE)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        META,
        craft_archive.mag(b"not a table"),
        craft_archive.mag(),
        craft_archive.mag(b"\0\0" + bytes(60)),
        b"\x0a\x03abc" * 1000,
    ],
)
def test_what_is_no_bundle(data: bytes) -> None:
    """Other messages, meta graphs above all, have the same shape but no table inside."""
    assert archive_kind(MemorySource("x", data)) is None
