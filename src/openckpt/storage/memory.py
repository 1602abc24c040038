"""Bytes in memory as a source, and a dictionary of them as a store: nested archives, tests, downloads."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

from openckpt.storage.reading import Buffer, ByteSource, FileStat, short_read


class MemorySource:
    """A `ByteSource` over any bytes-like object, or over a window of one."""

    __slots__ = ("_view", "path", "size")

    def __init__(self, path: str, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B").toreadonly()
        self.path = path
        self.size = self._view.nbytes

    def _slice(self, offset: int, size: int) -> memoryview:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise short_read(self.path, offset, size, self.size - offset)
        return self._view[offset : offset + size]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        return bytes(self._slice(offset, size))

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        target = memoryview(buffer)
        data = self._slice(offset, target.nbytes)
        if data.nbytes:  # a view with a zero in its shape cannot be cast
            target.cast("B")[:] = data

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
        data = self._files.get(path)
        if data is None:
            if self.stat(path) is not None:
                raise IsADirectoryError(errno.EISDIR, "Is a directory", self.display(path))
            raise FileNotFoundError(errno.ENOENT, "No such file", self.display(path))
        return MemorySource(self.display(path), data)

    def stat(self, path: str) -> FileStat | None:
        """Return what ``path`` is; every prefix of a path that ends at a "/" is a directory."""
        path = path.rstrip("/")
        name = path.rpartition("/")[2]
        if path in self._files:
            return FileStat(name, path, "file", memoryview(self._files[path]).nbytes)
        if not path or any(other.startswith(path + "/") for other in self._files):
            return FileStat(name, path, "dir", 0)
        return None

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory."""
        own = self.stat(path)
        if own is None:
            raise FileNotFoundError(errno.ENOENT, "No such directory", self.display(path))
        if own.kind != "dir":
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", self.display(path))
        prefix = own.path + "/" if own.path else ""
        found: dict[str, FileStat] = {}
        for other, data in self._files.items():
            if other.startswith(prefix):
                name, slash, _ = other[len(prefix) :].partition("/")
                if not slash:
                    found[name] = FileStat(name, other, "file", memoryview(data).nbytes)
                else:
                    found.setdefault(name, FileStat(name, prefix + name, "dir", 0))
        return list(found.values())

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
