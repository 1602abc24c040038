"""Compressed tars: two passes for one checkpoint, bounded memory, and what a broken download still gives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest

from attacks import craft_archive as craft
from openckpt.errors import CheckpointError
from openckpt.limits import MIB, Limits
from openckpt.storage.archive import ArchiveStore, archive_kind, open_archive
from openckpt.storage.archive.packed import KEPT_BYTES
from openckpt.storage.archive.streams import PackedStream
from openckpt.storage.memory import MemorySource
from refusals import code_of
from together import together

INDEX = b"index" * 100
SMALL = craft.tar(
    craft.tar_file(b"run/ckpt-1.index", INDEX), craft.tar_file(b"run/ckpt-1.data-00000-of-00001", bytes(range(256)) * 9)
)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
BIG = KEPT_BYTES + MIB


class CountingSource(MemorySource):
    """Counts how often the archive is read from its start, whatever the store says of itself."""

    starts = 0

    def read_at(self, offset: int, size: int) -> bytes:
        if offset == 0:
            self.starts += 1
        return super().read_at(offset, size)


def opened(data: bytes, limits: Limits | None = None) -> ArchiveStore:
    return open_archive(MemorySource("a.tar.gz", data), limits=limits or Limits())


def read(store: ArchiveStore, path: str) -> bytes:
    source = store.open(path)
    return source.read_at(0, source.size)


def shard(checkpoint: int, number: int) -> bytes:
    """A shard too large to be kept by the first pass; each byte tells which one it is."""
    return bytes([16 * checkpoint + number]) * BIG


@pytest.fixture(scope="module")
def run() -> bytes:
    """Two checkpoints of an index and two large shards each, data before index, and small files around."""
    members = []
    for checkpoint in (1, 2):
        prefix = f"run/ckpt-{checkpoint}"
        for number in range(2):
            members.append(craft.tar_file(f"{prefix}.data-{number:05d}-of-00002".encode(), shard(checkpoint, number)))
        members.append(craft.tar_file(f"{prefix}.index".encode(), INDEX))
    members.append(craft.tar_file(b"run/checkpoint", b"model_checkpoint_path"))
    return gzip.compress(craft.tar(*members), 1)


def files_of(checkpoint: int) -> list[str]:
    prefix = f"run/ckpt-{checkpoint}"
    return [f"{prefix}.index", *(f"{prefix}.data-{number:05d}-of-00002" for number in range(2))]


@pytest.mark.parametrize("codec", COMPRESS)
def test_the_three_codecs(codec: str) -> None:
    """gzip, bzip2 and xz list, open and read; a small archive takes a single pass."""
    source = CountingSource(f"a.tar.{codec}", COMPRESS[codec](SMALL))
    assert archive_kind(source) == f"tar.{codec}"
    store = open_archive(source)
    source.starts = 0

    assert [stat.name for stat in store.scan("run")] == ["ckpt-1.data-00000-of-00001", "ckpt-1.index"]
    assert read(store, "run/ckpt-1.index") == INDEX
    assert read(store, "run/ckpt-1.data-00000-of-00001") == bytes(range(256)) * 9
    assert store.open("run/ckpt-1.index").map() == INDEX
    assert (store.passes, source.starts) == (1, 1)
    assert list(store.validate()) == []


def test_two_passes_for_a_checkpoint(run: bytes) -> None:
    """Listing is the first pass; announced members come in the second, however often and in whatever order they are read."""
    source = CountingSource("a.tar.gz", run)
    store = open_archive(source)
    source.starts = 0
    assert read(store, "run/ckpt-2.index") == INDEX
    assert read(store, "run/checkpoint") == b"model_checkpoint_path"
    assert (store.passes, source.starts) == (1, 1)

    store.expect(files_of(2))
    shards = [store.open(path) for path in files_of(2)[1:]]
    for i in (1, 0, 1):
        for at in range(0, BIG, MIB):
            assert shards[i].read_at(at, 1) == bytes([32 + i])
    assert (store.passes, source.starts) == (2, 2)


def test_relatives_come_along_where_nothing_was_announced(run: bytes) -> None:
    """The other shards of a prefix are loaded with the first, so that two passes suffice without `expect`."""
    store = opened(run)

    for path in files_of(1):
        read(store, path)
    assert store.passes == 2


def test_an_announcement_before_the_listing_saves_a_pass(run: bytes) -> None:
    """What is announced before the first question is kept by the listing pass."""
    store = opened(run)
    store.expect(files_of(1))

    assert [read(store, path)[:1] for path in files_of(1)] == [b"i", b"\x10", b"\x11"]
    assert store.passes == 1


def test_a_second_checkpoint_costs_one_pass_and_frees_the_first(run: bytes) -> None:
    """The store holds one announcement at a time; open sources and views keep theirs alive without another pass."""
    store = opened(run)
    store.listing()
    store.expect(files_of(1))
    first = store.open(files_of(1)[1])
    view = store.open(files_of(1)[2]).map()
    first.read_at(0, 1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    store.expect(files_of(2))
    second = store.open(files_of(2)[1])

    assert second.read_at(0, 1) == b"\x20"
    assert (first.read_at(BIG - 1, 1), view is not None and view[BIG - 1]) == (b"\x10", 0x11)
    assert store.open(files_of(1)[1]).read_at(0, 1) == b"\x10"
    assert store.passes == 3
    del second, first, view
    store.expect(files_of(1))
    read(store, files_of(1)[1])
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert store.passes == 4
    assert after - before < 2.5 * BIG


def test_an_overlapping_announcement_adds_to_the_last(run: bytes) -> None:
    """A reader that names its shards again does not make the store forget the rest of the group."""
    store = opened(run)
    store.listing()
    store.expect(files_of(1))
    store.expect(files_of(1)[:2])
    for path in files_of(1):
        read(store, path)

    assert store.passes == 2


def test_threads_share_a_pass(run: bytes) -> None:
    """Eight threads that need different shards at once wait for one pass."""
    store = opened(run)
    store.expect(files_of(1) + files_of(2))
    got: dict[str, bytes] = {}

    def work(path: str) -> None:
        got[path] = read(store, path)[-1:]

    together(work, files_of(1) + files_of(2))

    assert got[files_of(2)[2]] == b"\x21"
    assert store.passes == 1


def test_a_child_of_a_fork_reads_on(run: bytes) -> None:
    """A fork while another thread holds the store's lock leaves the child able to read."""
    store = opened(run)
    store.listing()
    reading, writing = os.pipe()
    with store._lock:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, store.open(files_of(1)[1]).read_at(0, 1))
            finally:
                os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 1) == b"\x10"
    os.close(reading)
    os.close(writing)


def test_the_smallest_members_are_kept(run: bytes) -> None:
    """Many middle-sized members never push the small ones out of the first pass."""
    middle = [craft.tar_file(f"m{i}.bin".encode(), bytes([i]) * (KEPT_BYTES // 4 + 1)) for i in range(8)]
    store = opened(
        gzip.compress(craft.tar(craft.tar_file(b"x.index", INDEX), *middle, craft.tar_file(b"y.index", INDEX)), 1)
    )

    assert read(store, "x.index") == read(store, "y.index") == INDEX
    assert store.passes == 1
    assert [read(store, f"m{i}.bin")[0] for i in range(8)] == list(range(8))


def test_several_streams_in_one_file() -> None:
    """pigz, pbzip2 and `cat a.gz b.gz` write several streams; tape padding may lie between and behind."""
    for compress in COMPRESS.values():
        packed = compress(SMALL[:700]) + bytes(16) + compress(b"") + compress(SMALL[700:]) + bytes(100_000)
        store = opened(packed)
        assert read(store, "run/ckpt-1.index") == INDEX
        assert store.damage() is None


def test_junk_behind_the_end_is_ignored() -> None:
    """As gzip does; what belongs to the tar was complete."""
    store = opened(gzip.compress(SMALL) + b"<html>")

    assert store.damage() is None
    assert len(store.scan("run")) == 2


def test_a_million_tiny_streams_take_linear_time() -> None:
    """A file of empty gzip streams is passed through once, not once for each of them."""
    tiny = craft.gzip_member(b"") * 20_000
    stream = PackedStream(MemorySource("a.gz", gzip.compress(SMALL) + tiny), "gz", Limits())

    assert stream.drain() == len(SMALL)


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_broken_download_lists_what_came(codec: str) -> None:
    """Half of the compressed bytes: the first member reads, the second is refused, and the message names the byte."""
    noise = os.urandom(2_000_000)
    tar = craft.tar(craft.tar_file(b"a.index", INDEX), craft.tar_file(b"a.data-00000-of-00001", noise))
    data = COMPRESS[codec](tar)
    if codec == "bz2":  # a block of 900 kB only unpacks as a whole
        tar = craft.tar(
            craft.tar_file(b"a.index", INDEX),
            craft.tar_file(b"n", noise),
            craft.tar_file(b"a.data-00000-of-00001", noise),
        )
        data = bz2.compress(tar)
    cut = len(data) * 3 // 4
    store = opened(data[:cut])

    assert read(store, "a.index") == INDEX
    damage = store.damage()
    assert damage is not None
    assert (damage.code, damage.where.offset) == ("archive.truncated", cut)
    assert f"byte {cut}" in str(damage)
    assert code_of(lambda: store.open("a.data-00000-of-00001")) == "archive.truncated"
    assert code_of(lambda: store.open("a.meta")) == "archive.truncated"
    assert store.stat("a.meta") is None
    assert [finding.code for finding in store.validate()] == ["archive.truncated"]


def test_every_cut_and_flip_of_a_small_archive_gives_the_same_bytes_or_a_code() -> None:
    """gzip's checksum covers every byte; a changed bit that changes nothing (in an unused code) is no fault."""
    data = gzip.compress(SMALL, mtime=0)
    want = {"run/ckpt-1.index": INDEX, "run/ckpt-1.data-00000-of-00001": bytes(range(256)) * 9}
    variants = [data[:cut] for cut in range(20, len(data))]
    variants += [data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :] for i in range(10, len(data))]
    refused = 0
    for variant in variants:
        try:
            store = opened(variant)
            for path in store.listing().members:
                assert read(store, path) == want[path]
        except CheckpointError as error:
            assert error.code.startswith(("archive.", "limits."))
            refused += 1

    assert refused > 0.9 * len(variants) - 20


def test_a_wrong_checksum_makes_every_member_suspect() -> None:
    """gzip has one checksum for all: the listing is shown, and no member is handed out as sound."""
    store = opened(
        craft.gzip_member(craft.tar(craft.tar_file(b"x", INDEX), craft.tar_file(b"y", bytes(2 * MIB))), crc=1)
    )

    assert len(store.scan("")) == 2
    assert store.damage().code == "archive.crc-mismatch"  # type: ignore[union-attr]
    assert code_of(lambda: store.open("x")) == "archive.crc-mismatch"


@pytest.mark.parametrize("codec", COMPRESS)
def test_damaged_data_makes_every_member_suspect(codec: str) -> None:
    """Decoders give out what they unpack before they check it: what precedes the place of the error may be wrong too."""
    noise = craft.tar_file(b"b.data", os.urandom(3_000_000))
    data = bytearray(COMPRESS[codec](craft.tar(craft.tar_file(b"a.index", INDEX), noise, craft.tar_file(b"c", INDEX))))
    middle = len(data) * 2 // 3
    data[middle : middle + 2000] = bytes(2000)
    store = opened(bytes(data))

    try:
        assert store.stat("a.index") is not None
        assert code_of(lambda: store.open("a.index")) in ("archive.damaged", "archive.crc-mismatch")
    except CheckpointError as error:
        assert error.code == "archive.damaged"  # a decoder that gives out nothing of a damaged piece


def test_a_broken_header_in_the_middle() -> None:
    """The listing ends there; the archive's own checksum tells whether what precedes is sound."""
    tar = craft.tar(
        craft.tar_file(b"a", INDEX), craft.tar_header(b"x", checksum=1), craft.tar_file(b"b", bytes(2 * MIB))
    )
    sound, damaged = opened(gzip.compress(tar)), opened(craft.gzip_member(tar, crc=1))

    assert sound.damage().code == "archive.bad-header"  # type: ignore[union-attr]
    assert read(sound, "a") == INDEX
    assert damaged.damage().code == "archive.crc-mismatch"  # type: ignore[union-attr]
    assert code_of(lambda: damaged.open("a")) == "archive.crc-mismatch"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (gzip.compress(b"")[:9] + b"\xff" * 20, "archive.damaged"),
        (bz2.compress(SMALL)[:10] + b"\xff" * 40, "archive.damaged"),
        (lzma.compress(SMALL)[:20] + b"\xff" * 40, "archive.damaged"),
        (gzip.compress(SMALL)[:15], "archive.truncated"),
        (craft.gzip_member(SMALL, crc=1), "archive.crc-mismatch"),
        (craft.gzip_member(SMALL, size=1), "archive.crc-mismatch"),
    ],
)
def test_nothing_to_list(data: bytes, code: str) -> None:
    """Damage before the first member is an error at the first question."""
    store = opened(data)

    assert code_of(store.listing) == code
    assert [finding.code for finding in store.validate()] == [code]


def test_bombs_are_refused_by_ratio() -> None:
    """300 MiB of zeros in 300 kB of gzip under a header that claims 7 GiB: refused at the first 64 MiB, with the limit named."""
    bomb = craft.gzip_of(craft.deflated_zeros(300))
    header = gzip.compress(craft.tar_header(b"huge", 7 * 1024**3))
    tracemalloc.start()
    code = code_of(opened(header + bomb).listing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert code == "limits.exceeded"
    assert peak < 8 * MIB


def test_a_header_that_claims_100_gigabytes_allocates_nothing() -> None:
    """The claim is believed only as far as bytes come, announced or not."""
    lie = gzip.compress(
        craft.tar(craft.tar_file(b"a", b"1"), craft.tar_header(b"b", b"\x80" + (100 * 10**9).to_bytes(11, "big")))
    )
    for expected in ([], ["b"]):
        store = opened(lie)
        store.expect(expected)
        tracemalloc.start()
        damage = store.damage()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert damage is not None
        assert damage.code == "archive.truncated"
        assert peak < 8 * MIB


def test_an_xz_dictionary_larger_than_the_limit_is_refused() -> None:
    """A few bytes of xz may ask for gigabytes of memory."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 200 * MIB}]
    data = lzma.compress(b"x" * 10, filters=filters)

    assert code_of(opened(data).listing) == "limits.exceeded"


def test_limits(run: bytes) -> None:
    """Members held in memory are counted, in the second pass and in the first."""
    store = opened(run, Limits(archive_bytes=BIG))
    assert code_of(lambda: read(store, files_of(1)[1])) == "limits.exceeded"
    assert read(store, "run/ckpt-1.index") == INDEX
    store = opened(run, Limits(archive_bytes=BIG))
    store.expect(files_of(1))
    assert code_of(store.listing) == "limits.exceeded"
    assert code_of(opened(gzip.compress(SMALL), Limits(archive_members=1)).listing) == "limits.exceeded"


def test_too_little_memory_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be allocated is said with what helps, and leaves the store usable."""
    store = opened(gzip.compress(craft.tar(craft.tar_file(b"x", bytes(BIG))), 1))
    source = store.open("x")

    def full(size: int) -> bytearray:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("openckpt.storage.archive.packed.bytearray", full, raising=False)
        assert code_of(lambda: source.read_at(0, 1)) == "archive.no-memory"
    assert source.read_at(0, 1) == b"\0"


def test_progress_after_one_second_and_four_times_a_second() -> None:
    """Nothing in the first second; then in compressed bytes of compressed bytes."""
    calls: list[tuple[str, int, int | None]] = []
    ticks = iter(range(10_000))
    data = gzip.compress(bytes(range(256)) * 4096 * 50, 1)
    stream = PackedStream(
        MemorySource("a.gz", data), "gz", Limits(), lambda *args: calls.append(args), clock=lambda: next(ticks) / 10
    )
    pieces = 0
    while stream.take(MIB):
        pieces += 1

    assert 3 < len(calls) <= pieces // 3
    assert {call[0] for call in calls} == {"reading a.gz"}
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)
    assert all(total == len(data) and 0 < done <= total for _, done, total in calls if total is not None)


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_single_compressed_file_is_an_archive_of_one(codec: str) -> None:
    """`ckpt.index.gz` holds `ckpt.index`; the name only loses the suffix that the content confirms."""
    for name, inner in (
        (f"dir/ckpt.index.{codec}", "ckpt.index"),
        ("checkpoint", "checkpoint"),
        (f".{codec}", f".{codec}"),
    ):
        source = MemorySource(name, COMPRESS[codec](INDEX))
        assert archive_kind(source) == codec
        store = open_archive(source)
        assert [stat.name for stat in store.scan("")] == [inner]
        assert read(store, inner) == INDEX
        assert store.passes == 1


def test_a_large_single_file_takes_two_passes() -> None:
    """One to learn its size, one to load it."""
    store = open_archive(MemorySource("x.gz", gzip.compress(bytes(BIG), 1)))

    assert store.stat("x").size == BIG  # type: ignore[union-attr]
    assert read(store, "x") == bytes(BIG)
    assert store.passes == 2


def test_archives_in_archives_one_level_deep() -> None:
    """A member opens as an archive; an archive in that one is refused with the limit's name."""
    inner = craft.plain_zip([("x.tar.gz", gzip.compress(SMALL))])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        info = tarfile.TarInfo("inner.zip")
        info.size = len(inner)
        archive.addfile(info, io.BytesIO(inner))
    outer = open_archive(MemorySource("outer.tar.xz", out.getvalue()))
    middle = open_archive(outer.open("inner.zip"))

    source = middle.open("x.tar.gz")
    assert source.path == "outer.tar.xz!inner.zip!x.tar.gz"
    assert code_of(lambda: open_archive(source)) == "limits.exceeded"
    deeper = open_archive(source, limits=Limits(archive_nesting=2))
    assert read(deeper, "run/ckpt-1.index") == INDEX


def test_no_archive() -> None:
    """Anything else is refused with its own code."""
    assert archive_kind(MemorySource("x", b"")) is None
    assert archive_kind(MemorySource("x", bytes(2000))) is None
    assert code_of(lambda: open_archive(MemorySource("x", b"hello"))) == "archive.unknown"
