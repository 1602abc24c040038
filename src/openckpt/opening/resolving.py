"""From any path a user may type to the one checkpoint it means.

The rules, first match wins:

    NAME is a file        its content decides: index, shard or meta graph -> their prefix; manifest -> what it names;
                          saved_model.pb -> variables/variables; archive -> the latest complete checkpoint inside;
                          HDF5, .keras, safetensors, npz, V1 table -> itself
    NAME is a directory   SavedModel -> variables/variables; else by manifest; else the latest complete by a scan; else the
                          only checkpoint below it
    NAME.index            the prefix (so do NAME-00000-of-00003 ... and NAME-?????-of-00003 for V1)
    ARCHIVE!INNER         these rules again, inside; one archive inside another at most
    else                  a miss, with the nearest prefixes

Names are literal: ``[``, ``]``, ``*``, ``?``, ``\\`` and ``!`` mean themselves wherever a file of that name exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from openckpt.errors import CorruptionError, FormatError, LimitError, PathNotFoundError, UnsupportedError
from openckpt.findings import Progress
from openckpt.formats.names import (
    INDEX_SUFFIX,
    MANIFEST_NAME,
    META_SUFFIX,
    is_tempstate,
    parse_index_name,
    parse_shard_name,
    parse_v1_shard_name,
)
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage import FileStat, Store

if TYPE_CHECKING:
    from openckpt.opening.grouping import Group

HowKind = Literal[
    "prefix", "member", "file", "pattern", "manifest", "scan", "incomplete", "manifest-file", "saved-model", "below"
]


@dataclass(frozen=True, slots=True)
class How:
    """How a path was understood.

    Attributes:
        kind: ``prefix``: it is one; ``member``: a file of the checkpoint was named; ``file``: the file is the checkpoint;
            ``pattern``: shards of V1; ``manifest``, ``scan``, ``incomplete``: a directory, see
            `openckpt.opening.choosing.Choice`; ``manifest-file``: the manifest itself was named; ``saved-model``: a
            SavedModel's variables; ``below``: found below the directory or archive that was named.
        reason: the same in a sentence, for people.
    """

    kind: HowKind
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Target:
    """What a path means: a format's reader opens ``path`` in ``store``.

    Attributes:
        siblings: paths that open something else of the same name: a file and a prefix may share one.
    """

    store: Store
    path: str
    format: str
    how: How
    siblings: tuple[str, ...] = ()

    @property
    def display(self) -> str:
        """The path as shown to people."""
        return self.store.display(self.path)


@dataclass(frozen=True, slots=True)
class _Context:
    limits: Limits
    progress: Progress | None
    archives: int = 0  # how many archives we are inside of


def resolve(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None) -> Target:
    """Find the checkpoint that ``path`` means.

    Raises:
        PathNotFoundError: ``path.not-found``, ``path.no-checkpoint``, ``path.manifest-target``.
        CorruptionError: ``path.index-missing``, ``path.meta-only``, ``path.unfinished``.
        UnsupportedError: ``path.several``, ``path.not-a-file``, ``path.no-variables``, or what the file is instead.
        UnsafeError: a file that could only be read by running code.
        OSError: the system refused.
    """
    return _resolve(store, path, _Context(limits, progress))


def _resolve(store: Store, path: str, context: _Context) -> Target:
    stat = store.stat(path) if path or context.archives else None
    if stat is None:
        return _resolve_name(store, path, context)
    if stat.kind == "dir":
        return _resolve_directory(store, path, context)
    if stat.kind == "file":
        return _resolve_file(store, path, stat, context)
    what = "a link to nothing that can be read" if stat.link else "not a regular file"
    raise UnsupportedError("path.not-a-file", store.display(path), f"this is {what}")


def _is_file(store: Store, path: str) -> bool:
    stat = store.stat(path)
    return stat is not None and stat.kind == "file"


# ------------------------------------------------------------------------------------------------- names without a file


def _resolve_name(store: Store, path: str, context: _Context) -> Target:
    if path and _is_file(store, path + INDEX_SUFFIX):
        return Target(store, path, "bundle-v2", How("prefix", "the prefix of a checkpoint"))
    inner = _resolve_in_archive(store, path, context)
    if inner is not None:
        return inner

    from openckpt.opening.misses import make_miss

    directory, name = store.split(path)
    target = _resolve_v1_shards(store, directory, name, context)
    if target is not None:
        return target
    raise make_miss(store, path, context.limits)


def _resolve_v1_shards(store: Store, directory: str, name: str, context: _Context) -> Target | None:
    """``NAME-?????-of-NNNNN``, or NAME alone where such shards lie."""
    from openckpt.opening.grouping import group_directory, what_is_missing

    if not name:
        return None
    try:
        listing = group_directory(store, directory, limits=context.limits)
    except OSError:
        return None
    pattern = parse_v1_shard_name(name)
    found = []
    for group in listing.groups:
        if group.format != "table-v1":
            continue
        part = parse_v1_shard_name(group.name)
        if part is not None and (
            part[0] == name or (pattern is not None and (part[0], part[2]) == (pattern[0], pattern[2]))
        ):
            found.append(group)
    if not found:
        return None
    best = max(found, key=lambda group: (group.complete, group.mtime_ns))
    reason = f"the shards of a V1 checkpoint, {what_is_missing(best)}"
    siblings = tuple(store.display(group.prefix) for group in found if group is not best)
    return Target(store, best.prefix, "table-v1", How("pattern", reason), siblings)


def _resolve_in_archive(store: Store, path: str, context: _Context) -> Target | None:
    """``ARCHIVE!INNER``: the longest part before a ``!`` that is a file, so that names with a ``!`` win."""
    at = path.rfind("!")
    while at > 0:
        stat = store.stat(path[:at])
        if stat is not None and stat.kind == "file":
            inside, context = _enter_archive(store, stat, context)
            return _resolve(inside, path[at + 1 :].lstrip("/"), context)
        at = path.rfind("!", 0, at)
    return None


def _enter_archive(store: Store, stat: FileStat, context: _Context) -> tuple[Store, _Context]:
    from openckpt.storage.archive import archive_kind, open_archive

    if context.archives > context.limits.archive_nesting:
        raise LimitError(
            "limits.exceeded",
            store.display(stat.path),
            f"an archive inside {context.archives} archives, above the limit archive_nesting={context.limits.archive_nesting}",
        )
    source = store.open(stat.path)
    if archive_kind(source) is None:
        source.close()
        raise UnsupportedError(
            "path.not-an-archive", store.display(stat.path), "only an archive has something behind a '!'"
        )
    inside = open_archive(source, limits=context.limits, progress=context.progress)
    return inside, replace(context, archives=context.archives + 1)


# ----------------------------------------------------------------------------------------------------------------- files


def _resolve_file(store: Store, path: str, stat: FileStat, context: _Context) -> Target:
    from openckpt.opening.sniffing import shard_map_format

    directory, name = store.split(path)
    if is_tempstate(name):
        raise CorruptionError("path.unfinished", store.display(path), "a file that its writer never finished")
    prefix = _prefix_of_member(store, path, name)
    if prefix is not None:
        how = How("member", f"a file of the checkpoint {store.display(prefix)!r}")
        return Target(store, prefix, "bundle-v2", how, _literal_sibling(store, prefix))
    if name in ("saved_model.pb", "saved_model.pbtxt"):
        return _resolve_directory(store, directory, context)
    sharded = shard_map_format(name)
    if sharded is not None:
        return Target(store, path, sharded, How("file", f"the index of {_FORMAT_WORDS[sharded]} in several files"))
    siblings = (store.display(path + INDEX_SUFFIX),) if _is_file(store, path + INDEX_SUFFIX) else ()
    try:
        target = _resolve_content(store, path, stat, context)
    except FormatError as error:
        if not siblings or error.code not in _NOTHING_LIKE_A_CHECKPOINT:
            raise
        reason = f"the prefix of a checkpoint; the file {store.display(path)!r} is not one"
        return Target(store, path, "bundle-v2", How("prefix", reason))
    return replace(target, siblings=tuple(dict.fromkeys((*target.siblings, *siblings))))


# Files that happen to share the name of a prefix. A stub or an error page is not among them: it stands for a checkpoint.
_NOTHING_LIKE_A_CHECKPOINT = frozenset(
    "path.not-a-checkpoint detect.unknown detect.text detect.json detect.foreign detect.graph".split()
)


def _prefix_of_member(store: Store, path: str, name: str) -> str | None:
    """Return the prefix of an index, and of a shard or meta graph beside its index."""
    prefix_name = parse_index_name(name)
    if prefix_name is not None:
        return path[: -len(INDEX_SUFFIX)]
    shard = parse_shard_name(name)
    if shard is not None:
        prefix_name = shard[0]
    elif name.endswith(META_SUFFIX):
        prefix_name = name[: -len(META_SUFFIX)]
    if prefix_name is None:
        return None
    prefix = path[: len(path) - len(name) + len(prefix_name)]
    return prefix if _is_file(store, prefix + INDEX_SUFFIX) else None


def _literal_sibling(store: Store, prefix: str) -> tuple[str, ...]:
    return (store.display(prefix),) if store.split(prefix)[1] and _is_file(store, prefix) else ()


def _resolve_content(store: Store, path: str, stat: FileStat, context: _Context) -> Target:
    from openckpt.opening.sniffing import sniff_file

    directory, name = store.split(path)
    sniffed = sniff_file(store, stat, context.limits)
    if sniffed.format is not None:
        return Target(store, path, sniffed.format, How("file", f"the file itself, {_FORMAT_WORDS[sniffed.format]}"))
    if sniffed.manifest:
        return _resolve_manifest(store, directory, stat, context)
    if sniffed.archive:
        inside, context = _enter_archive(store, stat, context)
        return _resolve_tree(inside, "", context)
    shard = parse_shard_name(name)
    if shard is not None:
        raise CorruptionError(
            "path.index-missing",
            store.display(path),
            f"a data file without its index {shard[0] + INDEX_SUFFIX!r}, which alone knows what is in it",
        )
    if name.endswith(META_SUFFIX):
        return _resolve_meta(store, path, context)
    assert sniffed.damage is not None
    raise sniffed.damage


_FORMAT_WORDS = {
    "table-v1": "a V1 checkpoint",
    "hdf5": "HDF5",
    "keras-v3": "a .keras archive",
    "safetensors": "safetensors",
    "npz": "an npz archive",
}


def _resolve_meta(store: Store, path: str, context: _Context) -> Target:
    """A meta graph without an index beside it: of a V1 checkpoint, or of none."""
    prefix = path[: -len(META_SUFFIX)]
    directory, name = store.split(prefix)
    stat = store.stat(prefix) if name else None
    if stat is not None and stat.kind == "file":
        target = _resolve_content(store, prefix, stat, context)
        return replace(target, how=How("member", f"the meta graph of the checkpoint {store.display(prefix)!r}"))
    target_or_none = _resolve_v1_shards(store, directory, name, context)
    if target_or_none is not None:
        return target_or_none
    raise CorruptionError(
        "path.meta-only", store.display(path), "only the graph is here, the checkpoint that belongs to it is not"
    )


def _resolve_manifest(store: Store, directory: str, stat: FileStat, context: _Context) -> Target:
    from openckpt.opening.choosing import locate_entry, read_manifest
    from openckpt.opening.grouping import group_directory
    from openckpt.opening.misses import nearest_text

    manifest = read_manifest(store, stat, limits=context.limits)
    listing = group_directory(store, directory, limits=context.limits)
    entry = locate_entry(store, listing, manifest.model_checkpoint_path, limits=context.limits)
    named = repr(manifest.model_checkpoint_path)
    if entry.group is None or (entry.group.index is None and entry.group.format == "bundle-v2"):
        raise PathNotFoundError(
            "path.manifest-target",
            store.display(stat.path),
            f"the manifest names {named}, which is not here; {nearest_text(store, listing)}",
        )
    reason = f"what the manifest {store.display(stat.path)!r} names, {named}"
    if entry.by_name:
        reason += ", found by its last name in this directory"
    siblings = _siblings_of(store, entry.group)
    if _is_file(store, stat.path + INDEX_SUFFIX) and entry.group.prefix != stat.path:
        siblings += (store.display(stat.path + INDEX_SUFFIX),)
    return Target(store, entry.group.prefix, entry.group.format, How("manifest-file", reason), siblings)


def _siblings_of(store: Store, group: Group) -> tuple[str, ...]:
    """Return what else answers to the name of a chosen group: the file beside a prefix, the prefix beside a file."""
    if group.format == "bundle-v2":
        return _literal_sibling(store, group.prefix)
    return (store.display(group.prefix + INDEX_SUFFIX),) if _is_file(store, group.prefix + INDEX_SUFFIX) else ()


# ----------------------------------------------------------------------------------------------------------- directories


def _resolve_directory(store: Store, path: str, context: _Context) -> Target:
    from openckpt.opening.choosing import choose_in_directory

    if path.endswith("/") and _is_file(store, path + INDEX_SUFFIX):
        return Target(store, path, "bundle-v2", How("prefix", "the prefix with an empty name in this directory"))
    sibling = path.rstrip("/")
    siblings = (store.display(sibling + INDEX_SUFFIX),) if sibling and _is_file(store, sibling + INDEX_SUFFIX) else ()
    variables = _saved_model_variables(store, path)
    if variables is not None:
        how = How("saved-model", "the variables of a SavedModel")
        return Target(store, variables, "bundle-v2", how, siblings)
    choice, listing = choose_in_directory(store, path, limits=context.limits)
    if choice is not None:
        how = How(choice.kind, choice.reason)
        return Target(
            store, choice.group.prefix, choice.group.format, how, siblings + _siblings_of(store, choice.group)
        )
    if siblings:
        how = How("prefix", "the prefix of a checkpoint; the directory of the same name holds none")
        return Target(store, sibling, "bundle-v2", how)
    if listing.saved_model:
        raise UnsupportedError(
            "path.no-variables", store.display(path), "a SavedModel without variables: nothing was stored but its graph"
        )
    try:
        return _resolve_tree(store, path, context)
    except PathNotFoundError:
        manifest = listing.manifests.get(MANIFEST_NAME)
        if manifest is None:
            raise
        return _resolve_manifest(store, path, manifest, context)  # its error says more: what should have been here


def _saved_model_variables(store: Store, directory: str) -> str | None:
    variables = store.join(store.join(directory, "variables"), "variables")
    if not _is_file(store, variables + INDEX_SUFFIX):
        return None
    stat = store.stat(store.split(variables)[0])
    return None if stat is None or stat.link else variables  # a link to a directory is followed only when it is named


def _resolve_tree(store: Store, root: str, context: _Context) -> Target:
    """The root of an archive, or a directory without a checkpoint of its own: what lies below."""
    from openckpt.opening.below import choose_below

    return choose_below(store, root, limits=context.limits, inside_archive=context.archives > 0)
