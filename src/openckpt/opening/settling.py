"""Looking again at what a trainer was changing while its directory was read.

A scan is no snapshot. It may show an index that was swept since, miss the data file that was renamed just before its index, or
meet an index that TensorFlow is writing in place. Such a checkpoint looks broken for a moment; what is still broken when
nothing moves any more is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from openckpt.formats.bundle.saving import is_being_saved
from openckpt.formats.names import prefix_of, shard_name
from openckpt.opening.listing import Group, Listing
from openckpt.storage import FileStat, Store

_LOOKS = 10  # between them waits of 1, 2, 4 .. 64 ms, a third of a second in all
_LONGEST_S = 0.064

Regroup = Callable[[Iterable[FileStat]], Listing]


def settle(store: Store, listing: Listing, regroup: Regroup) -> Listing:
    """Return the listing with every V2 checkpoint looked at again that is broken and still changing.

    Args:
        store: where the directory lies.
        listing: what a scan of it gave.
        regroup: groups a part of the names again.
    """
    for group in listing.groups:
        if group.format == "bundle-v2" and is_doubtful(group) and _is_changing(store, listing, group):
            listing = _replace(listing, group.name, _look_again(store, listing.directory, group.name, regroup))
    return listing


def is_doubtful(group: Group) -> bool:
    """Return whether a group may look otherwise after a second scan.

    Also a whole one whose index counts other data files than these, or longer ones: the index may be that of a save which was
    over after the names had been read, and its data not among them.
    """
    if not group.complete or group.header_shards is not None:
        return True
    ends = group.ends or {}
    return any(stat.size < ends.get(shard, 0) for shard, stat in enumerate(group.shards))


def _is_changing(store: Store, listing: Listing, group: Group) -> bool:
    if group.header_shards is not None and store.stat(shard_name(group.prefix, 0, group.header_shards)) is not None:
        return True
    if any(store.stat(store.join(listing.directory, name)) is not None for name in group.missing):
        return True
    if group.damage is not None and is_being_saved(store, group.prefix):
        return True
    for stat in group.files:
        now = store.stat(stat.path)
        if now is None or now.identity != stat.identity:
            return True
    return False


def _look_again(store: Store, directory: str, name: str, regroup: Regroup) -> Listing:
    """Return the listing of one prefix, when it is whole or nothing about it has changed between two looks."""
    seen: list[FileStat] = []
    prefix = store.join(directory, name)
    for look in range(_LOOKS):
        saving = is_being_saved(store, prefix)  # asked first: a save that is over by now is over for the scan too
        stats = sorted((stat for stat in store.scan(directory) if prefix_of(stat.name) == name), key=lambda s: s.name)
        listing = regroup(stats)
        if not any(is_doubtful(group) for group in listing.groups):
            break
        if stats == seen and not saving:
            break
        seen = stats
        time.sleep(min(0.001 * 2**look, _LONGEST_S))
    return listing


def _replace(listing: Listing, name: str, part: Listing) -> Listing:
    """Return the listing with everything of one prefix taken from ``part``."""

    def merged(old: tuple[FileStat, ...], new: tuple[FileStat, ...]) -> tuple[FileStat, ...]:
        return (*(stat for stat in old if prefix_of(stat.name) != name), *new)

    return replace(
        listing,
        groups=(*(g for g in listing.groups if (g.format, g.name) != ("bundle-v2", name)), *part.groups),
        unfinished={
            **{stem: stats for stem, stats in listing.unfinished.items() if stem != name},
            **part.unfinished,
        },
        orphan_shards=merged(listing.orphan_shards, part.orphan_shards),
        orphan_metas=merged(listing.orphan_metas, part.orphan_metas),
        stale_shards=merged(listing.stale_shards, part.stale_shards),
        others=merged(listing.others, part.others),
    )
