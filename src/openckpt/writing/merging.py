"""Several processes write a part each, one of them merges: the parts become the data files of one checkpoint (formats 2.11).

    run/ckpt-1_temp/part-00000-of-00002.index                         run/ckpt-1.index
    run/ckpt-1_temp/part-00000-of-00002.data-00000-of-00001    ->     run/ckpt-1.data-00000-of-00002
    run/ckpt-1_temp/part-00001-of-00002.index                         run/ckpt-1.data-00001-of-00002
    run/ckpt-1_temp/part-00001-of-00002.data-00000-of-00001

No byte of a tensor moves: the data files get a second name, the merged index is the commit point, then the parts go. A merge
that died is simply run again, also one by TensorFlow that had moved the data and not yet written the index.
"""

from __future__ import annotations

import os
from dataclasses import replace

from openckpt.errors import ConflictError, CorruptionError, PathNotFoundError, UnsupportedError, Where, shown
from openckpt.formats.bundle.merging import MergedIndex, Origin, merge_indexes
from openckpt.formats.names import (
    INDEX_SUFFIX,
    MANIFEST_NAME,
    TEMP_SUFFIX,
    is_part_file,
    parse_part_name,
    shard_name,
    step_of,
)
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.pending import doing
from openckpt.storage.reading import FileStat, read_whole
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.checking import check_index
from openckpt.writing.keys import decode_key, split_prefix
from openckpt.writing.manifests import advanced_manifest, check_name
from openckpt.writing.place import Taken, look_at, record_of, settle_dead, shard_names
from openckpt.writing.result import SavedPath


def part_prefix(prefix: str | os.PathLike[str], part: int, parts: int) -> str:
    """Return the prefix under which writer ``part`` of ``parts`` saves its tensors, for `merge_parts`.

    openckpt.save(openckpt.part_prefix("run/ckpt-1", rank, world_size), my_tensors)
    ...                              # wait until all have saved
    openckpt.merge_parts("run/ckpt-1")           # one of them
    """
    if not 0 <= part < parts:
        raise ValueError(f"part {part} of {parts}: parts count from 0")
    return f"{os.fsdecode(prefix)}{TEMP_SUFFIX}/part-{part:05d}-of-{parts:05d}"


def merge_parts(
    prefix: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    durability: Durability = "power-loss",
    update_manifest: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    store: WritableStore | None = None,
) -> SavedPath:
    """Make one checkpoint of the parts that several writers saved under `part_prefix`, and remove the parts.

    Parts may be in any layout; TensorFlow's own are taken too. A tensor may lie in slices in several parts.

    Args:
        prefix: of the checkpoint, without ``.index``.
        overwrite: allow a checkpoint of this name to be replaced.
        durability: see `openckpt.save`.
        update_manifest: make it the newest in the directory's manifest.
        limits: caps on what the parts may state.
        store: where; the local disk when not given.

    Raises:
        PathNotFoundError: there is no part, or some are missing (``writing.parts-missing``).
        ConflictError: a checkpoint of this name exists (``commit.exists``), two parts hold the same tensor
            (``bundle.merge-duplicate``), the parts are of several saves (``writing.parts-mixed``), or somebody else is saving
            this prefix (``commit.locked``).
        CorruptionError: a part is damaged, or parts contradict one another.
        OSError: as the system says; nothing new is visible, and the parts are still there.
    """
    disk: WritableStore = DISK if store is None else store
    return _Merging(disk, os.fsdecode(prefix), limits).run(overwrite, durability, update_manifest)


class _Merging:
    """The work of one `merge_parts` call."""

    def __init__(self, store: WritableStore, prefix: str, limits: Limits) -> None:
        self._store, self._prefix, self._limits = store, prefix, limits
        self._directory, self._stem = split_prefix(store, prefix)
        self._parts_in = prefix + TEMP_SUFFIX

    def run(self, overwrite: bool, durability: Durability, update_manifest: bool) -> SavedPath:
        if update_manifest:
            check_name(self._stem, self._prefix)
        with Commit(self._store, self._directory, self._stem, durability=durability, settle=settle_dead) as commit:
            taken = look_at(self._store, self._directory, self._stem)
            if taken.index and not overwrite:
                raise ConflictError("commit.exists", self._prefix, "a checkpoint of this name is there already")
            parts = [(self._part(name), self._index(name)) for name in self._part_names()]
            merged = merge_indexes(parts, limits=self._limits)
            if not merged.entries:
                raise UnsupportedError("writing.no-tensors", self._parts_in, "no part has a tensor")
            count = self._count(merged, taken)
            merged = replace(merged, header=merged.header._replace(num_shards=count))
            table = merged.encode()
            data = [commit.create() for _ in range(count - len(merged.origins))]  # a count above that of the parts
            files = shard_names(self._stem, count)
            sources = {self._data(origin): file for origin, file in zip(merged.origins, files, strict=False)}
            index = commit.put(table)
            empty = dict(zip(data, files[len(merged.origins) :], strict=True))
            commit.publish(empty, adopted=sources, record=record_of(count, taken))
            ends = {file: self._size(file) for file in files}
            self._check_ends(merged, files, ends)
            commit.switch(
                index,
                self._stem + INDEX_SUFFIX,
                check=lambda found: check_index(self._store, self._prefix, self._directory, found, table, ends),
            )
            if update_manifest:
                commit.follow(MANIFEST_NAME, lambda present: advanced_manifest(present, self._stem, self._directory))
            if taken.index:
                commit.retire(old for olds in taken.shards.values() for old in olds)
            self._remove_parts(commit)
            return SavedPath(
                self._prefix,
                step=step_of(self._prefix),
                durability=commit.durability,
                nbytes=len(table) + sum(ends.values()),
            )

    def _stat(self, path: str) -> FileStat | None:
        with doing("stat", path):
            return self._store.stat(path)

    # -- the parts ----------------------------------------------------------------------------------------------------

    def _part(self, name: str) -> str:
        return self._store.join(self._parts_in, name)

    def _part_names(self) -> list[str]:
        """Return the names of all parts, in order."""
        found: dict[int, list[int]] = {}
        stat = self._stat(self._parts_in)
        with doing("list", self._parts_in):
            lying = self._store.scan(self._parts_in) if stat is not None and stat.kind == "dir" else ()
        for inside in lying:
            parsed = parse_part_name(inside.name.removesuffix(INDEX_SUFFIX))
            if parsed is not None and inside.name.endswith(INDEX_SUFFIX):
                found.setdefault(parsed[1], []).append(parsed[0])
        if not found:
            raise PathNotFoundError("writing.parts-missing", self._parts_in, "there is no part to merge")
        if len(found) > 1:
            counts = " and ".join(f"of {count}" for count in sorted(found))
            raise ConflictError("writing.parts-mixed", self._parts_in, f"parts {counts} lie side by side")
        ((parts, present),) = found.items()
        missing = sorted(set(range(parts)) - set(present))
        if missing:
            names = [f"part-{part:05d}-of-{parts:05d}" for part in missing[:100]]
            raise PathNotFoundError(
                "writing.parts-missing", self._parts_in, f"{len(missing)} of {parts} parts are missing: {shown(names)}"
            )
        return [f"part-{part:05d}-of-{parts:05d}" for part in range(parts)]

    def _index(self, part: str) -> bytes:
        path = self._part(part + INDEX_SUFFIX)
        with doing("read", path):
            return read_whole(
                self._store, path, limits=self._limits, cap="block_bytes", what="the size of a part's index"
            )

    def _data(self, origin: Origin) -> str:
        return shard_name(origin.part, origin.shard, origin.num_shards)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def _count(self, merged: MergedIndex, taken: Taken) -> int:
        """Return how many data files the checkpoint will have: another count than lies there already.

        Unless what lies there are these very parts: a merge without hard links, or one by TensorFlow, died after it had
        renamed some of them.
        """
        wanted = merged.header.num_shards
        if not taken.index and merged.origins:
            files = shard_names(self._stem, wanted)
            there = set(taken.shards.get(wanted, ()))
            moved = {file for file, origin in zip(files, merged.origins, strict=True) if self._is_gone(origin)}
            if there == moved:
                return wanted
        return taken.free_count(wanted)

    def _is_gone(self, origin: Origin) -> bool:
        return self._stat(self._data(origin)) is None

    def _size(self, file: str) -> int:
        stat = self._stat(self._store.join(self._directory, file))
        return 0 if stat is None else stat.size

    def _check_ends(self, merged: MergedIndex, files: list[str], ends: dict[str, int]) -> None:
        for key, entry in merged.entries.items():
            end = entry.offset + entry.size
            if not entry.slices and end > ends[files[entry.shard]]:
                raise CorruptionError(
                    "bundle.data-truncated",
                    Where(merged.origins[entry.shard].part, decode_key(key), entry.offset),
                    "the data of this part ends before its index says",
                    expected=f"at least {end} bytes",
                    found=f"{ends[files[entry.shard]]} bytes",
                )

    def _remove_parts(self, commit: Commit) -> None:
        try:
            inside = self._store.scan(self._parts_in)
        except OSError:
            return
        stem = self._stem + TEMP_SUFFIX
        names = [self._store.join(stem, stat.name) for stat in inside if is_part_file(stat.name)]
        # The indexes first, and for good: what a kill or a power cut leaves is then no part any more.
        if commit.retire((name for name in names if name.endswith(INDEX_SUFFIX)), settle=stem):
            commit.retire(name for name in names if not name.endswith(INDEX_SUFFIX))
        commit.retire_directory(stem)
