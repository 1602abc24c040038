"""Saves by openckpt that are not over: running, or broken off by a crash; and data files that no index names any more.

    ckpt-7.openckpt-lock       held by a running program: the save runs; held by nobody: its writer is dead
    ckpt-7.0.openckpt-tmp      data without its name yet
    ckpt-7_temp/               parts of it that several programs save, with locks of their own
    ckpt-7.data-00000-of-...   without ckpt-7.index: published, not committed; there is no such checkpoint (yet)
                               with it: the data of the other side of an overwrite that was not taken, or not yet

Everything here is looked at again when it is asked, because a save may have ended since the directory was listed. Nothing is
written, and no lock is taken for longer than a look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from openckpt.codes.quoting import quoted
from openckpt.errors import size_text
from openckpt.findings import Finding, make_finding
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, RUN_STEM, is_save_lock, parse_shard_name
from openckpt.formats.names import TEMP_SUFFIX as PARTS_SUFFIX
from openckpt.opening.listing import Group, Listing
from openckpt.storage import FileStat, LocalStore, Store
from openckpt.storage.temporary import LOCK_SUFFIX

_MOST_NAMED = 100  # files in one command

SaveState = Literal["running", "dead", "unknown"]
"""``unknown``: the system does not let us ask who holds the lock."""


@dataclass(frozen=True, slots=True)
class UnfinishedSave:
    """A save by openckpt that has not come to its end.

    Attributes:
        stem: last part of the prefix, ``checkpoint`` for the manifest.
        prefix: the prefix as shown to people.
        state: whether its writer lives.
        files: what is there of it: lock, temporary files, data files that no index names.
        committed: whether there is a checkpoint of this prefix all the same, the old one or the new.
    """

    stem: str
    prefix: str
    state: SaveState
    files: tuple[FileStat, ...]
    committed: bool


def save_state(store: Store, prefix: str) -> SaveState | None:
    """Return whether openckpt is saving this prefix at the moment or a save of it died; None where there is no lock file."""
    path = prefix + LOCK_SUFFIX
    stat = store.stat(path)
    if stat is None or stat.kind != "file" or stat.link:
        return None
    if not isinstance(store, LocalStore):
        return "dead"  # in an archive nobody saves
    from openckpt.storage.disk import lock_is_held

    try:
        return "running" if lock_is_held(path) else "dead"
    except FileNotFoundError:
        return None
    except OSError:
        return "unknown"


def is_written_to(store: Store, directory: FileStat) -> bool:
    """Return whether openckpt works in a directory ``PREFIX_temp``: saves a part of the checkpoint, or merges them."""
    if save_state(store, directory.path.removesuffix(PARTS_SUFFIX)) == "running":
        return True
    try:
        inside = store.scan(directory.path)
    except OSError:
        return False
    locks = [stat.path.removesuffix(LOCK_SUFFIX) for stat in inside if is_save_lock(stat.name)]
    return any(save_state(store, prefix) == "running" for prefix in locks)


def iter_unfinished_saves(store: Store, listing: Listing) -> Iterator[UnfinishedSave]:
    """Yield the saves of a directory that still run or broke off, by stem; one that is over by now is left out."""
    groups, stale = _bundles(listing), _stale_by_prefix(listing)
    for stem, stats in listing.unfinished.items():
        prefix = store.join(listing.directory, stem)
        state = save_state(store, prefix)
        if state is None:
            if any(is_save_lock(stat.name) for stat in stats) or not _still_there(store, stats):
                continue  # the save has ended
            state = "dead"  # a power cut took the name of the lock
        group = groups.get(stem)
        # Asked after the state: a writer that is dead by now may have committed before it died, since the listing.
        committed = store.stat(prefix + INDEX_SUFFIX) is not None
        published: Sequence[FileStat] = ()
        if group is not None and group.uncommitted and not committed:
            published = group.shards
        elif group is not None and state == "dead" and _is_current(store, group):
            published = stale.get(stem, ())
        files = tuple(stat for stat in (*stats, *published) if _still_there(store, [stat]))
        yield UnfinishedSave(stem, store.display(prefix), state, files, committed)


def stale_shards(store: Store, listing: Listing) -> list[FileStat]:
    """Return the data files of another count than the index of their prefix asks for, and which nobody will need.

    Those of a save that runs or broke off are not among them (`iter_unfinished_saves` has them), nor any whose index was replaced
    since the directory was listed: what was stale then may be its data now.
    """
    groups, found = _bundles(listing), []
    for stem, stats in sorted(_stale_by_prefix(listing).items()):
        group = groups.get(stem)
        # In this order: a save that begins after the first question cannot have switched the index before the second.
        if stem in listing.unfinished or save_state(store, store.join(listing.directory, stem)) is not None:
            continue
        if group is None or _is_current(store, group):
            found += [stat for stat in stats if _still_there(store, [stat])]
    return found


def save_findings(store: Store, listing: Listing) -> Iterator[Finding]:
    """Yield one note for every save that runs or broke off."""
    for save in iter_unfinished_saves(store, listing):
        is_manifest = not save.committed and (save.stem == MANIFEST_NAME or save.stem in listing.manifests)
        what = "an update of the manifest" if is_manifest else f"a save of {save.stem!r}"
        if save.stem == RUN_STEM and not save.committed:
            what = "a save by the run's manager"
        count, size = len(save.files), size_text(sum(stat.size for stat in save.files))
        files = f"one file, {size}" if count == 1 else f"{count} files, {size}"
        match save.state:
            case "running":
                yield make_finding("run.saving", save.prefix, f"{what} is running: {files} so far")
            case "unknown":
                message = f"{what} is running or broke off, the system does not say who holds its lock: {files}"
                yield make_finding("run.saving", save.prefix, message)
            case "dead":
                yield make_finding(
                    "run.broken-off", save.prefix, f"{what} broke off and left {files}", fix=_fix(store, save)
                )


def _fix(store: Store, save: UnfinishedSave) -> str:
    names = " ".join(quoted(store.display(stat.path)) for stat in save.files[:_MOST_NAMED])
    return f"the next openckpt save in this directory removes them; or by hand: rm {names}"


def _bundles(listing: Listing) -> dict[str, Group]:
    return {group.name: group for group in listing.groups if group.format == "bundle-v2"}


def _stale_by_prefix(listing: Listing) -> dict[str, list[FileStat]]:
    found: dict[str, list[FileStat]] = {}
    for stat in listing.stale_shards:
        parsed = parse_shard_name(stat.name)
        if parsed is not None:
            found.setdefault(parsed[0], []).append(stat)
    return found


def _still_there(store: Store, stats: Sequence[FileStat]) -> bool:
    return any((now := store.stat(stat.path)) is not None and now.identity[:2] == stat.identity[:2] for stat in stats)


def _is_current(store: Store, group: Group) -> bool:
    """Return whether the index is the one that was listed."""
    if group.index is None:
        return False
    now = store.stat(group.index.path)
    return now is not None and now.identity == group.index.identity
