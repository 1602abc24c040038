"""What a weak POSIX file system remembers: the disk of `openckpt.testing.PowerLossFS`.

A file system may keep in memory what it was told, and write it back block by block and name by name in any order. So every
thing that was changed since it was last synced - a *cell* - is on the medium in any one of the states it has had since:

    block     4 KiB of a file                  any version since the last sync of the file; a hole is zeros
    size      of a file                        any size since then, and any whole number of blocks between two of them
    name      an entry of a directory          what it meant at any time since the last sync of the directory, or nothing

Cells know nothing of each other. Of a rename the old name, the new one, both or neither may be there; a name may lead to a file
whose bytes never arrived; syncing a file does not make its name last, nor a directory that of the directory in its parent.
A rename over a name is one change of one cell: the name leads to the old file or to the new one, never nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias


class FileNode:
    """A file's bytes: the current ones, and for each block and the size every version since the last sync.

    Attributes:
        number: its inode number.
        cache: what `openckpt.testing.images` made of it; emptied by every change.
    """

    __slots__ = ("_block", "_blocks", "_versions", "cache", "number", "sizes")

    def __init__(self, number: int, block: int, data: bytes = b"") -> None:
        self.number = number
        self._block = block
        self._blocks: list[bytes] = []
        self._versions: dict[int, list[bytes]] = {}
        self.sizes = [0]
        self.cache: dict[tuple[int, ...], tuple[bytes, bytes]] = {}
        if data:
            self.write(0, data)
            self.sync()

    @property
    def size(self) -> int:
        """The current size in bytes."""
        return self.sizes[-1]

    def grow(self, size: int) -> None:
        """Make the file at least this long; what was not written is zeros."""
        if size > self.size:
            self.sizes.append(size)
            self.cache.clear()
            missing = -(-size // self._block) - len(self._blocks)
            self._blocks += [bytes(self._block)] * missing

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at an offset; each block that they touch gets a new version."""
        if not data:
            return
        self.cache.clear()
        end, block = offset + len(data), self._block
        self.grow(end)
        for number in range(offset // block, -(-end // block)):
            start = number * block
            first, last = max(offset, start), min(end, start + block)
            old = self._blocks[number]
            new = b"".join((old[: first - start], data[first - offset : last - offset], old[last - start :]))
            self._versions.setdefault(number, [old]).append(new)
            self._blocks[number] = new

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` current bytes from ``offset``."""
        return self.content()[offset : offset + size]

    def content(self) -> bytes:
        """Return all current bytes."""
        return b"".join(self._blocks)[: self.size]

    def sync(self) -> None:
        """Make the current bytes and size the only ones."""
        self._versions.clear()
        self.sizes = [self.size]
        self.cache.clear()

    def cells(self) -> list[tuple[int, int]]:
        """Return for each cell how many states it may be in, and which of them is the current one; the state 0 is the synced one."""
        sizes = self._possible_sizes()
        found = [(len(sizes), len(sizes) - 1)] if len(sizes) > 1 else []
        for number in self._versions:
            versions = self._possible_blocks(number)
            found.append((len(versions), versions.index(self._blocks[number])))
        return found

    def in_state(self, choice: tuple[int, ...]) -> bytes:
        """Return the bytes with each cell of `cells` in the given state."""
        sizes = self._possible_sizes()
        size, blocks = (sizes[choice[0]], choice[1:]) if len(sizes) > 1 else (sizes[0], choice)
        lying = self._blocks[: -(-size // self._block)]
        for number, state in zip(self._versions, blocks, strict=True):
            if number < len(lying):
                lying[number] = self._possible_blocks(number)[state]
        return b"".join(lying)[:size]

    def _possible_sizes(self) -> list[int]:
        synced, current = self.sizes[0], self.sizes[-1]
        if synced == current:
            return [synced]
        between = {*self.sizes, *range(synced - synced % self._block + self._block, current, self._block)}
        return [synced, *sorted(between - {synced, current}), current]

    def _possible_blocks(self, number: int) -> list[bytes]:
        return list(dict.fromkeys(self._versions[number]))


class DirectoryNode:
    """The names of a directory: the current ones, and for each one that was changed every meaning since the last sync."""

    __slots__ = ("_versions", "names", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.names: dict[str, Node] = {}
        self._versions: dict[str, list[Node | None]] = {}

    def set(self, name: str, node: Node | None) -> None:
        """Let a name lead to another file or directory, or nowhere."""
        self._versions.setdefault(name, [self.names.get(name)]).append(node)
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node

    def sync(self) -> None:
        """Make the current names the only ones."""
        self._versions.clear()

    def cells(self) -> list[tuple[int, int]]:
        """Return for each changed name how many states it may be in, and which of them is the current one."""
        found = []
        for name in self._versions:
            meanings = self._meanings(name)
            found.append((len(meanings), meanings.index(self.names.get(name))))
        return found

    def in_state(self, choice: tuple[int, ...]) -> dict[str, Node]:
        """Return the names with each cell of `cells` in the given state."""
        names = dict(self.names)
        for name, state in zip(self._versions, choice, strict=True):
            node = self._meanings(name)[state]
            if node is not None:
                names[name] = node
            else:
                names.pop(name, None)
        return names

    def possible_nodes(self) -> Iterator[Node]:
        """Yield everything that a name of this directory may lead to after a power cut."""
        yield from self.names.values()
        for versions in self._versions.values():
            yield from (node for node in versions if node is not None)

    def _meanings(self, name: str) -> list[Node | None]:
        return list(dict.fromkeys(self._versions[name]))


Node: TypeAlias = "FileNode | DirectoryNode"


class Cells(NamedTuple):
    """All that is uncertain at one moment: the cells of every node that may be reachable after a power cut.

    Attributes:
        nodes: each node with cells, and where its cells begin and end in the lists below.
        states: per cell, how many states it may be in; 0 is the synced one.
        current: per cell, the state in which nothing is lost.
    """

    nodes: list[tuple[Node, int, int]]
    states: list[int]
    current: tuple[int, ...]

    @property
    def combinations(self) -> int:
        """How many combinations of states there are."""
        count = 1
        for states in self.states:
            count *= states
        return count


def cells_of(root: DirectoryNode) -> Cells:
    """Return what is uncertain below a directory."""
    nodes: list[tuple[Node, int, int]] = []
    cells: list[tuple[int, int]] = []
    for node in _reachable(root):
        own = node.cells()
        if own:
            nodes.append((node, len(cells), len(cells) + len(own)))
            cells += own
    return Cells(nodes, [states for states, _ in cells], tuple(current for _, current in cells))


def _reachable(root: DirectoryNode) -> Iterable[Node]:
    seen: dict[int, Node] = {root.number: root}
    waiting = [root]
    while waiting:
        for node in waiting.pop().possible_nodes():
            if node.number not in seen:
                seen[node.number] = node
                if isinstance(node, DirectoryNode):
                    waiting.append(node)
    return seen.values()
