"""Work spread over threads: pieces of known size run side by side, or one item computed ahead of the next.

The GIL is let go while a piece reads or hashes, which is what makes threads pay. No lock is held that a fork could leave behind.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Work: TypeAlias = list[tuple[int, Callable[[], None]]]
"""pieces of work, each with its size in bytes"""

_WORTH_THREADS = 8 << 20  # bytes of all pieces: below, starting threads costs more than they save
_MOST_THREADS = 8


def run_all(work: Work, threads: int | None, tick: Callable[[int], None] | None = None) -> None:
    """Run every piece of work, in order, on up to ``threads`` threads; raise the first error.

    Args:
        work: the pieces.
        threads: how many; None = one per core up to 8.
        tick: called with the size of each piece that the calling thread has done.
    """
    if threads is None:
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
    total = sum(size for size, _ in work)
    threads = min(threads, len(work)) if total >= _WORTH_THREADS else 1
    if threads <= 1:
        for size, job in work:
            job()
            if tick is not None:
                tick(size)
        return
    shared = _Shared(work)
    workers = [
        threading.Thread(target=shared.drain, name=f"openckpt-read-{number}", daemon=True)
        for number in range(1, threads)
    ]
    for worker in workers:
        worker.start()
    shared.drain(tick)
    for worker in workers:
        worker.join()
    if shared.error is not None:
        raise shared.error


class _Shared:
    """Work shared by threads. List pops are atomic, so it needs no lock."""

    def __init__(self, work: Work) -> None:
        self._left = work[::-1]
        self.error: BaseException | None = None

    def drain(self, tick: Callable[[int], None] | None = None) -> None:
        """Run pieces until none is left or one failed; only the calling thread ticks."""
        while self.error is None:
            try:
                size, job = self._left.pop()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                self.error = error
                return
            if tick is not None:
                tick(size)


def compute_ahead(compute: Callable[[_In], _Out], items: Sequence[_In]) -> Generator[_Out, None, None]:
    """Yield ``compute(item)`` of each item, computed up to two items ahead on another thread."""
    ready: queue.Queue[tuple[_Out | None, BaseException | None]] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def run() -> None:
        for item in items:
            if stop.is_set():
                return
            try:
                ready.put((compute(item), None))
            except BaseException as error:  # handed to the calling thread
                ready.put((None, error))
                return

    worker = threading.Thread(target=run, name="openckpt-read-ahead", daemon=True)
    worker.start()
    try:
        for _ in items:
            value, error = ready.get()
            if error is not None:
                raise error
            yield value  # type: ignore[misc]  # None only beside an error
            del value  # the next item is waited for: what this one holds may be needed for it
    finally:
        stop.set()
        while worker.is_alive():  # it may wait for room
            try:
                ready.get(timeout=0.01)
            except queue.Empty:
                pass
        worker.join()
