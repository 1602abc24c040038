"""One test per row of the failure catalogue (docs/reference/failure-catalogue.md): the fault is made on real bytes, the
doctor names it by its code, says what is lost, and what to do.
"""

from __future__ import annotations

import gzip
import shlex
import subprocess

import numpy as np
import pytest

import openckpt
from openckpt.formats.bundle import BundleEntry, Sliced, Strings, encode_bundle, encode_entry, encode_header
from openckpt.formats.objectgraph import Attribute, Child, Node, ObjectGraph, encode_object_graph
from openckpt.formats.spec import GRAPH_KEY
from openckpt.formats.sstable import Table, encode_table
from openckpt.storage.memory import MemorySource
from runs import PARAMETERS, Run, codes, only, weights

DATA = "ckpt-7.data-00000-of-00001"
INDEX = "ckpt-7.index"
KEYS = tuple(sorted(weights()))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0123456789abcdef" * 4 + b"\nsize 873412\n"
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>...</body></html>\n"


def table_items(run: Run, name: str = INDEX) -> list[tuple[bytes, bytes]]:
    """Return the entries of an index, to be changed and written again with right checksums."""
    return list(Table(MemorySource(name, run.read(name))).items())


def patch_entry(run: Run, key: bytes, value: bytes) -> None:
    run.write({INDEX: encode_table([(k, value if k == key else v) for k, v in table_items(run)])})


def flip(run: Run, name: str, offset: int, bit: int = 1) -> None:
    data = bytearray(run.read(name))
    data[offset] ^= bit
    run.write({name: bytes(data)})


def shell(run: Run, command: str | None) -> None:
    """Run a fix that the doctor gave, as a user would."""
    assert command is not None
    done = subprocess.run(
        ["sh", "-c", command.partition(" && openckpt")[0]], cwd=run.directory, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------------- manifest


def test_row_01_no_manifest(run: Run) -> None:
    """Normal life: the scan finds the checkpoints, and the fix writes the manifest that TensorFlow wants."""
    run.save(6)
    run.save(7)
    report = run.diagnose()
    finding = only(report, "run.no-manifest")
    assert report.valid
    assert finding.severity == "note"
    assert "2 checkpoints" in finding.message and "'ckpt-7'" in finding.message
    shell(run, finding.fix)
    assert openckpt.latest_checkpoint(str(run.directory)) == str(run / "ckpt-7")
    assert "run.no-manifest" not in codes(run.diagnose())


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "manifest.empty"), (b'all_model_checkpoint_paths: "ckpt-7"\n', "manifest.no-model-path")],
)
def test_row_02_empty_manifest(run: Run, data: bytes, code: str) -> None:
    """A manifest that names nothing is an error, and the fix rebuilds it from the files."""
    run.save(7)
    run.write({"checkpoint": data})
    report = run.diagnose()
    finding = only(report, code)
    assert not report.valid
    assert finding.severity == "error"
    shell(run, finding.fix)
    assert run.diagnose().worst == "note"


@pytest.mark.parametrize(
    ("data", "code", "severity"),
    [
        (b"hello world\n", "manifest.not-a-manifest", "error"),
        (POINTER, "manifest.lfs-pointer", "error"),
        (b'model_checkpoint_path: "ckpt-7"\nsecond: 1\n', "manifest.unknown-field", "warning"),
        (b'model_checkpoint_path: "ckpt-7"\nall_model_checkpoint_paths: "ck', "manifest.bad-syntax", "error"),
    ],
)
def test_row_03_garbage_in_the_manifest(run: Run, data: bytes, code: str, severity: str) -> None:
    """Each kind of garbage has its own name; text that stops half-way says line and column."""
    run.save(7)
    run.write({"checkpoint": data})
    report = run.diagnose()
    finding = only(report, code)
    assert finding.severity == severity
    assert finding.where.path.endswith("checkpoint")
    assert report.valid is (severity != "error")


def test_row_04_manifest_is_not_utf8(run: Run) -> None:
    """Binary data in the manifest, which makes TensorFlow raise UnicodeDecodeError."""
    run.save(7)
    run.write({"checkpoint": b'model_checkpoint_path: "ckpt-7"\n\xff\xfe'})
    report = run.diagnose()
    assert only(report, "manifest.not-utf8").where.offset == 32
    assert not report.valid


def test_row_05_newest_listed_checkpoint_is_gone(run: Run) -> None:
    """The manifest's newest was deleted: an error that names what can be opened instead."""
    run.whole(5, 6, 7)
    run.remove(INDEX, DATA)
    report = run.diagnose()
    finding = only(report, "run.newest-missing")
    assert not report.valid
    assert "'ckpt-7'" in finding.message and "'ckpt-6'" in finding.message
    assert [checkpoint.valid for checkpoint in report.checkpoints] == [True, True]
    shell(run, finding.fix)
    assert run.diagnose().valid


def test_row_06_directory_was_moved(run: Run) -> None:
    """Absolute paths of another machine: the files beside the manifest are meant, and TensorFlow does not find them."""
    run.save(7)
    run.manifest("/home/somebody/train/ckpt-7")
    report = run.diagnose()
    finding = only(report, "run.moved")
    assert report.valid
    assert finding.severity == "warning"
    shell(run, finding.fix)
    assert run.diagnose().worst == "note"


def test_row_06_the_old_place_still_exists(run: Run) -> None:
    """TensorFlow would load the old location without a word; the doctor says that it is there."""
    run.save(7)
    other = Run(run.directory.parent / "old")
    other.directory.mkdir()
    other.save(7)
    run.manifest(str(other / "ckpt-7"))
    finding = only(run.diagnose(), "run.elsewhere")
    assert finding.severity == "warning"
    assert finding.where.path == str(other / "ckpt-7")


def test_row_06_a_relative_path_leads_to_another_directory(run: Run) -> None:
    """The same with ``..``: another run's checkpoint is what TensorFlow would load."""
    run.save(7)
    other = Run(run.directory.parent / "other")
    other.directory.mkdir()
    other.save(7)
    run.manifest("../other/ckpt-7")
    assert only(run.diagnose(), "run.elsewhere").severity == "warning"
    run.manifest("../run/ckpt-7")
    assert only(run.diagnose(), "run.leaves-directory").severity == "note"


def test_row_06_absolute_paths_to_this_directory_are_normal(run: Run) -> None:
    """What a Saver writes: no finding, also when the directory is reached through a link."""
    run.save(7)
    run.manifest(str(run / "ckpt-7"))
    link = run.directory.parent / "link"
    link.symlink_to(run.directory)
    assert run.diagnose().worst == "note"
    assert openckpt.diagnose(link).worst == "note"


def test_row_07_stale_manifest(run: Run) -> None:
    """Complete later steps that are not listed; an incomplete one does not count."""
    run.whole(5)
    run.save(6)
    run.save(7)
    run.save(8)
    run.remove("ckpt-8.data-00000-of-00001")
    report = run.diagnose()
    finding = only(report, "run.newer-unlisted")
    assert report.valid
    assert finding.severity == "warning"
    assert "'ckpt-6', 'ckpt-7'" in finding.message
    assert "ckpt-8" not in finding.message


def test_manifest_was_renamed(run: Run) -> None:
    """``checkpoint.txt``, as browsers and Windows make of it, is an error with the command that mends it."""
    run.whole(7)
    run.rename("checkpoint", "checkpoint.txt")
    report = run.diagnose()
    finding = only(report, "run.manifest-renamed")
    assert not report.valid
    shell(run, finding.fix)
    assert run.diagnose().valid


# ------------------------------------------------------------------------------------------------------- missing files


def test_row_08_index_is_missing(run: Run) -> None:
    """Data without an index, named by the prefix, by the data file and by the directory."""
    run.whole(7)
    run.remove(INDEX)
    for name in ("ckpt-7", DATA, ""):
        report = run.diagnose(name)
        assert not report.valid
        assert only(report, "run.index-missing").where.path.endswith(INDEX)


def test_row_08_index_can_be_had_from_the_parts(run: Run) -> None:
    """A save that died before its last step: the part's index still lies in the working directory, and copying it helps."""
    run.save(7)
    run.write({"ckpt-7_temp/part-00000-of-00001.index": run.read(INDEX)})
    run.remove(INDEX)
    report = run.diagnose("ckpt-7")
    finding = only(report, "run.index-recoverable")
    assert not report.valid
    shell(run, finding.fix)
    assert run.diagnose("ckpt-7").valid


def test_row_08_index_was_renamed(run: Run) -> None:
    """A download added a suffix to the index: the fix takes it off."""
    run.save(7)
    run.rename(INDEX, INDEX + ".txt")
    finding = only(run.diagnose("ckpt-7"), "run.index-missing")
    shell(run, finding.fix)
    assert run.diagnose("ckpt-7").valid


def test_row_09_data_shard_is_missing(run: Run) -> None:
    """The tensors of the missing shard are named and counted; the others are not."""
    run.whole(7, shards=5)
    run.remove("ckpt-7.data-00001-of-00005")
    report = run.diagnose()
    finding = only(report, "bundle.shard-missing")
    assert not report.valid
    assert finding.where.path == str(run / "ckpt-7.data-00001-of-00005")
    assert finding.lost is not None
    assert finding.lost.tensors == ("dense/kernel",)
    assert (finding.lost.parameters, finding.lost.of_parameters) == (32, PARAMETERS)


def test_row_10_shards_were_renamed(run: Run) -> None:
    """Names with another count than the index states: the fix renames them back."""
    run.save(7, shards=2)
    run.rename("ckpt-7.data-00000-of-00002", "ckpt-7.data-00000-of-00003")
    report = run.diagnose("ckpt-7")
    finding = only(report, "run.shards-renamed")
    assert not report.valid
    shell(run, finding.fix)
    assert run.diagnose("ckpt-7").valid


def test_row_10_header_counts_other_shards(run: Run) -> None:
    """A complete set of another count is read all the same; TensorFlow would not, so it is a warning."""
    run.save(7)
    patch_entry(run, b"", encode_header(2))
    report = run.diagnose("ckpt-7")
    assert report.valid
    assert only(report, "bundle.shard-count").severity == "warning"
    shell(run, only(report, "run.shards-renamed").fix)
    assert "bundle.shard-missing" in codes(run.diagnose("ckpt-7")) or run.diagnose("ckpt-7").valid


# -------------------------------------------------------------------------------------------------------- damaged data


def test_row_11_data_is_truncated(run: Run) -> None:
    """Expected and found sizes, and the tensors behind the cut."""
    run.save(7)
    data = run.read(DATA)
    run.write({DATA: data[:-100]})
    report = run.diagnose("ckpt-7")
    finding = only(report, "bundle.data-truncated")
    assert not report.valid
    assert (finding.expected, finding.found) == (f"at least {len(data)} bytes", f"{len(data) - 100} bytes")
    assert finding.lost is not None
    assert set(finding.lost.tensors) - {"frozen"} == {"embedding", "global_step"}
    assert finding.lost.parameters == 26


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "detect.empty"), (POINTER, "detect.lfs-pointer"), (PAGE, "detect.html-page"), (bytes(368), "detect.zeros")],
)
def test_row_11_something_else_lies_in_place_of_the_data(run: Run, data: bytes, code: str) -> None:
    """A stub, a page or zeros are called by their names, and everything is lost."""
    run.save(7)
    run.write({DATA: data})
    report = run.diagnose("ckpt-7")
    finding = only(report, code)
    assert not report.valid
    assert finding.lost is not None
    assert finding.lost.parameters == PARAMETERS


def test_row_12_flipped_byte_in_tensor_data(run: Run) -> None:
    """File, key and offset; one tensor is lost, and a quick look does not notice."""
    run.save(7)
    flip(run, DATA, 40)
    report = run.diagnose("ckpt-7")
    finding = only(report, "bundle.crc-mismatch")
    assert not report.valid
    assert (finding.where.path, finding.where.key, finding.where.offset) == (str(run / DATA), "dense/kernel", 32)
    assert finding.lost is not None
    assert finding.lost.tensors == ("dense/kernel",)
    assert codes(report, "error") == {"bundle.crc-mismatch"}
    assert run.diagnose("ckpt-7", quick=True).valid


def big_index() -> dict[str, bytes]:
    """A checkpoint whose index has several blocks."""
    names = {f"layer_{number:05d}/{'x' * 60}": np.zeros(1, np.float32) for number in range(9000)}
    return encode_bundle(names, "ckpt-7")


def test_row_13_flipped_byte_in_the_index(run: Run) -> None:
    """The damaged block is named by its offset; entries of the other blocks are still checked."""
    run.write(big_index())
    flip(run, INDEX, 300_000)
    report = run.diagnose("ckpt-7")
    finding = only(report, "table.block-crc")
    assert not report.valid
    assert finding.where.path == str(run / INDEX)
    assert finding.where.offset is not None
    assert 200_000 < finding.where.offset <= 300_000


def test_row_13_flipped_byte_in_the_only_block(run: Run) -> None:
    """With its only block damaged the index does not open: the same code, at offset 0."""
    run.save(7)
    flip(run, INDEX, 20)
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, "table.block-crc").where.offset == 0


def test_row_14_trailing_bytes_after_the_index(run: Run) -> None:
    """Junk after the footer is found by the magic before it; the fix cuts it off."""
    run.save(7)
    whole = run.read(INDEX)
    run.write({INDEX: whole + b"junk" * 5})
    finding = only(run.diagnose("ckpt-7"), "detect.trailing-junk")
    assert finding.where.offset == len(whole)
    shell(run, finding.fix)
    assert run.read(INDEX) == whole
    assert run.diagnose("ckpt-7").valid


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data[:-30], "detect.table-cut"),
        (lambda data: POINTER, "detect.lfs-pointer"),
        (lambda data: PAGE, "detect.html-page"),
        (lambda data: bytes(len(data)), "detect.zeros"),
    ],
    ids=["truncated", "lfs", "html", "zeros"],
)
def test_row_14_index_is_something_else(run: Run, change: object, code: str) -> None:
    """A cut index, a stub, a page and zeros each have their name."""
    run.save(7)
    run.write({INDEX: change(run.read(INDEX))})  # type: ignore[operator]
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, code).where.path == str(run / INDEX)


@pytest.mark.parametrize(("data", "code"), [(b"", "detect.empty"), (b"\x00\x00\x06\x08\x01", "table.too-short")])
def test_row_15_index_is_too_short(run: Run, data: bytes, code: str) -> None:
    """An empty index is called empty; a stump of one is too short."""
    run.save(7)
    run.write({INDEX: data})
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert code in codes(report, "error")


def test_row_15_index_was_compressed(run: Run) -> None:
    """gzip under the name of the index: the fix unpacks it."""
    run.save(7)
    whole = run.read(INDEX)
    run.write({INDEX: gzip.compress(whole)})
    finding = only(run.diagnose("ckpt-7"), "run.compressed")
    shell(run, finding.fix)
    assert run.read(INDEX) == whole


def test_row_16_metaindex_handle_is_damaged(run: Run) -> None:
    """TensorFlow does not look there: a warning, and the checkpoint is valid."""
    run.save(7)
    flip(run, INDEX, len(run.read(INDEX)) - 48)
    report = run.diagnose("ckpt-7")
    assert report.valid
    assert only(report, "table.metaindex").severity == "warning"


def test_row_17_header_entry_is_missing(run: Run) -> None:
    """The first key is a tensor."""
    run.save(7)
    run.write({INDEX: encode_table(table_items(run)[1:])})
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, "bundle.no-header")


def test_row_18_index_is_an_empty_table(run: Run) -> None:
    """A table without any entry."""
    run.save(7)
    run.write({INDEX: encode_table([])})
    assert only(run.diagnose("ckpt-7"), "bundle.no-header").severity == "error"


# ------------------------------------------------------------------------------------------------------------- entries


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"\x08\x01\x12\xff", "bundle.bad-entry"),
        (bytes.fromhex("0801 120d 120b 08ffffffffffffffffff01"), "bundle.bad-shape"),
        (bytes.fromhex("08c801 1200 2801"), "spec.unknown-dtype"),
    ],
    ids=["unparsable", "negative", "dtype"],
)
def test_row_19_entry_is_unreadable(run: Run, value: bytes, code: str) -> None:
    """Where TensorFlow aborts the process: a finding for the one key, the others are fine."""
    run.save(7)
    patch_entry(run, b"embedding", value)
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, code).where.key == "embedding"


def test_row_20_shape_and_size_disagree(run: Run) -> None:
    """Both numbers and the key."""
    run.save(7)
    patch_entry(run, b"embedding", encode_entry(BundleEntry(2, (5, 6), 0, 160, 200, 0)))
    finding = only(run.diagnose("ckpt-7"), "bundle.size-mismatch")
    assert finding.where.key == "embedding"
    assert "240" in str(finding.expected) and "200" in str(finding.found)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (BundleEntry(2, (5, 5), 0, 1 << 40, 200, 0), "bundle.data-truncated"),
        (BundleEntry(2, (5, 5), 9, 160, 200, 0), "bundle.shard-range"),
    ],
    ids=["offset", "shard"],
)
def test_row_21_place_is_outside_the_files(run: Run, entry: BundleEntry, code: str) -> None:
    """Found without reading data, with the tensor that is lost."""
    run.save(7)
    patch_entry(run, b"embedding", encode_entry(entry))
    finding = only(run.diagnose("ckpt-7", quick=True), code)
    assert finding.lost is not None
    assert finding.lost.tensors == ("embedding",)


def test_row_22_header_says_the_wrong_byte_order(run: Run) -> None:
    """Numbers would load swapped with valid checksums; a string tensor only reads in the right order."""
    run.write(encode_bundle({"w": np.ones(4, np.float32), "names": Strings([b"a", b"bc"], (2,))}, "ckpt-7"))
    patch_entry(run, b"", encode_header(1, big_endian=True))
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, "bundle.wrong-endian").lost is not None


def test_row_23_version_is_not_supported(run: Run) -> None:
    """min_consumer above ours."""
    run.save(7)
    patch_entry(run, b"", bytes.fromhex("0801 1a04 0801 1002"))
    assert only(run.diagnose("ckpt-7"), "bundle.version").severity == "error"


def test_row_24_index_and_data_of_two_steps(run: Run) -> None:
    """Whose data it is comes from the index of the other step, which has the very checksums."""
    run.whole(5, 6, 7)
    run.write({DATA: run.read("ckpt-5.data-00000-of-00001")})
    report = run.diagnose()
    finding = only(report, "run.mixed-steps")
    assert not report.valid
    assert "'ckpt-5'" in finding.message
    assert finding.lost is not None
    assert set(finding.lost.tensors) == set(KEYS) - {"frozen"}
    assert "bundle.crc-mismatch" in codes(report)


def test_row_24_without_the_other_step_the_counter_tells(run: Run) -> None:
    """Only the data is left of the other step: its own counter says which one it was."""
    run.save(7)
    run.write({DATA: encode_bundle(weights(5), "ckpt-5")["ckpt-5.data-00000-of-00001"]})
    finding = only(run.diagnose("ckpt-7"), "run.mixed-steps")
    assert (finding.found, finding.expected) == ("5", "7")


def test_row_25_text_mode_transfer_of_the_data(run: Run) -> None:
    """Every 0a has got a 0d, and the file has grown by their number."""
    rows = {"w": np.full((64, 4), 0x0A0B0C0D, np.uint32), "v": np.arange(600, dtype=np.int32)}
    run.write(encode_bundle(rows, "ckpt-7"))
    whole = run.read(DATA)
    run.write({DATA: whole.replace(b"\n", b"\r\n")})
    report = run.diagnose("ckpt-7")
    finding = only(report, "detect.text-damaged")
    assert not report.valid
    assert str(whole.count(b"\n")) in finding.message
    assert finding.expected == f"{len(whole)} bytes"


def test_row_25_text_mode_transfer_of_the_index(run: Run) -> None:
    """The index is proved by undoing the damage in memory."""
    tensors = {f"t{number}": np.zeros(10, np.float32) for number in range(40)}
    run.write(encode_bundle(tensors, "ckpt-7"))
    whole = run.read(INDEX)
    assert b"\n" in whole
    run.write({INDEX: whole.replace(b"\n", b"\r\n")})
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, "detect.text-damaged").where.path == str(run / INDEX)


# ----------------------------------------------------------------------------------------------------------- leftovers


def test_row_26_interrupted_save(run: Run) -> None:
    """The working directory of a save that never finished: a warning, and what is whole stays valid."""
    run.whole(6)
    run.write({"ckpt-7_temp/part-00000-of-00001.data-00000-of-00001": b"abc"})
    report = run.diagnose()
    assert report.valid
    assert only(report, "run.leftover-parts").severity == "warning"
    named = run.diagnose("ckpt-7")
    assert not named.valid
    assert codes(named) == {"path.not-found", "run.leftover-parts"}


@pytest.mark.parametrize("name", ["ckpt-7.index.tempstate1234567890", "checkpoint.tmp0123456789abcdef0123456789abcdef"])
def test_row_27_temporary_files(run: Run, name: str) -> None:
    """Files that a writer had not renamed yet: a warning, and the fix removes them."""
    run.whole(6)
    run.write({name: b"abc"})
    report = run.diagnose()
    finding = only(report, "run.leftover-file")
    assert report.valid
    assert finding.fix is not None
    shell(run, finding.fix.partition(": ")[2])
    assert run.diagnose().worst == "note"


# ------------------------------------------------------------------------------------------------------------ the path


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_rows_28_and_29_a_member_is_named(run: Run, name: str) -> None:
    """The checkpoint is meant and judged; a note says what TensorFlow would make of the name."""
    run.whole(7)
    report = run.diagnose(name)
    assert report.valid
    assert [checkpoint.prefix for checkpoint in report.checkpoints] == [str(run / "ckpt-7")]
    assert only(report, "run.member-given").fix == f"pass the prefix: {run / 'ckpt-7'}"


def test_row_29_the_manifest_is_named(run: Run) -> None:
    """It stands for its directory."""
    run.whole(6, 7)
    report = run.diagnose("checkpoint")
    assert report.valid
    assert [checkpoint.step for checkpoint in report.checkpoints] == [7, 6]


def test_row_30_a_directory_is_named(run: Run) -> None:
    """Its newest checkpoint is meant, and the note says which prefix to pass to TensorFlow."""
    run.whole(6, 7)
    assert only(run.diagnose(), "run.latest").where.path == str(run / "ckpt-7")


@pytest.mark.parametrize("name", ["ckpt", "ckpt-8", "ckpt-*", "ckpt-7/"])
def test_row_31_a_name_of_nothing(run: Run, name: str) -> None:
    """The nearest prefixes are named."""
    run.whole(7)
    report = openckpt.diagnose(str(run.directory) + "/" + name)
    finding = only(report, "path.not-found")
    assert not report.valid
    assert report.checkpoints == ()
    assert "ckpt-7" in finding.message


@pytest.mark.parametrize("name", ["a[1]", "back\\slash"])
def test_row_32_characters_that_tensorflow_takes_for_a_pattern(run: Run, name: str) -> None:
    """Read literally here; a note says that TensorFlow cannot."""
    inner = Run(run / name)
    inner.directory.mkdir()
    inner.whole(7)
    report = inner.diagnose()
    assert report.valid
    assert only(report, "run.special-characters").severity == "note"


@pytest.mark.parametrize("file", ["ckpt-7.index", "ckpt-7.data-00000-of-00001"])
def test_half_of_a_checkpoint_that_a_browser_renamed(run: Run, file: str) -> None:
    """Downloaded twice, one file is called "ckpt-7 (1)": that is no other checkpoint, and the command that mends it works."""
    run.whole(7)
    stem, _, suffix = file.rpartition(".")
    (run / file).rename(run / f"{stem} (1).{suffix}")
    report = run.diagnose()
    fixes = {
        finding.fix for finding in report.all_findings() if finding.fix is not None and finding.fix.startswith("mv ")
    }
    subprocess.run(["sh", "-c", fixes.pop()], check=True)
    assert not fixes
    assert run.diagnose().worst == "note"


def test_what_is_left_of_an_unfinished_save_is_not_to_be_deleted_first(run: Run) -> None:
    """While the index can still be copied from the working directory, its removal waits."""
    run.save(7)
    run.write({"ckpt-7_temp/part-00000-of-00001.index": run.read("ckpt-7.index")})
    run.remove("ckpt-7.index")
    report = run.diagnose()
    copy = only(report, "run.index-recoverable").fix or ""
    assert (only(report, "run.leftover-parts").fix or "").startswith("when 'ckpt-7' is whole again")
    subprocess.run(["sh", "-c", copy.partition(" && ")[0]], check=True)
    report = run.diagnose()
    assert report.valid
    assert (only(report, "run.leftover-parts").fix or "").startswith("when no training is writing here: rm -r")


def test_data_without_an_index_that_is_no_data(run: Run) -> None:
    """Fetching the index will not help whoever saved a web page as the data."""
    run.write({"ckpt-7.data-00000-of-00001": b"<!DOCTYPE html><html><title>Sign in</title></html>"})
    assert {"run.index-missing", "detect.html-page"} <= codes(run.diagnose(), "error")


def test_checkpoint_of_another_program_under_the_name_of_the_manifest(run: Run) -> None:
    """Flax calls its file so: it is named for what it is, however large, and no fix writes over it."""
    run.save(7)
    flax = b"\x82\xa4step\x01\xa6params\x81\xa1w\xc7\x04\x01abcd"
    for data in (flax, flax + bytes(20 << 20)):
        run.write({"checkpoint": data})
        finding = only(run.diagnose(), "detect.msgpack")
        assert finding.severity == "error"
        assert "printf" not in (finding.fix or "")
        with pytest.raises(openckpt.UnsupportedError) as caught:
            openckpt.open(run / "checkpoint")
        assert caught.value.code == "detect.msgpack"


def test_names_that_tensorflow_cannot_read_are_noted_in_a_directory_too(run: Run) -> None:
    """Row 32: the directory that was named is harmless, a checkpoint in it is not."""
    run.save(7, name="a[1]")
    assert "a[1]" in only(run.diagnose(), "run.special-characters").message


# ------------------------------------------------------------------------------------------------------------ contents


def graph(*keys: str) -> Strings:
    """An object graph with one variable per key."""
    children = tuple(Child(number + 1, f"v{number}") for number in range(len(keys)))
    nodes = [Node(children=children)]
    nodes += [Node(attributes=(Attribute("VARIABLE_VALUE", "", key),)) for key in keys]
    return Strings([encode_object_graph(ObjectGraph(tuple(nodes)))])


def test_row_33_no_object_graph(run: Run) -> None:
    """A name-based checkpoint is normal; the note says what Checkpoint.restore makes of it."""
    run.save(7)
    report = run.diagnose("ckpt-7")
    assert report.valid
    assert only(report, "run.name-based").severity == "note"


def test_row_34_graph_names_absent_keys(run: Run) -> None:
    """All absent keys at once."""
    present = "v0/.ATTRIBUTES/VARIABLE_VALUE"
    absent = ("v1/.ATTRIBUTES/VARIABLE_VALUE", "v2/.ATTRIBUTES/VARIABLE_VALUE")
    run.write(encode_bundle({present: np.zeros(3, np.float32), GRAPH_KEY: graph(present, *absent)}, "ckpt-7"))
    report = run.diagnose("ckpt-7")
    assert not report.valid
    said = " ".join(
        finding.message + str(finding.where.key)
        for finding in report.all_findings()
        if finding.code == "graph.key-absent"
    )
    assert all(key in said for key in absent)
    assert present not in said


def test_row_35_target_of_another_shape_or_dtype(run: Run) -> None:
    """Everything is compared before the first array is filled: a mismatch leaves all of them as they were."""
    run.save(7)
    good, bad = np.zeros(8, np.float32), np.zeros((5, 4))
    with openckpt.open(run / "ckpt-7") as ckpt, pytest.raises(openckpt.CheckpointError) as caught:
        ckpt.read_many(["dense/bias", "embedding"], out={"dense/bias": good, "embedding": bad})
    assert caught.value.code == "spec.bad-target"
    assert not good.any()


def test_row_36_bytes_that_belong_to_no_tensor(run: Run) -> None:
    """Extra bytes at the end of the data are a warning, which TensorFlow never notices."""
    run.save(7)
    run.write({DATA: run.read(DATA) + b"0123456789"})
    report = run.diagnose("ckpt-7")
    assert report.valid
    assert only(report, "bundle.unused-bytes").severity == "warning"


def test_row_36_shards_of_an_earlier_save(run: Run) -> None:
    """Data files of another count beside a whole checkpoint take room and harm nothing; the fix removes exactly these."""
    run.whole(7)
    run.write({"ckpt-7.data-00000-of-00002": b"old", "ckpt-7.data-00001-of-00002": b"old"})
    for name in ("", "ckpt-7"):
        report = run.diagnose(name)
        assert report.valid
        assert only(report, "run.stale-shards").severity == "note"
    shell(run, only(report, "run.stale-shards").fix)
    assert sorted(path.name for path in run.directory.iterdir()) == ["checkpoint", DATA, INDEX]
    assert run.diagnose().worst == "note"


def test_row_37_v1_shard_is_missing(run: Run) -> None:
    """The count in the names says how many there should be."""
    from openckpt.formats.v1 import encode_v1

    tensors = {key: value for key, value in weights().items() if value.size}
    run.write(encode_v1(tensors, "model.ckpt-7", shards=2))
    run.remove("model.ckpt-7-00001-of-00002")
    report = run.diagnose()
    assert not report.valid
    assert any("00001-of-00002" in finding.message + finding.where.path for finding in report.all_findings())
    assert codes(report, "error") & {"v1.shard-missing"}


def test_row_38_v1_flipped_byte(run: Run) -> None:
    """Which block; a V1 checkpoint has no other checksum."""
    from openckpt.formats.v1 import encode_v1

    tensors = {key: value for key, value in weights().items() if value.size}
    run.write(encode_v1(tensors, "model.ckpt-7"))
    flip(run, "model.ckpt-7", 40)
    report = run.diagnose("model.ckpt-7")
    assert not report.valid
    assert only(report, "table.block-crc").where.offset == 0


def halves(value: np.ndarray) -> Sliced:
    return Sliced(value.shape, {((0, 2),): value[:2], ((2, 2),): value[2:]})


def test_row_39_slices_that_tensorflow_cannot_assemble(run: Run) -> None:
    """float16 in pieces reads here; a note says that TensorFlow cannot."""
    run.write(encode_bundle({"w": halves(np.arange(4, dtype=np.float16))}, "ckpt-7"))
    report = run.diagnose("ckpt-7")
    assert report.valid
    assert only(report, "bundle.slice-unreadable").severity == "note"


@pytest.mark.parametrize(("second", "code"), [((3, 1), "slices.gap"), ((1, 3), "slices.overlap")])
def test_row_40_slices_leave_a_gap_or_overlap(run: Run, second: tuple[int, int], code: str) -> None:
    """What the pieces cover."""
    value = np.arange(4, dtype=np.float32)
    start, length = second
    pieces = {((0, 2),): value[:2], (second,): value[start : start + length]}
    run.write(encode_bundle({"w": Sliced((4,), pieces)}, "ckpt-7"))
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, code).where.key == "w"


def test_row_41_index_is_a_directory(run: Run) -> None:
    """Said as it is."""
    run.save(7)
    run.remove(INDEX)
    (run / INDEX).mkdir()
    report = run.diagnose("ckpt-7")
    assert not report.valid
    assert only(report, "run.index-unreadable").where.path == str(run / INDEX)


def test_row_42_other_formats_are_named(run: Run) -> None:
    """An npz file is read, and a note says that TensorFlow's functions do not."""
    with open(run / "weights.npz", "wb") as file:
        np.savez(file, w=np.ones(3))
    report = run.diagnose("weights.npz")
    assert report.valid
    assert only(report, "run.other-format").severity == "note"


def test_row_42_a_pickle_is_named_and_never_run(run: Run) -> None:
    """A pickle under the name of a checkpoint."""
    run.write({"model.ckpt": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93."})
    report = run.diagnose("model.ckpt")
    assert not report.valid
    assert "detect.pickle" in codes(report, "error")


def test_fixes_quote_for_the_shell(run: Run) -> None:
    """A directory with a quote and a space in its name does not break the commands."""
    odd = Run(run / "it's mine; echo")
    odd.directory.mkdir()
    odd.save(7)
    fix = only(odd.diagnose(), "run.no-manifest").fix
    assert fix is not None
    assert str(odd / "checkpoint") in shlex.split(fix)
    shell(odd, fix)
    assert openckpt.latest_checkpoint(str(odd.directory)) is not None
