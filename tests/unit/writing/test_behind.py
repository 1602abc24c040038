"""`WriteBehind` and `DataFile`: work in order on one thread, bounded, errors told and nothing run after them; batches and places."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from openckpt.storage.pending import PendingFile
from openckpt.testing import CallFS, PowerLossFS
from openckpt.writing import behind as behind_module
from openckpt.writing import data as data_module
from openckpt.writing.behind import WriteBehind
from openckpt.writing.data import DataFile


@pytest.fixture
def behind() -> Any:
    behind = WriteBehind()
    yield behind
    behind.close()


def test_work_is_done_in_order_and_elsewhere(behind: WriteBehind) -> None:
    """All of it, when `drain` returns; on one thread, that is not the caller's."""
    done: list[tuple[int, str]] = []
    for number in range(100):
        behind.run(1, lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    behind.drain()
    assert done == [(number, "openckpt-write") for number in range(100)]


def test_a_first_small_piece_is_done_here(behind: WriteBehind) -> None:
    """No thread is worth it; but never before work that waits."""
    names: list[str] = []
    behind.run(1, lambda: names.append(threading.current_thread().name), here=True)
    assert names == [threading.current_thread().name]
    held = threading.Event()
    behind.run(1, lambda: (held.wait(30), names.append("first"))[0])  # type: ignore[func-returns-value]
    behind.run(1, lambda: names.append("second"), here=True)
    held.set()
    behind.drain()
    assert names[1:] == ["first", "second"]


def test_what_waits_is_bounded(behind: WriteBehind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hands over more waits until there is room; one piece may be larger than all the room."""
    monkeypatch.setattr(behind_module, "_MOST_BYTES", 10)
    most, now, lock = 0, 0, threading.Lock()

    def begin(size: int) -> None:
        nonlocal most, now
        with lock:
            now += size
            most = max(most, now)

    def end(size: int) -> None:
        nonlocal now
        with lock:
            now -= size

    for size in (4, 4, 4, 25, 4, 4):
        behind.run(size, lambda size=size: end(size))  # type: ignore[misc]
        begin(size)  # it may have ended already: then this undercounts
    behind.drain()
    assert most <= 25


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_an_error_is_told_and_nothing_runs_after_it(behind: WriteBehind, error: BaseException) -> None:
    """By every later call."""
    done: list[int] = []

    def fail() -> None:
        raise error

    held = threading.Event()
    behind.run(1, lambda: held.wait(30))  # type: ignore[arg-type, return-value]
    behind.run(1, fail)
    behind.run(1, lambda: done.append(1))
    held.set()
    for act in (behind.drain, lambda: behind.run(1, lambda: None), lambda: behind.run(1, lambda: None, here=True)):
        with pytest.raises(type(error)) as caught:
            act()
        assert caught.value is error
    assert done == []


def test_closing_ends_the_thread() -> None:
    """Behind the work that runs; what waits is dropped. Twice is once, and nothing is nothing."""
    behind, begun, held, done = WriteBehind(), threading.Event(), threading.Event(), list[int]()
    behind.close()

    def first() -> None:
        begun.set()
        assert held.wait(30)
        done.append(1)

    behind.run(1, first)
    behind.run(1, lambda: done.append(2))
    assert begun.wait(30)
    closing = threading.Thread(target=behind.close)
    closing.start()
    while not behind._ending:
        pass
    held.set()
    closing.join(30)
    behind.close()
    assert done == [1] and "openckpt-write" not in [thread.name for thread in threading.enumerate()]


def test_tensors_lie_where_they_were_put(behind: WriteBehind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones many to a call, large ones in pieces, in any order, with gaps."""
    monkeypatch.setattr(data_module, "_BATCH_BYTES", 100)
    monkeypatch.setattr(data_module, "_CHUNK", 64)
    fs = CallFS(PowerLossFS())
    file = PendingFile(fs, "f", durable=False)
    data = DataFile(file, behind)
    expected = np.zeros(5000, np.uint8)
    rng = np.random.default_rng(1)
    at = [0, 30, 60, 61, 61, 400, 1000, 2000, 130, 4000]
    for offset, size in zip(at, [30, 30, 1, 0, 60, 500, 101, 1000, 7, 1000], strict=True):
        tensor = rng.integers(0, 255, size, dtype=np.uint8)
        expected[offset : offset + size] = tensor
        data.write(offset, memoryview(tensor.tobytes()), reserve=size > 100)
    data.flush()
    behind.drain()
    file.settle()
    stat = fs.stat("f")
    assert stat is not None and stat.size == file.end == 5000
    assert fs.open("f").read_at(0, 5000) == expected.tobytes()
    writes = [call.detail for call in fs.calls if call.name == "write"]
    assert writes[0] == "0+121" and "400+64" in writes
    assert [call.detail for call in fs.calls if call.name == "allocate"] == [
        "400+500",
        "1000+101",
        "2000+1000",
        "4000+1000",
    ]
