"""Every state of a disk after a power cut: which ones there are, and each as a store that can be read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import combinations, islice, product

from openckpt.storage.disk import DISK
from openckpt.storage.memory import MemoryStore
from openckpt.storage.reading import FileStat
from openckpt.storage.writing import write_folder
from openckpt.testing.weakdisk import Cells, DirectoryNode, FileNode, Node

MANY = 4096
"""up to so many images of one moment are all made"""
_DIGEST_BYTES = 16
_DIRECTORY = bytes(_DIGEST_BYTES)
_NO_LUCK = 300  # draws in a row that gave nothing new: what is left is rare, or nothing


class Image(MemoryStore):
    """What lies on a disk after a power cut; a `openckpt.storage.Store`, and the start of a new `PowerLossFS`.

    Attributes:
        files: path -> bytes.
        directories: paths of the directories.
        digest: a hash of the whole tree; equal trees have equal digests.
        choice: the state of everything that was uncertain, for `replay`.
        replay: one line with which `PowerLossFS.image` of an equal history makes this very image again.
    """

    def __init__(
        self, files: Mapping[str, bytes], directories: frozenset[str], digest: bytes, choice: str = "", where: str = ""
    ) -> None:
        super().__init__(files, name="")
        self.files = files
        self.directories = directories
        self.digest = digest
        self.choice = choice
        self._where = where

    @property
    def replay(self) -> str:
        """The history's name, the call behind which the power went, and the choice."""
        return f"{self._where} {self.choice}"

    def stat(self, path: str) -> FileStat | None:
        """Return what a path is; empty directories are there too."""
        path = path.strip("/")
        data = self.files.get(path)
        name = path.rpartition("/")[2]
        if data is not None:
            return FileStat(name, path, "file", len(data))
        return FileStat(name, path, "dir", 0) if not path or path in self.directories else None

    def scan(self, path: str) -> list[FileStat]:
        """Return what lies directly in a directory."""
        found = super().scan(path)
        path = path.strip("/")
        seen = {stat.path for stat in found}
        for directory in self.directories - seen:
            parent, _, name = directory.rpartition("/")
            if parent == path:
                found.append(FileStat(name, directory, "dir", 0))
        return found

    def write_to(self, directory: str) -> None:
        """Write the files below a directory of the local disk, which is made as needed, to look at them.

        Raises:
            OSError: as the system says.
        """
        write_folder(directory, dict(self.files))
        for path in sorted(self.directories):
            target = DISK.join(directory, path)
            if DISK.stat(target) is None:
                DISK.make_directory(target)


class Enumeration:
    """The images of one moment. Good until the disk changes."""

    def __init__(self, root: DirectoryNode, cells: Cells, where: str) -> None:
        self._root = root
        self._cells = cells
        self._where = where
        self._slices = {node.number: (start, end) for node, start, end in cells.nodes}

    def images(self, limit: int | None, seed: int) -> Iterator[Image]:
        """Yield distinct images; see `openckpt.testing.PowerLossFS.images`."""
        seen: set[bytes] = set()
        most = MANY if limit is None else limit
        unlucky = 0
        for choice in self._choices(most, seed):
            files, directories, digest = self._realise(choice)
            if digest in seen:
                unlucky += 1
                if unlucky > _NO_LUCK and self._cells.combinations > most:
                    return
                continue
            unlucky = 0
            seen.add(digest)
            yield Image(files, directories, digest, self._named(choice), self._where)
            if len(seen) >= most:
                return

    def image(self, choice: str) -> Image:
        """Return the image of one choice, as `Image.choice` spells it."""
        states = list(self._cells.current)
        if choice.startswith("lost"):
            states = [0] * len(states)
        for change in choice.split("+")[1:]:
            cell, _, state = change.partition(":")
            states[int(cell)] = int(state)
        files, directories, digest = self._realise(tuple(states))
        return Image(files, directories, digest, choice, self._where)

    def _named(self, choice: tuple[int, ...]) -> str:
        from_kept = [
            f"{n}:{s}" for n, (s, kept) in enumerate(zip(choice, self._cells.current, strict=True)) if s != kept
        ]
        from_lost = [f"{n}:{s}" for n, s in enumerate(choice) if s]
        if len(from_lost) < len(from_kept):
            return "+".join(["lost", *from_lost])
        return "+".join(["kept", *from_kept])

    def _choices(self, most: int, seed: int) -> Iterator[tuple[int, ...]]:
        """Yield the choices worth looking at: all, where they are few; else the ends, those one and two steps away, and draws."""
        states, current = self._cells.states, self._cells.current
        if self._cells.combinations <= most:
            yield from product(*map(range, states))
            return
        draw = random.Random(f"{seed} {self._where}")
        lost = (0,) * len(states)
        yield from (lost, current)
        # One cell away from an end: a sync too few somewhere shows here. Shuffled, because a limit may cut them short.
        singles = [(base, ((cell, state),)) for base in (lost, current, self._only_names()) for cell, count in enumerate(states)
                   for state in range(count) if state != base[cell]]  # fmt: skip
        draw.shuffle(singles)
        for base, changes in singles:
            yield _changed(base, changes)
        pairs = list(islice(self._pairs(draw), 4 * most))
        while True:
            # In turns, so that a limit leaves some of each kind.
            if pairs:
                yield _changed(*pairs.pop())
            yield tuple(map(draw.randrange, states))
            mostly = draw.choice((lost, current))
            share = draw.random() * 0.5
            yield tuple(
                draw.randrange(count) if draw.random() < share else state
                for count, state in zip(states, mostly, strict=True)
            )
            yield self._whole_nodes(draw)

    def _only_names(self) -> tuple[int, ...]:
        """Return the choice in which every name is on the medium and no byte that was not synced."""
        choice = list(self._cells.current)
        for node, start, end in self._cells.nodes:
            if isinstance(node, FileNode):
                choice[start:end] = [0] * (end - start)
        return tuple(choice)

    def _pairs(self, draw: random.Random) -> Iterator[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
        states = self._cells.states
        all_pairs = list(islice(combinations(range(len(states)), 2), 20_000))
        draw.shuffle(all_pairs)
        for first, second in all_pairs:
            for base in ((0,) * len(states), self._cells.current):
                yield base, ((first, draw.randrange(states[first])), (second, draw.randrange(states[second])))

    def _whole_nodes(self, draw: random.Random) -> tuple[int, ...]:
        """Draw which files and which names are on the medium, each file whole or not at all."""
        choice = list(self._cells.current)
        for node, start, end in self._cells.nodes:
            if isinstance(node, FileNode):
                if draw.random() < 0.3:
                    choice[start:end] = [0] * (end - start)
            else:
                choice[start:end] = map(draw.randrange, self._cells.states[start:end])
        return tuple(choice)

    def _realise(self, choice: tuple[int, ...]) -> tuple[dict[str, bytes], frozenset[str], bytes]:
        files: dict[str, bytes] = {}
        directories: list[str] = []
        digests: list[bytes] = []
        waiting: list[tuple[str, DirectoryNode]] = [("", self._root)]
        while waiting:
            path, directory = waiting.pop()
            for name, node in directory.in_state(self._own(directory, choice)).items():
                below = f"{path}/{name}" if path else name
                if isinstance(node, DirectoryNode):
                    directories.append(below)
                    waiting.append((below, node))
                    digest = _DIRECTORY
                else:
                    data, digest = self._content(node, self._own(node, choice))
                    files[below] = data
                digests.append(below.encode(errors="surrogateescape") + b"\0" + digest)
        digests.sort()
        return files, frozenset(directories), blake2b(b"".join(digests), digest_size=_DIGEST_BYTES).digest()

    def _own(self, node: Node, choice: tuple[int, ...]) -> tuple[int, ...]:
        place = self._slices.get(node.number)
        return choice[place[0] : place[1]] if place is not None else ()

    @staticmethod
    def _content(node: FileNode, choice: tuple[int, ...]) -> tuple[bytes, bytes]:
        known = node.cache.get(choice)
        if known is None:
            data = node.in_state(choice)
            known = node.cache[choice] = data, blake2b(data, digest_size=_DIGEST_BYTES).digest()
        return known


def _changed(base: tuple[int, ...], changes: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    choice = list(base)
    for cell, state in changes:
        choice[cell] = state
    return tuple(choice)
