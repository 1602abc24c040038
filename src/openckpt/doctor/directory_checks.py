"""One directory: its manifest, its checkpoints one by one, and what they say about each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from openckpt.doctor.archive_checks import sort_archives
from openckpt.doctor.checkpoint_checks import examine, target_of
from openckpt.doctor.leftovers import (
    check_aliases,
    check_leftovers,
    check_orphan_metas,
    check_same_bytes,
    check_same_names,
    check_stale_shards,
)
from openckpt.doctor.manifest_checks import ManifestVerdict, check_manifest
from openckpt.doctor.mixing import compare_steps
from openckpt.doctor.report import CheckpointReport, has_error
from openckpt.doctor.scene import Scene, stem_of
from openckpt.errors import CheckpointError
from openckpt.findings import Finding, make_finding
from openckpt.formats.names import MANIFEST_NAME
from openckpt.formats.spec import TensorSpec
from openckpt.opening.choosing import latest_key
from openckpt.opening.grouping import group_directory
from openckpt.opening.listing import Group
from openckpt.opening.opener import open_target
from openckpt.storage import FileStat, LocalStore

MOST_CHECKPOINTS = 1000
"""checkpoints that one report looks at"""
_COMPARED_TENSORS = 1_000_000
_RETRIES = 20  # a manifest that changes this often while it is read is not the work of a trainer


@dataclass(frozen=True, slots=True)
class DirectoryResult:
    """What was found in one directory, whether its newest checkpoint can be restored, and archives not looked into."""

    findings: tuple[Finding, ...]
    checkpoints: tuple[CheckpointReport, ...]
    valid: bool
    archives: tuple[FileStat, ...] = ()
    is_export: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing here is a checkpoint, or a model that was exported without variables."""
        return not self.checkpoints and not self.is_export


def examine_directory(scene: Scene, *, most: int = MOST_CHECKPOINTS) -> DirectoryResult:
    """Check everything that lies directly in a directory.

    Args:
        scene: the directory.
        most: how many checkpoints to look at.
    """
    findings: list[Finding] = []
    newest: Group | None = None
    if not scene.is_export:
        scene, verdict = _settled(scene)
        findings += verdict.findings
        newest = verdict.newest
    findings += check_leftovers(scene)
    findings += check_stale_shards(scene)
    findings += check_orphan_metas(scene)
    findings += check_same_names(scene)
    findings += check_aliases(scene)
    groups = sorted((group for group in scene.listing.groups if not group.uncommitted), key=latest_key, reverse=True)
    newest = newest or next((group for group in groups if group.complete), None)
    if newest is not None and newest in groups:
        groups.remove(newest)
        groups.insert(0, newest)
    elif newest is not None:
        groups.insert(0, newest)  # the manifest names one in a directory below
    reports, verdicts = _examine_all(scene, groups[:most])
    if len(groups) > most:
        findings.append(
            make_finding("run.too-many", scene.directory, f"{most} of {len(groups)} checkpoints were looked at")
        )
    archives, stubs = sort_archives(scene)
    reports += stubs
    findings += _verdict(scene, groups[:most], reports, verdicts, newest, findings)
    findings += _compare(scene, [group for group in groups[:most] if group.prefix in verdicts], newest)
    if not scene.quick:
        findings += check_same_bytes(scene)
    valid = not has_error(findings) and (newest is None or verdicts.get(newest.prefix, True))
    return DirectoryResult(tuple(findings), tuple(reports), valid, tuple(archives))


def _settled(scene: Scene) -> tuple[Scene, ManifestVerdict]:
    """Return the scene and what its manifest says, looked at again while a trainer changes both.

    A verdict stands when the manifest was the same before the directory was listed and after it was read: names that were read
    before a save, and the manifest of that save, contradict each other.
    """
    verdict = check_manifest(scene)
    path = scene.store.join(scene.listing.directory, MANIFEST_NAME)
    before: FileStat | None = None
    for look in range(_RETRIES):
        if all(finding.severity == "note" for finding in verdict.findings) or not isinstance(scene.store, LocalStore):
            break
        now = scene.store.stat(path)
        if look and (None if before is None else before.identity) == (None if now is None else now.identity):
            break
        before = now
        listing = group_directory(scene.store, scene.listing.directory, limits=scene.limits)
        scene = replace(scene, listing=listing)
        verdict = check_manifest(scene)
    return scene, verdict


def _examine_all(scene: Scene, groups: Sequence[Group]) -> tuple[list[CheckpointReport], dict[str, bool]]:
    for group in groups:  # a compressed archive loads them all in one pass
        scene.store.expect([stat.path for stat in group.files])
    reports: list[CheckpointReport] = []
    verdicts: dict[str, bool] = {}
    for number, group in enumerate(groups):
        if scene.progress is not None and len(groups) > 1:
            scene.progress(f"checking {scene.show(group)}", number, len(groups))
        report = examine(scene, group)
        if report is not None:
            reports.append(report)
            verdicts[group.prefix] = report.valid and verdicts.get(group.prefix, True)
    return reports, verdicts


def _verdict(
    scene: Scene,
    groups: Sequence[Group],
    reports: Sequence[CheckpointReport],
    verdicts: Mapping[str, bool],
    newest: Group | None,
    findings: Sequence[Finding],
) -> list[Finding]:
    """Say which checkpoint the directory stands for, or that it stands for none."""
    whole = next((group for group in groups if verdicts.get(group.prefix)), None)
    if whole is not None:
        count = f" of {len(verdicts)} checkpoints" if len(verdicts) > 1 else ""
        only = "newest whole one" if whole is not groups[0] else "newest" if count else "only checkpoint"
        return [make_finding("run.latest", scene.show(whole), f"{whole.name!r} is the {only}{count} here")]
    if not reports or newest is not None or has_error(findings):
        return []  # said already
    worst = next(finding for report in reports for finding in report.findings if finding.severity == "error")
    what = f"none of {len(reports)} checkpoints is whole" if len(reports) > 1 else "the only checkpoint is not whole"
    return [make_finding("run.none-whole", scene.directory, f"{what}: {worst.message}", fix=worst.fix)]


# ------------------------------------------------------------------------------------------------------- between steps


def _compare(scene: Scene, groups: Sequence[Group], newest: Group | None) -> list[Finding]:
    """Compare the tensors of the steps of each run with those of its newest step."""
    findings: list[Finding] = []
    runs: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.step is not None:
            runs.setdefault((group.format, stem_of(group)), []).append(group)
    for run in runs.values():
        first = newest if newest in run else run[0]
        others = [group for group in run if group is not first]
        if not others or first is None:
            continue
        specs = _specs(scene, first)
        if specs is not None:
            findings += compare_steps(scene.show(first), specs, _iter_specs(scene, others))
    return findings


def _iter_specs(scene: Scene, groups: Sequence[Group]) -> Iterator[tuple[str, dict[str, TensorSpec]]]:
    for group in groups:
        specs = _specs(scene, group)
        if specs is not None:
            yield scene.show(group), specs


def _specs(scene: Scene, group: Group) -> dict[str, TensorSpec] | None:
    try:
        with closing(open_target(target_of(scene, group), limits=scene.limits, child=scene.child)) as reader:
            return dict(reader.items()) if len(reader) <= _COMPARED_TENSORS else None
    except (CheckpointError, OSError):
        return None
