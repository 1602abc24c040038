"""Reading and checking extents of many tensors on several threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from openckpt.errors import CorruptionError
from openckpt.formats.crc import crc32c
from openckpt.formats.extents import Request, check_requests, read_arrays
from openckpt.limits import MIB, Limits
from openckpt.storage.memory import MemorySource
from openckpt.storage.reading import Buffer

DATA = bytes(range(256)) * (4 * MIB // 256)


class Listener(MemorySource):
    """Remembers the thread of its first read, as a member of a compressed archive does that is unpacked by it."""

    first: int | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        self.first = self.first or threading.get_ident()
        return super().read_at(offset, size)

    def read_into(self, offset: int, buffer: Buffer) -> None:
        self.first = self.first or threading.get_ident()
        super().read_into(offset, buffer)


def requests() -> tuple[list[Listener], list[Request]]:
    sources = [Listener(f"s{number}", DATA) for number in range(8)]
    shape = (len(DATA),)
    return sources, [
        Request(source.path, source, 0, len(DATA), np.dtype(np.uint8), shape, crc32c(DATA)) for source in sources
    ]


def test_the_caller_reads_first_from_every_source() -> None:
    """However many threads work: unpacking tells its progress from the caller's thread, and there Ctrl-C ends it."""
    me = threading.get_ident()
    sources, wanted = requests()
    assert list(check_requests(wanted, threads=4)) == []
    assert {source.first for source in sources} == {me}

    def mismatch(request: Request, computed: int) -> CorruptionError:
        pytest.fail("the checksums are right")

    sources, wanted = requests()
    assert all(array.tobytes() == DATA for array in read_arrays(wanted, mismatch=mismatch, threads=4, limits=Limits()))
    assert {source.first for source in sources} == {me}
