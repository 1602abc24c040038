"""Safetensors in many files under an index, and how a conversion that was killed goes on.

    model-00001-of-00003.safetensors ...       each in place as soon as it is whole and safe
    model.safetensors.index.json               last: before it the files are nobody's checkpoint

A file that is there already is kept when its header is the one that would be written and its bytes have the checksums in it;
any other is in the way. To replace a checkpoint, the new files get names that the old index does not know
(``model.2-00001-of-00003.safetensors``): old and new never mix, and the old ones go after the switch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from openckpt.conversion.outputs import needed_space
from openckpt.conversion.planning import Row, checkpoint_order
from openckpt.conversion.safetensors_file import SafetensorsFile, order_of, plan_rows
from openckpt.errors import CheckpointError, ConflictError, UnsupportedError, shown
from openckpt.formats.names import SAFETENSORS_SHARDS_SUFFIX
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.commit import Commit
from openckpt.storage.pending import doing
from openckpt.writing.place import settle_dead

if TYPE_CHECKING:
    from openckpt.conversion.moving import Moved
    from openckpt.storage.pending import PendingFile
    from openckpt.storage.writable import Durability, WritableStore

SUFFIX = ".safetensors"


def index_path(target: str) -> str:
    """Return the path of the index for a target that may be called after the index or after one file."""
    if target.endswith(SAFETENSORS_SHARDS_SUFFIX):
        return target
    return target.removesuffix(SUFFIX) + SAFETENSORS_SHARDS_SUFFIX


def plan_files(rows: Sequence[Row], max_bytes: int) -> list[list[Row]]:
    """Return the tensors of each file, by key: as many as fit, and a larger one alone."""
    files: list[list[Row]] = []
    size = 0
    for row in checkpoint_order(rows):
        nbytes = row.target.nbytes or 0
        if not files or (files[-1] and size + nbytes > max_bytes):
            files.append([])
            size = 0
        files[-1].append(row)
        size += nbytes
    return files


class ManyFilesOutput:
    """Safetensors in many files.

    Args:
        path: of the index.
        rows: the tensors.
        max_bytes: of the tensors of one file.
        is_finished: whether a file that is there holds these tensors and nothing else, read and compared.
        overwrite: replace what is there.
        durability: see `openckpt.save`.
        store: where to write.
    """

    def __init__(
        self,
        path: str,
        rows: Sequence[Row],
        max_bytes: int,
        is_finished: Callable[[str, Sequence[Row]], bool],
        *,
        overwrite: bool,
        durability: Durability,
        store: WritableStore,
    ) -> None:
        self.durability: Durability = durability
        self.kept: tuple[str, ...] = ()
        self._store = store
        self._path = path
        self._is_finished = is_finished
        self._overwrite = overwrite
        directory, self._name = store.split(path)
        self._stem = self._name.removesuffix(SAFETENSORS_SHARDS_SUFFIX)
        self._groups = plan_files(rows, max_bytes)
        self._map = _weight_map(path, self._groups)
        self._commit = Commit(store, directory, self._name, durability=durability, settle=settle_dead)
        self._names: list[str] = []
        self._old: tuple[str, ...] = ()
        self._pending: list[int] = []
        self._open: tuple[int, PendingFile, SafetensorsFile, set[str]] | None = None
        self._number_of = {row.key: number for number, group in enumerate(self._groups) for row in group}

    @property
    def order(self) -> Sequence[str]:
        """File by file, those that are kept left out."""
        return [key for number in self._pending for key in order_of(plan_rows(self._groups[number], self._path))]

    def _join(self, name: str) -> str:
        return self._store.join(self._commit.directory, name)

    def write(self, batch: Sequence[Moved]) -> None:
        """Write some tensors; a file whose last tensor has come is put in place."""
        for moved in batch:
            number = self._number_of[moved.row.key]
            if self._open is None:
                file = self._commit.create()
                rows = self._groups[number]
                self._open = number, file, SafetensorsFile(file, rows), {row.key for row in rows}
            _, _, shard, missing = self._open
            shard.add(moved)
            missing.remove(moved.row.key)
            if not missing:
                self._put_in_place()
        if self._open is not None:
            self._open[2].flush()

    def _put_in_place(self) -> None:
        assert self._open is not None
        number, file, shard, _ = self._open
        shard.finish()
        self._open = None
        name = self._names[number]
        if self._overwrite and self._store.stat(self._join(name)) is not None:
            self._commit.switch(file, name)  # no index knows it: what an earlier attempt left
        else:
            self._commit.publish({file: name})

    def __enter__(self) -> ManyFilesOutput:
        with ExitStack() as stack:
            stack.enter_context(self._commit)
            self._begin()
            stack.pop_all()
        return self

    def _begin(self) -> None:
        self._old = self._files_of_index()
        attempt = 1
        while set(names := _names(self._stem, attempt, len(self._groups))) & set(self._old):
            attempt += 1
        self._names = names
        kept: list[str] = []
        for number, name in enumerate(names):
            path = self._join(name)
            if self._store.stat(path) is None:
                self._pending.append(number)
            elif self._is_finished(path, self._groups[number]):
                kept.append(path)
            elif self._overwrite:
                self._pending.append(number)
            else:
                raise ConflictError("convert.exists", path, "a file of this name is there, and holds something else")
        self.kept = tuple(kept)
        for path in kept if self.durability == "power-loss" else ():
            with doing("sync", path):
                self._store.sync_path(path)  # who made it may not have cared
        rows = [row for number in self._pending for row in self._groups[number]]
        self._commit.require_space(needed_space(rows))

    def _files_of_index(self) -> tuple[str, ...]:
        """Return the names in the index that is there; none where it cannot be read."""
        from openckpt.formats.safetensors import parse_weight_map
        from openckpt.formats.shardmap import read_index

        if self._store.stat(self._path) is None:
            return ()
        try:
            names = parse_weight_map(read_index(self._store, self._path, DEFAULT_LIMITS), self._path)
        except CheckpointError:
            return ()
        return tuple(dict.fromkeys(names.values()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open[2].abandon()  # before the file is closed under a write
        if error is None:
            try:
                self._commit.switch(self._commit.put(self._index()), self._name)
                self._commit.retire(
                    name for name in self._old if name not in self._names and is_file_of(self._stem, name)
                )
            except BaseException as failure:
                self._commit.__exit__(type(failure), failure, failure.__traceback__)
                raise
            self.durability = self._commit.durability
        self._commit.__exit__(kind, error, trace)

    def _index(self) -> bytes:
        """Return the index, as Hugging Face's libraries write it."""
        total = sum(row.target.nbytes or 0 for group in self._groups for row in group)
        weight_map = {name: self._names[number] for name, number in sorted(self._map.items())}
        document = {"metadata": {"total_size": total}, "weight_map": weight_map}
        return json.dumps(document, indent=2).encode("ascii") + b"\n"


def is_file_of(stem: str, name: str) -> bool:
    """Return whether a file is called after an index: an index may name any file, a stranger's also anybody's."""
    return re.fullmatch(rf"{re.escape(stem)}(\.\d+)?-\d{{5,}}-of-\d{{5,}}{re.escape(SUFFIX)}", name) is not None


def _names(stem: str, attempt: int, count: int) -> list[str]:
    stem = stem if attempt == 1 else f"{stem}.{attempt}"
    return [f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}" for number in range(1, count + 1)]


def _weight_map(path: str, groups: Sequence[Sequence[Row]]) -> dict[str, int]:
    """Return the name of every tensor as safetensors sees it -> the number of its file.

    Raises:
        UnsupportedError: a name would stand for two tensors (``convert.shard-names``).
    """
    names: dict[str, int] = {}
    twice: list[str] = []
    for number, rows in enumerate(groups):
        plan = plan_rows(rows, path)
        header = plan.header(dict.fromkeys(plan.offsets, 0))
        for name in json.loads(header[8:]):
            if name == "__metadata__":
                continue
            if names.setdefault(name, number) != number:
                twice.append(name)
    if twice:
        raise UnsupportedError("convert.shard-names", path, f"two tensors would be called {shown(twice)}")
    return names
