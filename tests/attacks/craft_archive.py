"""Archives made by hand, right or wrong in any one place. Shares no code with openckpt or with the standard library's writers.

Functions return bytes; everything that a file computes (sizes, offsets, counts, checksums) has an argument that overrides it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attacks.craft import varint

MIB = 1 << 20
BLOCK = 512
END_OF_TAR = bytes(2 * BLOCK)


# --------------------------------------------------------------------------------------------------------------- tar


def tar_header(
    name: bytes,
    size: int | bytes = 0,
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: int | None = None,
    mtime: bytes = b"%011o\0" % 1_600_000_000,
) -> bytes:
    """One header block; ``size`` may be the 12 bytes of the field."""
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    head = name.ljust(100, b"\0")[:100] + b"0000644\0" + b"0001000\0" * 2 + size_field.ljust(12, b"\0") + mtime
    rest = (
        kind + link.ljust(100, b"\0")[:100] + magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(155, b"\0") + bytes(12)
    )
    total = sum(head) + 8 * 32 + sum(rest) if checksum is None else checksum
    return head + b"%06o\0 " % total + rest


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def tar_file(name: bytes, data: bytes, **overrides: object) -> bytes:
    """One member with its data."""
    return tar_header(name, len(data), **overrides) + padded(data)  # type: ignore[arg-type]


def pax_record(key: bytes, value: bytes, *, length: int | None = None) -> bytes:
    """One record of an extended header; the length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while size != len(body) + len(str(size)):
        size = len(body) + len(str(size))
    return str(size if length is None else length).encode() + body


def pax_header(*records: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    """The member that carries extended headers for the next one (x) or for all (g)."""
    data = b"".join(records)
    return tar_header(b"PaxHeader", len(data) if size is None else size, kind=kind) + padded(data)


def long_name(name: bytes, *, size: int | None = None, kind: bytes = b"L") -> bytes:
    """The member that carries the long name of the next one, the GNU way."""
    return tar_header(b"././@LongLink", len(name) + 1 if size is None else size, kind=kind) + padded(name + b"\0")


def tar(*members: bytes, end: bytes = END_OF_TAR) -> bytes:
    """A whole tar."""
    return b"".join(members) + end


# ------------------------------------------------------------------------------------------------------- compression


def gzip_member(data: bytes, *, crc: int | None = None, size: int | None = None) -> bytes:
    """One gzip stream."""
    engine = zlib.compressobj(1, zlib.DEFLATED, -15)
    crc = zlib.crc32(data) if crc is None else crc
    tail = struct.pack("<2L", crc, (len(data) if size is None else size) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08" + bytes(7) + engine.compress(data) + engine.flush() + tail


def deflated_zeros(mebibytes: int) -> bytes:
    """A raw deflate stream of that many mebibytes of zeros, about a thousandth of its size."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = engine.compress(bytes(MIB)) + engine.flush(zlib.Z_FULL_FLUSH)
    return piece * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def gzip_of(raw_deflate: bytes) -> bytes:
    """A gzip file around a raw deflate stream; its checksum is wrong."""
    return b"\x1f\x8b\x08" + bytes(7) + raw_deflate + bytes(8)


# --------------------------------------------------------------------------------------------------------------- zip


@dataclass
class ZipMember:
    """One member; the fields of the local header are those of the directory unless given."""

    name: bytes
    data: bytes = b""
    method: int = 0
    flags: int = 0
    stored: bytes | None = None
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    offset: int | None = None
    extra: bytes = b""
    attributes: int = 0
    system: int = 3
    disk: int = 0
    local: dict[str, int | bytes] = field(default_factory=dict)

    def body(self) -> bytes:
        """The bytes that lie in the file."""
        if self.stored is not None:
            return self.stored
        if self.method != 8:
            return self.data
        engine = zlib.compressobj(6, zlib.DEFLATED, -15)
        return engine.compress(self.data) + engine.flush()

    def values(self) -> tuple[int, int, int]:
        """Checksum, packed size and size."""
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        packed = len(self.body()) if self.packed is None else self.packed
        return crc, packed, len(self.data) if self.size is None else self.size

    def local_header(self) -> bytes:
        """The header in front of the data."""
        crc, packed, size = self.values()
        name = self.local.get("name", self.name)
        extra = self.local.get("extra", self.extra)
        assert isinstance(name, bytes) and isinstance(extra, bytes)
        get = self.local.get
        fixed = struct.pack(
            "<4s5H3L2H", get("signature", b"PK\x03\x04"), 20, get("flags", self.flags), get("method", self.method), 0, 33,
            get("crc", crc), get("packed", packed), get("size", size), len(name), len(extra),
        )  # fmt: skip
        return fixed + name + extra

    def record(self, offset: int) -> bytes:
        """The record of the directory."""
        crc, packed, size = self.values()
        at = offset if self.offset is None else self.offset
        fixed = struct.pack(
            "<4s2B5H3L5H2L", b"PK\x01\x02", 20, self.system, 20, self.flags, self.method, 0, 33, crc, packed, size,
            len(self.name), len(self.extra), 0, self.disk, 0, self.attributes, at,
        )  # fmt: skip
        return fixed + self.name + self.extra


def zip_end(
    count: int, size: int, offset: int, *, disk: int = 0, comment: bytes = b"", here: int | None = None
) -> bytes:
    """The end record."""
    here = count if here is None else here
    return struct.pack("<4s4H2LH", b"PK\x05\x06", disk, disk, here, count, size, offset, len(comment)) + comment


def zip_file(members: Sequence[ZipMember], **end: int | bytes) -> bytes:
    """A whole zip; ``count``, ``size``, ``offset``, ``disk``, ``here`` and ``comment`` override the end record."""
    out = bytearray()
    records = []
    for member in members:
        records.append(member.record(len(out)))
        out += member.local_header() + member.body()
    directory = b"".join(records)
    values: dict[str, int | bytes] = {"count": len(members), "size": len(directory), "offset": len(out), **end}
    return bytes(out) + directory + zip_end(**values)  # type: ignore[arg-type]


def plain_zip(files: Iterable[tuple[str, bytes]], method: int = 0) -> bytes:
    """A sound zip."""
    return zip_file([ZipMember(name.encode(), data, method) for name, data in files])


# --------------------------------------------------------------------------------------------------------------- mag


def mag(*checkpoints: bytes, meta: bytes | None = b"meta", details: bytes = b"\x0a\x03rnn") -> bytes:
    """A Magenta bundle."""
    fields = [(1, details), *((2, data) for data in checkpoints)]
    if meta is not None:
        fields.append((3, meta))
    return b"".join(bytes([number << 3 | 2]) + varint(len(data)) + data for number, data in fields)
