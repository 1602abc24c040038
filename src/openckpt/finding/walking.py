"""`find`: the walk over a tree.

Directories are read one after the other, parents first, names in order; nothing is kept of a directory that was left but the
few names that tell layouts apart, so a tree of any size and depth streams. A link to a directory is not followed, a directory
that comes up again (a bind mount) is not entered twice, an unreadable one is a finding, and an archive is walked like a
directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openckpt.codes.quoting import quoted
from openckpt.errors import CheckpointError, LimitError, PathNotFoundError, Where
from openckpt.finding.found import FoundCheckpoint
from openckpt.finding.layouts import Place, make_place, recognise
from openckpt.findings import Finding, Progress, finding_of, make_finding
from openckpt.formats.detect import detect
from openckpt.formats.manifest import Manifest, entry_name
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.choosing import group_name, home_of, inside, latest_key, read_manifest
from openckpt.opening.grouping import group_directory, group_single_file
from openckpt.opening.listing import Group, Listing
from openckpt.opening.saves import is_written_to, save_findings, stale_shards
from openckpt.opening.sizes import find_cut_shard
from openckpt.storage import LOCAL, ByteSource, FileStat, Store

_EVERY = 1000  # directories and checkpoints between two calls of progress
_NOT_ENTERED = frozenset({".git"})  # its objects are somebody's files under other names
_NOT_FILES = frozenset({"/proc", "/sys"})  # tables of the kernel: every open file appears there once more


def find(
    root: str | os.PathLike[str] = ".",
    *,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    archives: bool = True,
    on_finding: Callable[[Finding], None] | None = None,
) -> Iterator[FoundCheckpoint]:
    """Yield every checkpoint in a tree, complete or not, as it is found.

    Args:
        root: a directory, an archive, or one file.
        limits: caps against hostile files.
        progress: called with ``("find", directories and checkpoints so far, None)``.
        archives: whether to look into archives; a compressed one is unpacked in memory once.
        on_finding: called with what is odd about the tree: leftovers of interrupted saves, data files without an index,
            directories that cannot be read, archives that are none.

    Raises:
        PathNotFoundError: there is nothing at ``root``.
        OSError: the system refuses ``root`` itself.
    """
    for item in survey(root, limits=limits, progress=progress, archives=archives):
        if isinstance(item, FoundCheckpoint):
            yield item
        elif on_finding is not None:
            on_finding(item)


def survey(
    root: str | os.PathLike[str] = ".",
    *,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    archives: bool = True,
) -> Iterator[FoundCheckpoint | Finding]:
    """Yield every checkpoint and every finding about the tree, in the order of the walk; otherwise as `find`."""
    path = os.fsdecode(root)
    stat = LOCAL.stat(path)
    if stat is None:
        from openckpt.opening.misses import find_url_error

        miss = PathNotFoundError("path.not-found", path, "there is nothing to search here")
        raise find_url_error(path) or miss
    walk = _Walk(limits, progress, archives)
    if stat.kind == "dir":
        LOCAL.scan(path)  # what the system refuses of the root is an error, not a finding
        return walk.tree(LOCAL, path, None)
    return walk.file(LOCAL, stat)


@dataclass(frozen=True, slots=True)
class _Directory:
    path: str
    name: str
    above: Place | None
    depth: int


class _Walk:
    """One search."""

    def __init__(self, limits: Limits, progress: Progress | None, archives: bool) -> None:
        self.limits, self.progress, self.archives = limits, progress, archives
        self.seen: set[tuple[int, ...]] = set()
        self.done = 0

    def _tick(self) -> None:
        self.done += 1
        if self.progress is not None and self.done % _EVERY == 0:
            self.progress("find", self.done, None)

    # ----------------------------------------------------------------------------------------------------------- walk

    def tree(
        self, store: Store, root: str, archive: str | None, nesting: int = 0
    ) -> Iterator[FoundCheckpoint | Finding]:
        """Walk the directories of one store; ``archive`` is the kind of archive it is, None for the file system."""
        listed: dict[str, set[str]] = {}
        stat = store.stat(root)
        if stat is not None and archive is None:
            self._is_new(stat)  # so that a mount of the root below itself is known
        todo = [_Directory(root, _last_name(store, root), None, 0)]
        while todo:
            directory = todo.pop()
            self._tick()
            try:
                listing = group_directory(store, directory.path, limits=self.limits)
            except FileNotFoundError:
                continue  # removed since its name was read
            except OSError as error:
                yield _refused(store, directory.path, error)
                continue
            except CheckpointError as error:
                yield finding_of(error)
                continue
            place = make_place(directory.name, listing.others, directory.above)
            yield from self._report(store, listing, place, listed, archive)
            if self.archives:
                for number, stat in enumerate(listing.archives):
                    if archive is not None and not _may_enter(store):
                        message = f"only the first {number} of {len(listing.archives)} archives here were looked into"
                        fix = f"openckpt doctor {quoted(store.display(stat.path))}"
                        yield make_finding("run.too-many", store.display(directory.path), message, fix=fix)
                        break
                    yield from self._archive(store, stat, nesting)
            for stat in sorted(listing.directories, key=lambda stat: stat.name, reverse=True):
                # In an archive nothing comes up twice, and what identifies a member tells it from its fellows only.
                if stat.link or stat.name in _NOT_ENTERED:
                    continue
                if archive is None and home_of(store, stat.path) in _NOT_FILES:
                    continue
                if archive is not None or self._is_new(stat):
                    if directory.depth >= self.limits.directory_depth:
                        yield self._too_deep(store, stat)
                    else:
                        todo.append(_Directory(stat.path, stat.name, place, directory.depth + 1))

    def _is_new(self, stat: FileStat) -> bool:
        identity = stat.identity[:2]  # device and inode
        if not identity:
            return True
        if identity in self.seen:
            return False
        self.seen.add(identity)
        return True

    def _too_deep(self, store: Store, stat: FileStat) -> Finding:
        try:
            depth = self.limits.directory_depth + 1
            self.limits.check("directory_depth", depth, store.display(stat.path), "the depth of this directory")
        except LimitError as error:
            return finding_of(error, severity="warning")
        raise AssertionError("unreachable: the depth is above the limit")

    def file(self, store: Store, stat: FileStat) -> Iterator[FoundCheckpoint | Finding]:
        """Report what one file is: an archive, or a checkpoint of one file."""
        group = group_single_file(store, stat, limits=self.limits)
        if group is not None:
            yield _found(store, group, store.split(stat.path)[0], listed=False, newest=True, layout=None)
        else:
            yield from self._archive(store, stat, 0)

    def _archive(self, store: Store, stat: FileStat, nesting: int) -> Iterator[FoundCheckpoint | Finding]:
        from openckpt.storage.archive import archive_kind, open_archive

        if nesting > self.limits.archive_nesting:
            return
        try:
            source = store.open(stat.path)
        except OSError as error:
            yield _refused(store, stat.path, error)
            return
        except CheckpointError as error:
            yield finding_of(error)
            return
        try:
            kind = archive_kind(source)
            if kind is None:
                yield _no_archive(store, stat, source)
                return
            inside_store = open_archive(source, limits=self.limits, progress=self.progress)
            yield from self.tree(inside_store, "", kind, nesting + 1)
        except CheckpointError as error:
            yield finding_of(error)
        except OSError as error:
            yield _refused(store, stat.path, error)
        finally:
            source.close()

    # --------------------------------------------------------------------------------------------------- one directory

    def _report(
        self, store: Store, listing: Listing, place: Place, listed: dict[str, set[str]], archive: str | None
    ) -> Iterator[FoundCheckpoint | Finding]:
        groups = [group for group in listing.groups if not group.uncommitted]
        newest: str | None = None
        for name, stat in listing.manifests.items():
            manifest = self._manifest(store, stat)
            if isinstance(manifest, Manifest):
                newest_here = _note_entries(store, listing.directory, manifest, listed)
                newest = newest_here if name == "checkpoint" else newest
                continue
            other = group_single_file(store, stat, limits=self.limits)
            if other is not None:  # a checkpoint of one file that is called checkpoint
                groups.append(other)
            elif manifest is not None:
                yield manifest
        names = listed.pop(listing.directory, set())
        first = _newest(groups, newest)
        claimed = _listed(groups, names)
        for group in groups:
            self._tick()
            yield _found(
                store,
                group,
                listing.directory,
                listed=id(group) in claimed,
                newest=group is first,
                layout=recognise(group, place, in_mag=archive == "mag"),
                limits=self.limits,
                forgotten=bool(names) and id(group) not in claimed and group.format in ("bundle-v2", "table-v1"),
            )
        yield from _odd_files(store, listing)

    def _manifest(self, store: Store, stat: FileStat) -> Manifest | Finding | None:
        try:
            return read_manifest(store, stat, limits=self.limits)
        except FileNotFoundError:
            return None  # a trainer replaces it, or the run was just removed
        except CheckpointError as error:
            return finding_of(error)
        except OSError as error:
            return _refused(store, stat.path, error)


def _may_enter(store: Store) -> bool:
    from openckpt.storage.archive import ArchiveStore

    return isinstance(store, ArchiveStore) and store.may_enter()


def _last_name(store: Store, path: str) -> str:
    name = store.split(path.rstrip("/"))[1]
    return name if name not in ("", ".", "..") else store.split(home_of(store, path))[1]


def _note_entries(store: Store, directory: str, manifest: Manifest, listed: dict[str, set[str]]) -> str | None:
    """Remember which names a manifest lists, by directory; return the newest one's name where it is in this directory."""
    home = home_of(store, directory)
    newest = None
    for entry in (*manifest.all_model_checkpoint_paths, manifest.model_checkpoint_path):
        parts = inside(home, entry) or ()  # what leads elsewhere is looked for here, by its last name
        path = directory
        for part in parts:
            path = store.join(path, part)
        name = group_name(entry_name(entry))
        listed.setdefault(path, set()).add(name)
        newest = None if parts else name
    return newest


def _newest(groups: list[Group], named: str | None) -> Group | None:
    complete = [group for group in groups if group.complete]
    by_manifest = [group for group in complete if group.name == named]
    if by_manifest:
        return min(by_manifest, key=lambda group: group.format != "bundle-v2")
    return max(complete, key=latest_key, default=None)


def _listed(groups: list[Group], names: set[str]) -> set[int]:
    """Return the ids of the groups that a manifest means: of a prefix and a file of one name, the prefix (formats 4.4)."""
    by_name: dict[str, Group] = {}
    if names:
        for group in sorted(groups, key=lambda group: group.format != "bundle-v2"):
            if group.name in names:
                by_name.setdefault(group.name, group)
    return {id(group) for group in by_name.values()}


def _found(
    store: Store,
    group: Group,
    directory: str,
    *,
    listed: bool,
    newest: bool,
    layout: str | None,
    forgotten: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> FoundCheckpoint:
    files = group.files
    damage = group.damage
    if group.complete and group.format == "bundle-v2":
        damage = find_cut_shard(store, group, limits=limits)  # half a copy, or a pointer in the place of data
    run = store.split(directory)[0] if layout == "saved-model" else directory
    return FoundCheckpoint(
        prefix=store.display(group.prefix),
        format=group.format,
        step=group.step,
        complete=group.complete and damage is None,
        bytes=group.nbytes,
        files=tuple([store.display(stat.path) for stat in files]),
        listed=listed,
        newest=newest,
        missing=group.missing,
        damage=None if damage is None else damage.message if isinstance(damage, CheckpointError) else str(damage),
        damage_code=damage.code if isinstance(damage, CheckpointError) else None,
        run=store.display(run),
        layout=layout,
        forgotten=forgotten and group.complete and damage is None,
        links=tuple([store.display(stat.path) for stat in files if stat.link]),
    )


# --------------------------------------------------------------------------------------------------------- odd files


def _odd_files(store: Store, listing: Listing) -> Iterator[Finding]:
    for stat in listing.leftovers:
        if stat.kind == "dir" and is_written_to(store, stat):
            yield make_finding("run.saving", store.display(stat.path), "parts of a save, being written or merged")
            continue
        code = "run.leftover-parts" if stat.kind == "dir" else "run.leftover-file"
        what = "the working directory of a save" if stat.kind == "dir" else "a temporary file of a save"
        yield make_finding(code, store.display(stat.path), f"{what} that was interrupted or still runs")
    yield from save_findings(store, listing)
    for stat in stale_shards(store, listing):
        yield make_finding(
            "run.stale-shards", store.display(stat.path), "a data file of another shard count than the index asks for"
        )
    for stat in listing.orphan_metas:
        yield make_finding("run.meta-only", store.display(stat.path), "a meta graph without its checkpoint")


def _refused(store: Store, path: str, error: OSError) -> Finding:
    return make_finding("path.unreadable", store.display(path), f"the system refused: {error.strerror or error}")


def _no_archive(store: Store, stat: FileStat, source: ByteSource) -> Finding:
    found = detect(source)
    where = Where(store.display(stat.path))
    code = found.code or "path.not-a-checkpoint"
    return make_finding(code, where, f"named like an archive, but this is {found.detail}", fix=found.fix)
