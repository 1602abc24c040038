"""Zip files: the directory decides, stored members are windows, compressed ones are checked when first used."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest

from attacks import craft_archive as craft
from attacks.craft_archive import ZipMember
from openckpt.errors import CheckpointError, UnsafeError
from openckpt.limits import Limits
from openckpt.storage.archive import ArchiveStore, archive_kind, open_archive
from openckpt.storage.memory import MemorySource
from refusals import code_of
from together import together

TEXT = b"abc" * 5000
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def opened(data: bytes, limits: Limits | None = None) -> ArchiveStore:
    return open_archive(MemorySource("a.zip", data), limits=limits or Limits())


def read(store: ArchiveStore, path: str) -> bytes:
    source = store.open(path)
    return source.read_at(0, source.size)


def written(*names: str, method: int = 0, **options: object) -> bytes:
    """What the standard library writes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), TEXT, compress_type=method)
    return out.getvalue()


@pytest.mark.parametrize("method", METHODS)
def test_reads_what_the_standard_library_writes(method: int) -> None:
    """All four methods of zipfile; empty members too."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("run/ckpt.index", TEXT)
        archive.writestr("run/empty", b"")
        archive.mkdir("run/folder")
    store = opened(out.getvalue())
    source = store.open("run/ckpt.index")

    assert read(store, "run/ckpt.index") == source.map() == TEXT
    assert read(store, "run/empty") == b""
    assert store.stat("run/folder").kind == "dir"  # type: ignore[union-attr]
    assert source.crc32 == zlib.crc32(TEXT)  # type: ignore[attr-defined]
    assert list(store.validate()) == []


def test_streamed_zip64_and_prepended_data() -> None:
    """Data descriptors, zip64 fields, and a program in front of the zip."""
    out = io.BytesIO()

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            return out.write(data)  # type: ignore[arg-type]

    with (
        zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x", "w", force_zip64=True) as member,
    ):
        member.write(TEXT)
    store = opened(b"#!/bin/sh\nexit\n" + out.getvalue())

    assert read(store, "x") == TEXT
    assert store.format == "zip"


def test_more_members_than_the_end_record_can_count() -> None:
    """70,000 members need the zip64 end record; listing, scanning and opening them stays quick."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(70_000):
            archive.writestr(zipfile.ZipInfo(f"{i // 1000}/{i}"), b"")
    store = opened(out.getvalue())

    assert len(store.listing().members) == 70_000
    assert len(store.scan("69")) == 1000


def test_comment_with_a_false_end_record() -> None:
    """The last end record that fits is the one, also where a comment holds something like one."""
    good = craft.plain_zip([("x", b"1")])
    with_comment = craft.zip_file([ZipMember(b"x", b"1")], comment=b"PK\x05\x06 not one")

    assert read(opened(with_comment), "x") == b"1"
    assert read(opened(good + b"trailing bytes"), "x") == b"1"


def test_stored_members_are_windows() -> None:
    """A stored member's map is a part of the archive's own."""
    data = craft.plain_zip([("a", b"first"), ("b", b"second")])
    view = opened(data).open("b").map()

    assert view == b"second"
    assert view is not None
    assert view.obj is data


def test_compressed_members_are_unpacked_once_for_all_threads() -> None:
    """Eight threads and two sources share one unpacking, and let go of it together."""
    store = opened(craft.plain_zip([("x", TEXT)], 8))
    sources = [store.open("x"), store.open("x")]
    maps: list[memoryview | None] = []
    together(lambda source: maps.append(source.map()), sources * 4)

    assert len({id(view.obj) for view in maps if view is not None}) == 1
    assert all(view == TEXT for view in maps)


def test_names() -> None:
    """UTF-8 with and without the flag, code page 437, backslashes, and names that climb."""
    members = [
        ZipMember("é".encode(), flags=0x800),
        ZipMember("ü".encode()),
        ZipMember(b"\x84"),  # ä in code page 437
        ZipMember(b"win\\dows", system=0),
        ZipMember(b"..\\..\\up"),
        ZipMember(b"/abs"),
        ZipMember(b"folder\\"),
    ]
    store = opened(craft.zip_file(members))

    assert sorted(store.listing().members) == sorted(["é", "ü", "ä", "win/dows", "up", "abs", "folder"])
    assert store.stat("folder").kind == "dir"  # type: ignore[union-attr]
    assert [(f.code, f.found) for f in store.validate()] == [("archive.unsafe-name", "2")]


def test_the_last_of_a_name_wins() -> None:
    """As the standard library reads it, and with a note."""
    store = opened(craft.zip_file([ZipMember(b"x", b"old"), ZipMember(b"./x", b"new")]))

    assert read(store, "x") == b"new"
    assert [finding.code for finding in store.validate()] == ["archive.repeated-name"]


def test_links_and_special_files_are_refused() -> None:
    """Unix modes in the attributes tell them; a DOS archive has none."""
    mode = {b"link": 0o120777, b"fifo": 0o010644, b"plain": 0o100644, b"none": 0}
    store = opened(
        craft.zip_file(
            [ZipMember(name, b"/etc/passwd", attributes=bits << 16) for name, bits in mode.items()]
            + [ZipMember(b"dos", b"x", attributes=0o120777 << 16, system=0)]
        )
    )

    with pytest.raises(UnsafeError) as caught:
        store.open("link")
    assert caught.value.code == "archive.link"
    assert store.stat("link").link  # type: ignore[union-attr]
    assert code_of(lambda: store.open("fifo")) == "archive.special-file"
    assert read(store, "plain") == read(store, "none") == b"/etc/passwd"
    assert read(store, "dos") == b"x"


def extra64(*values: int) -> bytes:
    data = b"".join(value.to_bytes(8, "little") for value in values)
    return b"\x01\x00" + len(data).to_bytes(2, "little") + data


FULL = 0xFFFFFFFF


def test_zip64_sizes_in_both_headers() -> None:
    """Full 32-bit fields are replaced by those of the extra field, behind other extra fields too."""
    member = ZipMember(b"x", b"12345", size=FULL, packed=FULL, extra=b"\x55\x54\x01\x00\x00" + extra64(5, 5))

    assert read(opened(craft.zip_file([member])), "x") == b"12345"


HUGE = craft.deflated_zeros(100)
OPEN_REFUSED = {
    "local header elsewhere": (ZipMember(b"x", b"1", local={"signature": b"PK\x00\x00"}), "archive.header-mismatch"),
    "local name differs": (ZipMember(b"x", b"1", local={"name": b"y"}), "archive.header-mismatch"),
    "local name longer": (ZipMember(b"x", b"1", local={"name": b"xy"}), "archive.header-mismatch"),
    "local extra reaches into the next": (
        ZipMember(b"x", b"1", stored=b"", packed=1, local={"extra": bytes(30)}),
        "archive.overlap",
    ),
    "local method differs": (ZipMember(b"x", b"1", local={"method": 8}), "archive.header-mismatch"),
    "local size differs": (ZipMember(b"x", b"1", local={"size": 7}), "archive.header-mismatch"),
    "local crc differs": (ZipMember(b"x", b"1", local={"crc": 7}), "archive.header-mismatch"),
    "stored sizes differ": (ZipMember(b"x", b"1", size=5), "archive.header-mismatch"),
    "encrypted": (ZipMember(b"x", b"1", flags=1), "archive.encrypted"),
    "strongly encrypted": (ZipMember(b"x", b"1", flags=0x2041), "archive.encrypted"),
    "Zstandard": (ZipMember(b"x", b"1", method=93), "archive.compression"),
    "unknown method": (ZipMember(b"x", b"1", method=77), "archive.compression"),
    "huge declared size": (ZipMember(b"x", TEXT, 8, size=(1 << 32) - 2), "limits.exceeded"),
    "bomb": (ZipMember(b"x", b"", 8, stored=HUGE, size=100 << 20, crc=0), "limits.exceeded"),
}
READ_REFUSED = {
    "wrong crc": (ZipMember(b"x", TEXT, 8, crc=1), "archive.crc-mismatch"),
    "declared too small": (ZipMember(b"x", TEXT, 8, size=10), "archive.size-mismatch"),
    "declared too large": (ZipMember(b"x", TEXT, 8, size=len(TEXT) + 1), "archive.size-mismatch"),
    "bomb of small declared size": (ZipMember(b"x", b"", 8, stored=HUGE, size=100), "archive.size-mismatch"),
    "stream cut": (ZipMember(b"x", TEXT, 8, stored=zlib.compress(TEXT)[2:20]), "archive.size-mismatch"),
    "not deflate": (ZipMember(b"x", TEXT, 8, stored=b"\xff" * 30), "archive.damaged"),
    "not bzip2": (ZipMember(b"x", TEXT, 12, stored=b"\xff" * 30), "archive.damaged"),
    "not lzma": (ZipMember(b"x", TEXT, 14, stored=b"\xff" * 30), "archive.damaged"),
    "lzma too short": (ZipMember(b"x", TEXT, 14, stored=b"\x09\x04\x05"), "archive.damaged"),
    "lzma dictionary of 4 GiB": (
        ZipMember(b"x", TEXT, 14, stored=b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(20)),
        "limits.exceeded",
    ),
}


@pytest.mark.parametrize("name", OPEN_REFUSED)
def test_refused_when_opened(name: str) -> None:
    """What the headers say is enough; other members stay readable."""
    member, code = OPEN_REFUSED[name]
    store = opened(craft.zip_file([ZipMember(b"fine", b"fine"), member, ZipMember(b"after", b"1")]))

    assert code_of(lambda: store.open("x")) == code
    assert read(store, "fine") == b"fine"


@pytest.mark.parametrize("name", READ_REFUSED)
def test_refused_when_read(name: str) -> None:
    """Only unpacking shows it; every access then fails alike."""
    member, code = READ_REFUSED[name]
    source = opened(craft.zip_file([member])).open("x")

    assert code_of(lambda: source.read_at(0, 1)) == code
    assert code_of(source.map) == code
    assert code_of(lambda: source.read_into(0, bytearray(1))) == code


SOUND = craft.plain_zip([("x", b"1"), ("y", b"2")])
ONE = ZipMember(b"x", b"1")
LIST_REFUSED = {
    "no end record": (SOUND[:-5], "archive.truncated"),
    "only the beginning": (SOUND[:40], "archive.truncated"),
    "directory beyond the end": (craft.zip_file([ONE], offset=5000), "archive.bad-directory"),
    "directory larger than the file": (craft.zip_file([ONE], size=5000), "archive.bad-directory"),
    "directory smaller than a record": (craft.zip_file([ONE], size=10), "archive.bad-directory"),
    "no directory there": (craft.zip_file([ONE], size=46, offset=0), "archive.bad-directory"),
    "counts one more": (craft.zip_file([ONE], count=2), "archive.bad-directory"),
    "counts one less": (craft.zip_file([ONE, ZipMember(b"y")], count=1), "archive.bad-directory"),
    "member behind the directory": (craft.zip_file([ZipMember(b"x", b"1", offset=32)]), "archive.bad-directory"),
    "member longer than the file": (craft.zip_file([ZipMember(b"x", b"1", packed=5000)]), "archive.bad-directory"),
    "zip64 field missing": (craft.zip_file([ZipMember(b"x", b"1", size=FULL)]), "archive.bad-directory"),
    "zip64 field short": (craft.zip_file([ZipMember(b"x", b"1", size=FULL, packed=FULL, extra=extra64(1))]), "archive.bad-directory"),
    "zip64 size of 2**63": (craft.zip_file([ZipMember(b"x", b"1", packed=FULL, extra=extra64(1 << 63))]), "archive.bad-directory"),
    "two members at one place": (craft.zip_file([ONE, ZipMember(b"y", b"1", offset=0)]), "archive.overlap"),
    "members that share data": (craft.zip_file([ZipMember(b"x", b"1" * 9), ZipMember(b"y", b"1", offset=36)]), "archive.overlap"),
    "several disks": (craft.zip_file([ONE], disk=1), "archive.multi-disk"),
    "member on another disk": (craft.zip_file([ZipMember(b"x", b"1", disk=3)]), "archive.multi-disk"),
    "count of this disk differs": (craft.zip_file([ONE], here=0), "archive.multi-disk"),
    "zip64 locator to nowhere": (
        SOUND[:-22] + b"PK\x06\x07" + bytes(4) + (1 << 40).to_bytes(8, "little") + bytes(4) + SOUND[-22:],
        "archive.bad-directory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIST_REFUSED)
def test_refused_when_listed(name: str) -> None:
    """A directory that contradicts itself or the file is refused as a whole."""
    data, code = LIST_REFUSED[name]

    assert code_of(lambda: opened(data)) == code


def test_a_directory_damaged_in_the_middle() -> None:
    """A record that is none is found where it begins."""
    at = SOUND.rfind(b"PK\x01\x02")
    with pytest.raises(CheckpointError) as caught:
        opened(SOUND[:at] + b"XX" + SOUND[at + 2 :])
    assert (caught.value.code, caught.value.where.offset) == ("archive.bad-directory", at)


def test_limits() -> None:
    """Members are counted before and while they are read; a compressed member may not exceed archive_bytes."""
    assert code_of(lambda: opened(SOUND, Limits(archive_members=1))) == "limits.exceeded"
    store = opened(craft.plain_zip([("x", TEXT)], 8), Limits(archive_bytes=100))
    assert code_of(lambda: store.open("x")) == "limits.exceeded"


def test_every_cut_and_flip_gives_the_same_bytes_or_a_code() -> None:
    """A small zip cut anywhere or with any byte changed: the same member, another name, no member, or a code."""
    data = craft.plain_zip([("x", TEXT[:60])], 8)
    variants = [data[:cut] for cut in range(4, len(data))]
    variants += [data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :] for i in range(4, len(data)) for bit in (1, 0x80)]
    for variant in variants:
        try:
            store = opened(variant)
            for path, member in store.listing().members.items():
                if member.kind == "file":
                    assert read(store, path) == TEXT[:60]
        except CheckpointError as error:
            assert error.code.startswith(("archive.", "limits."))


def test_kind_of_what_is_no_zip() -> None:
    """A program without a zip behind it, and a file that only ends like one, are no archives."""
    assert archive_kind(MemorySource("x", b"#!/bin/sh\n" + bytes(100))) is None
    assert archive_kind(MemorySource("x", bytes(100) + craft.zip_end(0, 0, 0))) is None
    assert archive_kind(MemorySource("x", b"MZ" + bytes(50) + SOUND)) == "zip"
    assert archive_kind(MemorySource("x", craft.zip_end(0, 0, 0))) == "zip"
    assert opened(craft.zip_end(0, 0, 0)).scan("") == []
