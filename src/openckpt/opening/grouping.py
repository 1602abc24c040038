"""One directory, its names grouped into checkpoints and each judged whole or not.

    run/                                   Listing
      checkpoint                             manifests["checkpoint"]
      ckpt-1.index  ckpt-1.data-0000?-of-00002  ckpt-1.meta     Group(format="bundle-v2", complete)
      ckpt-2.data-00000-of-00001             Group(index=None, missing=("ckpt-2.index",)), orphan_shards
      ckpt-1.data-00000-of-00004             stale_shards (another count, beside a whole checkpoint)
      model.h5  weights.npz  graph-7         Group of one file, by content
      ckpt-3_temp/  ckpt-3.index.tempstate1  leftovers
      ckpt-3.openckpt-lock  ckpt-3.0.openckpt-tmp   unfinished
      ckpt-1.safetensors, a link to the shard       aliases

One scan of the directory, and for every index one open and one or two positioned reads: a tree of ten thousand
checkpoints is grouped in a second. *Complete* here means: every file that the checkpoint needs is there and its index is an
index. That the bytes inside are right is for the reader and the doctor to prove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from openckpt.errors import CheckpointError, LimitError
from openckpt.formats.bundle.saving import read_record
from openckpt.formats.names import (
    INDEX_SUFFIX,
    SAVED_MODEL_NAMES,
    shard_name,
    step_of,
    v1_pattern,
    v1_shard_name,
)
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.listing import Group, Listing
from openckpt.opening.settling import is_doubtful, settle
from openckpt.opening.sniffing import (
    could_be_checkpoint,
    could_be_manifest,
    is_manifest_text,
    promises_checkpoint,
    read_shard_map,
    shard_map_format,
    sniff_file,
    sniff_index,
)
from openckpt.opening.sorting import SortedNames, sort_names
from openckpt.storage import FileStat, LocalStore, Store

_MISSING_SHOWN = 100
_SCANS = 5


def group_directory(
    store: Store, directory: str, *, limits: Limits = DEFAULT_LIMITS, read_contents: bool | None = None
) -> Listing:
    """Group the names of one directory into checkpoints and judge whether each is complete.

    Args:
        store: where the directory lies.
        directory: its path in the store.
        limits: caps against hostile files.
        read_contents: False judges by names and sizes alone; formats are then those that the names promise. By default
            contents are read wherever that does not mean to unpack a compressed archive.

    Raises:
        OSError: the directory cannot be read; that of a single file becomes the `Group.damage` of its checkpoint.

    Safe beside a trainer that saves and sweeps in this directory: what looks broken is looked at again.
    """

    def regroup(stats: Iterable[FileStat]) -> Listing:
        return group_names(store, directory, stats, limits=limits, read_contents=read_contents)

    for _ in range(_SCANS):
        listing = regroup(store.scan(directory))
        if not isinstance(store, LocalStore) or not any(is_doubtful(group) for group in listing.groups):
            break
        seen = len(listing.groups)
        listing = settle(store, listing, regroup)
        listing = replace(listing, groups=tuple(sorted(listing.groups, key=_order)))
        if len(listing.groups) == seen:
            break  # else some were swept meanwhile, and what took their place was not in this scan
    return listing


def group_names(
    store: Store,
    directory: str,
    stats: Iterable[FileStat],
    *,
    limits: Limits = DEFAULT_LIMITS,
    read_contents: bool | None = None,
) -> Listing:
    """Group what a scan of ``directory`` returned; see `group_directory`."""
    if read_contents is None:
        read_contents = reads_in_place(store)
    return _Grouping(store, directory, sort_names(store, stats), limits, read_contents=read_contents).run()


def reads_in_place(store: Store) -> bool:
    """Return whether a few bytes of a file cost a few bytes: not so in a compressed tar, which is unpacked from its start."""
    return str(getattr(store, "format", "")) not in _UNPACKED


_UNPACKED = frozenset("tar.gz tar.bz2 tar.xz gz bz2 xz".split())


class _Grouping:
    """The work of one `group_names` call."""

    def __init__(
        self, store: Store, directory: str, names: SortedNames, limits: Limits, *, read_contents: bool
    ) -> None:
        self.store, self.directory, self.limits, self.read_contents = store, directory, limits, read_contents
        self.names = names
        self.groups: list[Group] = []
        self.orphan_shards: list[FileStat] = []
        self.stale_shards: list[FileStat] = []

    def run(self) -> Listing:
        names = self.names
        claimed = names.metas.keys() & (names.indexes.keys() | names.shards.keys())
        for prefix in sorted(names.indexes.keys() | names.shards.keys()):
            self._group_v2(prefix)
        for (prefix, count), files in sorted(names.v1_shards.items()):
            if self._group_v1_shards(prefix, count, files):
                claimed.add(prefix)
        for stat in names.shard_maps:
            self._group_shard_map(stat)
        for stat in names.singles:
            if self._group_single(stat):
                claimed.add(stat.name)
        aliases = self._set_aliases_apart() if isinstance(self.store, LocalStore) else []
        self.groups.sort(key=_order)
        return Listing(
            directory=self.directory,
            groups=tuple(self.groups),
            manifests=names.manifests,
            leftovers=tuple(names.leftovers),
            unfinished={stem: tuple(stats) for stem, stats in sorted(names.unfinished.items())},
            orphan_shards=tuple(self.orphan_shards),
            orphan_metas=tuple(stat for prefix, stat in sorted(names.metas.items()) if prefix not in claimed),
            stale_shards=tuple(self.stale_shards),
            aliases=tuple(aliases),
            archives=tuple(names.archives),
            others=tuple(names.others),
            directories=tuple(names.directories),
            saved_model=any(stat.name in SAVED_MODEL_NAMES for stat in names.others),
        )

    def _set_aliases_apart(self) -> list[tuple[FileStat, FileStat]]:
        """Take out the groups of safetensors files that are data files of a whole checkpoint under another name."""
        shards = {
            stat.identity[:2]: stat  # device and inode
            for group in self.groups
            if group.format == "bundle-v2" and group.complete
            for stat in group.shards
        }
        aliases = []
        for group in [group for group in self.groups if group.format == "safetensors"]:
            twins = [(stat, shards[stat.identity[:2]]) for stat in group.shards if stat.identity[:2] in shards]
            if twins and len(twins) == len(group.shards) and group.complete:
                self.groups.remove(group)
                aliases += twins
        return aliases

    def _path(self, name: str) -> str:
        return self.store.join(self.directory, name)

    def _extras(self, prefix: str) -> tuple[FileStat, ...]:
        meta = self.names.metas.get(prefix)
        return () if meta is None else (meta,)

    # -- V2: an index and the shards it asks for ----------------------------------------------------------------------

    def _group_v2(self, prefix: str) -> None:
        index = self.names.indexes.get(prefix)
        sets = self.names.shards.get(prefix, {})
        whole = [count for count, files in sets.items() if 0 < count == len(files) and max(files) < count]
        stated: int | None = None
        damage: CheckpointError | OSError | None = None
        maker: str | None = None
        ends: Mapping[int, int] | None = None
        if index is not None and self.read_contents:
            sniffed = sniff_index(self.store, index, self.limits)
            if sniffed.format == "table-v1":  # a V1 file whose own name ends in .index
                self.groups.append(_single_group(index, "table-v1", self._extras(index.name)))
                index = None
                if not sets:
                    return
            elif sniffed.damage is not None and not sets and prefix not in self.names.metas and not sniffed.plausible:
                self.names.others.append(index)  # some other program's index
                return
            else:
                stated, damage, maker, ends = sniffed.num_shards, sniffed.damage, sniffed.maker, sniffed.ends

        count = stated
        if stated is None:  # no index, or none that can be read: what the names say
            count = whole[0] if len(whole) == 1 else max(sets, default=1 if index is not None else None)
        elif stated not in whole and len(whole) == 1:
            count = whole[0]  # formats 2.11: the one whole set on the disk wins over the header
        assert count is not None  # an index or at least one shard brought us here
        present = {i: stat for i, stat in sets.get(count, {}).items() if i < count}
        missing = _some(shard_name(prefix, i, count) for i in range(count) if i not in present)
        num_missing = count - len(present)
        if index is None:
            missing, num_missing = (prefix + INDEX_SUFFIX, *missing), num_missing + 1
        if damage is None:
            damage = self._too_many(prefix, count)
        shards = tuple(present[i] for i in sorted(present))
        group = Group(
            prefix=self._path(prefix),
            name=prefix,
            format="bundle-v2",
            step=step_of(prefix),
            index=index,
            shards=shards,
            extras=self._extras(prefix),
            missing=missing,
            num_missing=num_missing,
            num_shards=count,
            header_shards=stated if stated != count else None,
            complete=num_missing == 0 and damage is None,
            uncommitted=index is None and self._is_of_unfinished_save(prefix, count),
            maker=maker,
            damage=damage,
            ends=ends,
        )
        self.groups.append(group)
        strays = [
            stat
            for number, files in sorted(sets.items())
            for i, stat in sorted(files.items())
            if number != count or i not in present
        ]
        if index is None:
            self.orphan_shards.extend(shards)
        (self.stale_shards if group.complete else self.orphan_shards).extend(strays)

    def _is_of_unfinished_save(self, prefix: str, count: int) -> bool:
        if prefix not in self.names.unfinished:
            return False
        record = read_record(self.store, self._path(prefix)) if self.read_contents else None
        return record is None or record.writes == count  # else older data, of an index that was lost before

    def _too_many(self, prefix: str, count: int) -> LimitError | None:
        try:
            self.limits.check("shards", count, self.store.display(self._path(prefix)), "the number of shards")
        except LimitError as error:
            return error
        return None

    # -- V1 shards, and checkpoints of one file -----------------------------------------------------------------------

    def _group_v1_shards(self, prefix: str, count: int, files: dict[int, FileStat]) -> bool:
        if not self._is_v1(files):  # data sets are sharded under the same names
            self.names.others.extend(files[i] for i in sorted(files))
            return False
        present = {i: stat for i, stat in files.items() if i < count}
        damage = self._too_many(prefix, count)
        name = v1_shard_name(prefix, 0, 1) if count == 1 else v1_pattern(prefix, count)
        self.groups.append(
            Group(
                prefix=self._path(name),
                name=name,
                format="table-v1",
                step=step_of(prefix),
                shards=tuple(present[i] for i in sorted(present)),
                extras=self._extras(prefix),
                missing=_some(v1_shard_name(prefix, i, count) for i in range(count) if i not in present),
                num_missing=count - len(present),
                num_shards=count,
                complete=len(present) == count and damage is None,
                damage=damage,
            )
        )
        return True

    def _is_v1(self, files: dict[int, FileStat]) -> bool:
        # The first two tell: one of them may be damaged, and a data set may have a hundred thousand shards.
        if not self.read_contents:
            return False
        return any(sniff_file(self.store, files[i], self.limits).format == "table-v1" for i in sorted(files)[:2])

    def _group_shard_map(self, stat: FileStat) -> None:
        """Weights of Keras or safetensors in several files, listed by a JSON index."""
        format_ = shard_map_format(stat.name)
        assert format_ is not None
        names: tuple[str, ...] = ()
        damage: CheckpointError | OSError | None = None
        if self.read_contents:
            try:
                names = read_shard_map(self.store, stat, format_, self.limits)
            except (CheckpointError, OSError) as error:
                damage = error
        wanted = set(names)
        shards = [single for single in self.names.singles if single.name in wanted]
        self.names.singles = [single for single in self.names.singles if single.name not in wanted]
        missing = wanted - {shard.name for shard in shards}
        self.groups.append(
            Group(
                prefix=stat.path,
                name=stat.name,
                format=format_,
                index=stat,
                shards=tuple(sorted(shards, key=lambda shard: shard.name)),
                missing=_some(name for name in names if name in missing),
                num_missing=len(missing),
                num_shards=len(names) or None,
                complete=not missing and damage is None,
                damage=damage,
            )
        )

    def _group_single(self, stat: FileStat) -> bool:
        group = self._single(stat)
        if group is not None:
            self.groups.append(group)
        return group is not None

    def _single(self, stat: FileStat) -> Group | None:
        promised = promises_checkpoint(stat.name)
        if promised is None and stat.name in self.names.metas:
            promised = "table-v1"
        if not self.read_contents:
            if promised is None:
                self.names.others.append(stat)
                return None
            return _single_group(stat, promised, self._extras(stat.name))
        if not could_be_checkpoint(stat.name) and stat.name not in self.names.metas:
            if could_be_manifest(stat.name) and is_manifest_text(self.store, stat):
                self.names.manifests[stat.name] = stat
            else:
                self.names.others.append(stat)
            return None
        sniffed = sniff_file(self.store, stat, self.limits)
        if sniffed.format is not None:
            return _single_group(stat, sniffed.format, self._extras(stat.name), sniffed.damage)
        if sniffed.manifest:
            self.names.manifests[stat.name] = stat
            return None
        if sniffed.damage is not None and promised is not None:
            return _single_group(stat, promised, self._extras(stat.name), sniffed.damage)
        self.names.others.append(stat)
        return None


def group_single_file(store: Store, stat: FileStat, *, limits: Limits = DEFAULT_LIMITS) -> Group | None:
    """Return the group of one file whatever its name, by content; None where it is no checkpoint of one file."""
    sniffed = sniff_file(store, stat, limits)
    return None if sniffed.format is None else _single_group(stat, sniffed.format, (), sniffed.damage)


def _single_group(
    stat: FileStat, format_: str, extras: tuple[FileStat, ...], damage: CheckpointError | OSError | None = None
) -> Group:
    return Group(
        prefix=stat.path,
        name=stat.name,
        format=format_,
        step=step_of(stat.name),
        shards=(stat,),
        extras=extras,
        num_shards=1 if format_ == "table-v1" else None,
        complete=damage is None,
        damage=damage,
    )


def _some(names: Iterator[str]) -> tuple[str, ...]:
    # One hostile name can ask for 99,999,999 shards: only so many names are ever made.
    return tuple(islice(names, _MISSING_SHOWN))


def _order(group: Group) -> tuple[str, int, str, str]:
    step = -1 << 70 if group.step is None else group.step
    stem = group.name if group.step is None else group.name.rpartition("-")[0].removesuffix("-")
    return (stem, step, group.name, group.format)
