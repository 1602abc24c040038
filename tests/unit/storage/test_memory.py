"""Bytes in memory behave like files and directories."""

from __future__ import annotations

import numpy as np
import pytest

from openckpt.errors import CorruptionError
from openckpt.storage.memory import MemorySource, MemoryStore

STORE = MemoryStore(
    {"run/ckpt-1.index": b"abc", "run/ckpt-1.data-00000-of-00001": b"", "run/deep/x": b"1", "top": b"22"}
)


def test_reads() -> None:
    """Every way to read gives the same bytes; empty arrays of any shape are read into without complaint."""
    source = MemorySource("m", np.arange(10, dtype=np.uint16))
    target, empty = np.zeros(2, np.uint16), np.zeros((3, 0))

    source.read_into(2, memoryview(target))
    source.read_into_many(4, [memoryview(empty), memoryview(target)[:1]])

    assert source.size == 20
    assert source.read_at(0, 4) == b"\0\0\1\0"
    assert target.tolist() == [2, 2]
    view = source.map()
    assert view is not None
    assert view.readonly
    assert source.unchanged()


@pytest.mark.parametrize(("offset", "size"), [(0, 4), (3, 1), (-1, 1), (0, -1)])
def test_reading_beyond_the_end_is_a_short_read(offset: int, size: int) -> None:
    """The same error as for a file."""
    with pytest.raises(CorruptionError) as caught:
        MemorySource("m", b"abc").read_at(offset, size)
    assert caught.value.code == "storage.short-read"


def test_tree() -> None:
    """Directories are the prefixes of names; scan shows each child once."""
    assert {(stat.name, stat.kind, stat.size) for stat in STORE.scan("run")} == {
        ("ckpt-1.index", "file", 3),
        ("ckpt-1.data-00000-of-00001", "file", 0),
        ("deep", "dir", 0),
    }
    assert {stat.path for stat in STORE.scan("")} == {"run", "top"}
    assert [stat.path for stat in STORE.scan("run/deep/")] == ["run/deep/x"]
    assert all(STORE.stat(stat.path) == stat for stat in STORE.scan("run"))
    assert STORE.stat("ru") is None


def test_errors_are_those_of_a_file_system() -> None:
    """A missing name, a directory and a file are told apart."""
    with pytest.raises(FileNotFoundError):
        STORE.open("missing")
    with pytest.raises(IsADirectoryError):
        STORE.open("run")
    with pytest.raises(FileNotFoundError):
        STORE.scan("missing")
    with pytest.raises(NotADirectoryError):
        STORE.scan("top")
