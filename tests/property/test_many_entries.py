"""Entries decoded in groups say what they say one by one, whatever is in them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openckpt.errors import CorruptionError
from openckpt.formats.bundle import BundleEntry, encode_bundle, encode_entry, open_bundle
from openckpt.formats.bundle.entry import parse_tail, prefix_end
from openckpt.formats.bundle.tails import parse_tails
from openckpt.storage.memory import MemoryStore

_numbers = st.one_of(
    st.integers(0, 300), st.integers(0, 1 << 40), st.sampled_from([127, 128, 16383, 16384, (1 << 56) - 1])
)
_entries = st.builds(
    lambda shard, offset, size, crc: encode_entry(BundleEntry(1, (4,), shard, offset, size, crc)),
    st.sampled_from([0, 0, 0, 1, 127, 128]), _numbers, st.sampled_from([16, 16, 16, 15]), st.integers(0, (1 << 32) - 1),
)  # fmt: skip


@st.composite
def _groups(draw: Any) -> list[bytes]:
    """Entries of one length, some with a byte changed behind dtype and shape."""
    entries = draw(st.lists(_entries, min_size=1, max_size=12))
    length = len(entries[0])
    same = [entry for entry in entries if len(entry) == length]
    cut = prefix_end(same[0])
    for number in draw(st.sets(st.integers(0, len(same) - 1), max_size=3)):
        at = draw(st.integers(cut, length - 1))
        same[number] = same[number][:at] + bytes((draw(st.integers(0, 255)),)) + same[number][at + 1 :]
    return same


@settings(max_examples=500, deadline=None)
@given(values=_groups())
def test_grouped_and_single_decoding_agree(values: list[bytes]) -> None:
    """Where a group's row is canonical it equals the single decoding; otherwise that has to decide."""
    cut = prefix_end(values[0])

    found = parse_tails(values, cut, 16)

    for row, value in enumerate(values):
        single = parse_tail(value, cut)
        if found.canonical[row]:
            assert single == (found.shard[row], found.offset[row], 16, found.crc[row])
        elif single is not None:
            shard, offset, size, _ = single
            rewritten = encode_entry(BundleEntry(1, (4,), *single))
            assert size != 16 or shard > 127 or offset >> 56 or rewritten != value


@pytest.mark.parametrize("shards", [1, 3, 130])
def test_a_thousand_small_tensors_of_several_kinds(shards: int) -> None:
    """Groups, loners, strings and empty tensors together read equal, over one and over many shards."""
    values: dict[str, Any] = {f"f{n:04d}": np.full((n % 3 + 1,), n, np.float32) for n in range(700)}
    values |= {f"b{n:04d}": np.array(n % 2 == 0) for n in range(200)} | {
        f"e{n:04d}": np.zeros((0, 2)) for n in range(100)
    }
    values |= {"half": np.arange(6, dtype=np.float16).reshape(2, 3), "s": np.array([b"x", b""], object)}

    with closing(open_bundle(MemoryStore(encode_bundle(values, "ckpt", shards=shards)), "ckpt")) as reader:
        read = reader.read_many(list(values))

    assert list(read) == list(values)
    for key, array in read.items():
        assert (array.dtype, array.shape) == (values[key].dtype, values[key].shape)
        assert array.tolist() == values[key].tolist()


def test_the_tensor_that_is_damaged_among_many_is_named() -> None:
    """One flipped byte, one truncated file, one missing shard: the error names a key that it concerns."""
    files = encode_bundle({f"k{n:04d}": np.full((8,), n) for n in range(600)}, "ckpt", shards=2)
    first, second = "ckpt.data-00000-of-00002", "ckpt.data-00001-of-00002"
    flipped = bytearray(files[first])
    flipped[64 * 17 + 3] ^= 1
    damages = {
        "bundle.crc-mismatch": ({first: bytes(flipped)}, {"k0017"}),
        "bundle.data-truncated": ({second: files[second][:-65]}, {"k0598", "k0599"}),
        "bundle.shard-missing": ({second: None}, {f"k{n:04d}" for n in range(300, 600)}),
    }
    for code, (change, keys) in damages.items():
        damaged = {name: data for name, data in {**files, **change}.items() if data is not None}
        with closing(open_bundle(MemoryStore(damaged), "ckpt")) as reader, pytest.raises(CorruptionError) as caught:
            reader.read_many(list(reader.keys()))
        assert caught.value.code == code
        assert caught.value.where.key in keys
