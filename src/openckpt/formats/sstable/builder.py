"""Writing a table, byte for byte as TensorFlow does (formats 1.4).

Parameters of TensorFlow's checkpoints: blocks of 256 KiB, a restart point every 16 entries in data blocks and at every entry
of the index block, no compression.
"""

from __future__ import annotations

from collections.abc import Iterable

from openckpt.formats.crc import crc32c, mask_crc
from openckpt.formats.sstable.format import FOOTER_BYTES, MAGIC_BYTES, NO_COMPRESSION, Handle
from openckpt.formats.wire import encode_varint

BLOCK_BYTES = 262_144
_DATA_RESTARTS, _INDEX_RESTARTS = 16, 1


class _BlockBuilder:
    """Entries of one block, keys prefix-compressed against the one before."""

    __slots__ = ("_count", "_interval", "_last", "_restarts", "data")

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self.data = bytearray()
        self._restarts = [0]
        self._count = 0
        self._last = b""

    @property
    def size_estimate(self) -> int:
        return len(self.data) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._count < self._interval:
            last = self._last
            limit = min(len(last), len(key))
            if key[:limit] == last[:limit]:
                shared = limit
            else:
                while key[shared] == last[shared]:
                    shared += 1
        else:
            self._restarts.append(len(self.data))
            self._count = 0
        self.data += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        self.data += key[shared:]
        self.data += value
        self._last = key
        self._count += 1

    def finish(self) -> bytes:
        tail = b"".join(offset.to_bytes(4, "little") for offset in [*self._restarts, len(self._restarts)])
        return bytes(self.data) + tail


class TableBuilder:
    """Builds a table in memory from keys added in strictly increasing byte order.

    Args:
        compress_blocks: store the data blocks Snappy-compressed, as some writers of SavedModels did; TensorFlow's own
            checkpoints never are.
    """

    def __init__(self, *, compress_blocks: bool = False) -> None:
        self._out = bytearray()
        self._block = _BlockBuilder(_DATA_RESTARTS)
        self._index = _BlockBuilder(_INDEX_RESTARTS)
        self._pending: Handle | None = None
        self._last: bytes | None = None
        self._compress = compress_blocks

    def add(self, key: bytes, value: bytes) -> None:
        """Append one entry; raises ValueError when ``key`` does not sort after the one before."""
        if self._last is not None and key <= self._last:
            raise ValueError(f"key {key!r} does not sort after {self._last!r}")
        if self._last is not None and len(key) + len(value) >= 2 * BLOCK_BYTES:
            self._flush()
        if self._pending is not None:
            self._index.add(_shortest_separator(self._last or b"", key), self._pending.encode())
            self._pending = None
        self._block.add(key, value)
        self._last = key
        if self._block.size_estimate >= BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._block.data:
            self._pending = self._write(self._block.finish(), compress=self._compress)
            self._block = _BlockBuilder(_DATA_RESTARTS)

    def _write(self, block: bytes, *, compress: bool = False) -> Handle:
        kind = NO_COMPRESSION
        if compress:
            import cramjam

            block, kind = bytes(cramjam.snappy.compress_raw(block)), 1
        handle = Handle(len(self._out), len(block))
        stored = block + bytes((kind,))
        self._out += stored
        self._out += mask_crc(crc32c(stored)).to_bytes(4, "little")
        return handle

    def finish(self) -> bytes:
        """Return the whole file."""
        self._flush()
        metaindex = self._write(_BlockBuilder(_DATA_RESTARTS).finish())
        if self._pending is not None:
            self._index.add(_short_successor(self._last or b""), self._pending.encode())
        index = self._write(self._index.finish())
        footer = (metaindex.encode() + index.encode()).ljust(FOOTER_BYTES - len(MAGIC_BYTES), b"\0") + MAGIC_BYTES
        return bytes(self._out) + footer


def encode_table(items: Iterable[tuple[bytes, bytes]], *, compress_blocks: bool = False) -> bytes:
    """Return the table file of ``items``, whose keys strictly increase as unsigned bytes."""
    builder = TableBuilder(compress_blocks=compress_blocks)
    for key, value in items:
        builder.add(key, value)
    return builder.finish()


def _shortest_separator(low: bytes, high: bytes) -> bytes:
    """Return a short key K with ``low <= K < high`` (TensorFlow's choice, formats 1.4)."""
    limit = min(len(low), len(high))
    at = 0
    while at < limit and low[at] == high[at]:
        at += 1
    if at == limit or low[at] == 0xFF or low[at] + 1 >= high[at]:
        return low
    return low[:at] + bytes((low[at] + 1,))


def _short_successor(key: bytes) -> bytes:
    """Return a short key that is not less than ``key``."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes((byte + 1,))
    return key
