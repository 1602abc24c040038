"""The two protocols for reading: `Store`, a tree of named files, and `ByteSource`, the bytes of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from openckpt.errors import CorruptionError, Where

if TYPE_CHECKING:
    from openckpt.limits import Limits

Kind = Literal["file", "dir", "other"]

Buffer: TypeAlias = memoryview | bytearray
"""A writable, C-contiguous buffer. Arrays are passed as ``memoryview(array).cast("B")`` or any object with that buffer."""


class FileStat(NamedTuple):
    """One name in a store, as found by `Store.stat` and `Store.scan`; a tuple, because a directory may have a million.

    ``kind`` and ``size`` are those of what a link points to (a broken or unfollowed link has kind "other"); ``link`` tells
    that the name itself is a symbolic link. ``mtime_ns`` and ``identity`` change when the file is replaced or rewritten.
    """

    name: str
    path: str
    kind: Kind
    size: int
    mtime_ns: int = 0
    identity: tuple[int, ...] = ()
    link: bool = False


class ByteSource(Protocol):
    """The bytes of one open file: positioned reads from any thread, before and after a fork.

    ``size`` is fixed when the source is opened; a read beyond it, or from a file that has shrunk since, raises
    `openckpt.errors.CorruptionError` with code ``storage.short-read``, never returns fewer bytes.
    """

    path: str
    """the file as shown to people, e.g. ``zoo.tar.gz!ssd/model.ckpt.index``"""
    size: int
    """bytes in the file"""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        ...

    def read_into(self, offset: int, buffer: Buffer) -> None:
        """Fill ``buffer`` from ``offset``."""
        ...

    def read_into_many(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill several buffers one after the other from ``offset`` (one system call where the medium has it)."""
        ...

    def map(self) -> memoryview | None:
        """Return the whole file as one read-only memoryview that outlives `close`, or None where the medium cannot.

        Only for `view`: a mapped file that shrinks kills the process on access, so nothing else reads through a map.
        """
        ...

    def unchanged(self) -> bool:
        """Return whether the file under this source still is what it was when opened (never True after a rewrite)."""
        ...

    def close(self) -> None:
        """Release the file; maps that were handed out stay valid."""
        ...


class Store(Protocol):
    """A tree of named files. Paths are plain strings of this store; they never come out of a file's contents."""

    def open(self, path: str) -> ByteSource:
        """Open one file for reading.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError, OSError: as the system says.
            FormatError: the container (archive) around it is damaged.
        """
        ...

    def stat(self, path: str) -> FileStat | None:
        """Return what ``path`` is, or None when there is nothing of this name."""
        ...

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in the directory ``path``, in no order; "" is the root or current directory."""
        ...

    def expect(self, paths: Sequence[str]) -> None:
        """Announce that these files belong together and will be read: a compressed archive loads them in one pass."""
        ...

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        ...

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)`` of a path."""
        ...

    def display(self, path: str) -> str:
        """Return the path as shown to people and as accepted by `openckpt.open`."""
        ...


def read_whole(store: Store, path: str, *, limits: Limits, cap: str, what: str) -> bytes:
    """Return all bytes of a small file.

    Args:
        store: where it lies.
        path: the file.
        limits: caps against hostile files.
        cap: name of the limit for its size.
        what: names the size in the message: "the size of the index".

    Raises:
        LimitError: it is larger than the limit.
        OSError, FormatError: as `Store.open`.
    """
    with closing(store.open(path)) as source:
        limits.check(cap, source.size, source.path, what)
        return source.read_at(0, source.size)


def short_read(path: str, offset: int, wanted: int, available: int) -> CorruptionError:
    """Make the error for a read that ends behind the end of the file."""
    return CorruptionError(
        "storage.short-read",
        Where(path, offset=offset),
        "the file ended early",
        expected=f"{wanted} bytes",
        found=f"{max(0, available)} bytes",
    )
