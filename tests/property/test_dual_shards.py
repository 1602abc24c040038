"""Any tensors under any keys: the shard is a sound safetensors file for the stock library and for us, and the checkpoint for us.

What stock TensorFlow reads of such shards is tests/interop/test_dual_files.py's part.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import deserialize

import strategies
from dual_bytes import Part, encode_dual, encode_shard, header_of, parts_of, shard_of
from openckpt.formats.bundle import open_bundle
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual import index_of_dual
from openckpt.formats.dual.layout import SAFETENSORS_NAMES
from openckpt.formats.safetensors import open_safetensors
from openckpt.storage.memory import MemoryStore

keys = st.one_of(
    st.binary(min_size=1, max_size=6),
    strategies.tensor_keys.map(lambda key: key.encode("utf-8", "surrogateescape")),
    st.sampled_from([b"__metadata__", b"key-0", b"key-1", b"w", b"w::0,1", b"w::-", b'"', b"\\", b"\x00\n", b"\xff", b"openckpt"]),
)  # fmt: skip
values = st.one_of(
    strategies.arrays(),
    strategies.strings(),
    strategies.variants(),
    strategies.sliced().map(lambda found: (found[0], found[2])),
)
checkpoints = st.dictionaries(keys, values, max_size=12)


def parts(checkpoint: dict[bytes, Any]) -> list[Part]:
    return [part for key, value in checkpoint.items() for part in parts_of(key, value)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(checkpoints)
def test_stock_safetensors_reads_the_same_bytes(checkpoint: dict[bytes, Any]) -> None:
    """Every tensor lies under one name, with its type and shape where safetensors has the type, as plain bytes where not."""
    stored = {part.tensor.place: part for part in parts(checkpoint)}
    data = encode_shard(list(stored.values()))

    found = dict(deserialize(data))

    entries = shard_of(data).entries
    assert {entry.place for entry in entries} == stored.keys()
    assert {entry.name for entry in entries} == found.keys()
    for entry in entries:
        tensor, raw, crc = stored[entry.place]
        seen = found[entry.name]
        name = SAFETENSORS_NAMES.get(tensor.spec.dtype)
        assert bytes(seen["data"]) == raw == data[entry.offset : entry.offset + len(raw)]
        assert (seen["dtype"], tuple(seen["shape"])) == ((name, tensor.spec.shape) if name else ("U8", (len(raw),)))
        assert (entry.spec.dtype, entry.spec.shape, entry.crc) == (tensor.spec.dtype, tensor.spec.shape, crc)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(checkpoints)
def test_every_tensor_is_aligned(checkpoint: dict[bytes, Any]) -> None:
    """At 64 where its size is a multiple of 64, else at least at its item; the data itself at 64; the header never differs."""
    data = encode_shard(parts(checkpoint))

    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0
    for entry in shard_of(data).entries:
        nbytes = entry.spec.nbytes
        assert nbytes is not None
        assert entry.offset % (64 if nbytes % 64 == 0 else max(1, BY_NAME[entry.spec.dtype].itemsize)) == 0
    assert encode_shard(parts(checkpoint)[::-1]) == data
    assert len(header_of(data)) == len(parts(checkpoint)) + 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(checkpoints.filter(bool), st.integers(1, 3), st.booleans())
def test_the_checkpoint_and_its_shard_read_alike(checkpoint: dict[bytes, Any], shards: int, sized: bool) -> None:
    """The index made from the headers gives the checkpoint; the shard alone gives the same, where it is the only one."""
    files = encode_dual(checkpoint, "p", shards=shards, sized=sized)
    headers = [shard_of(data) for name, data in files.items() if ".data-" in name]
    bundle = open_bundle(MemoryStore(files), "p")
    read = {key: bundle.read(key) for key, _ in bundle.items()}

    assert index_of_dual(headers) == files["p.index"]
    assert {finding.code for finding in bundle.validate() if finding.severity != "note"} == set()
    assert {key.encode("utf-8", "surrogateescape") for key in read} == checkpoint.keys()
    if shards == 1:
        name = "p.data-00000-of-00001"
        alone = open_safetensors(MemoryStore({name: files[name]}), name)
        assert list(alone.items()) == list(bundle.items())
        for key, value in alone.read_many(alone.keys()).items():
            assert (value.dtype, value.shape) == (read[key].dtype, read[key].shape)
            assert (
                value.tobytes() == read[key].tobytes()
                if value.dtype != object
                else value.tolist() == read[key].tolist()
            )
        assert list(alone.validate()) == []
