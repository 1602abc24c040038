"""`diagnose`: from a path to a `Report`. Decides what to look at; the checks themselves are in the modules beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from openckpt.doctor.checkpoint_checks import examine
from openckpt.doctor.leftovers import check_leftovers, check_same_names, check_stale_shards
from openckpt.doctor.place import Place, find_place
from openckpt.doctor.report import CheckpointReport, Report, has_error, ordered
from openckpt.doctor.scene import Scene
from openckpt.errors import CheckpointError, PathNotFoundError
from openckpt.findings import Finding, Progress, finding_of, make_finding
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.names import META_SUFFIX
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.grouping import Group, Listing, group_directory
from openckpt.storage import LOCAL, Store

if TYPE_CHECKING:
    from openckpt.doctor.directory_checks import DirectoryResult

_MOST_DIRECTORIES = 100_000
_LOOKED_BELOW = 100
_SPECIAL = "[]\\"


def diagnose(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    quick: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Report:
    """Say whether what a path names can be restored whole, and if not: why, what is lost, and what to do.

    Args:
        path: anything that `openckpt.open` takes, and whatever it refuses: broken files, failed downloads, names of nothing,
            a directory (every checkpoint in it is looked at), a tree or archive of them.
        quick: leave tensor data unread; names, sizes, indexes and manifests are checked all the same.
        limits: caps against hostile files.
        progress: called now and then during long work.

    Returns:
        The report. What is wrong with files, the system's refusal to give them included, is always a finding, never an
        exception.
    """
    name = os.fsdecode(path)
    try:
        with HDF5Child() as child:  # no process is started before there is an HDF5 file
            return _Doctor(name, quick, limits, progress, child).run()
    except CheckpointError as error:
        return _report(name, [finding_of(error)])
    except OSError as error:
        return _report(name, [_refused(name, error)])


def _refused(name: str, error: OSError) -> Finding:
    if isinstance(error, FileNotFoundError):
        return make_finding("path.not-found", name, "there is no such file or directory")
    return make_finding("storage.refused", name, error.strerror or str(error))


def _report(
    path: str, findings: Iterable[Finding], checkpoints: Iterable[CheckpointReport] = (), *, valid: bool | None = None
) -> Report:
    found = ordered(findings)
    reports = tuple(checkpoints)
    if valid is None:
        valid = not has_error(found) and all(report.valid for report in reports)
    return Report(path, valid, found, reports)


def _about_archive(store: Store, *, of_one: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with or odd about the archive around; to one checkpoint that is whole it is a warning only."""
    from openckpt.storage.archive import ArchiveStore

    if isinstance(store, ArchiveStore):
        for finding in store.validate():
            yield replace(finding, severity="warning") if of_one and finding.severity == "error" else finding


class _Doctor:
    """The work of one `diagnose` call."""

    def __init__(self, name: str, quick: bool, limits: Limits, progress: Progress | None, child: HDF5Child) -> None:
        self.name, self.quick, self.limits, self.progress, self.child = name, quick, limits, progress, child

    def run(self) -> Report:
        try:
            place = find_place(self.name, limits=self.limits, progress=self.progress)
        except PathNotFoundError as error:
            return _report(self.name, [finding_of(error), *self._unfinished()])
        if place.kind == "checkpoint":
            return self._checkpoint(place)
        if place.kind == "archive":
            return self._tree(place.store, place.directory, list(_about_archive(place.store)))
        return self._directory(place)

    def _unfinished(self) -> Iterator[Finding]:
        """Yield what an interrupted save has left of a checkpoint that is not there (formats 9, row 26)."""
        directory, name = LOCAL.split(self.name)
        if name and (not directory or LOCAL.stat(directory) is not None):
            scene = self._scene(LOCAL, group_directory(LOCAL, directory, limits=self.limits))
            yield from _beside(scene, Group(prefix=self.name, name=name, format="bundle-v2"))

    def _scene(self, store: Store, listing: Listing) -> Scene:
        return Scene(store, listing, self.quick, self.limits, self.progress, self.child)

    # ------------------------------------------------------------------------------------------------- one checkpoint

    def _checkpoint(self, place: Place) -> Report:
        listing = group_directory(place.store, place.directory, limits=self.limits)
        scene = self._scene(place.store, listing)
        group = place.groups[0]
        findings = [
            *self._about_the_path(scene, group, place),
            *_about_archive(place.store, of_one=True),
            *_beside(scene, group),
        ]
        report = examine(scene, group)
        if report is None:
            findings.append(make_finding("path.vanished", scene.show(group), "removed while it was looked at"))
        return _report(self.name, findings, () if report is None else (report,))

    def _about_the_path(self, scene: Scene, group: Group, place: Place) -> Iterator[Finding]:
        yield from _special_characters(self.name)
        if place.member and not place.member.endswith(META_SUFFIX):
            yield make_finding(
                "run.member-given", scene.show(group), f"{place.member!r} is a file of the checkpoint {group.name!r}"
            )

    # --------------------------------------------------------------------------------------------------- a directory

    def _directory(self, place: Place) -> Report:
        listing = group_directory(place.store, place.directory, limits=self.limits)
        findings = [*_special_characters(self.name), *_about_archive(place.store)]
        export = _export_directory(place.store, place.directory, listing)
        if export is not None:
            return self._saved_model(place, listing, export, findings)
        if not _worth_examining(listing):
            return self._tree(place.store, place.directory, findings)
        from openckpt.doctor.directory_checks import examine_directory

        result = examine_directory(self._scene(place.store, listing))
        findings += result.findings
        findings += self._not_entered(place.store, listing)
        return _report(self.name, findings, result.checkpoints, valid=result.valid and not has_error(findings))

    def _saved_model(self, place: Place, listing: Listing, export: str, findings: list[Finding]) -> Report:
        result = self._export(place.store, place.directory, listing, export)
        return _report(self.name, [*findings, *result.findings], result.checkpoints, valid=result.valid)

    def _export(self, store: Store, directory: str, listing: Listing, variables: str) -> DirectoryResult:
        from openckpt.doctor.directory_checks import DirectoryResult, examine_directory
        from openckpt.doctor.graph_checks import check_saved_model

        scene = self._scene(store, listing)
        findings = check_saved_model(scene)
        try:
            inner = examine_directory(
                replace(scene, listing=group_directory(store, variables, limits=self.limits), is_export=True)
            )
        except OSError:
            return DirectoryResult(tuple(findings), (), not has_error(findings))
        found = (*findings, *inner.findings)
        return DirectoryResult(found, inner.checkpoints, inner.valid and not has_error(found))

    def _not_entered(self, store: Store, listing: Listing) -> list[Finding]:
        """Say that checkpoints further down were not looked at, where there are any in the next level."""
        for stat in sorted(listing.directories, key=lambda stat: stat.name)[:_LOOKED_BELOW]:
            if stat.link:
                continue
            try:
                below = any(entry.name.endswith(".index") for entry in store.scan(stat.path))
            except OSError:
                continue
            if below:
                shown = store.display(stat.path)
                return [
                    make_finding(
                        "run.not-entered", shown, f"there are checkpoints in {stat.name!r}, which were not looked at"
                    )
                ]
        return []

    # -------------------------------------------------------------------------------------------- a tree, an archive

    def _tree(self, store: Store, root: str, findings: list[Finding]) -> Report:
        """Examine every directory below that has checkpoints, each on its own."""
        from openckpt.doctor.directory_checks import MOST_CHECKPOINTS, examine_directory
        from openckpt.opening.choosing import walk_directories

        results: list[DirectoryResult] = []
        left = MOST_CHECKPOINTS
        done: set[str] = set()
        for directory, _ in walk_directories(store, root, deepest=self.limits.directory_depth, most=_MOST_DIRECTORIES):
            if directory in done or left <= 0:
                continue
            listing = group_directory(store, directory, limits=self.limits)
            export = _export_directory(store, directory, listing)
            if export is not None:
                done.add(export)
                results.append(self._export(store, directory, listing, export))
            elif _worth_examining(listing):
                results.append(examine_directory(self._scene(store, listing), most=left))
            left = MOST_CHECKPOINTS - sum(len(result.checkpoints) for result in results)
        shown = store.display(root) or "."
        checkpoints = [report for result in results for report in result.checkpoints]
        hidden = "run.latest" if len(results) > 1 else ""  # a tree of runs has no latest
        findings += [finding for result in results for finding in result.findings if finding.code != hidden]
        if not results:
            findings.append(make_finding("run.none", shown, "no checkpoint here or below"))
        elif len(results) > 1:
            findings.append(
                make_finding("run.below", shown, f"{len(checkpoints)} checkpoints in {len(results)} directories")
            )
        if left <= 0:
            findings.append(make_finding("run.too-many", shown, f"only {MOST_CHECKPOINTS} checkpoints were looked at"))
        valid = not has_error(findings) and all(result.valid for result in results)
        return _report(self.name, findings, checkpoints, valid=valid)


def _worth_examining(listing: Listing) -> bool:
    """Return whether something in this very directory is a checkpoint, was one, or says where one is."""
    return bool(listing.groups or listing.manifests or listing.orphan_metas or listing.archives or listing.leftovers)


def _export_directory(store: Store, directory: str, listing: Listing) -> str | None:
    """Return the ``variables`` directory of a SavedModel, or None where this is none."""
    names = {stat.name for stat in listing.others}
    if not listing.saved_model and not names & {"fingerprint.pb", "keras_metadata.pb"}:
        return None
    return store.join(directory, "variables")


def _special_characters(name: str) -> Iterator[Finding]:
    found = sorted(set(name) & set(_SPECIAL))
    if found:
        yield make_finding("run.special-characters", name, f"the path has {' '.join(found)} in it")


def _beside(scene: Scene, group: Group) -> Iterator[Finding]:
    """Yield what lies beside one checkpoint and belongs to it."""
    prefix = scene.show(group)
    for finding in (*check_leftovers(scene), *check_stale_shards(scene), *check_same_names(scene)):
        rest = finding.where.path.removeprefix(prefix)
        if rest != finding.where.path and (not rest or rest.startswith((".", "_temp"))):
            yield finding
