"""The manifest of a directory against the files beside it (formats 9, rows 1 to 7).

TensorFlow believes the manifest: it looks at the newest entry only, never falls back to an older one, never scans, and
follows an absolute path wherever it leads. Each check here says where that belief would go wrong.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from openckpt.codes.quoting import quoted
from openckpt.doctor.scene import Scene, refusal, stem_of
from openckpt.errors import CheckpointError, Where, shown
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.manifest import Manifest, encode_manifest, is_absolute_entry, is_windows_entry
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME
from openckpt.opening.choosing import Entry, latest_key, locate_entry, read_manifest
from openckpt.opening.listing import Group, what_is_missing
from openckpt.opening.saves import save_state
from openckpt.storage import LocalStore

# What browsers, mail programs, editors and careful people make of a file called "checkpoint".
_RENAMED = re.compile(
    r"checkpoint(\.(txt|html?|pbtxt|dms|download|bin|bak|old|orig|\d)|[ _-]?\(?\d\)?|~| - copy)+", re.IGNORECASE
)
_REBUILT_LINES = 20
_FOLLOWED_ENTRIES = 1000  # a manager keeps a handful; each may mean the scan of a directory
_TRAINING_FORMATS = ("bundle-v2", "table-v1")


@dataclass(slots=True)
class ManifestVerdict:
    """What the manifest of a directory says and what is wrong with it.

    Attributes:
        findings: what is wrong or odd.
        newest: the checkpoint that it names as the newest, where that is here.
    """

    findings: list[Finding] = field(default_factory=list)
    newest: Group | None = None


def check_manifest(scene: Scene) -> ManifestVerdict:
    """Return what the manifest names, and every way in which it and the files disagree."""
    verdict = ManifestVerdict()
    stat = scene.listing.manifests.get(MANIFEST_NAME)
    if stat is None:
        verdict.findings += _without_manifest(scene)
        return verdict
    place = scene.store.display(stat.path)
    try:
        manifest = read_manifest(scene.store, stat, limits=scene.limits)
    except CheckpointError as error:
        finding = finding_of(error)
        # What another program wrote under this name is not to be written over.
        worthless = error.code.startswith("manifest.") and error.code != "manifest.lfs-pointer"
        fix = rebuild_command(scene) if worthless else None
        verdict.findings.append(_with_fix(finding, fix))
        return verdict
    except OSError as error:
        verdict.findings.append(make_finding("storage.unreadable", place, refusal(error)))
        return verdict
    verdict.findings += manifest.problems
    newest = locate_entry(scene.store, scene.listing, manifest.model_checkpoint_path, limits=scene.limits)
    older = _locate_older(scene, manifest)
    verdict.newest = newest.group
    verdict.findings += _check_newest(scene, place, newest, older)
    if newest.group is not None:
        verdict.findings += _check_older(place, older)
        listed = {entry.group.prefix for entry in (newest, *older) if entry.group is not None}
        verdict.findings += _check_unlisted(scene, place, newest.group, listed)
    return verdict


def _locate_older(scene: Scene, manifest: Manifest) -> list[Entry]:
    """Find what the entries before the newest name; plain names by one look into a table, since a manifest may have many."""
    by_name = {
        group.name: group for group in sorted(scene.listing.groups, key=lambda g: g.format != "bundle-v2", reverse=True)
    }
    entries = []
    followed = 0
    for path in dict.fromkeys(manifest.all_model_checkpoint_paths):
        if path == manifest.model_checkpoint_path:
            continue
        if path in by_name or not any(c in path for c in "/\\?"):
            entries.append(Entry(path, by_name.get(path)))
        elif followed < _FOLLOWED_ENTRIES:
            followed += 1
            entries.append(locate_entry(scene.store, scene.listing, path, limits=scene.limits, look_again=False))
    return entries


def _with_fix(finding: Finding, fix: str | None) -> Finding:
    return finding if fix is None else replace(finding, fix=fix)


# ------------------------------------------------------------------------------------------------------- no manifest


def _without_manifest(scene: Scene) -> list[Finding]:
    others = [stat for name, stat in scene.listing.manifests.items() if name != MANIFEST_NAME]
    renamed = [stat for stat in others if _RENAMED.fullmatch(stat.name)]
    findings = []
    for stat in others:
        path = scene.store.display(stat.path)
        if stat in renamed:
            fix = f"mv {quoted(path)} {quoted(scene.path(MANIFEST_NAME))}"
            findings.append(make_finding("run.manifest-renamed", path, "a manifest under another name", fix=fix))
        else:
            findings.append(make_finding("run.manifest-elsewhere-named", path, f"a manifest called {stat.name!r}"))
    if others or not any(group.format in _TRAINING_FORMATS for group in scene.listing.groups):
        return findings
    complete = training_groups(scene)
    if not complete:
        return findings
    newest = max(complete, key=latest_key)
    count = f"{len(complete)} checkpoints" if len(complete) > 1 else "one checkpoint"
    message = f"no manifest; a scan finds {count}, the newest is {newest.name!r}"
    findings.append(make_finding("run.no-manifest", scene.directory, message, fix=rebuild_command(scene)))
    return findings


def training_groups(scene: Scene) -> list[Group]:
    """Return the whole checkpoints of TensorFlow's own formats."""
    return [group for group in scene.listing.groups if group.complete and group.format in _TRAINING_FORMATS]


def rebuild_command(scene: Scene) -> str | None:
    """Return the shell command that writes a manifest of the whole checkpoints here, or None where there are none."""
    complete = [group for group in training_groups(scene) if group.name]
    if not complete:
        return None
    newest = max(complete, key=latest_key)
    run = sorted((group for group in complete if stem_of(group) == stem_of(newest)), key=latest_key)
    names = [group.name for group in run[-_REBUILT_LINES:]]
    lines = encode_manifest(Manifest(newest.name, tuple(names))).decode().splitlines()
    return f"printf '%s\\n' {' '.join(map(quoted, lines))} > {quoted(scene.path(MANIFEST_NAME))}"


# ---------------------------------------------------------------------------------------------------- with a manifest


def _check_newest(scene: Scene, place: str, entry: Entry, older: Sequence[Entry]) -> list[Finding]:
    named = f"the manifest names {entry.text!r}"
    leads, target = _where_it_leads(scene, entry)
    if leads == "elsewhere":
        beside = "" if entry.group is None else f", while {scene.show(entry.group)!r} lies beside the manifest"
        message = f"{named}, a checkpoint in another directory{beside}"
        return [make_finding("run.elsewhere", target, message, fix=rebuild_command(scene))]
    if entry.group is None:
        message = f"{named}, which is not here; {_what_is_here(scene, older)}"
        return [make_finding("run.newest-missing", place, message, fix=rebuild_command(scene))]
    findings = []
    if leads == "nowhere":
        message = f"{named}; {scene.show(entry.group)!r} lies here, beside the manifest"
        fix = rebuild_command(scene) or f"pass the prefix: {quoted(scene.show(entry.group))}"
        findings.append(make_finding("run.moved", place, message, fix=fix))
    elif ".." in re.split(r"[\\/]", entry.text):
        findings.append(make_finding("run.leaves-directory", place, f"{named}, out of the directory and in again"))
    if not entry.group.complete:
        message = f"{named}, which is not whole: {what_is_missing(entry.group)}"
        findings.append(make_finding("run.newest-incomplete", scene.show(entry.group), message, fix=_step_back(scene)))
    return findings


def _step_back(scene: Scene) -> str | None:
    command = rebuild_command(scene)
    if command is None:
        return None
    newest = max(training_groups(scene), key=latest_key)
    return f"fetch what is missing from where the training ran; or, to go back to {newest.name!r}: {command}"


def _what_is_here(scene: Scene, older: Sequence[Entry]) -> str:
    kept = [entry.group.name for entry in older if entry.group is not None and entry.group.complete]
    if kept:
        return f"of the others that it lists, {shown(kept[::-1])} can be opened"
    newest = max(training_groups(scene), key=latest_key, default=None)
    return "no whole checkpoint is here" if newest is None else f"the newest whole checkpoint here is {newest.name!r}"


def _where_it_leads(scene: Scene, entry: Entry) -> tuple[Literal["here", "elsewhere", "nowhere"], str]:
    """Return where TensorFlow would go for this entry, and the path it takes.

    Only names are looked up outside the directory, nothing is opened there (promise P5).
    """
    if not entry.by_name:
        return "here", entry.text
    foreign = is_windows_entry(entry.text) or (is_absolute_entry(entry.text) and not entry.text.startswith("/"))
    if not entry.outside or foreign or not isinstance(scene.store, LocalStore):
        return "nowhere", entry.text
    target = posixpath.join(scene.listing.directory, entry.text)
    try:
        if _same_directory(scene, posixpath.dirname(target)):
            return "here", target
        for name in (target + INDEX_SUFFIX, target):
            found = scene.store.stat(name)
            if found is not None and found.kind == "file":
                return "elsewhere", target
    except OSError:
        pass  # not ours to look at: then TensorFlow will not find it either
    return "nowhere", target


def _same_directory(scene: Scene, directory: str) -> bool:
    """Return whether the entry comes back to this directory by another way (a link, a mount, /private/var)."""
    here = scene.store.stat(scene.listing.directory or ".")
    there = scene.store.stat(directory or ".")
    return here is not None and there is not None and here.identity[:2] == there.identity[:2]


def _check_older(place: str, entries: Sequence[Entry]) -> list[Finding]:
    gone = [entry.text for entry in entries if entry.group is None]
    if not gone:
        return []
    verb = "is" if len(gone) == 1 else "are"
    return [make_finding("run.older-missing", place, f"{shown(gone)}: listed in the manifest, but {verb} not here")]


def _check_unlisted(scene: Scene, place: str, newest: Group, listed: set[str]) -> list[Finding]:
    """Compare the newest that the manifest names with the steps of the same run that it does not list."""
    if newest.step is None:
        return []
    run = [
        group
        for group in training_groups(scene)
        if group.prefix not in listed and group.step is not None and stem_of(group) == stem_of(newest)
    ]
    findings = []
    newer = sorted(
        (
            group
            for group in run
            # A save that runs has committed its checkpoint, and is about to list it.
            if (group.step or 0) > newest.step and save_state(scene.store, group.prefix) != "running"
        ),
        key=latest_key,
    )
    if newer:
        message = (
            f"{shown([group.name for group in newer])}: later than {newest.name!r}, which the manifest calls the newest"
        )
        where = Where(scene.show(newer[-1]))
        findings.append(make_finding("run.newer-unlisted", where, message, fix=_newer_fix(scene, newer[-1])))
    older = sorted((group for group in run if (group.step or 0) < newest.step), key=latest_key)
    if older:
        message = f"{shown([group.name for group in older])}: older checkpoints that the manifest does not list"
        findings.append(make_finding("run.older-unlisted", place, message))
    return findings


def _newer_fix(scene: Scene, newest: Group) -> str | None:
    command = rebuild_command(scene)
    return None if command is None else f"if {newest.name} is the one you want: {command}"
