"""The two kinds of member sources: a window on the archive's bytes, and bytes that are unpacked to memory on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from openckpt.errors import LimitError, Where
from openckpt.storage.memory import MemorySource
from openckpt.storage.reading import Buffer, ByteSource, short_read


def nesting_of(source: ByteSource) -> int:
    """Return how many archives lie around this source: 0 for a plain file."""
    nesting: int = getattr(source, "nesting", 0)
    return nesting


class Blob:
    """The unpacked bytes of one member. An object of its own because bytes cannot be referenced weakly."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytearray | bytes) -> None:
        self.data = memoryview(data).toreadonly()


class MappedArchive(Protocol):
    """What a window needs of its archive: the bytes, and one map shared by all members."""

    @property
    def source(self) -> ByteSource:
        """The archive's own bytes."""
        ...

    def map(self) -> memoryview | None:
        """The archive's own map, made once."""
        ...


class WindowSource:
    """A member whose bytes lie in the archive as they are: ``size`` bytes from ``start``. See `ByteSource`.

    ``crc32`` is the checksum that the archive states, None where it states none. Positioned reads cannot check it; whoever
    reads the whole member can.
    """

    __slots__ = ("_archive", "_parent", "_start", "crc32", "nesting", "path", "size")

    def __init__(
        self, archive: MappedArchive, path: str, start: int, size: int, *, nesting: int, crc32: int | None = None
    ) -> None:
        self._archive = archive
        self._parent = archive.source
        self._start = start
        self.path = path
        self.size = size
        self.nesting = nesting
        self.crc32 = crc32

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise short_read(self.path, offset, size, self.size - offset)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        self._check(offset, size)
        return self._parent.read_at(self._start + offset, size)

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        self._check(offset, memoryview(buffer).nbytes)
        self._parent.read_into(self._start + offset, buffer)

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other."""
        self._check(offset, sum(memoryview(buffer).nbytes for buffer in buffers))
        self._parent.read_into_many(self._start + offset, buffers)

    def map(self) -> memoryview | None:
        """Return the member's part of the archive's map."""
        whole = self._archive.map()
        return None if whole is None else whole[self._start : self._start + self.size]

    def unchanged(self) -> bool:
        """Return whether the archive is what it was."""
        return self._parent.unchanged()

    def rewritten(self) -> bool:
        """Return whether somebody has written into the open archive itself."""
        check = getattr(self._parent, "rewritten", None)
        return bool(check is not None and check())

    def close(self) -> None:
        """Nothing to release: the archive's file belongs to who opened it."""


class UnpackedSource:
    """A compressed member: unpacked to memory by ``load`` on the first access to its data. See `ByteSource`."""

    __slots__ = ("_blob", "_load", "_parent", "crc32", "nesting", "path", "size")

    def __init__(
        self,
        parent: ByteSource,
        path: str,
        size: int,
        load: Callable[[], Blob],
        *,
        nesting: int,
        crc32: int | None = None,
    ) -> None:
        self._parent = parent
        self._load = load
        self._blob: Blob | None = None
        self.path = path
        self.size = size
        self.nesting = nesting
        self.crc32 = crc32

    def _bytes(self) -> MemorySource:
        blob = self._blob
        if blob is None:
            try:
                blob = self._blob = self._load()
            except MemoryError:
                raise LimitError(
                    "archive.no-memory", Where(self.path), f"not enough memory to unpack {self.size} bytes"
                ) from None
        return MemorySource(self.path, blob.data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        return self._bytes().read_at(offset, size)

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        self._bytes().read_into(offset, buffer)

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other."""
        self._bytes().read_into_many(offset, buffers)

    def map(self) -> memoryview | None:
        """Return the unpacked bytes; they live as long as this view."""
        return self._bytes().map()

    def unchanged(self) -> bool:
        """Return whether the archive is what it was."""
        return self._parent.unchanged()

    def close(self) -> None:
        """Let go of the unpacked bytes; views stay valid, and a later read unpacks again."""
        self._blob = None
