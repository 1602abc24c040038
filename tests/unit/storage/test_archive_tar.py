"""Uncompressed tars: windows on the archive's bytes, and every way a header can be odd or wrong."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from attacks import craft_archive as craft
from openckpt.errors import CorruptionError, UnsafeError, UnsupportedError, Where
from openckpt.limits import Limits
from openckpt.storage import LOCAL
from openckpt.storage.archive import ArchiveStore, archive_kind, open_archive
from openckpt.storage.archive.tarheaders import parse_number, parse_pax
from openckpt.storage.memory import MemorySource
from refusals import code_of

ONE = craft.tar_file(b"run/ckpt.index", b"index")
TWO = craft.tar_file(b"run/ckpt.data-00000-of-00001", bytes(range(200)))


def opened(data: bytes, limits: Limits | None = None) -> ArchiveStore:
    return open_archive(MemorySource("a.tar", data), limits=limits or Limits())


def names(store: ArchiveStore) -> list[str]:
    return sorted(store.listing().members)


def finding_codes(store: ArchiveStore) -> list[str]:
    return [finding.code for finding in store.validate()]


def test_members_are_windows_on_the_archive() -> None:
    """Reads and maps of a member are those of its part of the archive; nothing is copied."""
    data = craft.tar(ONE, TWO)
    store = opened(data)
    source = store.open("run/ckpt.data-00000-of-00001")
    buffer = bytearray(4)
    source.read_into(3, buffer)
    source.read_into_many(7, [memoryview(buffer)[:1], memoryview(buffer)[1:2]])

    assert source.size == 200
    assert source.path == "a.tar!run/ckpt.data-00000-of-00001"
    assert source.read_at(10, 5) == bytes(range(10, 15))
    assert bytes(buffer) == bytes([7, 8, 5, 6])
    assert source.map() == bytes(range(200))
    assert store.passes == 0
    assert finding_codes(store) == []


@pytest.mark.parametrize("offset_size", [(0, 201), (200, 1), (-1, 2), (5, -1)])
def test_reads_end_with_the_member(offset_size: tuple[int, int]) -> None:
    """A read never reaches into the next member."""
    source = opened(craft.tar(TWO, ONE)).open("run/ckpt.data-00000-of-00001")

    assert code_of(lambda: source.read_at(*offset_size)) == "storage.short-read"
    if offset_size[1] > 0 and offset_size[0] >= 0:
        buffer = bytearray(offset_size[1])
        assert code_of(lambda: source.read_into(offset_size[0], buffer)) == "storage.short-read"
        assert code_of(lambda: source.read_into_many(offset_size[0], [buffer])) == "storage.short-read"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_the_standard_library_writes(form: int) -> None:
    """Long, non-ASCII and non-UTF-8 names, directories, links and empty files in the three dialects of Python."""
    contents = {"run/a.index": b"1" * 513, "run/empty": b"", "run/é": b"2" * 512}
    if form != tarfile.USTAR_FORMAT:
        contents |= {"run/" + "n" * 300: b"long", "run/\udcff": b"bytes"}
    else:
        contents["d" * 120 + "/" + "n" * 90] = b"prefix"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        directory = tarfile.TarInfo("run")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, data in contents.items():
            info = tarfile.TarInfo("./" + name)
            info.size, info.mtime = len(data), 1_234_567_890
            archive.addfile(info, io.BytesIO(data))
        for kind, name in ((tarfile.SYMTYPE, "soft"), (tarfile.LNKTYPE, "hard"), (tarfile.FIFOTYPE, "fifo")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "run/a.index"
            archive.addfile(info)

    store = opened(out.getvalue())

    assert {path: store.open(path).read_at(0, len(data)) for path, data in contents.items()} == contents
    assert store.stat("run").kind == "dir"  # type: ignore[union-attr]
    assert store.stat("run/a.index").mtime_ns == 1_234_567_890 * 10**9  # type: ignore[union-attr]
    assert {name: (s.kind, s.link) for name in ("soft", "hard", "fifo") if (s := store.stat(name))} == {
        "soft": ("other", True), "hard": ("other", True), "fifo": ("other", False),
    }  # fmt: skip
    assert finding_codes(store) == []


def test_v7_and_old_gnu_headers() -> None:
    """A header without magic and one of old GNU tar are read; a v7 directory is a name with a slash."""
    store = opened(
        craft.tar(
            craft.tar_file(b"old", b"1", magic=b"", kind=b"\0"),
            craft.tar_header(b"dir/", magic=b"", kind=b"\0"),
            craft.tar_file(b"gnu", b"2", magic=b"ustar  \0", prefix=b"not a prefix"),
            craft.tar_file(b"contiguous", b"3", kind=b"7"),
            craft.tar_file(b"name", b"4", prefix=b"the/prefix"),
        )
    )

    assert names(store) == ["contiguous", "dir", "gnu", "old", "the/prefix/name"]
    assert store.stat("dir").kind == "dir"  # type: ignore[union-attr]


def test_the_tree_of_names() -> None:
    """Directories exist where a name goes through them; scan shows each child once and never what lies deeper."""
    paths = ["a/b/c", "a/b/d", "a.b", "a0", "a/b.c", "a", "z/y"]
    store = opened(craft.tar(*(craft.tar_file(path.encode(), b"x") for path in paths)))

    assert [stat.name for stat in store.scan("")] == ["a", "a.b", "a0", "z"]
    assert {(stat.name, stat.kind) for stat in opened(craft.tar(craft.tar_file(b"a/b/c", b""), craft.tar_file(b"a/b.c", b""))).scan("a")} == {("b", "dir"), ("b.c", "file")}  # fmt: skip
    assert [stat.path for stat in store.scan("z/")] == ["z/y"]
    assert store.stat("a").kind == "file"  # type: ignore[union-attr]
    assert store.stat("a/b").kind == "dir"  # type: ignore[union-attr]
    assert store.stat("a/").kind == "file"  # type: ignore[union-attr]
    assert store.stat("") is not None
    assert store.stat("b") is None
    assert store.join("", "x") == "x"
    assert store.split(store.join("a/b", "c")) == ("a/b", "c")
    assert (store.display(""), store.display("a/b")) == ("a.tar", "a.tar!a/b")


def test_errors_are_those_of_a_file_system() -> None:
    """A missing name, a directory and a file are told apart."""
    store = opened(craft.tar(ONE))

    for path, kind in (("missing", FileNotFoundError), ("run", IsADirectoryError), ("", IsADirectoryError)):
        with pytest.raises(kind):
            store.open(path)
    with pytest.raises(FileNotFoundError):
        store.scan("missing")
    with pytest.raises(NotADirectoryError):
        store.scan("run/ckpt.index")


def test_links_are_never_followed() -> None:
    """A link is listed as one; opening it is refused, even when what it points to is in the archive."""
    store = opened(
        craft.tar(
            ONE,
            craft.tar_header(b"soft", kind=b"2", link=b"run/ckpt.index"),
            craft.tar_header(b"hard", 5, kind=b"1", link=b"../../etc/passwd"),
            TWO,
        )
    )

    for name in ("soft", "hard"):
        with pytest.raises(UnsafeError) as caught:
            store.open(name)
        assert caught.value.code == "archive.link"
    assert "run/ckpt.data-00000-of-00001" in names(store)


def test_special_files_are_refused_by_name() -> None:
    """Devices, FIFOs, sparse files in both forms and unknown types are listed and not opened."""
    sparse_v1 = craft.pax_header(
        craft.pax_record(b"GNU.sparse.major", b"1"), craft.pax_record(b"GNU.sparse.name", b"sparse")
    )
    old_sparse = bytearray(craft.tar_header(b"old-sparse", 512, kind=b"S", magic=b"ustar  \0"))
    old_sparse[482] = 1  # an extension block follows
    total = sum(old_sparse[:148]) + 256 + sum(old_sparse[156:])
    old_sparse[148:156] = b"%06o\0 " % total
    store = opened(
        craft.tar(
            craft.tar_header(b"device", kind=b"3"),
            craft.tar_file(b"what", b"?", kind=b"Q"),
            sparse_v1 + craft.tar_file(b"GNUSparseFile.0/sparse", b"map"),
            bytes(old_sparse) + bytes(512) + bytes(512),
            ONE,
        )
    )

    for name in ("device", "what", "sparse", "old-sparse"):
        assert store.stat(name).kind == "other"  # type: ignore[union-attr]
        with pytest.raises(UnsupportedError) as caught:
            store.open(name)
        assert caught.value.code == "archive.special-file"
    assert store.open("run/ckpt.index").read_at(0, 5) == b"index"


def test_names_that_climb_are_listed_without_that_part() -> None:
    """`../x`, `/x` and a name of nothing reach no path; the store says so."""
    store = opened(craft.tar(*(craft.tar_file(name, b"x") for name in (b"../up", b"/abs/olute", b"..", b"C:/drive"))))

    assert names(store) == ["abs/olute", "drive", "up"]
    (finding,) = store.validate()
    assert (finding.code, finding.severity, finding.found) == ("archive.unsafe-name", "warning", "4")


def test_the_last_of_a_name_wins() -> None:
    """As in extraction; appending to a tar is how people update it."""
    store = opened(craft.tar(craft.tar_file(b"x", b"old"), ONE, craft.tar_file(b"./x", b"newer")))

    assert store.open("x").read_at(0, 5) == b"newer"
    assert finding_codes(store) == ["archive.repeated-name"]


def test_pax_headers_override_and_global_ones_last() -> None:
    """path, size and linkpath come from the extended header; a global one holds until it is overridden."""
    size = craft.pax_record(b"size", b"3")
    store = opened(
        craft.tar(
            craft.pax_header(craft.pax_record(b"comment", b"git archive"), kind=b"g"),
            craft.pax_header(size, craft.pax_record(b"path", b"renamed")) + craft.tar_header(b"short", 0) + craft.padded(b"abc"),
            craft.long_name(b"very/" + b"l" * 300) + craft.tar_file(b"very/l", b"y"),
        )
    )  # fmt: skip

    assert store.open("renamed").read_at(0, 3) == b"abc"
    assert store.open("very/" + "l" * 300).read_at(0, 1) == b"y"


def test_base_256_sizes() -> None:
    """Sizes of 8 GiB and more are binary with the first bit set; here a small one."""
    field = b"\x80" + (5).to_bytes(11, "big")
    store = opened(craft.tar(craft.tar_header(b"x", field) + craft.padded(b"12345")))

    assert store.open("x").read_at(0, 5) == b"12345"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"00000000012\0", 10), (b"       12  \0", 10), (b"12\0garbage", 10), (b"\0" * 12, 0), (b" " * 12, 0),
        (b"777777777777", 8**12 - 1), (b"\x80" + bytes(10) + b"\x07", 7), (b"-0000000001\0", None), (b"0_1\0", None),
        (b"0x10\0", None), (b"9\0", None), (b"\xff" * 12, None), (b"\xc0" + bytes(11), None),
    ],
)  # fmt: skip
def test_numbers(field: bytes, value: int | None) -> None:
    """Octal text or base 256; signs, underscores and negative values are none."""
    assert parse_number(field) == value


@pytest.mark.parametrize(
    "data",
    [b"9 a=b\n", b"7 a=b\n", b"0 a=b\n", b"x a=b\n", b" a=b\n", b"6 abc\n", b"5 a=b\n", b"99999999999 a=\n", b"6 a=b.", b"+6 a=b\n"],
)  # fmt: skip
def test_pax_records_that_are_none(data: bytes) -> None:
    """A length that does not fit, a missing equals sign or line feed: damage, and linear time."""
    assert code_of(lambda: parse_pax(data, Where("a.tar"))) == "archive.bad-header"


def test_a_million_digits_cost_nothing() -> None:
    """A record of digits only is refused at once (CVE-2024-6232 took quadratic time)."""
    assert code_of(lambda: parse_pax(b"1" * 1_000_000, Where("a.tar"))) == "archive.bad-header"


TWO_FILES = craft.tar(ONE, TWO)


@pytest.mark.parametrize("cut", [1024 + 1, 1024 + 511, 1024 + 512, 1024 + 512 + 199])
def test_a_cut_tar_lists_what_precedes(cut: int) -> None:
    """Cut anywhere in the second member the first is read, the second refused, and the damage says where."""
    store = opened(TWO_FILES[:cut])

    damage = store.damage()
    assert damage is not None
    assert (damage.code, damage.where.offset) == ("archive.truncated", cut)
    assert store.open("run/ckpt.index").read_at(0, 5) == b"index"
    assert code_of(lambda: store.open("run/ckpt.data-00000-of-00001")) == "archive.truncated"
    assert code_of(lambda: store.open("perhaps/behind/the/end")) == "archive.truncated"
    assert finding_codes(store) == ["archive.truncated"]


def test_every_cut_gives_the_same_bytes_or_a_code() -> None:
    """Whatever length is left: a member reads as it was or is refused with a code."""
    want = {"run/ckpt.index": b"index", "run/ckpt.data-00000-of-00001": bytes(range(200))}
    for cut in range(512, len(TWO_FILES)):
        store = opened(TWO_FILES[:cut])
        for path in names(store):
            try:
                assert store.open(path).read_at(0, len(want[path])) == want[path]
            except CorruptionError as error:
                assert error.code == "archive.truncated"


def test_no_end_marker_is_a_warning() -> None:
    """A tar may have been cut exactly between two members; nobody can tell, so it is said."""
    store = opened(ONE + TWO)

    assert len(names(store)) == 2
    assert finding_codes(store) == ["archive.no-end"]


def test_a_broken_header_in_the_middle_ends_the_listing() -> None:
    """What lies behind a header with a wrong checksum is not guessed at."""
    store = opened(craft.tar(ONE, craft.tar_header(b"x", checksum=1), TWO))

    assert names(store) == ["run/ckpt.index"]
    assert store.damage().code == "archive.bad-header"  # type: ignore[union-attr]
    assert store.open("run/ckpt.index").read_at(0, 5) == b"index"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (craft.tar(craft.tar_header(b"x", b"7_7\0")), "archive.bad-header"),
        (craft.tar(craft.tar_header(b"x", b"-1\0")), "archive.bad-header"),
        (craft.tar(craft.tar_header(b"x", b"\xff" * 12)), "archive.bad-header"),
        (craft.tar(craft.pax_header(b"99 path=x\n"), ONE), "archive.bad-header"),
        (craft.tar(craft.pax_header(craft.pax_record(b"size", b"1e9")), ONE), "archive.bad-header"),
        (craft.tar(craft.pax_header(craft.pax_record(b"size", b"-5")), ONE), "archive.bad-header"),
        (craft.tar(craft.pax_header(b"", size=8**11 - 1), ONE), "limits.exceeded"),
        (craft.tar(craft.long_name(b"n", size=8**11 - 1), ONE), "limits.exceeded"),
        (craft.long_name(b"n", size=100_000), "archive.truncated"),
    ],
)
def test_rejected(data: bytes, code: str) -> None:
    """Headers that lie are refused before anything is allocated."""
    assert code_of(lambda: opened(data)) == code


def test_limits() -> None:
    """The number of members and the size of long names are capped."""
    assert code_of(lambda: opened(craft.tar(ONE, ONE, ONE), Limits(archive_members=2))) == "limits.exceeded"
    assert code_of(lambda: opened(craft.tar(craft.long_name(b"n" * 600), ONE), Limits(archive_header_bytes=500))) == "limits.exceeded"  # fmt: skip


def test_a_local_tar_is_read_in_place(tmp_path: os.PathLike[str]) -> None:
    """From a file: windows of the file's own map, and the archive shows when it changes."""
    path = os.path.join(tmp_path, "a.tar")
    with open(path, "wb") as out:
        out.write(TWO_FILES)
    store = open_archive(LOCAL.open(path))
    source = store.open("run/ckpt.index")
    view = source.map()

    assert archive_kind(LOCAL.open(path)) == "tar"
    assert view == b"index"
    assert store.open("run/ckpt.index").map() == view
    assert source.unchanged()
    os.utime(path, ns=(1, 1))
    assert not source.unchanged()
    source.close()
    assert source.read_at(0, 5) == b"index"


def test_forty_thousand_deep_is_only_a_name() -> None:
    """A path of 40,000 directories costs its own length, not the sum of all its prefixes."""
    deep = b"a/" * 40_000 + b"x"
    store = opened(craft.tar(craft.long_name(deep) + craft.tar_file(b"x", b"1")))

    assert [stat.name for stat in store.scan("")] == ["a"]
    assert store.open(deep.decode()).read_at(0, 1) == b"1"
