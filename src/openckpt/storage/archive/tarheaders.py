"""Tar headers, from bytes to values. A tar is 512-byte blocks: header, data padded to whole blocks, header, ..., zeros.

    0 name 100 | 100 mode | 108 uid | 116 gid | 124 size 12 | 136 mtime 12 | 148 checksum 8 | 156 type 1
    157 link name 100 | 257 "ustar\\0" "00" (POSIX) or "ustar  \\0" (GNU) or zeros (v7) | 345 prefix 155 (POSIX)

Numbers are octal text, or base 256 when the first bit is set. Longer names and sizes come in members of their own before
the real one: type L and K (GNU), x and g (pax: lines ``LENGTH KEY=VALUE\\n``).

Not the standard library's tarfile: its header parser is quadratic on some headers and loops on others in Python versions
that we support (CVE-2024-6232, CVE-2025-8194), and it neither bounds a long name nor says where a header is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from openckpt.errors import CorruptionError, Where
from openckpt.limits import Limits
from openckpt.storage.archive.names import decode_name

BLOCK = 512
_ZEROS = bytes(BLOCK)
_OCTAL = b"01234567"
_NO_DATA = frozenset(b"123456")  # links, devices, directories, FIFOs: a size field there means nothing (POSIX)
WORDS = {
    "1": "a hard link to",
    "2": "a symbolic link to",
    "3": "a character device",
    "4": "a block device",
    "6": "a FIFO",
    "S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member: ``size`` bytes of data at ``offset`` of the tar; ``type`` is the one-letter type flag."""

    name: str
    type: str
    offset: int
    size: int
    link: str
    mtime: int
    sparse: bool


class Forward(Protocol):
    """Bytes that are read from front to back."""

    offset: int
    """how many bytes were read or skipped"""

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        ...

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes and return how many there were."""
        ...


def is_tar_header(block: bytes) -> bool:
    """Return whether a block is a header: its checksum, which no other file has by chance, is right."""
    return len(block) >= BLOCK and block[0] != 0 and _checksum_fits(block[:BLOCK])


def _checksum_fits(block: bytes) -> bool:
    text = block[148:156].strip(b" \0")
    if not text or text.strip(_OCTAL):
        return False
    stated = int(text, 8)
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stated == total:
        return True
    # Some old writers summed signed chars.
    return stated == total - 256 * sum(1 for i, byte in enumerate(block) if byte > 127 and not 148 <= i < 156)


def parse_number(field: bytes) -> int | None:
    """Return the value of a number field, None where it is not a number or negative."""
    if field[0] & 0x80:
        return None if field[0] & 0x40 else int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    text = field.partition(b"\0")[0].strip(b" ")
    if text.strip(_OCTAL):  # int() would take signs and underscores
        return None
    return int(text, 8) if text else 0


def parse_pax(data: bytes, where: Where) -> dict[str, bytes]:
    """Return the records of a pax extended header.

    Raises:
        CorruptionError: a record's length does not fit its text (code ``archive.bad-header``).
    """
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at]:  # some writers fill up with zeros
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        equals = data.find(b"=", space, end)
        if end > len(data) or equals < 0 or data[end - 1] != 0x0A:
            raise CorruptionError("archive.bad-header", where, f"record at byte {at} of an extended header is not one")
        records[data[space + 1 : equals].decode("utf-8", "surrogateescape")] = data[equals + 1 : end - 1]
        at = end
    return records


class TarScan:
    """Iterates over the members of a tar; after each one the caller may take any part of its data from the stream.

    ``ended`` tells, after the last member, whether there was an end marker.
    """

    def __init__(self, stream: Forward, path: str, limits: Limits) -> None:
        self._stream = stream
        self._path = path
        self._limits = limits
        self.ended = False

    def _bad(self, offset: int, message: str) -> CorruptionError:
        return CorruptionError("archive.bad-header", Where(self._path, offset=offset), message)

    def _payload(self, size: int, offset: int, what: str) -> bytes:
        self._limits.check("archive_header_bytes", size, Where(self._path, offset=offset), f"the size of {what}")
        data = self._stream.read(size)
        self._pad(size)
        if len(data) < size:
            raise self._cut(what, size, len(data))
        return data

    def _pad(self, size: int) -> None:
        self._stream.skip(-size % BLOCK)

    def _cut(self, what: str, size: int, got: int) -> CorruptionError:
        return CorruptionError(
            "archive.truncated",
            Where(self._path, offset=self._stream.offset),
            f"the archive ends early, inside {what}: the download or copy broke off",
            expected=f"{size} bytes",
            found=f"{got} bytes",
        )

    def __iter__(self) -> Iterator[TarEntry]:
        stream = self._stream
        everywhere: dict[str, bytes] = {}
        here: dict[str, bytes] = {}
        count = 0
        while True:
            at = stream.offset
            block = stream.read(BLOCK)
            if not block:
                return
            if len(block) < BLOCK:
                raise self._cut("a member's header", BLOCK, len(block))
            if block == _ZEROS:
                self.ended = True
                return
            count += 1
            self._limits.check("archive_members", count, self._path, "the number of members")
            if not _checksum_fits(block):
                raise self._bad(
                    at, f"the header at {at} of the tar has a wrong checksum, so nothing behind it is found"
                )
            size = parse_number(block[124:136])
            kind = chr(block[156] or 0x30)
            if size is None:
                raise self._bad(at, f"the header at {at} of the tar states no valid size")
            if kind in "xXg":
                records = parse_pax(self._payload(size, at, "an extended header"), Where(self._path, offset=at))
                (everywhere if kind == "g" else here).update(records)
                continue
            if kind in "LK":
                name = self._payload(size, at, "a long name").partition(b"\0")[0]
                here["path" if kind == "L" else "linkpath"] = name
                continue
            records = {**everywhere, **here} if everywhere else here
            here = {}
            entry = self._entry(block, kind, size, at, records)
            yield entry
            end = entry.offset + entry.size
            missing = end - stream.offset
            if missing > 0:
                got = stream.skip(missing)
                if got < missing:
                    have = entry.size - missing + got
                    raise self._cut(f"the member {entry.name!r}", entry.size, have)
            self._pad(entry.size)

    def _entry(self, block: bytes, kind: str, size: int, at: int, records: dict[str, bytes]) -> TarEntry:
        sparse = kind == "S"
        if sparse and block[482]:
            while self._stream.read(BLOCK)[504:505] not in (b"", b"\0"):  # more of the map of an old GNU sparse file
                pass
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0":
            prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
            name = prefix + b"/" + name if prefix else name
        link = block[157:257].partition(b"\0")[0]
        if records:
            name = records.get("GNU.sparse.name") or records.get("path") or name
            link = records.get("linkpath") or link
            sparse = sparse or any(key.startswith("GNU.sparse.") for key in records)
            stated = records.get("size")
            if stated:
                if not stated.isdigit() or len(stated) > 19:
                    raise self._bad(at, f"the extended header before {at} of the tar states the size {stated[:30]!r}")
                size = int(stated)
        if kind in "07" and name.endswith(b"/") and not sparse:
            kind = "5"  # how v7 wrote a directory
        if ord(kind) in _NO_DATA:
            size = 0
        return TarEntry(
            decode_name(name),
            kind,
            self._stream.offset,
            size,
            decode_name(link),
            parse_number(block[136:148]) or 0,
            sparse,
        )
