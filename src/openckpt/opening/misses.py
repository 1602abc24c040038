"""What to say when a path leads nowhere: the nearest things that do lead somewhere."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from openckpt.codes.quoting import quoted
from openckpt.errors import PathNotFoundError
from openckpt.formats.names import INDEX_SUFFIX, prefix_of
from openckpt.opening.choosing import latest_key
from openckpt.opening.listing import Group, Listing
from openckpt.storage import Store

_SHOWN = 5
_COMPARED = 20_000  # names; comparing takes ten microseconds each
_NEIGHBOURS = 100  # directories beside and below that are asked for a checkpoint of the same name


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def find_url_error(path: str) -> PathNotFoundError | None:
    """Return the error for a path that is none but a URL, or None."""
    match = _URL.match(path)
    if match is None:
        return None
    fix = None
    if match[1].lower() == "file":
        fix = f"openckpt doctor {quoted('/' + path[match.end() :].partition('/')[2])}"
    return PathNotFoundError("path.url", path, f"this is a URL ({match[0]}), not the path of a file", fix=fix)


def make_miss(store: Store, path: str, listing: Listing | None) -> PathNotFoundError:
    """Make the error for a path that is no file, no directory and no prefix, naming the nearest prefixes.

    Args:
        store: where it was looked for.
        path: the path.
        listing: the directory that should have held it; None where there is none, or the system refused it.
    """
    url = find_url_error(path)
    if url is not None:
        return url
    near = nearest_prefixes(store, path, listing)
    if near:
        hint = f"nearest: {', '.join(map(repr, near))}"
        return PathNotFoundError(
            "path.not-found", store.display(path), f"no checkpoint of this name; {hint}", fix=_list_command(near[0])
        )
    directory, _ = store.split(path.rstrip("/"))
    if directory and store.stat(directory) is None:
        return PathNotFoundError(
            "path.not-found",
            store.display(path),
            f"there is no directory {store.display(directory)!r}",
            fix=f"openckpt find {quoted(_nearest_directory(store, directory))}",
        )
    return PathNotFoundError("path.not-found", store.display(path), "no checkpoint of this name, and none near it")


def _list_command(path: str) -> str:
    return f"openckpt ls {quoted(path)}"


def _nearest_directory(store: Store, directory: str) -> str:
    """Return the first directory upwards that exists, as shown to people."""
    while directory and store.stat(directory) is None:
        directory = store.split(directory.rstrip("/"))[0]
    return store.display(directory) or "."


def nearest_prefixes(store: Store, path: str, listing: Listing | None) -> tuple[str, ...]:
    """Return up to five paths, as shown to people, that the user may have meant, the likeliest first."""
    trimmed = path.rstrip("/")
    if trimmed != path and (store.stat(trimmed) is not None or store.stat(trimmed + INDEX_SUFFIX) is not None):
        return (store.display(trimmed),)
    directory, name = store.split(trimmed)
    wanted = prefix_of(name) or name
    groups = [] if listing is None else [group for group in listing.groups if group.shards or group.index]
    near = _near_names(wanted, groups)
    if not near:
        near = _same_name_elsewhere(store, directory, wanted)
    return tuple(store.display(prefix) for prefix in near[:_SHOWN])


def _near_names(wanted: str, groups: Iterable[Group]) -> list[str]:
    by_name: dict[str, Group] = {}
    for group in sorted(groups, key=lambda group: group.complete):
        by_name[group.name] = group
    numbered = [group for name, group in by_name.items() if wanted and name.startswith(f"{wanted}-")]
    if numbered:  # the step is missing
        return [group.prefix for group in sorted(numbered, key=latest_key, reverse=True)]
    if any(c in wanted for c in "*?["):
        matched = [group for name, group in by_name.items() if fnmatch.fnmatchcase(name, wanted)]
        if matched:
            return [group.prefix for group in sorted(matched, key=latest_key, reverse=True)]
    close = get_close_matches(wanted, list(islice(by_name, _COMPARED)), n=_SHOWN, cutoff=0.5)
    rest = [name for name in by_name if name not in close and wanted and (wanted in name or name in wanted)]
    return [by_name[name].prefix for name in [*close, *rest] if name]


def _same_name_elsewhere(store: Store, directory: str, wanted: str) -> list[str]:
    """Return prefixes of this very name in the directories below and beside."""
    if not wanted:
        return []
    found = []
    for base in (directory, store.split(directory)[0]):
        try:
            stats = sorted(store.scan(base), key=lambda stat: stat.name)
        except OSError:
            continue
        for stat in [stat for stat in stats if stat.kind == "dir" and not stat.link][:_NEIGHBOURS]:
            prefix = store.join(stat.path, wanted)
            try:
                if store.stat(prefix + INDEX_SUFFIX) is not None or store.stat(prefix) is not None:
                    found.append(prefix)
            except OSError:
                continue
        above = store.join(base, wanted)
        if base != directory and store.stat(above + INDEX_SUFFIX) is not None:
            found.append(above)
    return found


def nearest_text(store: Store, listing: Listing) -> str:
    """Return a clause that names the latest complete checkpoints of a directory."""
    complete = sorted((group for group in listing.groups if group.complete), key=latest_key, reverse=True)
    if not complete:
        return "no other complete checkpoint is in this directory"
    shown = ", ".join(repr(store.display(group.prefix)) for group in complete[:_SHOWN])
    return f"complete and here: {shown}"
