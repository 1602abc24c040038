"""A file of a commit as a Python file object."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from openckpt.storage.archive.writing import ZipWriter
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.seeking import SeekingFile


def test_it_reads_writes_and_seeks_as_files_do(tmp_path: Path) -> None:
    """Holes are zeros, the end moves on, any buffer is taken."""
    with Commit(DISK, str(tmp_path), "x") as commit:
        pending = commit.create()
        file = SeekingFile(pending)
        assert (file.readable(), file.writable(), file.seekable()) == (True, True, True)
        assert file.write(b"abc") == 3
        assert file.write(np.arange(2, dtype="<u2").data) == 4
        assert file.write(b"") == 0
        assert (file.tell(), file.seek(0, 2), file.seek(-2, 1)) == (7, 7, 5)
        assert file.seek(10) == 10
        file.write(b"z")
        file.seek(1)
        assert file.read(100) == b"bc\0\0\1\0\0\0\0z"
        assert file.read(1) == b""
        commit.publish({pending: "x"})
    assert (tmp_path / "x").read_bytes() == b"abc\0\0\1\0\0\0\0z"


def test_truncation_only_makes_it_longer(tmp_path: Path) -> None:
    """libhdf5 asks for the size that it has allocated; what is written stays."""
    with Commit(DISK, str(tmp_path), "x") as commit:
        pending = commit.create()
        file = SeekingFile(pending)
        file.write(b"abc")
        assert (file.truncate(6), pending.end) == (6, 6)
        assert (file.truncate(2), pending.end) == (2, 6)
        assert (file.truncate(), pending.end) == (3, 6)
        commit.publish({pending: "x"})
    assert (tmp_path / "x").read_bytes() == b"abc\0\0\0"


def test_closing_it_leaves_the_file_of_the_commit(tmp_path: Path) -> None:
    """The commit still has to sync it and give it its name."""
    with Commit(DISK, str(tmp_path), "x") as commit:
        pending = commit.create()
        SeekingFile(pending).close()
        pending.write(0, [b"still open"], 10)
        commit.publish({pending: "x"})
    assert (tmp_path / "x").read_bytes() == b"still open"


def test_a_zip_written_through_it_is_a_zip(tmp_path: Path) -> None:
    """Sizes and checksums go back into the headers in front of the data."""
    with Commit(DISK, str(tmp_path), "x.zip") as commit:
        pending = commit.create()
        writer = ZipWriter(SeekingFile(pending))
        writer.add("a", [b"one", memoryview(b"two")])
        writer.add("empty", [])
        writer.add("large", [bytes(20 << 20)])
        writer.finish()
        commit.publish({pending: "x.zip"})
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert {info.filename: info.file_size for info in archive.infolist()} == {"a": 6, "empty": 0, "large": 20 << 20}
        assert all(not info.flag_bits & 8 for info in archive.infolist())


def test_a_zip64_member_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit of 32 bits sizes lie in the extra field, and openckpt reads them."""
    from contextlib import closing

    from openckpt.storage import LOCAL
    from openckpt.storage.archive import open_archive

    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    with Commit(DISK, str(tmp_path), "x.zip") as commit:
        pending = commit.create()
        writer = ZipWriter(SeekingFile(pending))
        writer.add("big", [bytes(5000)])
        writer.add("small", [b"s"])
        writer.finish()
        commit.publish({pending: "x.zip"})
    with closing(LOCAL.open(str(tmp_path / "x.zip"))) as source:
        archive = open_archive(source)
        with closing(archive.open("big")) as member:
            assert member.read_at(0, member.size) == bytes(5000)
        with closing(archive.open("small")) as member:
            assert member.read_at(0, 1) == b"s"
