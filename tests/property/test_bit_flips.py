"""Promise P4: every flipped bit and every truncation of an index is found, or changes nothing.

The index is one of 4 KiB with two hundred keys of many types; each damaged copy is opened, listed and read whole. What comes
out is the very same listing and values, or an error with a code of the catalogue: never another answer, never a foreign error.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from openckpt.codes import CATALOGUE
from openckpt.errors import CheckpointError, FormatError
from openckpt.formats.bundle import Sliced, Strings, Variants, encode_bundle, open_bundle
from openckpt.storage.memory import MemoryStore

PARTS = 8  # the same work in pieces, so that several workers share it


def _checkpoint(*, compress: bool) -> dict[str, bytes]:
    """About 4 KiB of index: 200 tensors and more of shared prefixes, all kinds of values, two partitioned ones."""
    rng = np.random.default_rng(0)
    halves = {((0, 2), (0, -1)): np.zeros((2, 3), np.float16), ((2, 1), (0, -1)): np.ones((1, 3), np.float16)}
    values: dict[str, Any] = {
        "s/names": Strings((b"a", b"", b"ccc"), (3,)),
        "s/state": Variants((b"\x0a\x01x",), (1,)),
        "w/sliced": Sliced((3, 3), halves),
        "w/strings": Sliced((2,), {((0, 1),): Strings((b"x",), (1,)), ((1, 1),): Strings((b"yy",), (1,))}),
        "empty": np.zeros((0, 4), np.float32),
        "flag": np.array(True),
        "half": rng.normal(size=(3,)).astype(np.float16),
        "save_counter": np.array(7, np.int64),
    }
    values |= {f"l/{n:03d}": np.array(n, np.int16) for n in range(260 if compress else 190)}
    return encode_bundle(values, "ckpt", shards=2, compress_index=compress)


def _answer(files: dict[str, bytes]) -> tuple[Any, ...]:
    """Everything that a reader says of a checkpoint, as one value."""
    reader = open_bundle(MemoryStore(files), "ckpt")
    listing = list(reader.items())
    arrays = reader.read_many([key for key, _ in listing])
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(
            repr((key, array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes())).encode()
        )
    return listing, digest.digest()


FORMS = {"plain": _checkpoint(compress=False), "snappy": _checkpoint(compress=True)}


def _check(form: str, damaged: bytes, expected: tuple[Any, ...], what: str) -> str | None:
    """Return the code of the error that the damage gives, or None where the answer is the old one."""
    try:
        answer = _answer({**FORMS[form], "ckpt.index": damaged})
    except FormatError as error:
        assert error.code in CATALOGUE, what
        return error.code
    assert answer == expected, f"{what}: another answer"
    return None


def test_the_index_is_of_the_promised_size() -> None:
    """About 4 KiB, about two hundred entries."""
    assert 3500 <= len(FORMS["plain"]["ckpt.index"]) <= 5000
    assert len(_answer(FORMS["plain"])[0]) >= 150


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("form", FORMS)
def test_every_bit_flip_is_found_or_changes_nothing(form: str, part: int) -> None:
    """One flipped bit anywhere in the index."""
    index = bytearray(FORMS[form]["ckpt.index"])
    expected = _answer(FORMS[form])
    codes = set()

    for position in range(part, len(index), PARTS):
        for bit in range(8):
            index[position] ^= 1 << bit
            codes.add(_check(form, bytes(index), expected, f"bit {bit} of byte {position}"))
            index[position] ^= 1 << bit

    assert "table.block-crc" in codes


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_found(form: str) -> None:
    """The index cut anywhere: an error, always."""
    index = FORMS[form]["ckpt.index"]
    expected = _answer(FORMS[form])

    kept = [size for size in range(len(index)) if _check(form, index[:size], expected, f"cut to {size} bytes") is None]

    assert kept == []


@pytest.mark.parametrize("form", FORMS)
def test_every_appended_byte_is_found(form: str) -> None:
    """Bytes after the footer: an error, always."""
    index = FORMS[form]["ckpt.index"]
    expected = _answer(FORMS[form])

    for tail in (b"\x00", b"\n", b"\r\n", index[-8:], index[-48:][:1], bytes(48)):
        assert _check(form, index + tail, expected, f"{tail!r} appended") is not None


@pytest.mark.parametrize("shard", [0, 1])
def test_every_flipped_data_byte_is_found(shard: int) -> None:
    """Promise P4 for data: a flipped bit in any byte of any tensor is a checksum error that names file, key and offset."""
    name = f"ckpt.data-{shard:05d}-of-00002"
    data = bytearray(FORMS["plain"][name])

    for position in range(len(data)):
        data[position] ^= 0x10
        with pytest.raises(CheckpointError) as caught:
            _answer({**FORMS["plain"], name: bytes(data)})
        data[position] ^= 0x10
        assert caught.value.code in {"bundle.crc-mismatch", "bundle.string-lengths", "bundle.variant"}, position
        assert caught.value.where.key is not None and caught.value.where.path.endswith(name)
        assert caught.value.where.offset is not None
