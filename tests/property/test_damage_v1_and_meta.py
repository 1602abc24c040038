"""Every bit of a small V1 checkpoint, and every byte of a small meta graph, damaged one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openckpt.errors import FormatError, Where
from openckpt.formats.bundle import Sliced
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.metagraph import parse_meta_graph
from openckpt.formats.slicekeys import FULL
from openckpt.formats.sstable import encode_table
from openckpt.formats.v1 import encode_v1, open_v1
from openckpt.formats.v1.values import decode_values, encode_values
from openckpt.storage.memory import MemorySource, MemoryStore

TENSORS = {
    "a": np.array([1.5, -2.0], np.float32),
    "b": np.array([1, -1, 300], np.int64),
    "s": np.array([b"x", b""], object),
    "w": Sliced((4, 2), {((0, 2), FULL): np.ones((2, 2), np.float32), ((2, 2), FULL): np.zeros((2, 2), np.float32)}),
}
WHOLE = encode_v1(TENSORS, "m")["m"]


def listing(data: bytes):
    """Everything that can be read of a table, as values that compare."""
    reader = open_v1(MemoryStore({"m": data}), "m")
    return [(key, spec, reader.read(key).tolist()) for key, spec in reader.items()]


EXPECTED = listing(WHOLE)


def outcome(data: bytes):
    try:
        return listing(data)
    except FormatError as error:
        assert error.code
        return EXPECTED  # refused is as good as equal


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_gives_another_answer(bit):
    """The same listing and values, or an error with a code."""
    for place in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1 << bit
        assert outcome(bytes(damaged)) == EXPECTED, place


def test_no_truncation_gives_another_answer():
    """Cut anywhere, at either end."""
    for place in range(len(WHOLE)):
        assert outcome(WHOLE[:place]) == EXPECTED
        assert outcome(WHOLE[place + 1 :]) == EXPECTED


@given(st.data())
def test_a_damaged_value_behind_a_right_checksum_is_read_or_refused(data):
    """Whoever can write the table can write its CRCs: nothing but the project's own errors may come out."""
    from openckpt.formats.sstable import Table

    items = dict(Table(MemorySource("m", WHOLE)).items())
    key = data.draw(st.sampled_from(sorted(items)))
    value = bytearray(items[key])
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    items[key] = bytes(value)
    table = encode_table(sorted(items.items()))
    try:
        reader = open_v1(MemoryStore({"m": table}), "m")
    except FormatError:
        return
    for name, spec in reader.items():
        try:
            assert reader.read(name).shape == spec.shape
        except FormatError as error:
            assert error.code
    assert all(finding.code for finding in reader.validate())


META = bytes.fromhex(
    "0a1312040a026f70220573657276652a04312e313512070a016e2202081b1a070a016628013802221e0a097661726961626c"
    "65731211120f0a0d0a03773a3022060a01771201053a130a113a0f080112061202080312001801320177"
)


def test_the_meta_graph_that_is_damaged_here_is_a_sound_one():
    """It has a variable of each kind."""
    meta = parse_meta_graph(MemorySource("m", META))
    assert (len(meta.variables), len(meta.object_variables), meta.tensorflow_version) == (1, 1, "1.15")


@given(st.binary(max_size=80), st.data())
def test_bytes_that_are_no_meta_graph_are_refused_with_a_code(noise, data):
    """Any bytes, and a real one with some of them changed."""
    raw = bytearray(META)
    for _ in range(3):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (noise, bytes(raw), META[: data.draw(st.integers(0, len(META)))]):
        try:
            parse_meta_graph(MemorySource("m", candidate))
        except FormatError as error:
            assert error.code.startswith(("meta.", "limits."))


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64", "bool", "float16", "qint32"]


@given(st.sampled_from(INTEGERS), st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_integers_of_every_width_survive_their_varints(name, numbers):
    """Whatever bits the array holds."""
    dtype = BY_NAME[name]
    array = np.array(numbers, np.uint64).astype(np.int64).astype(dtype.numpy() if name != "float16" else np.uint16)
    array = array.view(np.float16) if name == "float16" else array
    proto = encode_values(array, dtype)
    decoded = decode_values(proto, (0, len(proto)), dtype, array.size, Where("x"))
    assert decoded.dtype == array.dtype
    assert decoded.tobytes() == array.tobytes()
