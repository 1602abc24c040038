"""Hostile archives: bombs, lies about sizes and places, names and links that lead outside, and archives in archives.

The checkpoint inside is sound except where the archive is not; no case may write, follow, or unpack anything.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping

from attacks import craft
from attacks import craft_archive as make
from attacks.attack import Attack
from attacks.craft_archive import MIB, ZipMember
from containers import tarred

DATA = craft.floats(1.0, 2.0)
INDEX = craft.table([(b"", craft.header()), (b"a", craft.entry(DATA, 2))])
V1 = craft.table([(b"", b"\x0a\x00\x12\x02\x08\x01"), (b"\0a", b"\x12\x00")])
INDEX_NAME, DATA_NAME = b"run/ckpt.index", b"run/ckpt.data-00000-of-00001"
FULL = 0xFFFFFFFF


def _attack(name: str, code: str, file: str, data: bytes | Callable[[], bytes], **more: str) -> Attack:
    """One archive; large ones are made when their case runs."""

    def files() -> Mapping[str, bytes]:
        return {file: data() if callable(data) else data}

    return Attack(name, files, more.pop("path", file), code, **more)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- zip


def _zip(name: str, code: str, *, how: str = "read", **end: int | bytes) -> Attack:
    """A sound zip but for its end record."""
    return _attack(name, code, "a.zip", make.zip_file([_index(), _shard()], **end), how=how)


def _zip_member(name: str, code: str, member: ZipMember, *, how: str = "read") -> Attack:
    """A zip with one hostile member: the index where it is called so, the shard otherwise."""
    members = [member, _shard()] if member.name == INDEX_NAME else [_index(), member]
    path = "a.zip!run/ckpt" if how == "read" else "a.zip"
    return _attack(name, code, "a.zip", make.zip_file(members), how=how, path=path)


def _index(**overrides: object) -> ZipMember:
    return ZipMember(INDEX_NAME, INDEX, **overrides)  # type: ignore[arg-type]


def _shard(**overrides: object) -> ZipMember:
    return ZipMember(DATA_NAME, DATA, **overrides)  # type: ignore[arg-type]


def _extra64(*values: int) -> bytes:
    return b"\x01\x00" + struct.pack(f"<H{len(values)}Q", 8 * len(values), *values)


def _quine() -> bytes:
    """Ten thousand members that all unpack the same megabyte (the overlap bomb of 2019)."""
    kernel = ZipMember(b"kernel", bytes(MIB), 8)
    members = [_index(), kernel] + [ZipMember(b"m%05d" % i, b"", stored=b"", offset=len(INDEX)) for i in range(10_000)]
    return make.zip_file(members)


def _bomb(mebibytes: int, **overrides: object) -> ZipMember:
    stored = make.deflated_zeros(mebibytes)
    return ZipMember(DATA_NAME, b"", 8, stored=stored, **{"size": mebibytes * MIB, "crc": 0, **overrides})  # type: ignore[arg-type]


def _million_members() -> bytes:
    """A zip64 end record that states ten billion members."""
    sound = make.zip_file([_index(), _shard()])
    at = sound.rindex(make.zip_end(2, 0, 0)[:4])
    size, offset = struct.unpack("<2L", sound[at + 12 : at + 20])
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**10, 10**10, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
    return sound[:at] + end + locator + make.zip_end(0xFFFF, FULL, FULL)


ZIPS = [
    _attack("zip-without-directory", "archive.truncated", "a.zip", make.zip_file([_index(), _shard()])[:150]),
    _zip("zip-directory-past-the-end", "archive.bad-directory", offset=1 << 30),
    _zip("zip-directory-larger-than-the-file", "archive.bad-directory", size=FULL - 1),
    _zip("zip-directory-of-no-bytes", "archive.bad-directory", size=0),
    _zip("zip-counts-more-members", "archive.bad-directory", count=60_000),
    _zip("zip-counts-fewer-members", "archive.bad-directory", count=1),
    _zip("zip-is-one-of-several", "archive.multi-disk", disk=7),
    _attack("zip64-counts-ten-billion-members", "limits.exceeded", "a.zip", _million_members),
    _zip_member("zip64-field-missing", "archive.bad-directory", _shard(size=FULL)),
    _zip_member("zip64-size-of-8-exbibytes", "archive.bad-directory", _shard(packed=FULL, extra=_extra64(1 << 63))),
    _zip_member("zip64-offset-wraps-around", "archive.bad-directory", _shard(offset=FULL, extra=_extra64((1 << 64) - 1))),
    _zip_member("zip-member-in-the-directory", "archive.bad-directory", _shard(offset=200)),
    _zip_member("zip-member-reaches-past-the-end", "archive.bad-directory", _shard(packed=1 << 31, size=1 << 31)),
    _zip_member("zip-member-shares-another", "archive.overlap", _shard(offset=0)),
    _attack("zip-overlap-bomb", "archive.overlap", "a.zip", _quine),
    _attack("zip-bomb", "limits.exceeded", "a.zip", lambda: make.zip_file([_index(), _bomb(200)])),
    _attack("zip-bomb-that-lies", "archive.size-mismatch", "a.zip", lambda: make.zip_file([_index(), _bomb(200, size=8)])),
    _zip_member("zip-declares-4-gigabytes", "limits.exceeded", _shard(method=8, size=FULL - 1)),
    _zip_member("zip-declares-more-than-it-has", "archive.size-mismatch", _shard(method=8, size=1 << 20)),
    _zip_member("zip-stored-sizes-differ", "archive.header-mismatch", _index(size=1 << 20)),
    _zip_member("zip-local-name-differs", "archive.header-mismatch", _index(local={"name": b"run/ckpt.other"})),
    _zip_member("zip-local-sizes-differ", "archive.header-mismatch", _index(local={"size": 5, "packed": 5})),
    _zip_member("zip-local-header-is-none", "archive.header-mismatch", _shard(local={"signature": b"\0\0\0\0"})),
    _zip_member("zip-wrong-crc", "archive.crc-mismatch", _shard(method=8, crc=0xDEADBEEF)),
    _zip_member("zip-deflate-garbage", "archive.damaged", _shard(method=8, stored=b"\xff" * 40)),
    _zip_member("zip-encrypted", "archive.encrypted", _shard(flags=1)),
    _zip_member("zip-unknown-method", "archive.compression", _shard(method=97)),
    _zip_member(
        "zip-lzma-dictionary-of-4-gigabytes", "limits.exceeded",
        _shard(method=14, stored=b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(30)),
    ),
    _zip_member("zip-link-to-the-system", "archive.link", ZipMember(DATA_NAME, b"/etc/passwd", attributes=0o120777 << 16)),
    _zip_member("zip-device", "archive.special-file", ZipMember(DATA_NAME, DATA, attributes=0o020666 << 16)),
    _zip_member("zip-name-climbs", "archive.unsafe-name", ZipMember(b"../" * 40 + b"etc/cron.d/x", b"x"), how="doctor"),
    _zip_member("zip-name-absolute-windows", "archive.unsafe-name", ZipMember(b"C:\\Windows\\x", b"x"), how="doctor"),
    _zip_member("zip-name-with-zero-byte", "archive.unsafe-name", ZipMember(b"x\0.index", b"x"), how="doctor"),
    _attack(
        "zip-in-zip-in-zip", "limits.exceeded", "a.zip",
        make.plain_zip([("b.zip", make.plain_zip([("c.zip", make.zip_file([_index(), _shard()]))]))]),
        path="a.zip!b.zip!c.zip",
    ),
]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tar

SOUND = make.tar_file(INDEX_NAME, INDEX), make.tar_file(DATA_NAME, DATA)
_EIGHT_EXBIBYTES = b"\x80" + (1 << 63).to_bytes(11, "big")
_HUNDRED_GIGABYTES = b"\x80" + (100 * 10**9).to_bytes(11, "big")


def _tar(name: str, code: str, *members: bytes, end: bytes = make.END_OF_TAR, how: str = "read") -> Attack:
    return _attack(name, code, "a.tar", make.tar(*members, end=end), how=how)


def _instead_of_shard(name: str, code: str, header: bytes) -> Attack:
    """The index is sound; what should be the shard is something else."""
    return _tar(name, code, SOUND[0], header)


TARS = [
    _tar("tar-cut-in-a-member", "archive.truncated", SOUND[0], SOUND[1][:515], end=b""),
    _tar("tar-cut-in-a-header", "archive.truncated", SOUND[0], SOUND[1][:100], end=b""),
    _tar("tar-size-of-8-exbibytes", "archive.truncated", SOUND[0], make.tar_header(DATA_NAME, _EIGHT_EXBIBYTES)),
    _tar("tar-size-of-100-gigabytes", "archive.truncated", SOUND[0], make.tar_header(DATA_NAME, _HUNDRED_GIGABYTES)),
    _tar("tar-size-negative", "archive.bad-header", make.tar_header(INDEX_NAME, b"\xff" * 12), SOUND[1]),
    _tar("tar-size-with-underscore", "archive.bad-header", make.tar_header(INDEX_NAME, b"1_0\0"), SOUND[1]),
    _tar("tar-second-header-broken", "archive.bad-header", SOUND[0], make.tar_header(DATA_NAME, 8, checksum=1)),
    _tar("tar-pax-length-lies", "archive.bad-header", make.pax_header(make.pax_record(b"path", b"x", length=4000)), *SOUND),
    _tar("tar-pax-length-zero", "archive.bad-header", make.pax_header(b"0 path=x\n"), *SOUND),
    _tar("tar-pax-of-digits", "archive.bad-header", make.pax_header(b"1" * 900_000), *SOUND),
    _tar("tar-pax-size-is-no-number", "archive.bad-header", make.pax_header(make.pax_record(b"size", b"-1")), *SOUND),
    _tar(
        "tar-pax-size-lies", "archive.truncated",
        SOUND[0], make.pax_header(make.pax_record(b"size", b"9" * 18)), SOUND[1],
    ),
    _tar("tar-pax-header-of-8-gigabytes", "limits.exceeded", make.pax_header(size=8**11 - 1), *SOUND),
    _tar("tar-long-name-of-8-gigabytes", "limits.exceeded", make.long_name(b"x", size=8**11 - 1), *SOUND),
    _tar("tar-long-name-cut", "archive.truncated", make.long_name(b"x", size=900_000), end=b""),
    _instead_of_shard("tar-symlink-to-the-system", "archive.link", make.tar_header(DATA_NAME, kind=b"2", link=b"/etc/passwd")),
    _instead_of_shard("tar-symlink-to-outside", "archive.link", make.tar_header(DATA_NAME, kind=b"2", link=b"../../outside.h5")),
    _instead_of_shard("tar-hard-link", "archive.link", make.tar_header(DATA_NAME, 8, kind=b"1", link=b"/etc/shadow")),
    _instead_of_shard("tar-device", "archive.special-file", make.tar_header(DATA_NAME, kind=b"3")),
    _instead_of_shard("tar-fifo", "archive.special-file", make.tar_header(DATA_NAME, kind=b"6")),
    _instead_of_shard("tar-sparse", "archive.special-file", make.tar_header(DATA_NAME, kind=b"S", magic=b"ustar  \0")),
    _instead_of_shard("tar-unknown-type", "archive.special-file", make.tar_header(DATA_NAME, kind=b"Z")),
    _tar("tar-name-climbs", "archive.unsafe-name", *SOUND, make.tar_file(b"../../.ssh/authorized_keys", b"x"), how="doctor"),
    _tar("tar-name-absolute", "archive.unsafe-name", *SOUND, make.tar_file(b"/etc/cron.d/x", b"x"), how="doctor"),
    _tar(
        "tar-name-of-40000-directories", "archive.unsafe-name",
        *SOUND, make.long_name(b"../" + b"a/" * 40_000 + b"x"), make.tar_file(b"x", b"1"), how="doctor",
    ),
]  # fmt: skip


# -------------------------------------------------------------------------------------------------- compressed tars

WHOLE = make.tar(*SOUND)
_HUGE = make.tar_header(DATA_NAME, 7 << 30)


def _packed_zeros(compress: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    """Streams of zeros one after the other, behind a header that claims seven gigabytes."""
    return compress(SOUND[0] + _HUGE) + compress(bytes(8 * MIB)) * (mebibytes // 8)


def _damaged_middle() -> bytes:
    """gzip around 3 MB of noise, with a hole in it."""
    noise = make.tar_file(b"noise", b"".join(zlib.crc32(b"%d" % i).to_bytes(4, "big") for i in range(750_000)))
    data = bytearray(gzip.compress(make.tar(*SOUND, noise), 1))
    data[len(data) // 2 : len(data) // 2 + 100_000] = b"\xff" * 100_000
    return bytes(data)


def _xz_dictionary() -> bytes:
    """A valid xz file but for the size of its dictionary: 1.5 GiB."""
    data = bytearray(lzma.compress(WHOLE))
    header = data[12 : 12 + 4 * (data[12] + 1)]
    header[4] = 37  # 3 << 29
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    data[12 : 12 + len(header)] = header
    return bytes(data)


def _many_headers() -> bytes:
    """A hundred thousand empty members in half a megabyte, and no end."""
    names = b"".join(make.tar_header(b"m%06d" % i, mtime=b"0" * 12) for i in range(40_000))
    return gzip.compress(make.tar(*SOUND, names, make.tar_header(b"cut", 512), end=b""), 6)


def _long_names() -> bytes:
    """Long names of a mebibyte each, one after the other, for no member."""
    return gzip.compress(make.tar(SOUND[0], *[make.long_name(b"n" * (MIB - 1))] * 40, end=b"\1"), 6)


def _nested() -> bytes:
    return tarred({"b.tar.gz": tarred({"c.tar": WHOLE})})


PACKED = [
    _attack("gzip-bomb", "limits.exceeded", "a.tar.gz", lambda: gzip.compress(SOUND[0] + _HUGE) + make.gzip_of(make.deflated_zeros(400))),
    _attack("gzip-bomb-of-many-streams", "limits.exceeded", "a.tar.gz", lambda: _packed_zeros(gzip.compress, 400)),
    _attack("bzip2-bomb", "limits.exceeded", "a.tar.bz2", lambda: _packed_zeros(bz2.compress, 400)),
    _attack("xz-bomb", "limits.exceeded", "a.tar.xz", lambda: _packed_zeros(lzma.compress, 400)),
    _attack("bomb-that-is-no-tar", "limits.exceeded", "ckpt.index.gz", lambda: make.gzip_of(make.deflated_zeros(400))),
    _attack("xz-dictionary-of-a-gigabyte", "limits.exceeded", "a.tar.xz", _xz_dictionary),
    _attack("gzip-cut", "archive.truncated", "a.tar.gz", gzip.compress(WHOLE)[:-60]),
    _attack("bzip2-cut", "archive.truncated", "a.tar.bz2", bz2.compress(WHOLE)[:-20]),
    _attack("xz-cut", "archive.truncated", "a.tar.xz", lzma.compress(WHOLE)[:-40]),
    _attack("gzip-of-a-cut-tar", "archive.truncated", "a.tar.gz", gzip.compress(WHOLE[:1540])),
    _attack("gzip-wrong-crc", "archive.crc-mismatch", "a.tar.gz", make.gzip_member(WHOLE, crc=7)),
    _attack("gzip-wrong-length", "archive.crc-mismatch", "a.tar.gz", make.gzip_member(WHOLE, size=7)),
    _attack("gzip-damaged-in-the-middle", "archive.damaged", "a.tar.gz", _damaged_middle),
    _attack("gzip-claims-100-gigabytes", "archive.truncated", "a.tar.gz", gzip.compress(SOUND[0] + make.tar_header(DATA_NAME, _HUNDRED_GIGABYTES))),
    _attack("gzip-of-50000-streams", "archive.truncated", "a.tar.gz", lambda: gzip.compress(SOUND[0] + make.tar_header(DATA_NAME, 9999)) + make.gzip_member(b"") * 50_000),
    _attack("gzip-of-40000-headers", "archive.truncated", "a.tar.gz", _many_headers),
    _attack("gzip-of-40-long-names", "archive.truncated", "a.tar.gz", _long_names),
    _attack("tar-in-tar-in-tar", "limits.exceeded", "a.tar.gz", _nested, path="a.tar.gz!b.tar.gz!c.tar"),
]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- mag

MAGS = [
    _attack("mag-cut", "archive.truncated", "a.mag", make.mag(V1)[: len(V1) // 2]),
    _attack(
        "mag-length-past-the-end", "archive.truncated", "a.mag", make.mag(V1, meta=None) + b"\x1a\xff\xff\xff\xff\x0f"
    ),
    _attack("mag-with-junk-behind", "archive.bad-header", "a.mag", make.mag(V1) + b"\xff\xff"),
]

CASES = [*ZIPS, *TARS, *PACKED, *MAGS]
