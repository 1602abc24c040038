"""A store around a store that numbers and names every call: the base of all that fails, dies or watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from openckpt.storage.reading import ByteSource, FileStat
from openckpt.storage.writable import OutputFile, WritableStore, WriteBuffer

T = TypeVar("T")


class Call(NamedTuple):
    """One call of a store, as counted by `CallFS`.

    Attributes:
        number: 1, 2, 3 ... in the order in which the calls began.
        name: the method: "create", "write", "rename" ...
        path: the file or directory.
        detail: what else was passed: ``-> run/ckpt.index`` of a rename, ``0+4096`` (offset and size) of a write.
    """

    number: int
    name: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.name} {self.path or '.'}{' ' if self.detail else ''}{self.detail}"


class CallFS:
    """A `WritableStore` that hands every call on to another one, and keeps the list of them.

    Subclasses override `around`. Calls that touch no file (`join`, `split`, `display`, `expect`) are not counted. Calls may come
    from several threads; the numbers then follow the order in which the threads happened to run.

    Attributes:
        store: where the calls go.
        calls: every call so far.
    """

    def __init__(self, store: WritableStore) -> None:
        self.store = store
        self.calls: list[Call] = []
        self._counting = threading.Lock()

    @property
    def history(self) -> list[str]:
        """Every call so far, a line each."""
        return [str(call) for call in self.calls]

    def around(self, call: Call, do: Callable[[], T]) -> T:
        """Carry out one call: ``do()`` hands it on and returns what came back."""
        return do()

    def _run(self, name: str, path: str, do: Callable[[], T], detail: str = "") -> T:
        return self.around(self._count(name, path, detail), do)

    def _count(self, name: str, path: str, detail: str = "") -> Call:
        with self._counting:
            call = Call(len(self.calls) + 1, name, path, detail)
            self.calls.append(call)
        return call

    # -- reading ------------------------------------------------------------------------------------------------------

    def open(self, path: str) -> ByteSource:
        """Open a file for reading; the reads themselves are not counted."""
        return self._run("open", path, lambda: self.store.open(path))

    def stat(self, path: str) -> FileStat | None:
        """Return what a path is."""
        return self._run("stat", path, lambda: self.store.stat(path))

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies in a directory."""
        return self._run("scan", path, lambda: self.store.scan(path))

    def expect(self, paths: Sequence[str]) -> None:
        """Announce what will be read."""
        self.store.expect(paths)

    def join(self, directory: str, name: str) -> str:
        """Return the path of ``name`` in ``directory``."""
        return self.store.join(directory, name)

    def split(self, path: str) -> tuple[str, str]:
        """Return ``(directory, name)``."""
        return self.store.split(path)

    def display(self, path: str) -> str:
        """Return the path as shown to people."""
        return self.store.display(path)

    # -- writing ------------------------------------------------------------------------------------------------------

    def create(self, path: str) -> OutputFile:
        """Create a new file."""
        return self._run("create", path, lambda: self.store.create(path))

    def allocate(self, file: OutputFile, offset: int, size: int) -> None:
        """Reserve space."""
        self._run("allocate", file.path, lambda: self.store.allocate(file, offset, size), f"{offset}+{size}")

    def write(self, file: OutputFile, offset: int, buffers: Sequence[WriteBuffer]) -> int:
        """Write buffers."""
        size = sum(map(len, buffers))
        return self._run("write", file.path, lambda: self.store.write(file, offset, buffers), f"{offset}+{size}")

    def read(self, file: OutputFile, offset: int, size: int) -> bytes:
        """Read from a file that was created here."""
        return self._run("read", file.path, lambda: self.store.read(file, offset, size), f"{offset}+{size}")

    def size(self, file: OutputFile) -> int:
        """Return the size of a file that was created here."""
        return self._run("size", file.path, lambda: self.store.size(file))

    def start_sync(self, file: OutputFile, offset: int, size: int) -> None:
        """Let the medium begin."""
        self._run("start_sync", file.path, lambda: self.store.start_sync(file, offset, size), f"{offset}+{size}")

    def sync(self, file: OutputFile) -> None:
        """Sync a file."""
        self._run("sync", file.path, lambda: self.store.sync(file))

    def sync_path(self, path: str) -> None:
        """Sync a file that somebody else wrote."""
        self._run("sync_path", path, lambda: self.store.sync_path(path))

    def close(self, file: OutputFile) -> None:
        """Let go of a file or a lock."""
        self._run("close", file.path, lambda: self.store.close(file))

    def rename(self, source: str, target: str) -> None:
        """Rename over what is there."""
        self._run("rename", source, lambda: self.store.rename(source, target), f"-> {target}")

    def rename_new(self, source: str, target: str) -> None:
        """Rename without replacing."""
        self._run("rename_new", source, lambda: self.store.rename_new(source, target), f"-> {target}")

    def link(self, source: str, target: str) -> None:
        """Give a second name."""
        self._run("link", source, lambda: self.store.link(source, target), f"-> {target}")

    def remove(self, path: str) -> None:
        """Take a name away."""
        self._run("remove", path, lambda: self.store.remove(path))

    def make_directory(self, path: str) -> None:
        """Create a directory."""
        self._run("make_directory", path, lambda: self.store.make_directory(path))

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        self._run("remove_directory", path, lambda: self.store.remove_directory(path))

    def sync_directory(self, path: str) -> bool:
        """Sync the names of a directory."""
        return self._run("sync_directory", path, lambda: self.store.sync_directory(path))

    def free_bytes(self, path: str) -> int | None:
        """Return what is free."""
        return self._run("free_bytes", path, lambda: self.store.free_bytes(path))

    def try_lock(self, path: str) -> OutputFile | None:
        """Lock a file."""
        return self._run("try_lock", path, lambda: self.store.try_lock(path))

    def try_claim(self, path: str) -> OutputFile | None:
        """Hold a file against readers."""
        return self._run("try_claim", path, lambda: self.store.try_claim(path))
