"""The protocol for writing: the system calls of a commit, and nothing more.

Every method is one thing that can fail, be lost in a power cut or be the last before a kill, which is why a fault-injecting
store (`openckpt.testing`) is one more implementation of it. Nothing here retries, cleans up or decides: that is the commit's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from openckpt.storage.reading import Store

Durability = Literal["power-loss", "process-crash"]
"""What a save survives: ``"power-loss"`` syncs at every barrier, ``"process-crash"`` never syncs."""

WriteBuffer: TypeAlias = "memoryview | bytes | bytearray"
"""Bytes to write: C-contiguous, item size 1."""


class OutputFile(Protocol):
    """A file that this process created, or a lock that it holds; meaningful only to the store that gave it."""

    path: str
    """the name under which it was opened; a rename does not change it"""


class WritableStore(Store, Protocol):
    """A store that checkpoints can be saved to.

    All calls raise OSError as the system says. Paths are those of the store; a name is never taken from a file's contents.
    """

    def create(self, path: str) -> OutputFile:
        """Create a new, empty file for writing; FileExistsError where the name is taken."""
        ...

    def allocate(self, file: OutputFile, offset: int, size: int) -> None:
        """Reserve disk space for a range, so that running out shows before the work; does nothing where that is unknown."""
        ...

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write buffers one after the other from ``offset``; return how many bytes were taken, which may be fewer."""
        ...

    def read(self, file: OutputFile, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``, fewer at the end of the file."""
        ...

    def size(self, file: OutputFile) -> int:
        """Return the size of the file in bytes."""
        ...

    def start_sync(self, file: OutputFile, offset: int, size: int) -> None:
        """Let the medium begin with a range that was written, and do not wait; a hint, which promises nothing."""
        ...

    def sync(self, file: OutputFile) -> None:
        """Return when the file's bytes and size survive a power cut (its name need not)."""
        ...

    def sync_path(self, path: str) -> None:
        """Return when the bytes of a file that somebody else wrote survive a power cut."""
        ...

    def close(self, file: OutputFile) -> None:
        """Let go of the file; a lock ends."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, atomically taking the place of what has it."""
        ...

    def rename_new(self, source: str, target: str) -> None:
        """Give a file another name; FileExistsError where the name is taken."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError where the name is taken."""
        ...

    def remove(self, path: str) -> None:
        """Take a name away."""
        ...

    def make_directory(self, path: str) -> None:
        """Create one directory; FileExistsError where the name is taken."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def sync_directory(self, path: str) -> bool:
        """Return True when all names in a directory survive a power cut, False where the file system cannot promise it."""
        ...

    def free_bytes(self, path: str) -> int | None:
        """Return the bytes that may still be written below a directory, None where nobody knows."""
        ...

    def try_lock(self, path: str) -> OutputFile | None:
        """Create or open a file and lock it exclusively; None where another program or thread holds it.

        The lock ends with `close`, or with the process. `read` and `write` work on it.
        """
        ...

    def try_claim(self, path: str) -> OutputFile | None:
        """Open a file that is there and hold it against readers until `close`; None where one has a lease on it.

        FileNotFoundError where there is none. Where the file system has no locks nobody has a lease.
        """
        ...
