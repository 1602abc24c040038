"""Decompression from front to back, bounded: gzip, bzip2 and xz, several streams in one file, zero padding behind them.

Output comes in pieces of at most a mebibyte, and the total is compared with the compressed bytes it came from
(``limits.archive_ratio``, beyond the first 64 MiB), so that a bomb is refused before it costs a second or much memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol

from openckpt.errors import CorruptionError, Where
from openckpt.findings import Progress
from openckpt.limits import MIB, Limits, growth_of
from openckpt.storage.reading import ByteSource

_FIRST_IN = 4 << 10
_IN = 128 << 10
_NOT_ZERO = re.compile(rb"[^\0]")
_OUT = 1 * MIB
_PADDING = 1 * MIB  # zeros behind the last stream that are looked through for another one

MAGIC = {"gz": b"\x1f\x8b\x08", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}


class Engine(Protocol):
    """The interface that `bz2.BZ2Decompressor` and `lzma.LZMADecompressor` share."""

    @property
    def eof(self) -> bool:
        """Whether the stream's own end was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether more input must be given before more output comes."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the stream's end."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most ``max_length`` bytes."""
        ...


class Inflater:
    """zlib behind the same interface. ``wbits``: 31 for gzip, -15 for the raw stream of a zip member."""

    def __init__(self, wbits: int) -> None:
        import zlib

        self._engine = zlib.decompressobj(wbits)
        self._full = False

    @property
    def eof(self) -> bool:
        """Whether the stream's own end was reached."""
        return self._engine.eof

    @property
    def needs_input(self) -> bool:
        """Whether more input must be given before more output comes."""
        return not self._full and not self._engine.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the stream's end."""
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most ``max_length`` bytes."""
        tail = self._engine.unconsumed_tail
        out = self._engine.decompress(tail + data if tail else data, max_length)
        self._full = len(out) == max_length  # zlib may hold back what did not fit
        return out


def make_engine(codec: str, limits: Limits) -> Engine:
    """Return a new decompressor: ``gz``, ``bz2``, ``xz``, or ``deflate`` and ``lzma`` as zip files use them."""
    if codec == "gz":
        return Inflater(31)
    if codec == "deflate":
        return Inflater(-15)
    if codec == "bz2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    form = lzma.FORMAT_XZ if codec == "xz" else lzma.FORMAT_ALONE
    return lzma.LZMADecompressor(form, memlimit=limits.archive_dictionary_bytes)


def run_engine(engine: Engine, data: bytes, most: int, where: Where, limits: Limits) -> bytes:
    """Return at most ``most`` unpacked bytes.

    Raises:
        CorruptionError: ``archive.damaged``, or ``archive.crc-mismatch`` where the stream's own checksum says so.
        LimitError: the stream asks for more memory than ``limits.archive_dictionary_bytes``.
    """
    import zlib

    try:
        return engine.decompress(data, most)
    except (zlib.error, OSError, EOFError, ValueError) as error:
        text = str(error)
    except Exception as error:
        # LZMAError by name, because importing lzma costs more than everything else here.
        if type(error).__name__ != "LZMAError" and not isinstance(error, MemoryError):
            raise
        text = str(error) or "not enough memory"
    if "emory" in text:
        cap = limits.archive_dictionary_bytes
        limits.check("archive_dictionary_bytes", cap + 1, where, "the memory that unpacking needs")
    if "incorrect data check" in text or "incorrect length check" in text:
        raise CorruptionError("archive.crc-mismatch", where, "the checksum over the unpacked data does not match")
    raise CorruptionError("archive.damaged", where, "the compressed data is damaged and cannot be unpacked", found=text)


class PackedStream:
    """The unpacked bytes of a compressed file, from front to back.

    ``offset`` counts unpacked bytes that were taken, ``raw`` compressed bytes that were used. Progress is reported in
    compressed bytes, first after one second and then four times a second.
    """

    def __init__(
        self,
        source: ByteSource,
        codec: str,
        limits: Limits,
        progress: Progress | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._codec = codec
        self._limits = limits
        self._progress = progress
        self._clock = clock
        self._next_report = clock() + 1.0
        self._engine: Engine | None = make_engine(codec, limits)
        self._buffer = b""  # compressed bytes read
        self._at = 0  # how many of them were given to an engine
        self._read = 0  # where the buffer ends in the file
        self._step = _FIRST_IN
        self._out = 0
        self._piece = memoryview(b"")
        self.offset = 0
        self.raw = 0

    def _take(self) -> bytes:
        if self._at == len(self._buffer):
            self._at = 0
            self._buffer = self._source.read_at(self._read, min(_IN, self._source.size - self._read))
            self._read += len(self._buffer)
        data = self._buffer[self._at : self._at + self._step]
        self._at += len(data)
        self._step = min(2 * self._step, _IN)
        return data

    def _refill(self) -> bool:
        """Make the next piece; False at the end."""
        while self._engine is not None:
            engine = self._engine
            if engine.eof:
                self._at -= len(engine.unused_data)  # part of the slice that was given last
                self._engine = self._next_engine()
                continue
            data = self._take() if engine.needs_input else b""
            if not data and engine.needs_input:
                raise CorruptionError(
                    "archive.truncated",
                    Where(self._source.path, offset=self._source.size),
                    f"the archive ends early: its compressed data stops at byte {self._source.size} without an end, "
                    f"{self._out} bytes unpacked so far; the download or copy broke off",
                )
            out = run_engine(engine, data, _OUT, Where(self._source.path, offset=self.raw), self._limits)
            self._account(len(out))
            if out:
                self._piece = memoryview(out)
                return True
        return False

    def _account(self, size: int) -> None:
        self._out += size
        self.raw = self._read - len(self._buffer) + self._at
        growth = growth_of(self._out, self.raw)
        self._limits.check("archive_ratio", growth, self._source.path, "the growth of the compressed data")
        if self._progress is not None and (now := self._clock()) >= self._next_report:
            self._next_report = now + 0.25
            self._progress(f"reading {self._source.path}", self.raw, self._source.size)

    def _next_engine(self) -> Engine | None:
        # Several streams may follow each other (pigz -i, pbzip2, `cat a.gz b.gz`), with zeros between or behind them (tape
        # blocks). Anything else behind the end is ignored, as gzip, bzip2 and xz do. Small steps first, because a file of
        # a million tiny streams would otherwise copy the same 128 KiB again and again.
        magic = MAGIC[self._codec]
        self._step = _FIRST_IN
        stop = self._read + _PADDING
        while self._read < stop:
            found = _NOT_ZERO.search(self._buffer, self._at)
            self._at = found.start() if found else len(self._buffer)
            rest = len(self._buffer) - self._at
            if rest >= len(magic):
                break
            more = self._source.read_at(self._read, min(_IN, self._source.size - self._read))
            if not more:
                return None
            self._buffer, self._at = self._buffer[self._at :] + more, 0
            self._read += len(more)
        if not self._buffer.startswith(magic, self._at):
            return None
        return make_engine(self._codec, self._limits)

    def take(self, size: int) -> memoryview:
        """Return the next bytes, at most ``size`` and at most a mebibyte; empty at the end."""
        if not self._piece.nbytes and not self._refill():
            return self._piece
        piece = self._piece[:size]
        self._piece = self._piece[piece.nbytes :]
        self.offset += piece.nbytes
        return piece

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end. Grows with the bytes that come, whatever ``size`` says."""
        piece = self.take(size)
        if piece.nbytes == size:
            return bytes(piece)
        data = bytearray(piece)
        while len(data) < size and (piece := self.take(size - len(data))):
            data += piece
        return bytes(data)

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes and return how many there were."""
        left = size
        while left and (piece := self.take(left)):
            left -= piece.nbytes
        return size - left

    def drain(self) -> int:
        """Pass over everything that is left (its checksum is checked) and return how much it was."""
        total = 0
        while piece := self.take(_OUT):
            total += piece.nbytes
        return total
