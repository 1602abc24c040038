"""The header of a dual file held against the index of its checkpoint."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dual_bytes import ROWS, VALUES, encode_dual, shard_of
from openckpt.formats.bundle import Sliced, Strings, open_bundle
from openckpt.formats.bundle.merging import merge_indexes
from openckpt.formats.dual import index_of_dual
from openckpt.storage.memory import MemoryStore

NAMED = {
    b"a": np.arange(3, dtype=np.int16),
    b"s": Strings([b"hi"]),
    b"w": VALUES[b"w"],
    b"\xff": np.ones(2, np.float16),
}


def said_of(files: dict[str, bytes]) -> dict[str, str]:
    """Return the findings about the whole checkpoint, without the one that is always there."""
    reader = open_bundle(MemoryStore(files), "p")
    return {f.code: f.severity for f in reader.validate(data=False) if f.code != "bundle.safetensors-header"}


def with_index_of(values: dict[bytes, Any], other: dict[bytes, Any]) -> dict[str, bytes]:
    """The data file of one checkpoint under the index of another."""
    return {**encode_dual(values, "p"), "p.index": encode_dual(other, "p")["p.index"]}


def test_a_header_that_agrees_with_the_index_is_no_finding() -> None:
    """In one shard and in several, an empty one among them."""
    for shards in (1, 2, 7):
        assert said_of(encode_dual(NAMED, "p", shards=shards)) == {}
    assert said_of(encode_dual({}, "p")) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {b"a": np.arange(1, 4, dtype=np.int16)},
        {b"a": np.arange(3, dtype=np.uint16)},
        {b"a": np.arange(3, dtype=np.int16).reshape(3, 1)},
        {b"\xff": np.ones(2, ml_dtypes.bfloat16)},
        {b"s": Strings([b"ho"])},
        {b"s": Strings([b"hi"], (1,))},
        {b"\xff": np.zeros(2, np.float16)},
        {b"w": Sliced((3, 2), {ROWS[0]: np.ones((1, 2), np.int64), ROWS[1]: np.ones((2, 2), np.int64)})},
    ],
)  # fmt: skip
def test_an_index_that_says_otherwise_is_a_warning(changed: dict[bytes, Any]) -> None:
    """Of value, type, shape or place of one tensor; no tensor is read."""
    assert said_of(with_index_of(NAMED, {**NAMED, **changed})) == {"dual.differs": "warning"}


def index_with(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The same data file under an index whose entry of ``a`` is patched."""
    shard = shard_of(files["p.data-00000-of-00001"])
    entries = tuple(entry._replace(**changes) if entry.key == b"a" else entry for entry in shard.entries)
    return {**files, "p.index": index_of_dual([type(shard)(shard.path, entries)])}


def test_a_tensor_in_another_place_is_a_warning() -> None:
    """A patched offset of a tensor whose bytes are the same elsewhere."""
    files = encode_dual({b"a": np.zeros(3), b"b": np.zeros(3)}, "p")
    (other,) = [entry.offset for entry in shard_of(files["p.data-00000-of-00001"]).entries if entry.key == b"b"]

    assert said_of(index_with(files, offset=other))["dual.differs"] == "warning"


def test_an_index_that_renames_or_leaves_out_is_a_note() -> None:
    """What an index made anew over the same data file looks like."""
    files = encode_dual({b"a": np.arange(3), b"b": np.ones(2)}, "p")

    assert said_of(index_with(files, key=b"c")) == {"dual.other-names": "note"}


def test_a_damaged_header_is_a_warning_and_the_checkpoint_is_whole() -> None:
    """TensorFlow never looks at it."""
    files = encode_dual(NAMED, "p")
    data = bytearray(files["p.data-00000-of-00001"])
    data[data.index(b"I16") + 2] = ord("7")
    damaged = {**files, "p.data-00000-of-00001": bytes(data)}

    assert said_of(damaged) == {"dual.header-checksum": "warning"}
    assert open_bundle(MemoryStore(damaged), "p").read("a").tolist() == [0, 1, 2]


def test_a_data_file_cut_short_is_one_finding() -> None:
    """Its header does not fit any more either, which is the same fault."""
    files = encode_dual(NAMED, "p")
    cut = {**files, "p.data-00000-of-00001": files["p.data-00000-of-00001"][:-1]}

    assert said_of(cut) == {"bundle.data-truncated": "error"}


def test_a_header_that_no_index_accounts_for_is_not_parsed() -> None:
    """Megabytes of header before a tensor of three numbers."""
    many = {b"%06d" % number: np.zeros(0, np.int8) for number in range(2000)}
    files = encode_dual({**many, b"a": np.arange(3)}, "p")
    shard = shard_of(files["p.data-00000-of-00001"])
    few = type(shard)(shard.path, tuple(entry for entry in shard.entries if entry.key == b"a"))

    assert said_of({**files, "p.index": index_of_dual([few])}) == {"dual.differs": "warning"}


def test_a_merge_of_parts_is_what_the_headers_say() -> None:
    """Data files are renamed, not written: the index that their headers give in their new order is the merged one."""
    whole = np.arange(12).reshape(4, 3)
    cuts = [((row, 1), (0, -1)) for row in range(4)]
    parts = [
        encode_dual({b"z": np.zeros(2), b"w": Sliced((4, 3), {cuts[3]: whole[3:], cuts[0]: whole[:1]})}, "part-0"),
        encode_dual({b"a": Strings([b"x"]), b"w": Sliced((4, 3), {cuts[1]: whole[1:2]})}, "part-1"),
        encode_dual({b"\xff": np.ones(3), b"w": Sliced((4, 3), {cuts[2]: whole[2:3]})}, "part-2"),
    ]
    merged = merge_indexes([(f"part-{n}", part[f"part-{n}.index"]) for n, part in enumerate(parts)])
    datas = [parts[int(origin.part[-1])][f"{origin.part}.data-00000-of-00001"] for origin in merged.origins]

    assert index_of_dual([shard_of(data) for data in datas]) == merged.encode()
    files = {f"p.data-{n:05d}-of-00003": data for n, data in enumerate(datas)} | {"p.index": merged.encode()}
    assert said_of(files) == {}
    assert open_bundle(MemoryStore(files), "p").read("w").tolist() == whole.tolist()
