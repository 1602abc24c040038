"""How a data file came to be wrong, told from its bytes: text mode, a crash that left zeros, a pointer or page in its place.

Data files have no magic (formats 2.1), so the only witnesses are what they look like and what the index expects of them.
Everything here reads at most `SAMPLE_BYTES` of a file, in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openckpt.storage import ByteSource

SAMPLE_BYTES = 32 << 20
_PIECE = 1 << 20


def iter_pieces(source: ByteSource, limit: int = SAMPLE_BYTES) -> Iterator[bytes]:
    """Yield the first ``limit`` bytes of a file in pieces of 1 MiB."""
    end = min(source.size, limit)
    for offset in range(0, end, _PIECE):
        yield source.read_at(offset, min(_PIECE, end - offset))


def is_all_zero(source: ByteSource) -> bool:
    """Return whether the file has bytes and every one of the first 32 MiB is zero (a crash before the data was written)."""
    return source.size > 0 and not any(piece.count(0) != len(piece) for piece in iter_pieces(source))


@dataclass(frozen=True, slots=True)
class LineFeeds:
    """How often a line feed byte (0a) occurs, and how often with a carriage return (0d) right before it."""

    total: int
    after_return: int


def count_line_feeds(source: ByteSource) -> LineFeeds:
    """Count line feeds in the first 32 MiB."""
    total = pairs = 0
    last = b""
    for piece in iter_pieces(source):
        total += piece.count(b"\n")
        pairs += piece.count(b"\r\n") + (last == b"\r" and piece[:1] == b"\n")
        last = piece[-1:]
    return LineFeeds(total, pairs)


def text_mode_pairs(source: ByteSource) -> int | None:
    """Return how many line feeds a file has when every one follows a carriage return, else None.

    A transfer in text mode (FTP "ascii", git ``autocrlf``, an editor on Windows) puts 0d before every 0a (formats 9, row 25);
    in honest data 0a follows 0d once in 256 times.
    """
    feeds = count_line_feeds(source)
    return feeds.total if 0 < feeds.total == feeds.after_return else None


def has_grown_by(source: ByteSource, expected: int, pairs: int) -> bool:
    """Return whether ``pairs`` inserted bytes explain that a file is longer than ``expected``: exactly, or they are too many
    for chance and not all of the file was looked at.
    """
    grown = source.size - expected
    return grown == pairs or (grown > 0 and pairs >= 8)
