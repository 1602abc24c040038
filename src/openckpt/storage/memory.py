"""Bytes in memory as a source, and a dictionary of them as a store: nested archives, tests, downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openckpt.errors import CorruptionError, Where
from openckpt.storage.reading import Buffer, ByteSource, FileStat


class MemorySource:
    """A `ByteSource` over any bytes-like object, or over a window of one."""

    __slots__ = ("_view", "path", "size")

    def __init__(self, path: str, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B").toreadonly()
        self.path = path
        self.size = self._view.nbytes

    def _slice(self, offset: int, size: int) -> memoryview:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CorruptionError(
                "storage.short-read",
                Where(self.path, offset=offset),
                "the file ended early",
                expected=f"{size} bytes",
                found=f"{max(0, self.size - offset)} bytes",
            )
        return self._view[offset : offset + size]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        return bytes(self._slice(offset, size))

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        target = memoryview(buffer).cast("B")
        target[:] = self._slice(offset, target.nbytes)

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other."""
        for buffer in buffers:
            self.read_into(offset, buffer)
            offset += memoryview(buffer).nbytes

    def map(self) -> memoryview | None:
        """Return the bytes themselves, read-only."""
        return self._view

    def unchanged(self) -> bool:
        """Memory does not change under us."""
        return True

    def close(self) -> None:
        """Nothing to release: the bytes live as long as their views."""


class MemoryStore:
    """A flat dictionary ``path -> bytes`` with "/" between directories, as a `Store`."""

    def __init__(self, files: Mapping[str, bytes | bytearray | memoryview], *, name: str = "memory:") -> None:
        self._files = files
        self._name = name

    def open(self, path: str) -> ByteSource:
        """Open one of the files."""
        if path not in self._files:
            raise FileNotFoundError(2, "No such file", self.display(path))
        return MemorySource(self.display(path), self._files[path])

    def stat(self, path: str) -> FileStat | None:
        """Return what ``path`` is; every prefix of a path that ends at a "/" is a directory."""
        path = path.rstrip("/")
        name = path.rpartition("/")[2]
        if path in self._files:
            return FileStat(name, path, "file", len(self._files[path]))
        if not path or any(other.startswith(path + "/") for other in self._files):
            return FileStat(name, path, "dir", 0)
        return None

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory."""
        prefix = path.rstrip("/") + "/" if path else ""
        children = {other[len(prefix) :].partition("/")[0] for other in self._files if other.startswith(prefix)}
        stats = (self.stat(prefix + child) for child in children)
        return [stat for stat in stats if stat is not None]

    def expect(self, paths: Sequence[str]) -> None:
        """Nothing to prepare."""

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        return f"{directory}/{name}" if directory else name

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)``."""
        directory, _, name = path.rpartition("/")
        return directory, name

    def display(self, path: str) -> str:
        """Return the path with the name of this store before it."""
        return f"{self._name}{path}"
