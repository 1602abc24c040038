"""The names of one directory, sorted by what each of them says: an index, a shard, a leftover, an archive ...

Nothing is opened here; only a directory called ``..._temp`` is looked into, because other programs have such directories too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from openckpt.formats.names import (
    MANIFEST_NAME,
    META_SUFFIX,
    TEMP_SUFFIX,
    is_manifest_temp,
    is_part_file,
    is_tempstate,
    parse_index_name,
    parse_shard_name,
    parse_unfinished_name,
    parse_v1_shard_name,
)
from openckpt.opening.sniffing import archive_suffix, shard_map_format
from openckpt.storage import FileStat, Store


@dataclass(slots=True)
class SortedNames:
    """What the names of one directory promise.

    Attributes:
        indexes: prefix -> index file.
        shards: prefix -> count -> shard id -> V2 data file.
        v1_shards: (prefix, count) -> shard id -> file.
        metas: prefix -> meta graph.
        shard_maps: the JSON indexes of weights in several files.
        singles: files that may be a checkpoint of one file, or anything.
        manifests: the file called ``checkpoint``.
        leftovers: what interrupted saves left.
        unfinished: stem -> lock and temporary files of saves by openckpt that run, or died.
        archives: files whose name says archive.
        directories: subdirectories.
        others: what is neither file nor directory.
    """

    indexes: dict[str, FileStat] = field(default_factory=dict)
    shards: dict[str, dict[int, dict[int, FileStat]]] = field(default_factory=dict)
    v1_shards: dict[tuple[str, int], dict[int, FileStat]] = field(default_factory=dict)
    metas: dict[str, FileStat] = field(default_factory=dict)
    shard_maps: list[FileStat] = field(default_factory=list)
    singles: list[FileStat] = field(default_factory=list)
    manifests: dict[str, FileStat] = field(default_factory=dict)
    leftovers: list[FileStat] = field(default_factory=list)
    unfinished: dict[str, list[FileStat]] = field(default_factory=dict)
    archives: list[FileStat] = field(default_factory=list)
    directories: list[FileStat] = field(default_factory=list)
    others: list[FileStat] = field(default_factory=list)


def sort_names(store: Store, stats: Iterable[FileStat]) -> SortedNames:
    """Sort what a scan of a directory returned."""
    names = SortedNames()
    for stat in stats:
        if stat.kind == "file":
            _sort_file(names, stat)
        elif stat.kind != "dir":
            names.others.append(stat)
        elif stat.name.endswith(TEMP_SUFFIX) and not stat.link:
            _sort_temp(names, store, stat)
        else:
            names.directories.append(stat)
    return names


def _sort_file(names: SortedNames, stat: FileStat) -> None:
    name = stat.name
    if (prefix := parse_index_name(name)) is not None:
        names.indexes[prefix] = stat
    elif ".data-" in name and (shard := parse_shard_name(name)) is not None:
        names.shards.setdefault(shard[0], {}).setdefault(shard[2], {})[shard[1]] = stat
    elif name == MANIFEST_NAME:
        names.manifests[name] = stat
    elif name.endswith(META_SUFFIX):
        names.metas[name[: -len(META_SUFFIX)]] = stat
    elif is_tempstate(name) or is_manifest_temp(name):
        names.leftovers.append(stat)
    elif (stem := parse_unfinished_name(name)) is not None:
        names.unfinished.setdefault(stem, []).append(stat)
    elif "-of-" in name and (part := parse_v1_shard_name(name)) is not None and part[1] is not None:
        names.v1_shards.setdefault((part[0], part[2]), {})[part[1]] = stat
    elif archive_suffix(name):
        names.archives.append(stat)
    elif shard_map_format(name) is not None:
        names.shard_maps.append(stat)
    else:
        names.singles.append(stat)


def _sort_temp(names: SortedNames, store: Store, stat: FileStat) -> None:
    # A save's working directory holds parts, or is already empty.
    try:
        inside = [entry.name for entry in store.scan(stat.path)]
    except FileNotFoundError:
        return  # the save is done
    except OSError:
        names.directories.append(stat)
        return
    is_save = not inside or any(map(is_part_file, inside))
    (names.leftovers if is_save else names.directories).append(stat)
