"""V1 checkpoints: which files belong together, what their tables say, and values of every dtype (formats 3)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from openckpt.errors import (
    CorruptionError,
    LimitError,
    MismatchError,
    NotFoundError,
    UnsupportedError,
    Where,
)
from openckpt.formats.bundle import Sliced, encode_bundle
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.objectgraph import Node, ObjectGraph, encode_object_graph
from openckpt.formats.slicekeys import FULL, encode_slice_key, encode_slice_proto
from openckpt.formats.sstable import encode_table
from openckpt.formats.v1 import encode_v1, find_v1_files, open_v1
from openckpt.formats.v1 import values as v1_values
from openckpt.formats.wire import encode_field, encode_varint
from openckpt.limits import Limits
from openckpt.storage.memory import MemorySource, MemoryStore
from refusals import code_of

VALUES = {
    "float32": np.array([[1.5, -0.0], [np.nan, 3.25]], np.float32),
    "float64": np.array([1e300, -1.5]),
    "int32": np.array([0, 1, -1, 127, 128, 2**31 - 1, -(2**31)], np.int32),
    "uint8": np.array([0, 127, 128, 255], np.uint8),
    "int8": np.array([-128, -1, 0, 127], np.int8),
    "int16": np.array([-32768, 300], np.int16),
    "uint16": np.array([65535, 0], np.uint16),
    "int64": np.array([2**63 - 1, -(2**63), 0, -1], np.int64),
    "bool": np.array([True, False, True]),
    "float16": np.array([1.5, -2.0, np.inf], np.float16),
    "complex64": np.array([1 + 2j, -3.5j], np.complex64),
    "complex128": np.array([[1 - 1j]], np.complex128),
    "string": np.array([b"a", b"", b"\x00\xff"], object),
    "scalar": np.float32(7.0).reshape(()),
    "word": np.array(b"hello", object).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "none": np.array([], object),
}


def open_files(files: dict[str, bytes], path: str = "m", **limits: int):
    return open_v1(MemoryStore(files), path, limits=Limits(**limits))


def codes(reader, **options) -> list[str]:
    return [finding.code for finding in reader.validate(**options)]


def same(read: np.ndarray, expected: np.ndarray) -> bool:
    if expected.dtype == object:
        return read.dtype == object and read.shape == expected.shape and read.tolist() == expected.tolist()
    return (read.dtype, read.shape, read.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def test_every_dtype_comes_back_bit_for_bit():
    """Whole, scalar and empty; in table order; no finding."""
    reader = open_files(encode_v1(VALUES, "m"))

    assert list(reader.keys()) == sorted(VALUES)
    assert reader.format == "table-v1"
    assert reader.producer == 1
    for key, value in VALUES.items():
        assert reader.spec(key).shape == value.shape
        assert reader.spec(key).nbytes is None
        assert same(reader.read(key), value), key
        assert reader.locate(key) == ()
    assert codes(reader) == []
    assert reader.graph() is None


@pytest.mark.parametrize("name", ["qint8", "quint8", "qint32"])
def test_quantised_integers_come_back_as_their_integers(name):
    """Their dtype is in the list of tensors only."""
    value = np.array([1, -1, 100], BY_NAME[name].numpy()) if name != "quint8" else np.array([1, 200], np.uint8)
    reader = open_files(encode_v1({"q": value}, "m", dtypes={"q": name}))
    assert reader.spec("q").dtype == name
    assert same(reader.read("q"), value)


def test_a_dtype_that_v1_cannot_hold_is_refused_by_the_encoder():
    """bfloat16 came after V1."""
    with pytest.raises(UnsupportedError) as caught:
        encode_v1({"x": np.zeros(2, np.uint32)}, "m")
    assert caught.value.code == "v1.dtype"


def test_old_files_state_no_version():
    """The first releases of TensorFlow wrote producer 0, which proto3 leaves out."""
    reader = open_files(encode_v1({"a": VALUES["int32"]}, "m", producer=0))
    assert reader.producer == 0
    assert same(reader.read("a"), VALUES["int32"])


def test_names_are_bytes_with_surrogates_where_they_are_not_utf8():
    """And are found under their slice keys, escapes included."""
    reader = open_files(encode_v1({b"n\xff\x00a": VALUES["int8"], "é": VALUES["uint8"]}, "m"))
    assert list(reader.keys()) == ["n\udcff\x00a", "é"]
    assert same(reader.read("n\udcff\x00a"), VALUES["int8"])


MATRIX = np.arange(1500, dtype=np.float32).reshape(5, 300)
PIECES = {
    ((0, 2), FULL): MATRIX[:2],
    ((2, 3), (0, 100)): MATRIX[2:, :100],
    ((2, 3), (100, 200)): MATRIX[2:, 100:],
}


def test_slices_are_put_together():
    """The partition of formats 2.9, in one table."""
    reader = open_files(encode_v1({"w": Sliced((5, 300), PIECES), "b": VALUES["bool"]}, "m"))
    assert reader.spec("w").shape == (5, 300)
    assert len(reader.pieces("w")) == 3
    assert same(reader.read("w"), MATRIX)
    assert codes(reader) == []


REGIONS = {
    "a stored piece": ((0, 2), FULL),
    "across all three": ((1, 3), (50, 100)),
    "one row of two": ((4, 1), FULL),
    "no row": ((2, 0), FULL),
    "everything": (FULL, FULL),
}


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_is_read_from_the_pieces_that_touch_it(name):
    """Whatever its pieces are; a region of a tensor that is stored whole is read the same way."""
    region = tuple((0, size) if e == FULL else e for e, size in zip(REGIONS[name], MATRIX.shape, strict=True))
    expected = MATRIX[tuple(slice(start, start + length) for start, length in region)]
    reader = open_files(encode_v1({"w": Sliced((5, 300), PIECES), "whole": MATRIX}, "m"))
    assert same(reader.read_slice("w", REGIONS[name]), expected)
    assert same(reader.read_slice("whole", REGIONS[name]), expected)


def test_the_pieces_that_a_region_does_not_touch_may_be_lost():
    """A piece whose values are not there costs the regions that need it, and no others."""
    files = {
        f"m-{number:05d}-of-00002": encode_v1({"w": Sliced((5, 300), dict(part))}, "x")["x"]
        for number, part in enumerate((list(PIECES.items())[:1], list(PIECES.items())[1:]))
    }
    del files["m-00001-of-00002"]
    reader = open_files(files)
    assert same(reader.read_slice("w", ((0, 2), FULL)), MATRIX[:2])
    assert code_of(reader.read_slice, "w", ((1, 2), FULL)) == "slices.gap"


def test_slices_are_listed_for_partitioned_tensors_only():
    """As `BundleReader.slices`; a region outside the tensor has a code."""
    reader = open_files(encode_v1({"w": Sliced((5, 300), PIECES), "whole": MATRIX}, "m"))
    assert set(reader.slices("w")) == set(PIECES)
    assert reader.slices("whole") == ()
    assert code_of(reader.read_slice, "w", ((0, 6), FULL)) == "slices.bad-extent"
    assert code_of(reader.read_slice, "w", (FULL,)) == "slices.bad-extent"


def test_slices_of_one_tensor_in_several_shards_are_put_together():
    """Each shard lists its own."""
    files = {}
    for number, (extents, piece) in enumerate(PIECES.items()):
        files[f"m-{number:05d}-of-00003"] = encode_v1({"w": Sliced((5, 300), {extents: piece})}, "x")["x"]
    reader = open_files(files)
    assert same(reader.read("w"), MATRIX)
    assert codes(reader) == []
    del files["m-00001-of-00003"]
    reader = open_files(files)
    assert code_of(reader.read, "w") == "slices.gap"
    (finding,) = reader.validate()
    assert (finding.code, finding.lost.tensors, finding.lost.parameters) == ("v1.shard-missing", ("w",), 1500)


def test_slices_with_a_gap_or_an_overlap_are_refused_and_reported():
    """By the list alone, without reading values."""
    pieces = dict(PIECES)
    pieces.pop(((2, 3), (0, 100)))
    reader = open_files(encode_v1({"w": Sliced((5, 300), pieces)}, "m"))
    assert code_of(reader.read, "w") == "slices.gap"
    (finding,) = reader.validate(data=False)
    assert (finding.code, finding.lost.tensors, finding.lost.parameters) == ("slices.gap", ("w",), 1500)

    pieces = {**PIECES, ((0, 1), FULL): MATRIX[:1]}
    assert code_of(open_files(encode_v1({"w": Sliced((5, 300), pieces)}, "m")).read, "w") == "slices.overlap"


SHARDED = encode_v1({key: VALUES[key] for key in ("float32", "int32", "string", "bool")}, "m", shards=2)


@pytest.mark.parametrize("path", ["m", "m-?????-of-00002", "m-00000-of-00002", "m-00001-of-00002"])
def test_a_sharded_checkpoint_opens_by_prefix_pattern_and_any_shard(path):
    """And lists the tensors of all shards in one order."""
    reader = open_files(SHARDED, path)
    assert list(reader.keys()) == ["bool", "float32", "int32", "string"]
    assert reader.files == ("memory:m-00000-of-00002", "memory:m-00001-of-00002")
    for key in reader.keys():  # noqa: SIM118 - a reader is no dict
        assert same(reader.read(key), VALUES[key])


def test_a_missing_shard_is_named_and_the_rest_is_read():
    """TensorFlow says nothing until a tensor is not found."""
    reader = open_files({"m-00001-of-00002": SHARDED["m-00001-of-00002"]})
    assert list(reader.keys()) == ["bool", "string"]
    assert same(reader.read("bool"), VALUES["bool"])
    (finding,) = reader.validate()
    assert (finding.code, finding.severity) == ("v1.shard-missing", "error")
    assert finding.where == Where("memory:m-00000-of-00002")


def test_a_table_merely_named_like_a_shard_is_a_set_of_one():
    """An export called export-00000-of-00001."""
    table = encode_v1({"a": VALUES["int8"]}, "x")["x"]
    for path in ("export-00000-of-00001", "export", "export-?????-of-00001"):
        reader = open_files({"export-00000-of-00001": table}, path)
        assert same(reader.read("a"), VALUES["int8"])
        assert codes(reader) == []


def test_a_file_of_the_very_name_wins_over_shards_of_that_prefix():
    """Literal names first."""
    files = {**SHARDED, "m": encode_v1({"a": VALUES["int8"]}, "m")["m"]}
    assert find_v1_files(MemoryStore(files), "m").paths == ("m",)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["m-00000-of-00003", "m-00000-of-00001"], ["m-00000-of-00001"]),
        (["m-00000-of-00003", "m-00001-of-00003", "m-00000-of-00002"], ["m-00000-of-00003", "m-00001-of-00003"]),
        (["m-00000-of-00001", "m-00000-of-00002", "m-00001-of-00002"], ["m-00000-of-00002", "m-00001-of-00002"]),
    ],
)
def test_of_several_sets_a_complete_one_is_chosen_then_the_larger(names, expected):
    """Leftovers of a run with another number of parameter servers."""
    assert find_v1_files(MemoryStore(dict.fromkeys(names, b"")), "m").paths == tuple(expected)


def test_a_path_without_files_is_reported_by_the_system():
    """FileNotFoundError, for `openckpt.open` to suggest neighbours."""
    with pytest.raises(FileNotFoundError):
        open_files({"other": b""}, "m")


def test_a_name_that_states_a_hundred_million_shards_is_refused():
    """Names are data as well."""
    with pytest.raises(LimitError):
        open_files({"m-00000-of-99999999": b""}, "m")


def test_a_missing_key_suggests_near_names_and_a_view_is_refused():
    """As every reader does."""
    reader = open_files(encode_v1({"dense/kernel": VALUES["int8"]}, "m"))
    with pytest.raises(NotFoundError, match="dense/kernel"):
        reader.read("dense/kernal")
    with pytest.raises(UnsupportedError) as caught:
        reader.view("dense/kernel")
    assert caught.value.code == "spec.no-view"


def test_values_are_read_into_given_arrays_all_of_them_checked_first():
    """A target that does not fit leaves the others untouched."""
    reader = open_files(encode_v1(VALUES, "m"))
    out = {"float32": np.zeros((2, 2), np.float32), "int32": np.zeros(7, np.int32)}
    read = reader.read_many(["int32", "float32", "string"], out=out)
    assert list(read) == ["int32", "float32", "string"]
    assert read["float32"] is out["float32"]
    assert same(out["float32"], VALUES["float32"])

    untouched = np.zeros(7, np.int32)
    with pytest.raises(MismatchError):
        reader.read_many(["int32", "float32"], out={"int32": untouched, "float32": np.zeros((4,), np.float32)})
    assert not untouched.any()


def test_an_object_graph_in_a_v1_table_is_read():
    """Rare, and legal."""
    data = encode_object_graph(ObjectGraph((Node(),)))
    tensors = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(data, object).reshape(())}
    assert open_files(encode_v1(tensors, "m")).graph() == ObjectGraph((Node(),))
    wrong = {"_CHECKPOINTABLE_OBJECT_GRAPH": VALUES["int8"]}
    assert code_of(open_files(encode_v1(wrong, "m")).graph) == "graph.not-a-string"


# ------------------------------------------------------------------------------------------------- hand-made tables


def tensor(name=b"a", dims=(2,), enum=1, slices=((FULL,),), extra=b"") -> bytes:
    shape = b"".join(encode_field(2, encode_field(1, size) if size else b"") for size in dims)
    record = encode_field(1, name) + encode_field(2, shape) + encode_field(3, enum)
    return encode_field(1, record + extra + b"".join(encode_field(4, encode_slice_proto(s)) for s in slices))


def meta(*tensors: bytes, versions: bytes = b"\x08\x01") -> bytes:
    return encode_field(1, b"".join(tensors) + encode_field(2, versions))


def data(proto: bytes, name=b"a", extents=(FULL,)) -> bytes:
    body = encode_field(1, name) + encode_field(2, encode_slice_proto(extents)) + encode_field(3, proto)
    return encode_field(2, body)


def table(head: bytes, values: dict[bytes, bytes]) -> dict[str, bytes]:
    return {"m": encode_table(sorted({b"": head, **values}.items()))}


KEY = encode_slice_key(b"a", (FULL,))
FLOATS = encode_field(5, np.array([1, 2], "<f4").tobytes())


def test_unpacked_values_read_like_packed_ones():
    """One field per element, or some of each; the last half of a varint may not start a new field."""
    unpacked = b"".join(b"\x2d" + np.float32(x).tobytes() for x in (1, 2))
    reader = open_files(table(meta(tensor()), {KEY: data(unpacked)}))
    assert reader.read("a").tolist() == [1.0, 2.0]
    mixed = b"\x38" + encode_varint(300) + encode_field(7, encode_varint(2**64 - 1) + b"\x05") + b"\x38\x00"
    reader = open_files(table(meta(tensor(dims=(4,), enum=3)), {KEY: data(mixed)}))
    assert reader.read("a").tolist() == [300, -1, 5, 0]


def test_integers_longer_than_a_chunk_are_decoded_whole(monkeypatch):
    """Varints of every length, cut anywhere."""
    monkeypatch.setattr(v1_values, "_CHUNK", 7)
    numbers = np.array([(1 << bits) - 1 for bits in range(64)] + [-(1 << bits) for bits in range(64)], np.int64)
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.concatenate([numbers] * 4))
    reader = open_files(encode_v1({"n": numbers}, "m"))
    assert np.array_equal(reader.read("n"), numbers)


REFUSED_META = [
    (None, "v1.no-meta"),
    (b"\x08\x01\x1a\x02\x08\x01", "v1.not-v1"),
    (b"", "v1.not-v1"),
    (b"\x12\x00", "v1.not-v1"),
    (b"\x0a\x05", "v1.bad-meta"),
    (encode_field(1, b"\x0b"), "v1.bad-meta"),
    (encode_field(1, b"\x0a\x02\x0a\x05"), "v1.bad-meta"),
    (meta(tensor(), tensor()), "v1.duplicate-name"),
    (meta(tensor(dims=(-1,))), "v1.bad-shape"),
    (meta(tensor(dims=(1,) * 255)), "limits.exceeded"),
    (meta(tensor(), versions=b"\x08\x02\x10\x02"), "v1.version"),
    (meta(tensor(), versions=b"\x08\x01\x18\x01"), "v1.version"),
    (meta(tensor(), versions=b"\x08\x01\x1a\x01\x01"), "v1.version"),
]


@pytest.mark.parametrize(("head", "code"), REFUSED_META)
def test_a_table_whose_list_is_wrong_is_refused_with_its_code(head, code):
    """On opening: nothing is listed that was not parsed."""
    values = {KEY: data(FLOATS)}
    files = {"m": encode_table(sorted(values.items()))} if head is None else table(head, values)
    assert code_of(open_files, files) == code


def test_the_index_of_a_v2_checkpoint_is_no_v1_checkpoint():
    """It shares magic and empty key; TensorFlow opens it as an empty checkpoint and restores nothing."""
    files = encode_bundle({"a": np.zeros(2, np.float32)}, "m")
    assert code_of(open_files, {"m": files["m.index"]}) == "v1.not-v1"


REFUSED_VALUE = [
    ({}, "v1.slice-missing"),
    ({KEY: b""}, "v1.bad-value"),
    ({KEY: b"\x12\x7f"}, "v1.bad-value"),
    ({KEY: b"\x12\x00"}, "v1.bad-value"),
    ({KEY: data(b"\x2a\x7f")}, "v1.bad-value"),
    ({KEY: data(b"")}, "v1.value-count"),
    ({KEY: data(encode_field(5, b"\0" * 4))}, "v1.value-count"),
    ({KEY: data(encode_field(5, b"\0" * 12))}, "v1.value-count"),
    ({KEY: data(encode_field(5, b"\0" * 7))}, "v1.bad-value"),
    ({KEY: data(encode_field(6, b"\0" * 16))}, "v1.value-count"),
    ({KEY: data(FLOATS, name=b"b")}, "v1.slice-mismatch"),
    ({KEY: data(FLOATS, extents=((0, 2),))}, "v1.slice-mismatch"),
    ({KEY: data(FLOATS, extents=())}, "v1.slice-mismatch"),
]


@pytest.mark.parametrize(("values", "code"), REFUSED_VALUE)
def test_a_value_that_does_not_fit_its_list_is_refused_and_reported(values, code):
    """The same code from `read` and from `validate`, which adds what is lost."""
    reader = open_files(table(meta(tensor()), values))
    assert code_of(reader.read, "a") == code
    (finding,) = reader.validate()
    assert (finding.code, finding.lost.tensors, finding.lost.parameters) == (code, ("a",), 2)
    assert codes(reader, data=False) == []


@pytest.mark.parametrize(
    ("proto", "code"),
    [
        (encode_field(7, b"\x80"), "v1.bad-value"),
        (encode_field(7, b"\xff" * 10 + b"\x01\x00"), "v1.bad-value"),
        (encode_field(7, b"\x80" * 40 + b"\x01\x00"), "v1.bad-value"),
        (encode_field(7, b"\x01"), "v1.value-count"),
        (encode_field(7, b"\x01\x02\x03"), "v1.value-count"),
    ],
)
def test_varints_that_are_none_are_refused(proto, code):
    """Cut, or longer than ten bytes."""
    reader = open_files(table(meta(tensor(enum=3)), {KEY: data(proto)}))
    assert code_of(reader.read, "a") == code


def test_a_shape_larger_than_the_values_takes_no_memory():
    """A billion elements claimed, two stored: refused by the count, before anything is allocated."""
    reader = open_files(table(meta(tensor(dims=(10**9,))), {KEY: data(FLOATS)}))
    assert code_of(reader.read, "a") == "v1.value-count"
    halves = (((0, 1 << 40),), ((1 << 40, 1 << 40),))
    values = {encode_slice_key(b"a", s): data(FLOATS, extents=s) for s in halves}
    reader = open_files(table(meta(tensor(dims=(1 << 41,), slices=halves)), values))
    assert code_of(reader.read, "a") == "v1.value-count"
    reader = open_files(table(meta(tensor(dims=(1 << 62, 1 << 62))), {KEY: data(FLOATS)}))
    assert code_of(reader.read, "a") == "limits.exceeded"


def test_unknown_dtypes_and_ranks_are_listed_but_not_read():
    """Number 99, an unknown rank, and a rank that numpy has not."""
    unknown_rank = encode_field(1, encode_field(1, b"c") + encode_field(2, b"\x18\x01") + b"\x18\x01")
    deep = tensor(b"d", (1,) * 65)
    head = meta(tensor(enum=99), tensor(b"b", enum=14), unknown_rank, deep)
    reader = open_files(table(head, {}))
    assert reader.spec("a").dtype == "unknown-99"
    assert reader.spec("c").shape is None
    assert [code_of(reader.read, key) for key in "abcd"] == [
        "spec.unknown-dtype", "v1.slice-missing", "v1.bad-shape", "v1.rank",
    ]  # fmt: skip
    stored = open_files(table(meta(tensor(enum=14)), {KEY: data(FLOATS)}))
    assert code_of(stored.read, "a") == "v1.dtype"


def test_a_tensor_without_any_slice_is_a_gap():
    """No TensorFlow lists one."""
    assert code_of(open_files(table(meta(tensor(slices=())), {})).read, "a") == "slices.gap"


def test_too_many_slices_are_refused_before_they_are_parsed():
    """The limit is the caller's."""
    head = meta(tensor(slices=(((0, 1),),) * 11))
    with pytest.raises(LimitError):
        open_files(table(head, {}), slices=10).read("a")


def test_values_that_nobody_lists_are_warned_of():
    """TensorFlow cannot see them either."""
    reader = open_files(table(meta(tensor()), {KEY: data(FLOATS), b"\x00zzz": b"x"}))
    (finding,) = reader.validate()
    assert (finding.code, finding.severity) == ("v1.unlisted-value", "warning")


def test_shards_that_disagree_about_a_tensor_are_refused():
    """Parts of two saves under one name."""
    files = {
        "m-00000-of-00002": encode_v1({"w": np.zeros(2, np.float32)}, "x")["x"],
        "m-00001-of-00002": encode_v1({"w": np.zeros(3, np.float32)}, "x")["x"],
    }
    assert code_of(open_files, files) == "v1.conflict"


def test_a_damaged_block_costs_the_tensors_in_it_and_no_others():
    """Two tensors large enough for blocks of their own, a bit of one flipped."""
    tensors = {"a": np.zeros(200_000, np.float32), "b": np.ones(200_000, np.float32), "c": VALUES["int8"]}
    whole = bytearray(encode_v1(tensors, "m")["m"])
    whole[whole.index(np.float32(1).tobytes() * 100) + 1000] ^= 1
    reader = open_files({"m": bytes(whole)})

    assert code_of(reader.read, "b") == "table.block-crc"
    assert same(reader.read("a"), tensors["a"])
    damaged, lost = reader.validate()
    assert damaged.code == "table.block-crc"
    assert (lost.code, lost.lost.tensors, lost.lost.parameters) == ("v1.slice-missing", ("b",), 200_000)
    assert lost.lost.of_parameters == 400_004


def test_reading_holds_on_to_a_few_small_blocks_only():
    """A table that was read whole is not kept in memory."""
    tensors = {f"t{i}": np.zeros(60_000, np.float32) for i in range(12)}
    reader = open_files(encode_v1(tensors, "m"))
    reader.read_many(list(tensors))
    (shard,) = reader.shards
    assert len(shard.table._searches) <= 4


def test_listing_imports_neither_numpy_nor_protobuf(tmp_path):
    """``openckpt ls`` of a V1 checkpoint starts as fast as of a bundle."""
    (tmp_path / "m").write_bytes(encode_v1(VALUES, "m")["m"])
    program = (
        "import sys; from openckpt.storage import LOCAL; from openckpt.formats.v1 import open_v1;"
        "assert len(list(open_v1(LOCAL, sys.argv[1]).items())) == 17;"
        "sys.exit(any(m in sys.modules for m in ('google.protobuf', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "m")]).returncode == 0


def test_files_are_closed_when_opening_fails():
    """A shard that is no table leaves none of the others open."""
    still_open = set()

    class Source(MemorySource):
        def close(self):
            still_open.discard(self.path)

    class Watched(MemoryStore):
        def open(self, path):
            still_open.add(self.display(path))
            return Source(self.display(path), super().open(path).read_at(0, self.stat(path).size))

    store = Watched({**SHARDED, "m-00001-of-00002": b"no table" * 20})
    with pytest.raises(CorruptionError) as caught:
        open_v1(store, "m")
    assert caught.value.code == "table.bad-magic"
    assert not still_open


def test_progress_is_told_of_every_block():
    """The doctor draws a bar."""
    calls = []
    reader = open_files(encode_v1(VALUES, "m"))
    assert list(reader.validate(progress=lambda *args: calls.append(args))) == []
    assert calls
