"""Whether a data file's safetensors header and the index of its checkpoint say the same of every tensor.

TensorFlow reads by the index and safetensors by the header: where they differ, two programs load different weights from the
same bytes. Reads the header, no tensor. A tensor that only one of them names is normal life: an index that was made anew over
the same data file renames and leaves out without touching it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, Where
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.dtypes import dtype_of_enum
from openckpt.formats.dual.layout import METADATA_MARK, SUPERSEDED_START
from openckpt.formats.dual.parsing import DualEntry
from openckpt.formats.safetensors_header import parse_header
from openckpt.formats.slicekeys import encode_slice_key

if TYPE_CHECKING:
    from openckpt.formats.bundle.entry import BundleEntry
    from openckpt.limits import Limits
    from openckpt.storage.reading import ByteSource

_MARK = METADATA_MARK.encode()
# More than the header needs for a tensor: its key three times, in the longest escapes that JSON has, and its shape twice.
_EACH, _EACH_KEY_BYTE, _EACH_DIMENSION = 512, 24, 160
_MOST_SUPERSEDED = 8 << 20  # bytes of a header that speaks of more tensors than the index, rightly


def find_superseded(source: ByteSource, offsets: Iterable[int], limits: Limits) -> frozenset[int]:
    """Return which data files of a checkpoint hold values of earlier steps too, as its first one says.

    Args:
        source: the first data file.
        offsets: where the index places tensors in it.
        limits: caps for the header.
    """
    text = _read_header(source, offsets)
    if SUPERSEDED_START.encode() not in text[text.rfind(_MARK) :]:
        return frozenset()
    try:
        header = parse_header(text, source.path, source.size, limits)
    except CheckpointError:
        return frozenset()  # said by `compare_with_index`
    return frozenset() if header.dual is None else frozenset(header.dual.superseded)


def compare_with_index(
    source: ByteSource, stored: Mapping[bytes, BundleEntry], limits: Limits, *, superseded: bool = False
) -> Iterator[Finding]:
    """Yield what the header of a dual shard says otherwise than the index; nothing of a file that has no such header.

    Args:
        source: the data file.
        stored: stored key (slice keys among them) -> entry, of everything that the index places in this file.
        limits: caps for the header.
        superseded: the file holds tensors of earlier steps too.
    """
    text = _read_header(source, [entry.offset for entry in stored.values() if entry.size])
    if _MARK not in text:
        return
    ends = [entry.offset + entry.size for entry in stored.values()]
    if max(ends, default=0) > source.size:
        return  # cut short: that is a finding of its own
    rank = max((len(entry.shape or ()) for entry in stored.values()), default=0)
    most = 4096 + sum(_EACH + _EACH_KEY_BYTE * len(key) for key in stored) + _EACH_DIMENSION * rank * len(stored)
    if superseded and most < len(text) <= _MOST_SUPERSEDED:
        most = len(text)
    if len(text) > most:
        if superseded:
            return
        # Parsed, it would take ten times its size, and whoever wrote the index could not have written it.
        message = f"the safetensors header of {len(text)} bytes is too long for {len(stored)} tensors"
        yield make_finding("dual.differs", source.path, message, expected=f"at most {most} bytes")
        return
    try:
        header = parse_header(text, source.path, source.size, limits)
    except CheckpointError as error:
        # TensorFlow never looks at it: the checkpoint is whole, the safetensors file in it is not.
        yield finding_of(error, severity="warning")
        return
    if header.dual is not None:
        yield from _compare(header.dual.entries, stored, source.path, superseded=superseded)


def _read_header(source: ByteSource, offsets: Iterable[int]) -> bytes:
    """Return the text between the first eight bytes and the tensors, where these bytes count it; b"" where they do not."""
    if source.size < 8:
        return b""
    length = int.from_bytes(source.read_at(0, 8), "little")
    if length < len(_MARK) or length > min(min(offsets, default=source.size), source.size) - 8:
        return b""
    return source.read_at(8, length)


def _compare(
    entries: Iterable[DualEntry], stored: Mapping[bytes, BundleEntry], path: str, *, superseded: bool
) -> Iterator[Finding]:
    seen: set[bytes] = set()
    alone = 0
    differ: list[tuple[DualEntry, BundleEntry]] = []
    for entry in entries:
        key = entry.key if entry.slice is None else encode_slice_key(entry.key, entry.slice)
        other = stored.get(key)
        if other is None:
            alone += 1
            continue
        seen.add(key)
        dtype = dtype_of_enum(other.enum)
        mine = (entry.spec.dtype, entry.spec.shape, entry.offset, entry.spec.nbytes, entry.crc)
        if mine != (dtype and dtype.name, other.shape, other.offset, other.size, other.crc):
            differ.append((entry, other))
    if differ:
        entry, other = differ[0]
        more = f", as of {len(differ) - 1} more" if len(differ) > 1 else ""
        yield make_finding(
            "dual.differs",
            Where(path, entry.key.decode("utf-8", "surrogateescape"), entry.offset),
            f"index and safetensors header say different things of this tensor{more}",
            expected=_describe_index(other),
            found=_describe(entry.spec.dtype, entry.spec.shape, entry.offset, entry.spec.nbytes or 0, entry.crc),
        )
    missing = len(stored) - len(seen)
    if missing or (alone and not superseded):
        message = (
            f"the safetensors header names {alone} tensors that the index does not have, and lacks {missing} of its own"
        )
        yield make_finding("dual.other-names", path, message)


def _describe_index(entry: BundleEntry) -> str:
    dtype = dtype_of_enum(entry.enum)
    name = f"data type {entry.enum}" if dtype is None else dtype.name
    return _describe(name, entry.shape, entry.offset, entry.size, entry.crc)


def _describe(dtype: str, shape: tuple[int, ...] | None, offset: int, nbytes: int, crc: int) -> str:
    return f"{dtype} {list(shape or ())}, {nbytes} bytes at {offset}, crc32c {crc:#010x}"
