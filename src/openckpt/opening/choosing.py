"""Which checkpoint a directory stands for: the one its manifest names, else the latest complete one that a scan finds.

What a manifest says is data: an entry is followed only within the manifest's own directory (promise P5). One that leads
elsewhere - the folder was moved, or the file was written to mislead - is looked for under its last name in this directory.
"""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from openckpt.errors import CheckpointError, CorruptionError, LimitError
from openckpt.formats.manifest import Manifest, entry_name, is_windows_entry, parse_manifest
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, parse_v1_shard_name, prefix_of, v1_shard_name
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.grouping import group_directory, group_names
from openckpt.opening.listing import Group, Listing, what_is_missing
from openckpt.opening.sizes import find_cut_shard
from openckpt.storage import FileStat, LocalStore, Store, read_whole

_RETRIES = 20  # a manifest that changes this often while it is read is not the work of a trainer


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an entry of a manifest leads.

    Attributes:
        text: the entry as written.
        group: the checkpoint in or below the manifest's directory, or None where there is none.
        outside: whether the path as written leads out of the manifest's directory.
        by_name: whether the path as written was not followed (it leads outside, through a link, or nowhere) and only its
            last name was looked for, in the manifest's directory.
    """

    text: str
    group: Group | None
    outside: bool = False
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint that a directory stands for.

    Attributes:
        group: the checkpoint.
        kind: ``manifest``: the manifest names it and it is whole; ``scan``: there is no manifest, or it does not hold, and this is the
            latest complete one; ``incomplete``: none is complete and this is the newest that can at least be listed.
        reason: the same in a sentence.
    """

    group: Group
    kind: Literal["manifest", "scan", "incomplete"]
    reason: str


def read_manifest(store: Store, stat: FileStat, *, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Read and parse one manifest.

    Raises:
        CorruptionError, LimitError: as `openckpt.formats.manifest.parse_manifest`.
        UnsupportedError: other programs call their own checkpoints so; this is one (``detect.msgpack``, ``detect.torch`` ...).
        OSError: the file cannot be read.
    """
    try:
        return parse_manifest(_manifest_bytes(store, stat.path, limits), store.display(stat.path), limits)
    except (CorruptionError, LimitError) as error:
        raise _what_it_is_instead(store, stat, error) or error from None


_NO_MANIFEST = frozenset("msgpack torch-zip torch-pickle pickle other".split())
_ERROR_PAGES = frozenset({"html", "xml"})


def _what_it_is_instead(store: Store, stat: FileStat, error: CheckpointError) -> CheckpointError | None:
    from openckpt.formats.detect import detect, refusal_of

    source = store.open(stat.path)
    try:
        found = detect(source)
    finally:
        source.close()
    if found.kind in _NO_MANIFEST:
        return refusal_of(found, store.display(stat.path))
    if found.kind in _ERROR_PAGES:
        return CorruptionError(error.code, error.where, f"this is no manifest but {found.detail}")
    return None


def _manifest_bytes(store: Store, path: str, limits: Limits) -> bytes:
    return read_whole(store, path, limits=limits, cap="manifest_bytes", what="the manifest's size")


def locate_entry(
    store: Store, listing: Listing, entry: str, *, limits: Limits = DEFAULT_LIMITS, look_again: bool = True
) -> Entry:
    """Find what an entry of a manifest in ``listing.directory`` names, without leaving that directory.

    A relative path, or an absolute one into this very directory, is followed (also into real subdirectories, never through
    a link to a directory); any other is taken by its last name. With ``look_again`` what was saved since the directory was
    listed is found too.
    """
    name = entry_name(entry)
    subdirectory = inside(home_of(store, listing.directory), entry)
    if subdirectory is None:
        return Entry(entry, _find(listing, name), outside=True, by_name=True)
    path = listing.directory
    for part in subdirectory:
        path = store.join(path, part)
        stat = store.stat(path)
        if stat is None or stat.kind != "dir" or stat.link:
            return Entry(entry, _find(listing, name), outside=stat is not None and stat.link, by_name=True)
    if not subdirectory:
        group = _find(listing, name)
        return Entry(entry, _appeared(store, listing, name, limits) if group is None and look_again else group)
    try:
        below = group_directory(store, path, limits=limits)
    except OSError:
        return Entry(entry, None)
    return Entry(entry, _find(below, name))


def home_of(store: Store, directory: str) -> str:
    """Return the absolute path of a manifest's directory, for `inside`."""
    return os.path.abspath(directory) if isinstance(store, LocalStore) else posixpath.normpath("/" + directory)


def inside(home: str, entry: str) -> tuple[str, ...] | None:
    """Return the subdirectories between the directory ``home`` and an entry, or None where the entry leads out of it."""
    parent, slash, _ = entry.rpartition("/")
    if not slash and "\\" not in entry:
        return ()
    if is_windows_entry(entry) or "://" in entry:
        return None
    parent = posixpath.normpath(posixpath.join(home, parent or slash))
    if parent == home:
        return ()
    below = home.rstrip("/") + "/"
    return tuple(parent[len(below) :].split("/")) if parent.startswith(below) else None


def _find(listing: Listing, name: str) -> Group | None:
    # TensorFlow looks for NAME.index first, so a manifest that names example.h5f means the prefix, not the HDF5 file.
    found = sorted(listing.named(group_name(name)), key=lambda group: _TF_ORDER.get(group.format, 2))
    return found[0] if found else None


def _appeared(store: Store, listing: Listing, name: str, limits: Limits) -> Group | None:
    """Return the checkpoint of this name if it was saved since the names were read: a manifest may be newer than a listing."""
    if not isinstance(store, LocalStore) or store.stat(store.join(listing.directory, name + INDEX_SUFFIX)) is None:
        return None
    try:
        stats = [stat for stat in store.scan(listing.directory) if prefix_of(stat.name) == name]
    except OSError:
        return None
    return _find(group_names(store, listing.directory, stats, limits=limits), name)


def group_name(entry_name_: str) -> str:
    """Return the `Group.name` that the last part of an entry means: a pattern of one shard is called by its file."""
    part = parse_v1_shard_name(entry_name_)
    return v1_shard_name(part[0], 0, 1) if part is not None and part[2] == 1 else entry_name_


_TF_ORDER = {"bundle-v2": 0, "table-v1": 1}


def choose_in_directory(
    store: Store, directory: str, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[Choice | None, Listing]:
    """Choose the checkpoint that a directory stands for; None where it has nothing that could be listed.

    The listing is of the whole directory only where the choice is not by manifest.

    Safe beside a trainer that saves and sweeps in this directory: what the manifest names and is not there is looked for
    again as long as the manifest keeps changing.

    Raises:
        OSError: the directory cannot be read.
    """
    quick = _choose_named(store, directory, limits)
    if quick is not None:
        return quick
    seen: bytes | None = None
    for _ in range(_RETRIES):
        listing = group_directory(store, directory, limits=limits)
        stat = listing.manifests.get(MANIFEST_NAME)
        data, said = _read_quietly(store, stat, limits)
        choice, why_not = None, said
        if isinstance(data, Manifest):
            choice, why_not = _by_manifest(store, listing, data, limits)
        if choice is not None:
            return choice, listing
        raw = None if stat is None else _bytes_quietly(store, stat.path, limits)
        if raw == seen:
            break
        seen = raw
    return by_scan(store, listing, why_not, limits=limits), listing


def _choose_named(store: Store, directory: str, limits: Limits) -> tuple[Choice, Listing] | None:
    """Return what the manifest names if it is whole, having looked at nothing else: a run may keep ten thousand steps."""
    stats = store.scan(directory)
    manifest_stat = next((stat for stat in stats if stat.name == MANIFEST_NAME and stat.kind == "file"), None)
    manifest, _ = _read_quietly(store, manifest_stat, limits)
    if manifest is None:
        return None
    name = entry_name(manifest.model_checkpoint_path)
    part = parse_v1_shard_name(name)
    stem = name if part is None else part[0]
    listing = group_names(store, directory, [stat for stat in stats if stat.name.startswith(stem)], limits=limits)
    choice, _ = _by_manifest(store, listing, manifest, limits)
    return None if choice is None else (choice, listing)


def _read_quietly(store: Store, stat: FileStat | None, limits: Limits) -> tuple[Manifest | None, str]:
    if stat is None:
        return None, "there is no manifest"
    try:
        return read_manifest(store, stat, limits=limits), ""
    except CheckpointError as error:
        return None, f"the manifest cannot be used ({error.message})"
    except OSError as error:
        return None, f"the manifest cannot be read ({error.strerror or error})"


def _bytes_quietly(store: Store, path: str, limits: Limits) -> bytes | None:
    try:
        return _manifest_bytes(store, path, limits)
    except (OSError, CheckpointError):
        return None


def _by_manifest(store: Store, listing: Listing, manifest: Manifest, limits: Limits) -> tuple[Choice | None, str]:
    entry = locate_entry(store, listing, manifest.model_checkpoint_path, limits=limits)
    named = repr(manifest.model_checkpoint_path)
    if entry.group is None:
        return None, f"the manifest names {named}, which is not here"
    if not entry.group.complete:
        return None, f"the manifest names {named}, of which {what_is_missing(entry.group)}"
    cut = find_cut_shard(store, entry.group, limits=limits)
    if cut is not None:
        return None, f"the manifest names {named}, but {_said(cut)}"
    reason = f"the manifest names {named}"
    if entry.by_name:
        reason += "; that path was not followed, the checkpoint of this name lies here"
    return Choice(entry.group, "manifest", reason), ""


def by_scan(store: Store, listing: Listing, why_not_manifest: str, *, limits: Limits = DEFAULT_LIMITS) -> Choice | None:
    """Choose the latest complete checkpoint of a listing; else the newest whose index can be read; else None."""
    complete = sorted((group for group in listing.groups if group.complete), key=latest_key, reverse=True)
    passed_over = ""
    for group in complete:
        cut = find_cut_shard(store, group, limits=limits)
        if cut is None:
            what = (
                "the only complete checkpoint"
                if len(complete) == 1
                else f"the latest of {len(complete)} complete checkpoints"
            )
            return Choice(group, "scan", f"{why_not_manifest}; a scan found {group.name!r}, {what}{passed_over}")
        passed_over = passed_over or f" whose files are as long as their index says; of {group.name!r} {_said(cut)}"
    listable = complete or [
        group
        for group in listing.groups
        if group.format == "bundle-v2" and group.index is not None and group.damage is None
    ]
    if not listable:
        return None
    latest = max(listable, key=latest_key)
    cut = find_cut_shard(store, latest, limits=limits)
    why = what_is_missing(latest) if cut is None else _said(cut)
    return Choice(latest, "incomplete", f"no checkpoint is complete; of {latest.name!r}, {why}")


def _said(error: CheckpointError) -> str:
    return f"{error.where.path!r}: {error.message}"


def latest_key(group: Group) -> tuple[bool, int, int, str]:
    """Return the key by which the latest of several checkpoints is the maximum: the step, then the time, then the name."""
    return (group.step is not None, group.step or 0, group.mtime_ns, group.name)


def walk_directories(
    store: Store, root: str, *, deepest: int, most: int, on_refusal: Callable[[str, OSError], None] | None = None
) -> Iterator[tuple[str, Sequence[FileStat]]]:
    """Yield ``(directory, stats)`` breadth-first without following links to directories.

    One that the system refuses is left out, and ``on_refusal(directory, error)`` called; one that was removed meanwhile is left out.
    """
    level = [root]
    for depth in range(deepest + 1):
        below: list[str] = []
        for directory in level:
            if most <= 0:
                return
            most -= 1
            try:
                stats = store.scan(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if on_refusal is not None:
                    on_refusal(directory, error)
                continue
            yield directory, stats
            if depth < deepest:
                below.extend(stat.path for stat in stats if stat.kind == "dir" and not stat.link)
        level = sorted(below)
