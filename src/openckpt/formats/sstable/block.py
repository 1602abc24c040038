"""Reading one uncompressed block: all of it at once, or one key by its restart points (formats 1.2).

Both are the inner loops of listing a checkpoint (a microsecond per tensor), hence the flat code.
"""

from __future__ import annotations

from bisect import bisect_right

from openckpt.errors import CorruptionError, Where
from openckpt.formats.wire import parse_varint
from openckpt.limits import DEFAULT_LIMITS, Limits


def _bad(where: Where, what: str) -> CorruptionError:
    return CorruptionError("table.bad-entry", where, f"a block entry is not readable: {what}")


def restarts_of(block: bytes, where: Where) -> tuple[int, int]:
    """Return ``(end of the entries, number of restart points)`` after checking that they fit in the block."""
    size = len(block)
    if size < 4:
        raise CorruptionError("table.bad-block", where, "a block is too small", expected="4 bytes or more", found=size)
    count = int.from_bytes(block[size - 4 :], "little")
    if count > (size - 4) // 4:
        raise CorruptionError(
            "table.bad-block",
            where,
            f"a block of {size} bytes claims {count} restart points",
            expected=f"at most {(size - 4) // 4}",
        )
    return size - 4 - 4 * count, count


def _parse_head(block: bytes, pos: int) -> tuple[int, int, int, int]:
    """Return ``(shared, non-shared, value length, position of the key's own bytes)`` of the entry at ``pos``."""
    shared, pos = parse_varint(block, pos)
    rest, pos = parse_varint(block, pos)
    length, pos = parse_varint(block, pos)
    return shared, rest, length, pos


def _check_growth(key_bytes: int, growth: int, where: Where, limits: Limits) -> None:
    # Entries of a few bytes may share a prefix of a megabyte: 1 MB would spell out a terabyte of keys.
    limits.check("key_bytes", key_bytes, where, "the length of a key")
    limits.check("key_expansion", growth, where, "the growth of keys by shared prefixes")


def decode_block(
    block: bytes, where: Where, last: bytes | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[list[bytes], list[bytes]]:
    """Return the keys and the values of a block, in order.

    Args:
        block: the uncompressed block.
        where: file and offset of the block, for errors.
        last: the key before this block, or None for the first one: keys strictly increase over the whole table.
        limits: cap the length of a key, and how far shared prefixes may make keys longer than the block.
    """
    end, _ = restarts_of(block, where)
    keys: list[bytes] = []
    values: list[bytes] = []
    add_key, add_value = keys.append, values.append
    pos, key, spelled = 0, b"", 0
    previous = last
    try:
        while pos < end:
            shared, rest, length = block[pos], block[pos + 1], block[pos + 2]
            if (shared | rest | length) < 0x80:
                pos += 3
            else:
                shared, rest, length, pos = _parse_head(block, pos)
                if shared <= len(key) and rest <= end:
                    spelled += shared
                    _check_growth(shared + rest, spelled // end, where, limits)
            if shared > len(key):
                raise _bad(where, f"it shares {shared} bytes with a key of {len(key)}")
            start = pos + rest
            key = key[:shared] + block[pos:start]
            pos = start + length
            if pos > end:
                raise _bad(where, f"it ends at {pos}, the entries of the block at {end}")
            if previous is not None and key <= previous:
                raise CorruptionError(
                    "table.key-order", where, f"key {key[:80]!r} does not sort after {previous[:80]!r} before it"
                )
            previous = key
            add_key(key)
            add_value(block[start:pos])
    except (IndexError, ValueError) as error:
        raise _bad(where, str(error)) from None
    return keys, values


def first_entry(block: bytes, where: Where) -> tuple[bytes, bytes] | None:
    """Return the first ``(key, value)`` of a block without looking at the others, or None for an empty block."""
    end, _ = restarts_of(block, where)
    if end == 0:
        return None
    try:
        shared, rest, length, pos = _parse_head(block, 0)
    except ValueError as error:
        raise _bad(where, str(error)) from None
    if shared or pos + rest + length > end:
        raise _bad(where, "the first one is not whole")
    return block[pos : pos + rest], block[pos + rest : pos + rest + length]


class BlockSearch:
    """One block prepared for looking up single keys: the restart keys, bisected, then at most 16 entries scanned."""

    __slots__ = ("_block", "_end", "_keys", "_limits", "_offsets", "_where")

    def __init__(self, block: bytes, where: Where, limits: Limits = DEFAULT_LIMITS) -> None:
        end, count = restarts_of(block, where)
        self._block, self._end, self._where, self._limits = block, end, where, limits
        offsets = [int.from_bytes(block[i : i + 4], "little") for i in range(end, len(block) - 4, 4)]
        keys = []
        pos = 0
        try:
            for offset in offsets:
                if offset >= end:
                    if offset == 0 and count == 1:
                        break  # the empty block
                    raise _bad(where, f"a restart point at {offset}, the entries end at {end}")
                if offset < pos:  # many points into one long key would copy it as many times
                    raise _bad(where, f"a restart point at {offset}, inside or before the entry that ends at {pos}")
                shared, rest, length, pos = _parse_head(block, offset)
                if shared or pos + rest + length > end:
                    raise _bad(where, "a restart point is not the start of a whole entry")
                keys.append(block[pos : pos + rest])
                pos += rest + length
        except ValueError as error:
            raise _bad(where, str(error)) from None
        self._offsets, self._keys = offsets, keys

    def get(self, wanted: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        at = bisect_right(self._keys, wanted) - 1
        if at < 0:
            return None
        block, pos = self._block, self._offsets[at]
        end = self._offsets[at + 1] if at + 1 < len(self._offsets) else self._end
        key, spelled = b"", 0
        try:
            while pos < end:
                shared, rest, length = block[pos], block[pos + 1], block[pos + 2]
                if (shared | rest | length) < 0x80:
                    pos += 3
                else:
                    shared, rest, length, pos = _parse_head(block, pos)
                    if shared <= len(key) and rest <= self._end:
                        spelled += shared
                        _check_growth(shared + rest, spelled // self._end, self._where, self._limits)
                if shared > len(key):
                    raise _bad(self._where, f"it shares {shared} bytes with a key of {len(key)}")
                start = pos + rest
                key = key[:shared] + block[pos:start]
                pos = start + length
                if pos > self._end:
                    raise _bad(self._where, f"it ends at {pos}, the entries of the block at {self._end}")
                if key == wanted:
                    return block[start:pos]
                if key > wanted:
                    return None
        except (IndexError, ValueError) as error:
            raise _bad(self._where, str(error)) from None
        return None
