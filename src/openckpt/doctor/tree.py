"""Directories, exports, archives and whole trees of them: each run is examined on its own, the results are put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from openckpt.codes.quoting import quoted
from openckpt.doctor.archive_checks import about_archive
from openckpt.doctor.directory_checks import MOST_CHECKPOINTS, DirectoryResult, examine_directory
from openckpt.doctor.report import has_error
from openckpt.doctor.scene import Scene, refusal
from openckpt.errors import CheckpointError, shown
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.names import EXPORT_NAMES, INDEX_SUFFIX
from openckpt.opening.choosing import walk_directories
from openckpt.opening.grouping import group_directory
from openckpt.opening.listing import Listing
from openckpt.storage import FileStat
from openckpt.storage.archive import ArchiveStore, open_archive

_MOST_DIRECTORIES = 100_000
_MOST_ARCHIVES = 100
_LOOKED_BELOW = 100


def examine_one(scene: Scene, *, most: int = MOST_CHECKPOINTS) -> DirectoryResult | None:
    """Examine what lies directly in a directory: a run, a SavedModel, or archives; None where there is nothing of these."""
    export = _export_directory(scene)
    if export is not None:
        return _examine_export(scene, export, most)
    listing = scene.listing
    left = listing.leftovers or listing.unfinished
    if not (listing.groups or listing.manifests or listing.orphan_metas or listing.archives or left):
        return None
    result = examine_directory(scene, most=most)
    if not result.archives:
        return result
    if listing.groups or scene.nesting > scene.limits.archive_nesting:
        first = scene.store.display(result.archives[0].path)
        message = f"{shown([stat.name for stat in result.archives])}: archives beside checkpoints are not looked into"
        note = make_finding("run.archives", first, message)
        return replace(result, findings=(*result.findings, note))
    return _join([result, *_examine_archives(scene, result.archives)])


def examine_tree(scene: Scene, *, named: bool = True) -> DirectoryResult:
    """Examine every directory from this one down; of a tree that nobody ``named`` it is no fault to hold no checkpoint."""
    refused: list[Finding] = []
    results = _walk(scene, refused)
    total = sum(len(result.checkpoints) for result in results)
    joined = _join(results)
    findings = [*joined.findings, *refused]
    if not named:
        pass
    elif not has_error(findings) and all(result.is_empty for result in results):
        findings.append(make_finding("run.none", scene.directory, "no checkpoint here or below"))
    elif len(results) > 1:
        findings.append(
            make_finding("run.below", scene.directory, f"{total} checkpoints in {len(results)} directories")
        )
    if total >= MOST_CHECKPOINTS:
        findings.append(
            make_finding("run.too-many", scene.directory, f"only {MOST_CHECKPOINTS} checkpoints were looked at")
        )
    return DirectoryResult(tuple(findings), joined.checkpoints, joined.valid and not has_error(findings))


def _walk(scene: Scene, refused: list[Finding]) -> list[DirectoryResult]:
    """Examine the directories of a tree; those that the system does not show go to ``refused``."""

    def refuse(directory: str, error: OSError) -> None:
        if directory not in done:
            refused.append(make_finding("path.unreadable", scene.store.display(directory), refusal(error)))

    results: list[DirectoryResult] = []
    left = MOST_CHECKPOINTS
    done: set[str] = set()  # the variables of exports, and the working directories of interrupted saves
    deepest = scene.limits.directory_depth
    walk = walk_directories(
        scene.store, scene.listing.directory, deepest=deepest, most=_MOST_DIRECTORIES, on_refusal=refuse
    )
    for directory, _ in walk:
        if directory in done or left <= 0:
            continue
        try:
            here = replace(scene, listing=group_directory(scene.store, directory, limits=scene.limits))
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            refuse(directory, error)
            continue
        export = _export_directory(here)
        if export is not None:
            done.add(export)
        done.update(stat.path for stat in here.listing.leftovers)
        result = examine_one(here, most=left)
        if result is not None:
            results.append(result)
            left -= len(result.checkpoints)
    return results


def _join(results: Sequence[DirectoryResult]) -> DirectoryResult:
    """Put results together; valid when each is."""
    hidden = "run.latest" if len(results) > 1 else ""  # a tree of runs has no latest
    return DirectoryResult(
        tuple(finding for result in results for finding in result.findings if finding.code != hidden),
        tuple(report for result in results for report in result.checkpoints),
        all(result.valid for result in results),
    )


# ------------------------------------------------------------------------------------------------------------- archives


def _examine_archives(scene: Scene, archives: Sequence[FileStat]) -> Iterator[DirectoryResult]:
    """Look into the archives of a directory that has nothing else: a folder of downloads."""
    for number, stat in enumerate(archives):
        store = scene.store
        if number >= _MOST_ARCHIVES or (isinstance(store, ArchiveStore) and not store.may_enter()):
            message = f"only the first {number} of {len(archives)} archives here were looked into"
            fix = f"openckpt doctor {quoted(store.display(stat.path))}"
            yield DirectoryResult((make_finding("run.too-many", scene.directory, message, fix=fix),), (), True)
            return
        place = store.display(stat.path)
        try:
            inner = open_archive(store.open(stat.path), limits=scene.limits, progress=scene.progress)
            listing = group_directory(inner, "", limits=scene.limits)
            result = examine_tree(replace(scene, store=inner, listing=listing, nesting=scene.nesting + 1), named=False)
            findings = (*about_archive(inner), *result.findings)
        except CheckpointError as error:
            yield DirectoryResult((finding_of(error),), (), False)
        except OSError as error:
            yield DirectoryResult((make_finding("storage.unreadable", place, refusal(error)),), (), False)
        else:
            yield DirectoryResult(findings, result.checkpoints, result.valid and not has_error(findings))


# ------------------------------------------------------------------------------------------------------------- exports


def _export_directory(scene: Scene) -> str | None:
    """Return the ``variables`` directory of a SavedModel, or None where this is none."""
    listing: Listing = scene.listing
    names = {stat.name for stat in listing.others}
    if not listing.saved_model and not names & EXPORT_NAMES:
        return None
    return scene.store.join(listing.directory, "variables")


def _examine_export(scene: Scene, variables: str, most: int) -> DirectoryResult:
    from openckpt.doctor.graph_checks import check_saved_model

    findings = check_saved_model(scene)
    try:
        listing = group_directory(scene.store, variables, limits=scene.limits)
    except OSError:
        return DirectoryResult(tuple(findings), (), not has_error(findings), is_export=True)
    inner = examine_directory(replace(scene, listing=listing, is_export=True), most=most)
    found: tuple[Finding, ...] = (*findings, *inner.findings)
    return DirectoryResult(found, inner.checkpoints, inner.valid and not has_error(found), is_export=True)


# ----------------------------------------------------------------------------------------------------- what lies below


def find_unentered(scene: Scene) -> list[Finding]:
    """Say that checkpoints further down were not looked at, where there are any in the next level."""
    export = _export_directory(scene)
    found = []
    for stat in sorted(scene.listing.directories, key=lambda stat: stat.name)[:_LOOKED_BELOW]:
        if stat.link or stat.path == export:
            continue
        try:
            below = any(entry.name.endswith(INDEX_SUFFIX) for entry in scene.store.scan(stat.path))
        except OSError:
            continue
        if below:
            found.append(stat)
    if not found:
        return []
    message = f"there are checkpoints in {shown([stat.name for stat in found])}, which were not looked at"
    return [make_finding("run.not-entered", scene.store.display(found[0].path), message)]
