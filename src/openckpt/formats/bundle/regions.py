"""How the tensors of one data file lie: overlaps, padding, and bytes that belong to none (formats 2.13).

[safetensors header] tensor [zeros up to 4 KiB] tensor tensor ...        everything else is a finding
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import Where
from openckpt.findings import Finding, make_finding
from openckpt.formats.bundle.entry import BundleEntry
from openckpt.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

_PADDING = 4096  # zeros between tensors up to this much are alignment

# {"name": {...}, ...}, no object deeper (formats 8.4); possessive, so that no text makes it step back.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_MEMBER = rb"\s*+" + _STRING + rb"\s*+:\s*+\{(?:[^{}\"]++|" + _STRING + rb")*+\}\s*+"
_SAFETENSORS_HEADER = re.compile(rb"\{(?:" + _MEMBER + rb"(?:," + _MEMBER + rb")*+|\s*+)\}\s*+", re.DOTALL).fullmatch


class Piece(NamedTuple):
    """One stretch of a shard that an entry claims."""

    offset: int
    size: int
    key: str
    entry: BundleEntry
    stored_key: bytes
    """as the index has it, the slice key of a piece"""


def check_regions(source: ByteSource, pieces: list[Piece]) -> Iterator[Finding]:
    """Look for overlaps between entries, and for bytes that belong to none."""
    end, before = 0, ""
    padding = overlaps = 0
    first: tuple[Where, str] | None = None
    for piece in pieces:
        if piece.size == 0 or piece.offset + piece.size > source.size:
            continue
        if piece.offset < end:
            shared = min(end, piece.offset + piece.size) - piece.offset
            first = first or (Where(source.path, piece.key, piece.offset), f"shares {shared} bytes with {before!r}")
            overlaps += 1
        elif piece.offset > end:
            finding = _judge_gap(source, end, piece.offset)
            if finding is None:
                padding += piece.offset - end
            else:
                yield finding
        if piece.offset + piece.size > end:
            end, before = piece.offset + piece.size, piece.key
    if first is not None:  # one finding for all: a hostile index could ask for a million
        more = f"; {overlaps - 1} more tensors of this file share bytes" if overlaps > 1 else ""
        yield make_finding("bundle.overlap", first[0], first[1] + more)
    if padding:
        yield make_finding("bundle.padding", source.path, f"{padding} bytes of zeros align the tensors")
    beyond = any(piece.offset + piece.size > source.size for piece in pieces)
    if source.size > end and not beyond:
        finding = _judge_gap(source, end, source.size)
        if finding is not None:
            yield finding


def _judge_gap(source: ByteSource, start: int, stop: int) -> Finding | None:
    """Return what is to be said of bytes that belong to no tensor; None of padding."""
    size = stop - start
    where = Where(source.path, offset=start)
    if start == 0 and _is_safetensors_header(source, stop):
        what = f"a safetensors header of {size} bytes lies before the tensors"
        return make_finding("bundle.safetensors-header", where, what)
    if size <= _PADDING and not source.read_at(start, size).strip(b"\0"):
        return None
    side = "between the tensors" if start else "before the first tensor"
    if stop == source.size:
        side = "after the last tensor"
    return make_finding(
        "bundle.unused-bytes",
        where,
        f"{size} bytes {side} belong to no tensor",
        expected=f"nothing from {start} to {stop}",
    )


def _is_safetensors_header(source: ByteSource, size: int) -> bool:
    """Return whether the first ``size`` bytes are a safetensors header, padding behind it allowed (formats 8.4)."""
    if size < 10:
        return False
    length = int.from_bytes(source.read_at(0, 8), "little")
    padding = size - 8 - length
    if length < 2 or not 0 <= padding <= _PADDING or length > DEFAULT_LIMITS.header_bytes:
        return False
    # Parsed, a hostile header of 100 MB would take gigabytes; its form is enough to tell it from anything else.
    is_header = _SAFETENSORS_HEADER(source.read_at(8, length)) is not None
    return is_header and not source.read_at(8 + length, padding).strip(b"\0 ")
