"""From the path that a user typed to what is to be examined - also, and above all, when it cannot be opened.

`openckpt.opening.resolve` answers which checkpoint a path means, or raises. The doctor wants more: the group of files a broken
path belongs to. So it goes by the names in the directory, and asks `resolve` only where these say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from openckpt.findings import Progress
from openckpt.formats.names import (
    INDEX_SUFFIX,
    MANIFEST_NAME,
    META_SUFFIX,
    SAVED_MODEL_NAMES,
    is_same_v1_set,
    prefix_of,
)
from openckpt.limits import Limits
from openckpt.opening.grouping import group_directory, group_single_file
from openckpt.opening.listing import Group, Listing
from openckpt.opening.resolving import resolve
from openckpt.storage import LOCAL, FileStat, Store

_ARCHIVES = frozenset({"zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "mag"})


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names.

    Attributes:
        kind: ``directory``, ``archive`` (its root), or ``checkpoint``.
        store: where it lies.
        directory: the directory, or the one that the checkpoint lies in.
        groups: for a checkpoint: its group first, then others that share the name.
        member: for a checkpoint: the file of it that was named, or "".
        nesting: for a directory or an archive: how many archives are around what lies in it.
    """

    kind: str
    store: Store
    directory: str
    groups: tuple[Group, ...] = ()
    member: str = ""
    nesting: int = 0


def find_place(name: str, *, limits: Limits, progress: Progress | None) -> Place:
    """Return what ``name`` means.

    Raises:
        CheckpointError: nothing can be said of it but this.
        OSError: the system refused.
    """
    store, path, inside = _descend(LOCAL, name, limits, progress, depth=0)
    if not path and inside:
        return Place("archive", store, "", nesting=inside)
    stat = store.stat(path) if path else None
    if stat is not None and stat.kind == "dir":
        bare = path.rstrip("/")
        if bare and _is_prefix_beside_nothing(store, bare, limits):
            return _checkpoint(store, bare, None, limits, progress)
        return Place("directory", store, path, nesting=inside)
    if stat is not None and stat.kind == "file":
        archive = _open_archive(store, stat, limits, progress, depth=inside)
        if archive is not None:
            return Place("archive", archive, "", nesting=inside + 1)
        if stat.name in SAVED_MODEL_NAMES:
            return Place("directory", store, store.split(path)[0])
    return _checkpoint(store, path, stat, limits, progress)


def _is_prefix_beside_nothing(store: Store, path: str, limits: Limits) -> bool:
    """Return whether a directory shares its name with a prefix and holds no checkpoint: then the prefix is meant."""
    index = store.stat(path + INDEX_SUFFIX)
    if index is None or index.kind != "file":
        return False
    listing = group_directory(store, path, limits=limits)
    return not (listing.groups or listing.manifests or listing.saved_model)


def _descend(
    store: Store, name: str, limits: Limits, progress: Progress | None, *, depth: int
) -> tuple[Store, str, int]:
    """Follow ``ARCHIVE!INNER`` into archives; a literal name with a ``!`` wins, as in `resolve`."""
    if store.stat(name) is None:
        at = name.rfind("!")
        while at > 0:
            stat = store.stat(name[:at])
            if stat is not None and stat.kind == "file":
                inside = _open_archive(store, stat, limits, progress, depth=depth)
                if inside is not None:
                    return _descend(inside, name[at + 1 :].strip("/"), limits, progress, depth=depth + 1)
            at = name.rfind("!", 0, at)
    return store, name, depth


def _open_archive(
    store: Store, stat: FileStat, limits: Limits, progress: Progress | None, *, depth: int
) -> Store | None:
    from openckpt.formats.detect import detect
    from openckpt.storage.archive import open_archive

    if depth > limits.archive_nesting:
        return None
    source = store.open(stat.path)
    if detect(source).kind in _ARCHIVES:  # a .keras or .npz file is a zip too, and a checkpoint
        return open_archive(source, limits=limits, progress=progress)
    source.close()
    return None


def _checkpoint(store: Store, path: str, stat: FileStat | None, limits: Limits, progress: Progress | None) -> Place:
    directory, name = store.split(path)
    parent = store.stat(directory) if directory else None
    listing = Listing(directory)
    if path and (not directory or (parent is not None and parent.kind == "dir")):
        listing = group_directory(store, directory, limits=limits)
    groups = _groups_of(listing, name, is_file=stat is not None) if path else []
    if not groups:
        if stat is not None and (name == MANIFEST_NAME or name in listing.manifests):
            return Place("directory", store, directory)
        return _resolved(store, path, stat, limits, progress)
    if stat is not None and name in listing.manifests and groups[0].name == name and groups[0].index is not None:
        return Place("directory", store, directory)  # the manifest itself was named, not the prefix of the same name
    member = name if stat is not None and groups[0].name != name else ""
    return Place("checkpoint", store, directory, tuple(groups), member)


def _groups_of(listing: Listing, name: str, *, is_file: bool) -> list[Group]:
    """Return the groups that a name means, the one that `resolve` would open first."""
    if is_file:
        literal = [
            group for group in listing.groups if group.index is None and any(stat.name == name for stat in group.shards)
        ]
        member = [group for group in listing.groups if any(stat.name == name for stat in group.files)]
        prefix = prefix_of(name)
        stray = [] if prefix is None else [group for group in listing.groups if group.name == prefix]
        return list(dict.fromkeys([*literal, *member, *listing.named(name), *stray]))
    found = sorted(listing.named(name), key=lambda group: group.format != "bundle-v2")
    prefix = prefix_of(name)
    if prefix is not None:
        found += [group for group in listing.groups if group.name == prefix]
    found += [group for group in listing.groups if group.format == "table-v1" and is_same_v1_set(name, group.name)]
    return list(dict.fromkeys(found))


def _resolved(store: Store, path: str, stat: FileStat | None, limits: Limits, progress: Progress | None) -> Place:
    if stat is not None and stat.kind == "file":
        group = group_single_file(store, stat, limits=limits)
        if group is not None:
            return Place("checkpoint", store, store.split(path)[0], (group,))
    if stat is None and path and store.stat(path + META_SUFFIX) is not None:
        path += META_SUFFIX  # says that only the graph is here
    target = resolve(store, path, limits=limits, progress=progress)  # raises, with the nearest names
    directory, name = target.store.split(target.path)
    listing = group_directory(target.store, directory, limits=limits)
    group = next(
        (group for group in listing.groups if group.prefix == target.path and group.format == target.format), None
    )
    if group is None:
        group = Group(prefix=target.path, name=name, format=target.format)
    return Place("checkpoint", target.store, directory, (group,), "" if path == target.path else store.split(path)[1])
