"""`FaultyFS`: the n-th call fails."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from openckpt.storage.writable import OutputFile, WritableStore, WriteBuffer
from openckpt.testing.calls import Call, CallFS

T = TypeVar("T")


class FaultyFS(CallFS):
    """A `WritableStore` in which one call fails, or that call and every later one.

    The call that fails has no effect, as with the system, unless ``late``; only `close` lets go before it fails, as Linux does.

        for n in itertools.count(1):
            fs = FaultyFS(DISK, fail_at=n, error=errno.ENOSPC)
            ...save into a fresh directory with store=fs, and look at what is left...
            if not fs.fired:
                break

    Args:
        store: where the calls go.
        fail_at: number of the call that fails, from 1.
        error: what it fails with: a number of the module `errno`.
        forever: every later call fails too: a disk that went away.
        short: instead of failing, a write takes fewer bytes than it was given, at least one; other calls do what they should.
        torn: a write puts a part of its bytes on the disk before it fails; other calls fail as they would without this.
        late: the call takes effect and fails all the same: a network file system whose answer was lost.
        seed: for the sizes of short and torn writes.

    Attributes:
        fired: the calls that failed or were cut short.
    """

    def __init__(
        self,
        store: WritableStore,
        *,
        fail_at: int,
        error: int = errno.EIO,
        forever: bool = False,
        short: bool = False,
        torn: bool = False,
        late: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(store)
        self.fired: list[Call] = []
        self._fail_at, self._error, self._forever = fail_at, error, forever
        self._short, self._torn, self._late = short, torn, late
        self._seed, self._random = seed, random.Random(seed)

    @property
    def replay(self) -> str:
        """One line that says what this store does, and the first call that it did it to."""
        words = [f"fail_at={self._fail_at}", f"error=errno.{errno.errorcode.get(self._error, self._error)}"]
        words += [f"{name}=True" for name in ("forever", "short", "torn", "late") if getattr(self, f"_{name}")]
        words += [f"seed={self._seed}"] if self._short or self._torn else []
        return f"FaultyFS({', '.join(words)}): {self.fired[0] if self.fired else 'nothing failed'}"

    def _is_due(self, call: Call) -> bool:
        return call.number == self._fail_at or (self._forever and call.number > self._fail_at)

    def _failure(self, call: Call) -> OSError:
        self.fired.append(call)
        return OSError(self._error, os.strerror(self._error), call.path)

    def around(self, call: Call, do: Callable[[], T]) -> T:
        """Fail, or hand the call on."""
        if self._short or not self._is_due(call):
            return do()
        if self._late or call.name == "close":
            do()
        raise self._failure(call)

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write all, a part of it, or nothing."""
        size = sum(map(len, buffers))
        call = self._count("write", file.path, f"{offset}+{size}")
        if not self._is_due(call):
            return self.store.write(file, offset, buffers)
        if self._short:
            if size < 2:
                return self.store.write(file, offset, buffers)
            self.fired.append(call)
            return self._write_part(file, offset, buffers, self._random.randrange(1, size))
        if self._late:
            self._write_part(file, offset, buffers, size)
        elif self._torn and size:
            self._write_part(file, offset, buffers, self._random.randrange(size))
        raise self._failure(call)

    def _write_part(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer], size: int) -> int:
        taken, left = 0, size
        for buffer in buffers:
            part = memoryview(buffer)[:left]
            while part:
                got = self.store.write(file, offset + taken, [part])
                taken, left, part = taken + got, left - got, part[got:]
            if not left:
                break
        return taken
