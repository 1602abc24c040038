"""Local files: positioned reads, maps, and everything a file can do to its reader."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from openckpt.errors import CorruptionError
from openckpt.storage import LOCAL
from openckpt.storage.local import LocalFile

DATA = bytes(range(256)) * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ckpt.data-00000-of-00001"
    path.write_bytes(DATA)
    return path


def test_reads_at_any_place(file: Path) -> None:
    """`read_at`, `read_into` and `read_into_many` give the same bytes."""
    source = LOCAL.open(str(file))
    one, two, empty = bytearray(10), np.zeros((2, 3), np.uint16), np.zeros((0, 4))

    source.read_into(7, one)
    source.read_into_many(100, [memoryview(two), memoryview(empty), memoryview(one)[:4]])

    assert source.size == len(DATA)
    assert source.read_at(5, 1000) == DATA[5:1005]
    assert source.read_at(len(DATA), 0) == b""
    assert two.tobytes() == DATA[100:112]
    assert bytes(one) == DATA[112:116] + DATA[11:17]


def test_more_buffers_than_one_system_call_takes(file: Path) -> None:
    """`read_into_many` splits long lists of buffers."""
    buffers = [bytearray(5) for _ in range(3000)]

    LOCAL.open(str(file)).read_into_many(3, buffers)

    assert b"".join(buffers) == DATA[3:15003]


@pytest.mark.parametrize(("offset", "size"), [(0, len(DATA) + 1), (len(DATA), 1), (-1, 4), (1 << 62, 1), (0, -1)])
def test_reading_beyond_the_end_is_a_short_read(file: Path, offset: int, size: int) -> None:
    """A read that does not fit raises before anything is allocated."""
    source = LOCAL.open(str(file))

    with pytest.raises(CorruptionError) as caught:
        source.read_at(offset, size)

    assert caught.value.code == "storage.short-read"
    assert caught.value.where.path == str(file)


def test_a_file_that_shrinks_is_a_short_read_everywhere(file: Path) -> None:
    """Truncation after the open is told by every way to read, never by missing bytes."""
    source = LOCAL.open(str(file))
    os.truncate(file, 100)
    buffer = bytearray(200)

    for read in (
        lambda: source.read_at(0, 200),
        lambda: source.read_into(0, buffer),
        lambda: source.read_into_many(0, [buffer[:50], buffer]),
        source.map,
    ):
        with pytest.raises(CorruptionError) as caught:
            read()
        assert caught.value.code == "storage.short-read"
    assert source.read_at(0, 100) == DATA[:100]
    assert not source.unchanged()


def test_map_is_read_only_and_outlives_the_file(file: Path) -> None:
    """Views over a map stay valid after `close` and after the name is gone."""
    source = LOCAL.open(str(file))
    view = source.map()
    source.close()
    file.unlink()

    assert view is not None
    assert view.readonly
    assert bytes(view) == DATA


def test_one_map_serves_all(file: Path) -> None:
    """Every map is the same object: a thousand views must not take a thousand descriptors."""
    source = LOCAL.open(str(file))

    assert source.map() is source.map()


def test_empty_file(tmp_path: Path) -> None:
    """An empty file has an empty map and nothing to read."""
    (tmp_path / "empty").touch()
    source = LOCAL.open(str(tmp_path / "empty"))

    assert (source.size, source.read_at(0, 0), source.map()) == (0, b"", memoryview(b""))


def test_unchanged_sees_rewrites_replacements_and_removal(file: Path) -> None:
    """`unchanged` is False once the name leads elsewhere or the bytes were rewritten."""
    source = LOCAL.open(str(file))
    assert source.unchanged()

    os.utime(file, ns=(1, 1))
    assert not source.unchanged()

    source = LOCAL.open(str(file))
    other = file.with_name("other")
    other.write_bytes(DATA)
    os.replace(other, file)
    assert not source.unchanged()

    source = LOCAL.open(str(file))
    file.unlink()
    assert not source.unchanged()


def test_hard_link_is_no_change(file: Path) -> None:
    """Linking a shard to another name, as retention does, leaves its readers alone."""
    source = LOCAL.open(str(file))
    os.link(file, file.with_name("linked"))

    assert source.unchanged()


def test_fifo_directory_and_socket_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening never waits for a writer, and nothing but a regular file opens."""
    os.mkfifo(tmp_path / "ckpt.index")
    monkeypatch.chdir(tmp_path)  # a socket's path is limited to about a hundred bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError):
            LOCAL.open("socket")
    with pytest.raises(OSError, match="not a regular file"):
        LOCAL.open(str(tmp_path / "ckpt.index"))
    with pytest.raises(IsADirectoryError):
        LOCAL.open(str(tmp_path))
    assert LOCAL.stat(str(tmp_path / "ckpt.index")).kind == "other"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", "nul\0byte", "lone\ud800surrogate", "n" * 5000, "missing", "missing/below"])
def test_names_that_cannot_be_are_not_found(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a NUL or of 5,000 letters is as absent as any other."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as caught:
        LOCAL.open(name)
    assert not isinstance(caught.value, PermissionError)
    if name:
        assert LOCAL.stat(name) is None


def test_names_of_any_bytes(tmp_path: Path) -> None:
    """A name that is not UTF-8 travels as surrogates and opens again."""
    raw = os.fsencode(tmp_path) + b"/\xff[*].index"
    with open(raw, "wb") as out:
        out.write(b"x")

    (found,) = LOCAL.scan(str(tmp_path))

    assert os.fsencode(found.name) == b"\xff[*].index"
    assert LOCAL.open(found.path).read_at(0, 1) == b"x"
    assert LOCAL.stat(found.path) == found


def test_links(tmp_path: Path, file: Path) -> None:
    """A link shows what it leads to and that it is one; a broken or circular one is "other"."""
    (tmp_path / "good").symlink_to(file)
    (tmp_path / "dir").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    found = {stat.name: (stat.kind, stat.link, stat.size) for stat in LOCAL.scan(str(tmp_path))}

    assert found["good"] == ("file", True, len(DATA))
    assert found["dir"][:2] == ("dir", True)
    assert found["broken"] == found["loop"] == ("other", True, 0)
    assert found[file.name] == ("file", False, len(DATA))
    assert {name: (s.kind, s.link, s.size) for name in found if (s := LOCAL.stat(str(tmp_path / name)))} == found


def test_scan_says_what_the_system_says(tmp_path: Path, file: Path) -> None:
    """A missing directory and a file are told apart."""
    with pytest.raises(FileNotFoundError):
        LOCAL.scan(str(tmp_path / "missing"))
    with pytest.raises(NotADirectoryError):
        LOCAL.scan(str(file))


def test_a_scan_sees_what_took_the_place_of_a_name_that_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer saved one step and swept the other between the names and the look at each of them."""
    (tmp_path / "old").touch()
    list_names = os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with list_names(path) as entries:
            names = list(entries)
        if (tmp_path / "old").exists():
            (tmp_path / "new").touch()
            (tmp_path / "old").unlink()
        yield names

    monkeypatch.setattr(os, "scandir", scandir)

    assert [stat.name for stat in LOCAL.scan(str(tmp_path))] == ["new"]


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """join and split are inverse; "" is the current directory; a trailing slash keeps the name."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()

    assert LOCAL.join("run", "x") == "run/x"
    assert LOCAL.split("run/x") == ("run", "x")
    assert [stat.path for stat in LOCAL.scan("")] == ["run"]
    assert LOCAL.stat("") is not None
    assert LOCAL.stat("run/").name == "run"  # type: ignore[union-attr]
    assert LOCAL.display("run/x") == "run/x"


def test_reads_after_close_never_reach_another_file(file: Path, tmp_path: Path) -> None:
    """The descriptor's number may belong to another file by then; the read must fail instead."""
    source = LOCAL.open(str(file))
    source.close()
    source.close()
    (tmp_path / "other").write_bytes(b"secret" * 100)
    with open(tmp_path / "other", "rb"), pytest.raises(OSError, match="closed"):
        source.read_at(0, 6)


def test_close_during_reads_of_other_threads(file: Path, tmp_path: Path) -> None:
    """Threads that read while the file is closed get its bytes or an OSError, never those of a file opened meanwhile."""
    (tmp_path / "other").write_bytes(b"\xee" * len(DATA))
    wrong: list[bytes] = []

    def read(source: LocalFile) -> None:
        try:
            while True:
                got = source.read_at(0, 64)
                if got != DATA[:64]:
                    wrong.append(got)
        except OSError:
            pass

    for _ in range(50):
        source = LocalFile(str(file))
        threads = [threading.Thread(target=read, args=(source,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        source.close()
        others = [LocalFile(str(tmp_path / "other")) for _ in range(20)]
        for thread in threads:
            thread.join()
        del others

    assert wrong == []


def test_parent_and_child_read_independently(file: Path) -> None:
    """After a fork both sides read at their own places: there is no shared position."""
    source = LOCAL.open(str(file))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            good = all(source.read_at(at, 100) == DATA[at : at + 100] for at in range(0, 10000, 7))
            os.write(writing, b"1" if good else b"0")
        finally:
            os._exit(0)
    good = all(source.read_at(at, 100) == DATA[at : at + 100] for at in range(3, 10000, 7))
    os.waitpid(pid, 0)

    assert good
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    os.close(writing)


def test_sources_let_go_of_their_descriptors(file: Path) -> None:
    """A source that nobody refers to any more costs no descriptor, closed or not."""
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(100):
        LOCAL.open(str(file)).read_at(0, 1)

    assert len(list(Path("/dev/fd").iterdir())) == before
