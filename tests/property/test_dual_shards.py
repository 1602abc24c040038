"""Any tensors under any keys: the shard is a sound safetensors file for the stock library and for us, and the checkpoint for us.

What stock TensorFlow reads of such shards is tests/interop/test_dual_files.py's part.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import deserialize

import strategies
from dual_bytes import Part, digits, encode_dual, encode_shard, forged, header_of, parts_of, shard_of
from openckpt.codes import CATALOGUE
from openckpt.errors import FormatError
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


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 64), st.floats(), st.text(max_size=8),
    st.sampled_from(["string", "variant", "float32", "int4", "qint8", "uint8", "resource", "0,1", "0,2:-", "-", "k", "\udcff", "\ud800"]),
    st.lists(st.integers(0, 8), max_size=3), st.builds(dict),
)  # fmt: skip
described = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["k", "w", "a", "\udcff"]),
        "dtype": st.sampled_from(["string", "variant", "uint8", "qint8", "int4", "float32"]),
        "shape": st.sampled_from([[4], [4], [4], [8], [12], [2, 2], [1], [], [4, 0]]),
    },
    optional={"slice": st.sampled_from(["0,4", "4,4", "8,4", "-", "", "0,1:-"])},
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_metadata_of_strangers_is_refused_or_reads(data: Any) -> None:
    """Whatever it says, with a checksum that is right: a code of the catalogue, or every tensor reads or refuses by name."""
    tensors = {name: {"dtype": "U8", "shape": [4], "data_offsets": [4 * n, 4 * n + 4]} for n, name in enumerate("abc")}
    inner: dict[str, Any] = {
        "version": 1,
        "header": "00000000",
        "crc32c": digits(data.draw(st.lists(st.sampled_from([0, 0x48674BC7, 1]), min_size=3, max_size=3))),
        "tensors": data.draw(st.dictionaries(st.sampled_from("abcd"), described, max_size=3)),
    }
    for _ in range(data.draw(st.integers(0, 2))):
        places: list[dict[str, Any]] = [inner, *[v for v in [inner.get("tensors")] if isinstance(v, dict)]]
        places += [v for v in places[-1].values() if isinstance(v, dict)] if len(places) > 1 else []
        place = data.draw(st.sampled_from(places))
        key = data.draw(st.sampled_from([*place, "more"]))
        if key in place and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(leaves)
    file = forged(tensors, inner, data.draw(st.sampled_from([bytes(12), b"\x02abc" * 3, b"\xff" * 12])))

    try:
        reader = open_safetensors(MemoryStore({"x": file}), "x")
    except FormatError as error:
        assert error.code in CATALOGUE
        return
    found = {finding.where.key for finding in reader.validate() if finding.severity == "error"}
    for key, spec in reader.items():
        try:
            value = reader.read(key)
        except FormatError as error:
            assert error.code in CATALOGUE
            assert key in found
        else:
            assert (value.shape, value.dtype) == (spec.shape, spec.numpy_dtype)
            assert key not in found
