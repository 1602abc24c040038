"""The directory of a zip file, from bytes to values.

    [local header, data, (descriptor)]*  central directory: one record per member  [zip64 end record, locator]  end record

    end record       PK\\5\\6  4 disk  6 disk of directory  8 count here  10 count  12 size  16 offset  20 comment length
    zip64 locator    PK\\6\\7  4 disk  8 offset of the zip64 end record  16 disks           (20 bytes before the end record)
    zip64 end        PK\\6\\6  4 size  16 disk  20 disk  24 count here  32 count  40 size  48 offset
    central record   PK\\1\\2  8 flags  10 method  12 time  14 date  16 crc  20 packed  24 size  28 name 30 extra 32 comment
                     38 attributes  42 offset of the local header  46 name, extra, comment
    local header     PK\\3\\4  6 flags  8 method  14 crc  18 packed  22 size  26 name  28 extra  30 name, extra

The central directory decides; a local header that says otherwise is damage. Bytes before the first member (self-extracting
files) shift all offsets. Not the standard library's zipfile: it locks one shared file position, cuts names at a zero byte,
finds overlapping members only in recent releases, and cannot say where a stored member's bytes lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.limits import MIB, Limits
from openckpt.storage.reading import ByteSource

END = b"PK\x05\x06"
LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_END64 = b"PK\x06\x06"
_LOCATOR = b"PK\x06\x07"
_END_SIZE, _LOCATOR_SIZE, _END64_SIZE, _CENTRAL_SIZE, LOCAL_SIZE = 22, 20, 56, 46, 30
_COMMENT = 65535
_UNIX, _FULL32 = 3, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One record of the central directory; offsets are those in the file. ``mode`` is 0 where it was not made on Unix."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    offset: int
    mode: int
    mtime_ns: int

    @property
    def encrypted(self) -> bool:
        """Whether the data is encrypted."""
        return bool(self.flags & 0x2041)

    @property
    def utf8(self) -> bool:
        """Whether the name is declared to be UTF-8."""
        return bool(self.flags & 0x800)

    @property
    def least_end(self) -> int:
        """Where the member ends at the earliest (its local header may have more extra fields)."""
        return self.offset + LOCAL_SIZE + len(self.name) + self.packed_size


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies, and how many bytes were put before the zip file."""

    offset: int
    size: int
    count: int
    shift: int
    wide: bool


def find_end(source: ByteSource) -> int | None:
    """Return the offset of the end record, or None. It is the last one whose comment fits into the file."""
    size = min(_END_SIZE + _COMMENT, source.size)
    start = source.size - size
    tail = source.read_at(start, size)
    at = tail.rfind(END)
    while at >= 0:
        if at + _END_SIZE <= size and at + _END_SIZE + int.from_bytes(tail[at + 20 : at + 22], "little") <= size:
            return start + at
        at = tail.rfind(END, 0, at)
    return None


def read_directory(source: ByteSource) -> Directory:
    """Find the central directory.

    Raises:
        CorruptionError: ``archive.truncated`` without an end record; ``archive.bad-directory`` where the end record lies.
        UnsupportedError: ``archive.multi-disk``.
    """
    where = Where(source.path, offset=source.size)
    end = find_end(source)
    if end is None:
        raise CorruptionError(
            "archive.truncated",
            where,
            f"the zip file has no directory at its end, {source.size} bytes exist: the download or copy broke off",
        )
    disk, start_disk, here, count, size, offset = struct.unpack("<4H2L", source.read_at(end + 4, 16))
    record = end
    wide = False
    locator = source.read_at(end - _LOCATOR_SIZE, _LOCATOR_SIZE) if end >= _LOCATOR_SIZE else b""
    if locator[:4] == _LOCATOR:
        wide = True
        record = end - _LOCATOR_SIZE - _END64_SIZE
        stated: int = struct.unpack("<Q", locator[8:16])[0]
        if record < 0 or source.read_at(record, 4) != _END64:
            record = stated  # there are extensible data between
        if record + _END64_SIZE > end or source.read_at(record, 4) != _END64:
            raise CorruptionError(
                "archive.bad-directory", Where(source.path, offset=record), "no zip64 end record there"
            )
        disk, start_disk, here, count, size, offset = struct.unpack("<2L4Q", source.read_at(record + 16, 40))
    if disk or start_disk or here != count:
        raise UnsupportedError("archive.multi-disk", where, "this is one part of a zip file that is split into several")
    shift = record - size - offset
    if shift < 0:
        raise CorruptionError(
            "archive.bad-directory",
            Where(source.path, offset=end),
            "the end record places the directory where it cannot be",
            expected=f"the end of the directory at {record}",
            found=f"{offset} + {size}",
        )
    if count and (size < _CENTRAL_SIZE or source.read_at(record - size, 4) != _CENTRAL):
        raise CorruptionError(
            "archive.bad-directory", Where(source.path, offset=record - size), "no directory where the end record says"
        )
    return Directory(record - size, size, count, shift, wide)


def iter_entries(source: ByteSource, directory: Directory, limits: Limits) -> Iterator[ZipEntry]:
    """Read the central directory piece by piece.

    Raises:
        CorruptionError: a record does not fit (``archive.bad-directory``).
        LimitError: more members than allowed.
    """
    limits.check("archive_members", directory.count, source.path, "the number of members")
    at, end = directory.offset, directory.offset + directory.size
    base, data = at, b""
    count = 0
    while at < end:
        if at - base + _CENTRAL_SIZE + 3 * 65535 > len(data) and base + len(data) < end:
            base, data = at, source.read_at(at, min(MIB, end - at))
        entry, length = _parse_entry(data, at - base, at, source, directory)
        at += length
        count += 1
        limits.check("archive_members", count, source.path, "the number of members")
        yield entry
    # Old Java tools wrote more than 65,535 members without zip64; the count is then what is left of it.
    if count != directory.count and (directory.wide or count & 0xFFFF != directory.count):
        raise CorruptionError(
            "archive.bad-directory",
            Where(source.path, offset=end),
            "the end record counts other members than there are",
            expected=directory.count,
            found=count,
        )


def _parse_entry(data: bytes, pos: int, at: int, source: ByteSource, directory: Directory) -> tuple[ZipEntry, int]:
    fixed = data[pos : pos + _CENTRAL_SIZE]
    if len(fixed) < _CENTRAL_SIZE or fixed[:4] != _CENTRAL:
        raise _bad(source, at, "no record of a member here")
    system = fixed[5]
    flags, method, time, date, crc, packed, size, names, extras, comment, disk = struct.unpack("<4H3L4H", fixed[8:36])
    attributes, offset = struct.unpack("<2L", fixed[38:46])
    length = _CENTRAL_SIZE + names + extras + comment
    if pos + length > len(data):
        raise _bad(source, at, "the record of a member is longer than the directory")
    name = data[pos + _CENTRAL_SIZE : pos + _CENTRAL_SIZE + names]
    extra = data[pos + _CENTRAL_SIZE + names : pos + _CENTRAL_SIZE + names + extras]
    size, packed, offset, disk = _widen(extra, [size, packed, offset], disk, source, at)
    if disk:
        raise UnsupportedError("archive.multi-disk", Where(source.path, offset=at), "a member lies in another part")
    offset += directory.shift
    if offset + LOCAL_SIZE + names + packed > directory.offset:
        raise CorruptionError(
            "archive.bad-directory",
            Where(source.path, offset=at),
            f"the member {name.decode('utf-8', 'replace')!r} does not fit before the directory",
            expected=f"an end before {directory.offset}",
            found=f"{offset} + {LOCAL_SIZE + names} + {packed}",
        )
    mode = attributes >> 16 if system == _UNIX else 0
    return ZipEntry(name, flags, method, crc, packed, size, offset, mode, _time_ns(date, time)), length


def _widen(extra: bytes, values: list[int], disk: int, source: ByteSource, at: int) -> tuple[int, int, int, int]:
    """Return size, packed size, offset and disk, taking from the zip64 extra field those that are full in the record."""
    full = [i for i, value in enumerate(values) if value == _FULL32]
    if full or disk == 0xFFFF:
        wide = find_extra(extra, 1)
        if wide is None or len(wide) < 8 * len(full) + (4 if disk == 0xFFFF else 0):
            raise _bad(source, at, "a member's zip64 field is missing or short")
        for n, i in enumerate(full):
            values[i] = int.from_bytes(wide[8 * n : 8 * n + 8], "little")
        if disk == 0xFFFF:
            disk = int.from_bytes(wide[8 * len(full) :][:4], "little")
    return values[0], values[1], values[2], disk


def find_extra(extra: bytes, wanted: int) -> bytes | None:
    """Return the extra field with the id ``wanted``, or None."""
    at = 0
    while at + 4 <= len(extra):
        ident, size = struct.unpack_from("<2H", extra, at)
        if ident == wanted:
            return extra[at + 4 : at + 4 + size]
        at += 4 + size
    return None


def _bad(source: ByteSource, at: int, message: str) -> CorruptionError:
    return CorruptionError("archive.bad-directory", Where(source.path, offset=at), message)


def _time_ns(date: int, time: int) -> int:
    """Return the time of a record (local time of whoever packed it, taken as UTC), 0 where it is none."""
    from datetime import datetime

    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            2 * (time & 31),
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp()) * 10**9
