"""`PendingFile`: bytes at any place, short writes finished, synced once and never again; and errors that name the call."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from openckpt.storage.pending import PendingFile, doing, settle_all
from openckpt.storage.writable import OutputFile, WriteBuffer
from openckpt.testing import CallFS, FaultyFS, PowerLossFS


class Names(CallFS):
    """Counts calls by name."""

    def count(self, name: str) -> int:
        return sum(call.name == name for call in self.calls)


def contents(fs: CallFS, path: str) -> bytes:
    stat = fs.store.stat(path)
    assert stat is not None
    return fs.store.open(path).read_at(0, stat.size)


@pytest.fixture
def fs() -> Names:
    return Names(PowerLossFS())


def test_bytes_go_to_their_places(fs: Names) -> None:
    """In any order; the end is that of the last byte."""
    file = PendingFile(fs, "f", durable=True)
    file.write(4, [b"ef", memoryview(b"gh")], 4)
    assert file.end == 8
    file.write(0, [b"ab", bytearray(b"cd")], 4)
    assert file.end == 8 and file.read(2, 4) == b"cdef" and file.read(6, 10) == b"gh"
    file.settle()
    assert contents(fs, "f") == b"abcdefgh"


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_short_writes_are_finished(step: int) -> None:
    """Whatever the system takes at a time, across buffers and empty ones."""

    class Short(Names):
        def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
            data = b"".join(bytes(buffer) for buffer in buffers)[:step]
            return super().write(file, offset, [data])

    fs = Short(PowerLossFS())
    file = PendingFile(fs, "f", durable=False)
    file.write(1, [b"abc", b"", b"defgh", memoryview(b"i")], 9)
    file.settle()
    assert contents(fs, "f") == b"\0abcdefghi" and fs.count("write") == -(-9 // step)


def test_a_system_that_takes_nothing_is_an_error() -> None:
    """Not a loop for ever."""

    class Deaf(Names):
        def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
            return 0

    file = PendingFile(Deaf(PowerLossFS()), "f", durable=False)
    with pytest.raises(OSError) as caught:
        file.write(0, [b"x"], 1)
    assert caught.value.errno == errno.EIO and caught.value.filename == "f"
    file.close()


def test_settling_syncs_once_and_closes_once(fs: Names) -> None:
    """And only a durable file; a second call does nothing."""
    for durable in (True, False):
        before = fs.count("sync")
        file = PendingFile(fs, f"f{durable}", durable=durable)
        file.write(0, [b"x"], 1)
        file.settle()
        file.settle()
        file.close()
        assert fs.count("sync") - before == durable
    assert fs.count("close") == 2


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_begins_with_large_pieces_at_once(fs: Names, durable: bool) -> None:
    """While the next bytes are made; small ones have time until the sync, and so has what need not be safe."""
    file = PendingFile(fs, "f", durable=durable)
    file.write(0, [b"x" * 5], 5)
    file.write(5, [b"y" * (1 << 20), b"z"], (1 << 20) + 1)
    file.settle()
    started = [call.detail for call in fs.calls if call.name == "start_sync"]
    assert started == ([f"5+{(1 << 20) + 1}"] if durable else [])
    assert fs.count("sync") == durable and contents(fs, "f") == b"x" * 5 + b"y" * (1 << 20) + b"z"


def test_a_sync_that_was_refused_is_never_repeated() -> None:
    """After a refusal the system may have dropped the pages, and would say yes."""

    class Refusing(Names):
        def sync(self, file: OutputFile) -> None:
            self._count("sync", file.path)
            raise OSError(errno.EIO, "Input/output error")

    fs = Refusing(PowerLossFS())
    file = PendingFile(fs, "f", durable=True)
    file.write(0, [b"x"], 1)
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            file.settle()
        assert caught.value.filename == "f" and any("sync of f" in note for note in caught.value.__notes__)
    assert fs.count("sync") == 1
    file.close()


def test_several_files_are_synced_at_once() -> None:
    """Each waits for the other one's sync to begin."""
    both = threading.Barrier(3)

    class Meeting(Names):
        def sync(self, file: OutputFile) -> None:
            both.wait(30)
            super().sync(file)

    fs = Meeting(PowerLossFS())
    files = [PendingFile(fs, f"f{number}", durable=True) for number in range(3)]
    settle_all(files)
    assert fs.count("close") == 3


def test_a_thousand_files_take_a_few_threads() -> None:
    """A container may not allow more."""
    before, most = threading.active_count(), 0

    class Counting(Names):
        def sync(self, file: OutputFile) -> None:
            nonlocal most
            most = max(most, threading.active_count())
            super().sync(file)

    counting = Counting(PowerLossFS())
    settle_all([PendingFile(counting, f"f{number}", durable=True) for number in range(1000)])
    assert counting.count("sync") == counting.count("close") == 1000
    assert most - before <= 16


def test_one_of_several_that_fails_is_told_when_all_are_done() -> None:
    """The others are settled all the same."""
    fs = FaultyFS(PowerLossFS(), fail_at=5, error=errno.EIO)
    files = [PendingFile(fs, f"f{number}", durable=True) for number in range(4)]
    with pytest.raises(OSError) as caught:
        settle_all(files)
    assert caught.value.errno == errno.EIO and len(fs.fired) == 1
    assert sum(call.name == "close" for call in fs.calls) == 3
    for file in files:
        file.close()
    settle_all([])


def refuse(error: OSError) -> Callable[[], Any]:
    def act() -> None:
        with doing("rename", "run/ckpt"):
            raise error

    return act


def test_errors_of_the_system_say_call_and_path() -> None:
    """A path that the system has named is kept; other errors pass as they are."""
    with pytest.raises(OSError) as caught:
        refuse(OSError(errno.EIO, "Input/output error"))()
    assert caught.value.filename == "run/ckpt"
    assert caught.value.__notes__ == ["the call that failed: rename of run/ckpt"]
    with pytest.raises(OSError) as caught:
        refuse(OSError(errno.EIO, "Input/output error", "other"))()
    assert caught.value.filename == "other"
    with pytest.raises(KeyError) as other, doing("rename", "run/ckpt"):
        raise KeyError
    assert not hasattr(other.value, "__notes__")
