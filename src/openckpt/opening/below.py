"""A directory without a checkpoint of its own, or the root of an archive: which checkpoint below it is meant.

    ssd_mobilenet/checkpoint/ckpt-0.index                 the training checkpoint: chosen
    ssd_mobilenet/saved_model/variables/variables.index   an export of the same: chosen only where there is nothing else

In an archive the latest complete checkpoint is chosen and the rest is named; of a directory on the disk only a single one is,
because a folder of runs has no latest.
"""

from __future__ import annotations

from dataclasses import dataclass

from openckpt.codes.quoting import quoted
from openckpt.errors import CorruptionError, PathNotFoundError, UnsupportedError, shown
from openckpt.formats.names import EXPORT_NAMES, TEMP_SUFFIX, is_part_file
from openckpt.limits import Limits
from openckpt.opening.choosing import Choice, choose_in_directory, latest_key, walk_directories
from openckpt.opening.grouping import group_directory, group_single_file, reads_in_place
from openckpt.opening.listing import Group, what_is_missing
from openckpt.opening.target import How, Target
from openckpt.storage import Store

_DEEPEST, _MOST = 3, 1000  # levels and directories that are looked at below a local directory


@dataclass(frozen=True, slots=True)
class _Run:
    directory: str
    choice: Choice
    is_export: bool

    @property
    def rank(self) -> tuple[object, ...]:
        group = self.choice.group
        return (self.choice.kind != "incomplete", not self.is_export, *latest_key(group), self.directory)


def choose_below(store: Store, root: str, *, limits: Limits, inside_archive: bool) -> Target:
    """Choose among the checkpoints below ``root``.

    Raises:
        PathNotFoundError: ``path.no-checkpoint``, there is none.
        CorruptionError: ``path.no-complete``, nothing that could even be listed.
        UnsupportedError: ``path.several``, a directory with more than one run below it.
    """
    runs, damaged = _runs_below(store, root, limits, inside_archive)
    trained = [run for run in runs if not run.is_export] or runs
    place = store.display(root)
    if inside_archive:
        refuse_damaged(store, [run.choice.group.prefix for run in trained if run.choice.kind != "incomplete"])
    if not trained:
        if damaged:
            raise CorruptionError("path.no-complete", place, f"no checkpoint here can be opened: {damaged[0]}")
        raise _nothing(store, root, place, limits, inside_archive)
    if len(trained) > 1 and not inside_archive:
        names = shown([store.display(run.choice.group.prefix) for run in trained], 5)
        raise UnsupportedError("path.several", place, f"several runs lie below this directory: {names}")
    best = max(trained, key=lambda run: run.rank)
    group = _confirmed(store, best.choice.group, limits)
    reason = f"{best.choice.reason}; found below what was named"
    if len(runs) > 1:
        reason += f", one of {len(runs)} places with checkpoints"
    others = tuple(store.display(run.choice.group.prefix) for run in trained if run is not best)
    return Target(store, group.prefix, group.format, How("below", reason), others)


def _nothing(store: Store, root: str, place: str, limits: Limits, inside_archive: bool) -> PathNotFoundError:
    """Make the error for a place without a checkpoint; archives that lie in it may hold one, and are named."""
    archives = sorted(stat.path for stat in group_directory(store, root, limits=limits).archives)
    depth = "or below" if inside_archive else f"or down to {_DEEPEST} levels below"
    message = f"there is no checkpoint here {depth}"
    if not archives:
        return PathNotFoundError("path.no-checkpoint", place, message)
    paths = [store.display(path) for path in archives]
    fix = f"openckpt ls {quoted(paths[0])}" if len(paths) == 1 else f"openckpt find {quoted(place)}"
    return PathNotFoundError("path.no-checkpoint", place, f"{message} but for archives: {shown(paths, 5)}", fix=fix)


def refuse_damaged(store: Store, whole: list[str]) -> None:
    """Of an archive that broke off the latest checkpoint may be the one that is not there: choosing would be guessing."""
    from openckpt.storage.archive import ArchiveStore

    damage = store.damage() if isinstance(store, ArchiveStore) else None
    if damage is None:
        return
    fix = damage.fix
    if whole:
        fix = f"{fix}; what precedes the damage can be named: {quoted(store.display(whole[0]))}"
    raise type(damage)(damage.code, damage.where, damage.message, found=damage.found, expected=damage.expected, fix=fix)


def _confirmed(store: Store, group: Group, limits: Limits) -> Group:
    """Return the group with the format that its content shows, where only its name was known (a compressed archive)."""
    if group.format == "bundle-v2" or reads_in_place(store) or len(group.shards) != 1:
        return group
    store.expect([stat.path for stat in group.files])
    found = group_single_file(store, group.shards[0], limits=limits)
    return group if found is None else found


def _runs_below(store: Store, root: str, limits: Limits, inside_archive: bool) -> tuple[list[_Run], list[str]]:
    deepest, most = (limits.directory_depth, limits.archive_members) if inside_archive else (_DEEPEST, _MOST)
    runs: list[_Run] = []
    damaged: list[str] = []
    exports: set[str] = set()
    for directory, stats in walk_directories(store, root, deepest=deepest, most=most):
        names = {stat.name for stat in stats}
        if names & EXPORT_NAMES:
            exports.add(store.join(directory, "variables"))
        if directory != root and directory.endswith(TEMP_SUFFIX) and any(map(is_part_file, names)):
            # What one writer of several saved is not the checkpoint: most of the tensors may lie in the other parts.
            damaged.append(f"{store.display(directory.removesuffix(TEMP_SUFFIX))!r}: its parts were never merged")
            continue
        try:
            choice, listing = choose_in_directory(store, directory, limits=limits)
        except OSError:
            continue
        if choice is not None:
            runs.append(_Run(directory, choice, directory in exports))
        else:
            broken = [group for group in listing.groups if not group.uncommitted]
            damaged.extend(f"{store.display(group.prefix)!r}: {what_is_missing(group)}" for group in broken)
    return runs, damaged
