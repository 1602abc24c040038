"""Delta saves: tensors that have not changed are not written again, but referred to where they lie (docs/decisions/0021).

    ckpt-1.data-00000-of-00002  weights and the rest           <--+  ckpt-2.data-00001-of-00003   the same file, by a hard link
    ckpt-1.data-00001-of-00002  optimizer slots                   |  ckpt-2.data-00000-of-00003   what has changed since
                                                                  +- ckpt-2.index                 names both

Each step is a whole checkpoint for every reader, and none needs another one's names. A tensor is unchanged when a 128-bit hash of
its bytes in memory is that of the bytes that were written, or where the program has declared it frozen, at that save and at every
one since; or, behind a restore, when its bytes are those of the step that was restored. A data file is linked while at least half of
what it holds still counts, and there are never more than eight.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from openckpt.errors import NotFoundError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.objectpaths import SLOTS
from openckpt.formats.spec import TensorSpec
from openckpt.storage.disk import DISK
from openckpt.storage.pending import has_no_links
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.recording import OWN_PREFIX
from openckpt.training.shareable import DataFile, Known, Shareable, digest_of, find_shareable, nbytes_of
from openckpt.writing import ByGroup, SavedPath
from openckpt.writing.announced import Announced
from openckpt.writing.keys import encode_key
from openckpt.writing.linking import LinkedFile, identify
from openckpt.writing.manifests import ManifestUpdate
from openckpt.writing.saving import Draft, draft_of
from openckpt.writing.writer import CheckpointWriter

_MOST_FILES = 8
"""of one step, those that it writes among them: each is a file to open for every reader"""
_LEAST_SHARE = 16
"""What stays gets a file of its own where it is this part of a full save, or more: else the file costs more than it saves."""
_OF_THE_FILE = frozenset((errno.ENOENT, errno.EXDEV, errno.EMLINK))
"""why one file gets no link: it is gone, lies on another disk, has too many names; else the disk has none"""


class _Links(NamedTuple):
    """What the next save shares with the last; why it shares nothing, and what has not changed all the same."""

    files: Sequence[tuple[DataFile, dict[str, Known]]]
    why_none: str = ""
    still: frozenset[str] = frozenset()

    def keys(self) -> set[str]:
        return {key for _, tensors in self.files for key in tensors}


def frozen_keys(keys: Iterable[str], names: Collection[str], path: str) -> frozenset[str]:
    """Return the keys below the places that a program has declared frozen, slots of optimizers left out.

    Args:
        keys: of everything that is saved.
        names: places from the root, as keys spell them: ``"model/encoder"``.
        path: the checkpoint, for messages.

    Raises:
        NotFoundError: nothing is saved below a name (``training.nothing-frozen``).
    """
    found: set[str] = set()
    all_keys = [key for key in keys if f"/{SLOTS}/" not in key]
    for name in (names,) if isinstance(names, str) else names:
        below = f"{name.strip('/')}/"
        own = [key for key in all_keys if key.startswith((below, OWN_PREFIX + below))]
        if not own:
            message = "this was declared frozen, and nothing of this name is saved"
            raise NotFoundError("training.nothing-frozen", Where(path, name), message)
        found.update(own)
    return frozenset(found)


class Delta:
    """Remembers what the last delta save of a program wrote, and makes the next one. For one save at a time."""

    def __init__(self) -> None:
        self._base: Shareable | None = None
        self._restored = ""
        """the checkpoint that the program's values are from, where no delta save has come since"""
        self._believed: frozenset[str] = frozenset()
        """keys that the program has declared frozen at the last delta save, and at the beginning of every save since"""
        self._linkless: dict[tuple[WritableStore, str], str] = {}
        """directories on a disk without hard links, and what it said"""

    def forget(self) -> None:
        """Know nothing any more of what is unchanged: the program gets its values from somewhere else."""
        self._base, self._restored, self._believed = None, "", frozenset()

    def restored(self, prefix: str) -> None:
        """Have the next save look at this checkpoint, from which the program got values."""
        self._restored = prefix

    def declare(self, frozen: frozenset[str]) -> None:
        """Hear what the program declares frozen: at the beginning of every save, of other kinds and of those that fail too."""
        self._believed &= frozen

    def save(
        self,
        path: str,
        values: Mapping[str, Any],
        frozen: Collection[str],
        *,
        overwrite: bool,
        durability: Durability,
        update_manifest: ManifestUpdate | bool,
        store: WritableStore | None,
    ) -> SavedPath:
        """Save values; see `openckpt.Checkpoint.save`.

        Args:
            path: the prefix.
            values: by key; they must stay as they are.
            frozen: keys that the program declares unchanged; believed where it has done so ever since the last delta save.
            overwrite: see `openckpt.save`, as what follows.
            durability: what the save survives.
            update_manifest: what becomes of the manifest.
            store: where to write.
        """
        disk: WritableStore = DISK if store is None else store
        work = _Work(disk, path, values, self._believed.intersection(frozen), self._base, self._restored)

        def write(links: _Links) -> SavedPath:
            specs = work.draft.announced.specs
            linked = links.keys()
            new = Announced(
                {key: spec for key, spec in specs.items() if key not in linked}, {}, work.draft.announced.counted
            )
            writer = CheckpointWriter(
                path,
                announced=new,
                layout="dual",
                sharding=None if links.files else ByGroup(lambda key, _: (_group(key, frozen), key in links.still)),
                overwrite=overwrite,
                durability=durability,
                update_manifest=update_manifest,
                store=store,
                linked=[_linked_file(file, tensors, path) for file, tensors in links.files],
            )
            with writer:
                writer.put_all({**values, **work.draft.ready})
            assert writer.result is not None
            try:
                self._base = work.base_of(writer, links)
            except OSError:  # the checkpoint is there; the next one will be full
                self._base = None
            self._believed, self._restored = frozenset(frozen), ""
            writer.result.why_full = links.why_none
            return writer.result

        place = disk, disk.split(path)[0]
        links = work.plan() if place not in self._linkless else _Links((), self._linkless[place])
        if links.files:
            try:
                return write(links)
            except OSError as error:
                if not has_no_links(error) and error.errno not in _OF_THE_FILE:
                    raise
                links = _Links((), f"the system refused a hard link: {error.strerror}")
                if error.errno not in _OF_THE_FILE:
                    self._linkless[place] = links.why_none
        return write(links)


class _Work:
    """One save: what has changed, and what it shares."""

    def __init__(
        self,
        store: WritableStore,
        path: str,
        values: Mapping[str, Any],
        believed: Collection[str],
        base: Shareable | None,
        restored: str,
    ) -> None:
        self.draft: Draft = draft_of(path, values, {})
        if base is None and restored:
            base = find_shareable(store, restored, path, values, self.draft.announced.specs)
        self._store, self._base = store, base
        self._known = {} if base is None else base.tensors
        # All of them before a byte is written: what changes in between, against the rules, differs from its hash the next time.
        self._digests = {
            key: self._known[key].digest
            if key in believed and self._is_alike(key, spec)
            else digest_of(values[key], spec, Where(path, key))
            for key, spec in self.draft.announced.specs.items()
            if BY_NAME[spec.dtype].itemsize
        }

    def plan(self) -> _Links:
        """Return which data files of the last save to link."""
        base = self._base
        if base is None:
            return _Links((), "no delta save of this program came before, nor a restore of what openckpt saved there")
        if base.store is not self._store:
            return _Links((), "the save before went to another store")
        specs = self.draft.announced.specs
        unchanged: list[dict[str, Known]] = [{} for _ in base.files]
        for key, digest in self._digests.items():
            if self._is_alike(key, specs[key]) and self._known[key].digest == digest:
                unchanged[self._known[key].placed.shard][key] = self._known[key]
        live = [nbytes_of(known.placed.spec for known in tensors.values()) for tensors in unchanged]
        is_much = sum(live) * _LEAST_SHARE >= nbytes_of(specs.values())
        still = frozenset(key for tensors in unchanged for key in tensors) if is_much else frozenset[str]()
        there = [number for number, file in enumerate(base.files) if live[number] and self._is_there(file)]
        if not there:
            why = "the files of the save before are gone or others" if any(live) else "nothing is as it was"
            return _Links((), why, still)
        worth = [number for number in there if 2 * live[number] >= base.files[number].payload]
        if not worth:
            return _Links((), "more than half of what the files of the save before hold has changed", still)
        worth = sorted(sorted(worth, key=lambda number: -live[number])[: _MOST_FILES - 1])
        return _Links([(base.files[number], unchanged[number]) for number in worth])

    def _is_alike(self, key: str, spec: TensorSpec) -> bool:
        known = self._known.get(key)
        return known is not None and known.placed.spec == spec

    def _is_there(self, file: DataFile) -> bool:
        return file.id is not None and identify(self._store, file.path) == file.id

    def base_of(self, writer: CheckpointWriter, links: _Links) -> Shareable:
        """Return what the next save may link."""
        tensors = {key: Known(place, self._digests[key]) for key, place in writer.placed().items()}
        files = []
        for number, path in enumerate(writer.files):
            at = number - 1  # of a link: the file that is written comes first
            linked = links.files[at][0] if 0 <= at < len(links.files) else None
            payload = writer.payload(number) if linked is None else linked.payload
            files.append(DataFile(path, identify(self._store, path), payload))
        return Shareable(self._store, files, tensors)


def _linked_file(file: DataFile, tensors: Mapping[str, Known], path: str) -> LinkedFile:
    assert file.id is not None
    placed = {encode_key(key, path): known.placed for key, known in tensors.items()}
    live = nbytes_of(place.spec for place in placed.values())
    return LinkedFile(file.path, file.id.size, placed, is_superseded=live < file.payload)


def _group(key: str, frozen: Collection[str]) -> str:
    """Return which data file of a full save a tensor goes into: what changes together lies together."""
    if key in frozen:
        return "frozen"
    return "slots" if f"/{SLOTS}/" in key else "rest"
