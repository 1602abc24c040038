"""`diagnose`: from a path to a `Report`. Decides what to look at; the checks themselves are in the modules beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from openckpt.doctor.archive_checks import about_archive
from openckpt.doctor.checkpoint_checks import examine
from openckpt.doctor.leftovers import check_aliases, check_leftovers, check_same_names, check_stale_shards
from openckpt.doctor.place import Place, find_place
from openckpt.doctor.report import CheckpointReport, Report, has_error, ordered
from openckpt.doctor.scene import Scene
from openckpt.errors import CheckpointError, PathNotFoundError, shown
from openckpt.findings import Finding, Progress, finding_of, make_finding
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.names import META_SUFFIX, TEMP_SUFFIX
from openckpt.limits import DEFAULT_LIMITS, Limits, no_memory
from openckpt.opening.grouping import group_directory
from openckpt.opening.listing import Group, Listing
from openckpt.storage import LOCAL, Store

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
    except MemoryError:
        return _report(name, [finding_of(no_memory(name, "all that has to be looked at together"))])


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
            listing = group_directory(place.store, place.directory, limits=self.limits)
            return self._tree(self._scene(place.store, listing, place.nesting), list(about_archive(place.store)))
        return self._directory(place)

    def _unfinished(self) -> Iterator[Finding]:
        """Yield what an interrupted save has left of a checkpoint that is not there (formats 9, row 26)."""
        directory, name = LOCAL.split(self.name)
        if name and (not directory or LOCAL.stat(directory) is not None):
            scene = self._scene(LOCAL, group_directory(LOCAL, directory, limits=self.limits))
            yield from _beside(scene, Group(prefix=self.name, name=name, format="bundle-v2"))

    def _scene(self, store: Store, listing: Listing, nesting: int = 0) -> Scene:
        return Scene(store, listing, self.quick, self.limits, self.progress, self.child, nesting=nesting)

    # ------------------------------------------------------------------------------------------------- one checkpoint

    def _checkpoint(self, place: Place) -> Report:
        listing = group_directory(place.store, place.directory, limits=self.limits)
        scene = self._scene(place.store, listing)
        group = place.groups[0]
        findings = [
            *self._about_the_path(scene, group, place),
            *about_archive(place.store, of_one=True),
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

    # --------------------------------------------------------------------------------------------- a directory, a tree

    def _directory(self, place: Place) -> Report:
        from openckpt.doctor.tree import examine_one, find_unentered

        listing = group_directory(place.store, place.directory, limits=self.limits)
        scene = self._scene(place.store, listing, place.nesting)
        findings = [*_special_characters(self.name), *about_archive(place.store)]
        if listing.archives and not (listing.groups or listing.manifests or listing.saved_model):
            return self._tree(scene, findings)  # a folder of downloads, some of them unpacked
        result = examine_one(scene)
        if result is None or (result.is_empty and not has_error(result.findings)):
            return self._tree(scene, findings)
        findings += [*result.findings, *_special_names(self.name, result.checkpoints), *find_unentered(scene)]
        return _report(self.name, findings, result.checkpoints, valid=result.valid and not has_error(findings))

    def _tree(self, scene: Scene, findings: list[Finding]) -> Report:
        from openckpt.doctor.tree import examine_tree

        result = examine_tree(scene)
        findings += [*result.findings, *_special_names(self.name, result.checkpoints)]
        return _report(self.name, findings, result.checkpoints, valid=result.valid and not has_error(findings))


def _special_characters(name: str) -> Iterator[Finding]:
    found = sorted(set(name) & set(_SPECIAL))
    if found:
        yield make_finding("run.special-characters", name, f"the path has {' '.join(found)} in it")


def _special_names(name: str, reports: Sequence[CheckpointReport]) -> Iterator[Finding]:
    """Yield a note where names below the path that was given have characters that TensorFlow takes for a pattern."""
    odd = [report.prefix for report in reports if set(report.prefix.removeprefix(name)) & set(_SPECIAL)]
    if odd:
        found = sorted({char for prefix in odd for char in prefix.removeprefix(name)} & set(_SPECIAL))
        yield make_finding("run.special-characters", odd[0], f"{shown(odd)}: the name has {' '.join(found)} in it")


def _beside(scene: Scene, group: Group) -> Iterator[Finding]:
    """Yield what lies beside one checkpoint and belongs to it."""
    prefix = scene.show(group)
    for finding in (*check_leftovers(scene), *check_stale_shards(scene), *check_same_names(scene)):
        rest = finding.where.path.removeprefix(prefix)
        if rest != finding.where.path and (not rest or rest.startswith((".", TEMP_SUFFIX))):
            yield finding
    if group.format == "safetensors":
        yield from check_aliases(scene, group.name)
