"""The record of a `openckpt.testing.PowerLossFS`: what changed, and the tree that it changed, live or played again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from openckpt.testing.weakdisk import DirectoryNode, FileNode, Node


@dataclass(frozen=True, slots=True)
class Change:
    """One call that changed something, as recorded by `PowerLossFS`; a call that failed is not recorded.

    Attributes:
        number: 1, 2, 3 ...
        name: the method: "write", "sync", "rename" ...; "note" for a `PowerLossFS.note`.
        path: the file or directory; the text of a note.
        target: the second path of a rename or link.
        handle: which open file it went to.
        offset: where a write or an allocation begins.
        size: its length in bytes.
        data: what was written.
    """

    number: int
    name: str
    path: str
    target: str = ""
    handle: int = 0
    offset: int = 0
    size: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        if self.name == "note":
            return f"{self.number} -- {self.path}"
        detail = f" -> {self.target}" if self.target else f" {self.offset}+{self.size}" if self.size else ""
        return f"{self.number} {self.name} {self.path or '.'}{detail}"


class Disk:
    """The tree, and what a change does to it; live, and played again."""

    def __init__(self, files: Mapping[str, bytes], directories: Iterable[str], block: int) -> None:
        self._block = block
        self._numbers = 1
        self.root = DirectoryNode(0)
        self.handles: dict[int, FileNode] = {}
        self.applied = 0  # changes so far
        for path in sorted(directories):
            self._directory_for(path)
        for path, data in files.items():
            parent, _, name = "/".join(parts_of(path)).rpartition("/")
            self._directory_for(parent).set(name, FileNode(self._next_number(), block, bytes(data)))
        self._sync_all(self.root)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _directory_for(self, path: str) -> DirectoryNode:
        directory = self.root
        for name in parts_of(path):
            below = directory.names.get(name)
            if below is None:
                below = DirectoryNode(self._next_number())
                directory.set(name, below)
            if not isinstance(below, DirectoryNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            directory = below
        return directory

    def _sync_all(self, directory: DirectoryNode) -> None:
        directory.sync()
        for node in directory.names.values():
            if isinstance(node, DirectoryNode):
                self._sync_all(node)

    def find(self, path: str) -> Node | None:
        """Return what a path leads to now, or None."""
        node: Node = self.root
        for name in parts_of(path):
            below = node.names.get(name) if isinstance(node, DirectoryNode) else None
            if below is None:
                return None
            node = below
        return node

    def parent(self, path: str) -> tuple[DirectoryNode, str]:
        """Return the directory that a path lies in, and its name there."""
        parts = parts_of(path)
        directory = self.find("/".join(parts[:-1]))
        if not parts or directory is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(directory, DirectoryNode):
            raise os_error(errno.ENOTDIR, path)
        return directory, parts[-1]

    def file(self, path: str) -> FileNode:
        """Return the file that a path leads to; raises OSError."""
        node = self.find(path)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(node, FileNode):
            raise os_error(errno.EISDIR, path)
        return node

    def apply(self, change: Change) -> None:
        """Do what a change says; raises OSError where it cannot, and has then changed nothing."""
        self.applied += 1
        match change.name:
            case "create":
                directory, name = self._free(change.path)
                node = self.handles[change.handle] = FileNode(self._next_number(), self._block)
                directory.set(name, node)
            case "try_lock":
                directory, name = self.parent(change.path)
                if name not in directory.names:
                    directory.set(name, FileNode(self._next_number(), self._block))
                self.handles[change.handle] = self.file(change.path)
            case "allocate":
                self.handles[change.handle].grow(change.offset + change.size)
            case "write":
                self.handles[change.handle].write(change.offset, change.data)
            case "sync":
                self.handles[change.handle].sync()
            case "sync_path":
                self.file(change.path).sync()
            case "rename" | "rename_new" | "link":
                node = self.file(change.path)
                source = self.parent(change.path)
                if change.name == "rename":
                    target = self.parent(change.target)
                    if isinstance(target[0].names.get(target[1]), DirectoryNode):
                        raise os_error(errno.EISDIR, change.target)
                    if target[0].names.get(target[1]) is node:
                        return  # two names of one file: rename(2) leaves both
                else:
                    target = self._free(change.target)
                target[0].set(target[1], node)
                if change.name != "link":
                    source[0].set(source[1], None)
            case "remove":
                self.file(change.path)
                directory, name = self.parent(change.path)
                directory.set(name, None)
            case "make_directory":
                directory, name = self._free(change.path)
                directory.set(name, DirectoryNode(self._next_number()))
            case "remove_directory":
                own = self.directory(change.path)
                if own.names:
                    raise os_error(errno.ENOTEMPTY, change.path)
                directory, name = self.parent(change.path)
                directory.set(name, None)
            case "sync_directory":
                self.directory(change.path).sync()
            case "note":
                pass
            case unknown:
                raise ValueError(f"no such change: {unknown!r}")

    def directory(self, path: str) -> DirectoryNode:
        """Return the directory that a path leads to; raises OSError."""
        node = self.find(path)
        if not isinstance(node, DirectoryNode):
            raise os_error(errno.ENOENT if node is None else errno.ENOTDIR, path)
        return node

    def _free(self, path: str) -> tuple[DirectoryNode, str]:
        directory, name = self.parent(path)
        if name in directory.names:
            raise os_error(errno.EEXIST, path)
        return directory, name


def parts_of(path: str) -> list[str]:
    """Return the names along a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


def os_error(number: int, path: str) -> OSError:
    """Make the error of the system."""
    return OSError(number, os.strerror(number), path)
