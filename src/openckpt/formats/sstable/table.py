"""`Table`: one open table file. Blocks are read when asked for, their CRCs always checked.

A small file (the index of nearly every checkpoint) is read whole with one call when it is opened, so that a trainer that
rewrites it in place cannot show half of the old and half of the new one. Of a larger file the footer and the index block are
read at once and the data blocks on demand, each after a check that the file is still the one that was opened.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from openckpt.errors import ConflictError, CorruptionError, FormatError, Where
from openckpt.formats.sstable.block import BlockSearch, decode_block, first_entry, restarts_of
from openckpt.formats.sstable.format import (
    FOOTER_BYTES,
    TRAILER_BYTES,
    Handle,
    parse_footer,
    parse_handle,
    unpack_block,
)
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding
    from openckpt.storage.reading import ByteSource

_WHOLE_BYTES = 1 << 20  # up to this size one read of everything is cheaper than three small ones


class Table:
    """A sorted map from bytes to bytes in one file (formats 1). Thread-safe; the caller owns and closes the source.

    Args:
        source: the file.
        limits: caps on the size of blocks and keys.
        keep_blocks: how many blocks `get` holds on to, none above 1 MiB; all where not given. Blocks of an index are small
            and asked for again, those of a V1 checkpoint are the tensors.

    Raises:
        CorruptionError: ``table.too-short``, ``table.bad-magic``, ``table.footer-handle``, ``table.handle-past-end``,
            ``table.block-crc``, ``table.bad-block``, ``table.bad-entry``, ``table.key-order``, ``table.separator``.
        UnsupportedError: ``table.block-type``.
        ConflictError: ``storage.changed``, the file was replaced after it was opened.
    """

    def __init__(self, source: ByteSource, *, limits: Limits = DEFAULT_LIMITS, keep_blocks: int | None = None) -> None:
        self._source, self._limits, self._keep_blocks = source, limits, keep_blocks
        self.path, size = source.path, source.size
        if size < FOOTER_BYTES:
            raise CorruptionError(
                "table.too-short",
                self.path,
                "too short to be a table",
                expected=f"at least {FOOTER_BYTES} bytes",
                found=f"{size} bytes",
            )
        self._whole = source.read_at(0, size) if size <= _WHOLE_BYTES else None
        footer = self._read(size - FOOTER_BYTES, FOOTER_BYTES)
        self._footer_where = Where(self.path, offset=size - FOOTER_BYTES)
        self.metaindex, self._index = parse_footer(footer, self._footer_where)
        index = self._load(self._index)
        self._separators, self.handles = self._parse_index(index)
        self._searches: dict[int, BlockSearch] = {}

    def _read(self, offset: int, size: int) -> bytes:
        if self._whole is not None:
            return self._whole[offset : offset + size]
        data = self._source.read_at(offset, size)
        if not self._source.unchanged():
            raise ConflictError("storage.changed", self.path, "the file was replaced while it was being read")
        return data

    def _load(self, handle: Handle) -> bytes:
        """Return the contents of the block at ``handle``, checked and uncompressed."""
        end = handle.offset + handle.size + TRAILER_BYTES
        room = self._source.size - FOOTER_BYTES
        where = Where(self.path, offset=handle.offset)
        if end > room:
            raise CorruptionError(
                "table.handle-past-end",
                where,
                f"a block of {handle.size} bytes ends at {end}, behind the last block of the file",
                expected=f"at most {room}",
                found=end,
            )
        self._limits.check("block_bytes", handle.size, where, "the size of a block")
        return unpack_block(self._read(handle.offset, handle.size + TRAILER_BYTES), where, self._limits)

    def _parse_index(self, block: bytes) -> tuple[list[bytes], list[Handle]]:
        where = Where(self.path, offset=self._index.offset)
        separators, values = decode_block(block, where, limits=self._limits)
        handles: list[Handle] = []
        end = 0
        for value in values:
            try:
                handle, _ = parse_handle(value, 0)  # TensorFlow ignores what follows the handle, and so do we
            except ValueError as error:
                raise CorruptionError(
                    "table.bad-handle", where, f"no block handle in the index block: {error}"
                ) from None
            # A million handles of one block would make a small file long to read.
            if handle.offset < end:
                raise CorruptionError(
                    "table.bad-handle",
                    where,
                    "a block starts inside or before the block that precedes it",
                    expected=f"an offset of at least {end}",
                    found=handle.offset,
                )
            end = handle.offset + handle.size + TRAILER_BYTES
            handles.append(handle)
        return separators, handles

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None; reads one data block."""
        number = bisect_left(self._separators, key)
        if number == len(self.handles):
            return None
        search = self._searches.get(number)
        if search is None:
            handle = self.handles[number]
            search = BlockSearch(self._load(handle), Where(self.path, offset=handle.offset), self._limits)
            if self._keep_blocks is None:
                self._searches[number] = search
            elif handle.size <= _WHOLE_BYTES:
                if len(self._searches) >= self._keep_blocks:
                    self._searches = {}
                self._searches[number] = search
        return search.get(key)

    def blocks(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yield ``(keys, values)`` of every data block in order; the fast way through the whole table."""
        last: bytes | None = None
        for number, handle in enumerate(self.handles):
            where = Where(self.path, offset=handle.offset)
            keys, values = decode_block(self._load(handle), where, last, limits=self._limits)
            if keys:
                self._check_separators(number, keys, where)
                last = keys[-1]
            yield keys, values

    def _check_separators(self, number: int, keys: list[bytes], where: Where) -> None:
        # A lookup trusts the separators; keys outside theirs would be listed and yet never found.
        if keys[-1] > self._separators[number] or (number and keys[0] <= self._separators[number - 1]):
            raise CorruptionError(
                "table.separator", where, "the index block files these keys under another block", found=keys[0][:80]
            )

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every ``(key, value)`` in key order."""
        for keys, values in self.blocks():
            yield from zip(keys, values, strict=True)

    def first(self) -> tuple[bytes, bytes] | None:
        """Return the first ``(key, value)``, or None for an empty table; reads one block."""
        if not self.handles:
            return None
        handle = self.handles[0]
        return first_entry(self._load(handle), Where(self.path, offset=handle.offset))

    def salvage_blocks(self) -> Iterator[tuple[list[bytes], list[bytes]] | Finding]:
        """Yield like `blocks`, but a finding for each block that cannot be read, and go on behind it."""
        from openckpt.findings import finding_of

        last: bytes | None = None
        for number, handle in enumerate(self.handles):
            where = Where(self.path, offset=handle.offset)
            try:
                keys, values = decode_block(self._load(handle), where, last, limits=self._limits)
                if keys:
                    self._check_separators(number, keys, where)
            except FormatError as error:  # also a block type that we do not know, or keys beyond the limits
                yield finding_of(error)
                continue
            if keys:
                last = keys[-1]
            yield keys, values

    def validate(self) -> Iterator[Finding]:
        """Yield what is wrong with the file's structure apart from the data blocks' contents (`salvage_blocks`)."""
        from openckpt.findings import make_finding

        regions = [*self.handles, self._index]
        if self.metaindex is not None:
            where = Where(self.path, offset=self.metaindex.offset)
            try:
                end, _ = restarts_of(self._load(self.metaindex), where)
                regions.append(self.metaindex)
                if end:
                    yield make_finding("table.metaindex", where, "the metaindex block is not empty")
            except FormatError as error:
                what = f"the metaindex block, which nothing reads, is damaged: {error.message}"
                yield make_finding("table.metaindex", self._footer_where, what)
        for before, after in pairwise(sorted(regions)):
            if before.offset + before.size + TRAILER_BYTES > after.offset:
                yield make_finding(
                    "table.blocks-overlap",
                    Where(self.path, offset=after.offset),
                    f"the block at {after.offset} starts inside the block at {before.offset}",
                )
