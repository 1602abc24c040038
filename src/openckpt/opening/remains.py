"""What answers to a name without a file or an index of that name: shards of V1, or what is left of a checkpoint."""

from __future__ import annotations

from openckpt.errors import CorruptionError, PathNotFoundError
from openckpt.formats.names import INDEX_SUFFIX, META_SUFFIX, is_same_v1_set
from openckpt.limits import Limits
from openckpt.opening.grouping import group_directory
from openckpt.opening.listing import Listing, what_is_missing
from openckpt.opening.target import How, Target
from openckpt.storage import Store


def list_quietly(store: Store, directory: str, limits: Limits) -> Listing | None:
    """Return the listing of a directory, or None where the system refuses it."""
    try:
        return group_directory(store, directory, limits=limits)
    except OSError:
        return None


def check_remains(store: Store, listing: Listing, name: str) -> None:
    """Raise the error that says what is left of a checkpoint of this name: data files, or the graph."""
    for group in listing.named(name):
        if group.uncommitted:
            raise not_committed(store, group.prefix)
        if group.format == "bundle-v2" and group.index is None:
            raise CorruptionError(
                "path.index-missing",
                store.display(group.prefix),
                f"{len(group.shards)} data files are here, but not their index {name + INDEX_SUFFIX!r}",
            )
    for stat in listing.orphan_metas:
        if stat.name == name + META_SUFFIX:
            raise CorruptionError("path.meta-only", store.display(stat.path), META_ONLY)


def not_committed(store: Store, prefix: str) -> PathNotFoundError:
    """Make the error for a prefix that openckpt is saving for the first time, or died over."""
    from openckpt.opening.saves import save_state

    states = {"running": "is running", "dead": "broke off", "unknown": "is running or broke off"}
    state = states.get(save_state(store, prefix) or "", "has just ended")
    message = f"there is no checkpoint of this name: its first save {state}, and the index was not in place"
    return PathNotFoundError("path.not-committed", store.display(prefix), message)


META_ONLY = "only the graph is here, the checkpoint that belongs to it is not"


def find_v1_shards(store: Store, listing: Listing, name: str) -> Target | None:
    """``NAME-?????-of-NNNNN``, or NAME alone where such shards lie."""
    found = [group for group in listing.groups if group.format == "table-v1" and is_same_v1_set(name, group.name)]
    if not found:
        return None
    best = max(found, key=lambda group: (group.complete, group.mtime_ns))
    reason = f"the shards of a V1 checkpoint, {what_is_missing(best)}"
    siblings = tuple(store.display(group.prefix) for group in found if group is not best)
    return Target(store, best.prefix, "table-v1", How("pattern", reason), siblings)
