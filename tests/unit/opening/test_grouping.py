"""One directory's names grouped into checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openckpt.formats.bundle import encode_bundle, encode_header
from openckpt.formats.sstable import encode_table
from openckpt.limits import Limits
from openckpt.opening.grouping import group_directory
from openckpt.opening.listing import Group, Listing, what_is_missing
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore

W = {"w": np.arange(4, dtype=np.float32)}
V1 = encode_table([(b"", b"\x0a\x00")])
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(600)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


def grouped(files: dict[str, bytes], **options: object) -> Listing:
    return group_directory(MemoryStore(files), "", **options)  # type: ignore[arg-type]


def only(listing: Listing) -> Group:
    (group,) = listing.groups
    return group


def test_index_and_its_shards_are_one_complete_group() -> None:
    """An index, the shards that its header asks for and the meta graph are one checkpoint."""
    files = {**encode_bundle(W, "ckpt-7", shards=2), "ckpt-7.meta": b"graph"}
    group = only(grouped(files))
    assert (group.prefix, group.format, group.step, group.num_shards) == ("ckpt-7", "bundle-v2", 7, 2)
    assert group.complete and group.missing == () and group.damage is None
    assert [stat.name for stat in group.files] == [
        "ckpt-7.index", "ckpt-7.data-00000-of-00002", "ckpt-7.data-00001-of-00002", "ckpt-7.meta",
    ]  # fmt: skip
    assert group.nbytes == sum(map(len, files.values()))


@pytest.mark.parametrize(
    ("name", "step"),
    [("ckpt-7", 7), ("checkpoint--1", -1), ("model.ckpt", None), ("", None), ("a-0012", 12), ("x.ckpt-3", 3)],
)
def test_the_step_is_the_number_at_the_end_of_the_name(name: str, step: int | None) -> None:
    """``-(-?digits)`` at the end of the prefix is the step; nothing else is."""
    group = only(grouped(encode_bundle(W, name)))
    assert (group.name, group.step) == (name, step)


def test_missing_shard_is_named() -> None:
    """A shard that the header asks for and that is not there makes the group incomplete and is named."""
    files = encode_bundle(W, "m", shards=3)
    del files["m.data-00001-of-00003"]
    group = only(grouped(files))
    assert not group.complete
    assert (group.missing, group.num_missing) == (("m.data-00001-of-00003",), 1)
    assert what_is_missing(group) == "m.data-00001-of-00003 missing"


def test_missing_index_leaves_orphan_shards() -> None:
    """Shards without an index are an incomplete group whose index is missing, and orphans."""
    files = encode_bundle(W, "m", shards=2)
    del files["m.index"]
    listing = grouped(files)
    group = only(listing)
    assert (group.index, group.complete, group.missing) == (None, False, ("m.index",))
    assert [stat.name for stat in listing.orphan_shards] == ["m.data-00000-of-00002", "m.data-00001-of-00002"]


def test_shards_of_another_count_beside_a_whole_checkpoint_are_stale() -> None:
    """What an earlier save with another number of shards left is stale, not part of the checkpoint."""
    files = {**encode_bundle(W, "m"), "m.data-00000-of-00004": b"old", "m.data-00003-of-00004": b"old"}
    listing = grouped(files)
    assert only(listing).complete and len(only(listing).shards) == 1
    assert [stat.name for stat in listing.stale_shards] == ["m.data-00000-of-00004", "m.data-00003-of-00004"]


def test_the_only_whole_set_on_disk_wins_over_the_header() -> None:
    """A merge may state more shards than it wrote (formats 2.11): the one whole set of files decides."""
    index = encode_table([(b"", encode_header(3)), (b"w", b"\x08\x01")])
    group = only(grouped({"m.index": index, "m.data-00000-of-00002": b"", "m.data-00001-of-00002": b""}))
    assert (group.num_shards, group.header_shards, group.complete) == (2, 3, True)


def test_shard_id_beyond_its_count_is_no_shard() -> None:
    """``data-00005-of-00002`` can belong to no checkpoint."""
    listing = grouped({**encode_bundle(W, "m", shards=2), "m.data-00005-of-00002": b""})
    assert only(listing).complete
    assert [stat.name for stat in listing.stale_shards] == ["m.data-00005-of-00002"]


def test_empty_basename_is_a_prefix() -> None:
    """``.index`` and ``.data-...`` are the checkpoint with the empty name."""
    store = MemoryStore({f"run/{name}": data for name, data in encode_bundle(W, "").items()})
    group = only(group_directory(store, "run"))
    assert (group.prefix, group.name, group.complete) == ("run/", "", True)


def test_prefix_called_checkpoint_lies_beside_its_manifest() -> None:
    """``checkpoint`` is the manifest although a prefix of this name is there too."""
    listing = grouped({**encode_bundle(W, "checkpoint"), "checkpoint": b'model_checkpoint_path: "checkpoint"\n'})
    assert only(listing).name == "checkpoint"
    assert list(listing.manifests) == ["checkpoint"]


def test_file_and_prefix_of_one_name_are_two_groups() -> None:
    """An HDF5 file called like a prefix is a checkpoint of its own."""
    listing = grouped({**encode_bundle(W, "a.h5f"), "a.h5f": HDF5})
    assert sorted(group.format for group in listing.named("a.h5f")) == ["bundle-v2", "hdf5"]


def test_v1_shards_are_told_from_data_sets_of_the_same_names() -> None:
    """``NAME-00000-of-00002`` is a V1 checkpoint only where the content is a V1 table."""
    listing = grouped({
        "model-00000-of-00002": V1,
        "model.meta": b"graph",
        "train-00000-of-00002": b"tfrecord" * 9,
        "train-00001-of-00002": b"tfrecord" * 9,
    })  # fmt: skip
    group = only(listing)
    assert (group.prefix, group.format, group.missing) == (
        "model-?????-of-00002", "table-v1", ("model-00001-of-00002",),
    )  # fmt: skip
    assert [stat.name for stat in group.extras] == ["model.meta"]
    assert {stat.name for stat in listing.others} == {"train-00000-of-00002", "train-00001-of-00002"}


def test_single_v1_shard_is_called_by_its_file() -> None:
    """Of one shard the pattern would only be a detour."""
    assert only(grouped({"export-00000-of-00001": V1})).prefix == "export-00000-of-00001"


@pytest.mark.parametrize("name", ["model.ckpt-7", "graph", "net.ckpt", "weights.0-95"])
def test_files_of_one_are_found_by_content(name: str) -> None:
    """V1 tables and HDF5 files are found under any name that is not known to be something else."""
    assert only(grouped({name: V1})).format == "table-v1"
    assert only(grouped({name: HDF5})).format == "hdf5"


@pytest.mark.parametrize("name", ["train.py", "photo.jpg", "events.out.tfevents.1234.host"])
def test_files_of_other_trades_are_not_opened(name: str) -> None:
    """A name that is known to be something else is never looked into."""

    class Refusing(MemoryStore):
        def open(self, path: str) -> object:  # type: ignore[override]
            raise AssertionError(f"opened {path}")

    listing = group_directory(Refusing({name: HDF5}), "")
    assert listing.groups == () and [stat.name for stat in listing.others] == [name]


def test_meta_graph_makes_any_name_worth_a_look() -> None:
    """``model.sav`` beside ``model.sav.meta`` is looked into; a .meta without anything is an orphan."""
    listing = grouped({"m.py": V1, "m.py.meta": b"g", "lost.meta": b"g"})
    assert only(listing).name == "m.py"
    assert [stat.name for stat in listing.orphan_metas] == ["lost.meta"]


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("m.index", b"", "table.too-short"),
        ("m.index", LFS, "table.bad-magic"),
        ("m.index", b"<html>" + b" " * 60, "table.bad-magic"),
        ("m.h5", LFS, "detect.lfs-pointer"),
        ("m.keras", b"", "detect.empty"),
        ("m.safetensors", b"<!DOCTYPE html><title>404</title>", "detect.html-page"),
    ],
)
def test_what_should_be_a_checkpoint_is_reported_damaged(name: str, data: bytes, code: str) -> None:
    """A stub, an error page or an empty file in the place of a checkpoint is a damaged checkpoint."""
    group = only(grouped({name: data}))
    assert not group.complete
    assert getattr(group.damage, "code", None) == code


def test_index_of_another_program_is_no_checkpoint() -> None:
    """``faiss.index`` is no table and never was one: left alone."""
    listing = grouped({"faiss.index": b"IxFI" + bytes(500)})
    assert listing.groups == () and [stat.name for stat in listing.others] == ["faiss.index"]


def test_leftovers_of_interrupted_saves() -> None:
    """``.tempstate`` files, temporary manifests and ``_temp`` directories with parts are leftovers; others are not."""
    listing = grouped({
        "a.index.tempstate123": b"",
        "checkpoint.tmp" + "0a" * 16: b"",
        "b_temp/part-00000-of-00001.index": b"",
        "my_temp/notes.txt": b"",
    })  # fmt: skip
    assert {stat.name for stat in listing.leftovers} == {
        "a.index.tempstate123", "checkpoint.tmp" + "0a" * 16, "b_temp",
    }  # fmt: skip
    assert [stat.name for stat in listing.directories] == ["my_temp"]
    assert listing.groups == ()


def test_renamed_manifest_is_found_by_its_text() -> None:
    """``checkpoint.txt`` that reads like a manifest is one."""
    listing = grouped({"checkpoint.txt": b'model_checkpoint_path: "a"\n', "checkpoint.md": b"# notes"})
    assert list(listing.manifests) == ["checkpoint.txt"]


def test_sharded_safetensors_are_one_group() -> None:
    """A JSON index and the files that it names are one checkpoint."""
    listing = grouped({
        "m.safetensors.index.json": b'{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}',
        "m-1.safetensors": b"x",
    })  # fmt: skip
    group = only(listing)
    assert (group.format, group.missing, len(group.shards)) == ("safetensors", ("m-2.safetensors",), 1)


def test_a_name_cannot_ask_for_a_hundred_million_names() -> None:
    """The count in a file name is data: so many missing files are counted, not listed."""
    group = only(grouped({"m.data-00000-of-99999999": b""}))
    assert group.num_missing == 99_999_999 and len(group.missing) <= 101
    assert getattr(group.damage, "code", None) == "limits.exceeded"
    assert "and 99999996 more" in what_is_missing(
        only(grouped({"m.data-00000-of-99999999": b""}, limits=Limits(shards=10**8)))
    )


def test_names_alone_suffice_inside_a_compressed_archive() -> None:
    """Where every read is a pass over the archive nothing is read."""

    class Refusing(MemoryStore):
        format = "tar.gz"

        def open(self, path: str) -> object:  # type: ignore[override]
            raise AssertionError(f"opened {path}")

    files = {**encode_bundle(W, "ckpt-1", shards=2), "m.h5": HDF5, "graph": V1, "old": V1, "old.meta": b""}
    listing = group_directory(Refusing(files), "")
    assert [(group.name, group.format, group.complete) for group in listing.groups] == [
        ("ckpt-1", "bundle-v2", True), ("m.h5", "hdf5", True), ("old", "table-v1", True),
    ]  # fmt: skip


def test_groups_are_in_order_of_name_and_step() -> None:
    """ckpt-9 comes before ckpt-10."""
    files = {name: data for step in (10, 9, 1) for name, data in encode_bundle(W, f"ckpt-{step}").items()}
    assert [group.step for group in grouped(files).groups] == [1, 9, 10]


def test_links_to_files_are_followed_and_marked(tmp_path: Path) -> None:
    """Model caches are made of links: members may be links to files; a link to nothing is another matter."""
    for name, data in encode_bundle(W, "m").items():
        (tmp_path / "blob").mkdir(exist_ok=True)
        (tmp_path / "blob" / name).write_bytes(data)
        (tmp_path / name).symlink_to(tmp_path / "blob" / name)
    (tmp_path / "x.index").symlink_to(tmp_path / "gone")
    group = only(group_directory(LOCAL, str(tmp_path)))
    assert group.complete and all(stat.link for stat in group.files)


def test_group_says_who_wrote_it() -> None:
    """Keys of TF-Agents show in the index."""
    keys = ("agent/_network/kernel", "global_step/.ATTRIBUTES/VARIABLE_VALUE")
    assert only(grouped(encode_bundle(dict.fromkeys(keys, W["w"]), "ckpt-1"))).maker == "tf-agents"
    assert only(grouped(encode_bundle(W, "ckpt-1"))).maker is None
