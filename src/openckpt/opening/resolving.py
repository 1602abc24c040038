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

from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, FormatError, LimitError, PathNotFoundError, UnsupportedError
from openckpt.formats.names import (
    INDEX_SUFFIX,
    MANIFEST_NAME,
    META_SUFFIX,
    SAVED_MODEL_NAMES,
    is_tempstate,
    parse_index_name,
    parse_shard_name,
    parse_unfinished_name,
)
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.target import Context, How, Target
from openckpt.storage import FileStat, LocalStore, Store

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.opening.listing import Group


def resolve(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS, progress: Progress | None = None) -> Target:
    """Find the checkpoint that ``path`` means.

    Raises:
        PathNotFoundError: ``path.not-found``, ``path.no-checkpoint``, ``path.manifest-target``.
        CorruptionError: ``path.index-missing``, ``path.meta-only``, ``path.unfinished``.
        UnsupportedError: ``path.several``, ``path.not-a-file``, ``path.no-variables``, or what the file is instead.
        UnsafeError: a file that could only be read by running code.
        OSError: the system refused.
    """
    if "\0" in path:
        raise PathNotFoundError("path.not-found", store.display(path), "no file name contains a zero byte")
    if not path and isinstance(store, LocalStore):
        raise PathNotFoundError("path.not-found", path, "an empty path; the current directory is called '.'")
    context = Context(limits, progress, [])
    try:
        return _resolve(store, path, context)._replace(archives=tuple(context.opened))
    except BaseException:
        for source in context.opened:
            source.close()
        raise


def _resolve(store: Store, path: str, context: Context) -> Target:
    stat = store.stat(path)
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


def _resolve_name(store: Store, path: str, context: Context) -> Target:
    if path and _is_file(store, path + INDEX_SUFFIX):
        return Target(store, path, "bundle-v2", How("prefix", "the prefix of a checkpoint"))
    inner = _resolve_in_archive(store, path, context)
    if inner is not None:
        return inner

    from openckpt.opening.misses import make_miss
    from openckpt.opening.remains import check_remains, find_v1_shards, list_quietly

    directory, name = store.split(path)
    if not name:
        directory = store.split(path.rstrip("/"))[0]
    listing = list_quietly(store, directory, context.limits)
    if listing is not None and name:
        target = find_v1_shards(store, listing, name)
        if target is not None:
            return target
        check_remains(store, listing, name)
    raise make_miss(store, path, listing)


def _resolve_in_archive(store: Store, path: str, context: Context) -> Target | None:
    """``ARCHIVE!INNER``: the longest part before a ``!`` that is a file, so that names with a ``!`` win."""
    at = path.rfind("!")
    while at > 0:
        stat = store.stat(path[:at])
        if stat is not None and stat.kind == "file":
            inside, context = _enter_archive(store, stat, context)
            try:
                return _resolve(inside, path[at + 1 :].lstrip("/"), context)
            except PathNotFoundError:
                from openckpt.opening.below import refuse_damaged

                refuse_damaged(inside, [])  # it may lie in the part that is not there
                raise
        at = path.rfind("!", 0, at)
    return None


def _enter_archive(store: Store, stat: FileStat, context: Context) -> tuple[Store, Context]:
    from openckpt.storage.archive import archive_kind, open_archive

    if context.archives > context.limits.archive_nesting:
        raise LimitError(
            "limits.exceeded",
            store.display(stat.path),
            f"an archive inside {context.archives} archives, above the limit archive_nesting={context.limits.archive_nesting}",
        )
    source = store.open(stat.path)
    context.opened.append(source)
    if archive_kind(source) is None:
        raise UnsupportedError(
            "path.not-an-archive", store.display(stat.path), "only an archive has something behind a '!'"
        )
    inside = open_archive(source, limits=context.limits, progress=context.progress)
    return inside, context._replace(archives=context.archives + 1)


# ----------------------------------------------------------------------------------------------------------------- files


def _resolve_file(store: Store, path: str, stat: FileStat, context: Context) -> Target:
    from openckpt.opening.sniffing import shard_map_format

    directory, name = store.split(path)
    if is_tempstate(name) or parse_unfinished_name(name) is not None:
        raise CorruptionError("path.unfinished", store.display(path), "a file that its writer never finished")
    prefix = _prefix_of_member(store, path, name)
    if prefix is not None:
        how = How("member", f"a file of the checkpoint {store.display(prefix)!r}")
        return Target(store, prefix, "bundle-v2", how, _literal_sibling(store, prefix))
    if name in SAVED_MODEL_NAMES:
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
    return target._replace(siblings=tuple(dict.fromkeys((*target.siblings, *siblings))))


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


def _resolve_content(store: Store, path: str, stat: FileStat, context: Context) -> Target:
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


def _resolve_meta(store: Store, path: str, context: Context) -> Target:
    """A meta graph without an index beside it: of a V1 checkpoint, or of none."""
    from openckpt.opening.remains import META_ONLY, find_v1_shards, list_quietly

    prefix = path[: -len(META_SUFFIX)]
    directory, name = store.split(prefix)
    stat = store.stat(prefix) if name else None
    if stat is not None and stat.kind == "file":
        target = _resolve_content(store, prefix, stat, context)
        return target._replace(how=How("member", f"the meta graph of the checkpoint {store.display(prefix)!r}"))
    listing = list_quietly(store, directory, context.limits)
    shards = None if listing is None else find_v1_shards(store, listing, name)
    if shards is not None:
        return shards
    raise CorruptionError("path.meta-only", store.display(path), META_ONLY)


def _resolve_manifest(store: Store, directory: str, stat: FileStat, context: Context) -> Target:
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


def _resolve_directory(store: Store, path: str, context: Context) -> Target:
    from openckpt.opening.choosing import choose_in_directory

    if path.endswith("/") and _is_file(store, path + INDEX_SUFFIX):
        return Target(store, path, "bundle-v2", How("prefix", "the prefix with an empty name in this directory"))
    path = path.rstrip("/") or path
    siblings = (store.display(path + INDEX_SUFFIX),) if path and _is_file(store, path + INDEX_SUFFIX) else ()
    try:
        variables = _saved_model_variables(store, path)
    except PermissionError:
        store.scan(path)  # says it of the directory itself, where that is what the system refuses
        raise
    if variables is not None:
        how = How("saved-model", "the variables of a SavedModel")
        return Target(store, variables, "bundle-v2", how, siblings)
    choice, listing = choose_in_directory(store, path, limits=context.limits)
    if choice is not None:
        if context.archives:
            from openckpt.opening.below import refuse_damaged

            refuse_damaged(store, [choice.group.prefix] if choice.kind != "incomplete" else [])
        how = How(choice.kind, choice.reason)
        return Target(
            store, choice.group.prefix, choice.group.format, how, siblings + _siblings_of(store, choice.group)
        )
    if siblings:
        how = How("prefix", "the prefix of a checkpoint; the directory of the same name holds none")
        return Target(store, path, "bundle-v2", how)
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


def _resolve_tree(store: Store, root: str, context: Context) -> Target:
    """The root of an archive, or a directory without a checkpoint of its own: what lies below."""
    from openckpt.opening.below import choose_below

    return choose_below(store, root, limits=context.limits, inside_archive=context.archives > 0)
