"""What lies beside the checkpoints of a directory: temporary files, stale shards, graphs without values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from openckpt.codes.quoting import quoted
from openckpt.doctor.scene import Scene, read_small
from openckpt.errors import shown
from openckpt.findings import Finding, make_finding
from openckpt.formats.names import TEMP_SUFFIX, is_manifest_temp
from openckpt.opening.listing import Group, Listing
from openckpt.opening.saves import is_written_to, save_findings, stale_shards
from openckpt.storage import FileStat, Store

_COMPARED_BYTES = 16 << 20
_MOST_LEFTOVERS = 100  # each is a finding; a crash loop leaves thousands


def check_leftovers(scene: Scene) -> list[Finding]:
    """Return the findings about what interrupted saves left in a directory (formats 9, rows 26 and 27), ours among them."""
    leftovers = sorted(scene.listing.leftovers, key=lambda stat: stat.name)
    findings = []
    for stat in leftovers[:_MOST_LEFTOVERS]:
        if stat.kind == "dir":
            findings.append(_working_directory(scene, stat))
        else:
            what = "manifest" if is_manifest_temp(stat.name) else "file of a checkpoint"
            message = f"a {what} that was never finished ({stat.size} bytes)"
            findings.append(make_finding("run.leftover-file", scene.store.display(stat.path), message))
    if len(leftovers) > _MOST_LEFTOVERS:
        message = f"{len(leftovers) - _MOST_LEFTOVERS} more files and directories of unfinished saves"
        findings.append(
            make_finding("run.leftover-file", scene.directory, message, fix=f"openckpt find {quoted(scene.directory)}")
        )
    ours = list(islice(save_findings(scene.store, scene.listing), _MOST_LEFTOVERS + 1))
    if len(ours) > _MOST_LEFTOVERS:
        message = f"more than {_MOST_LEFTOVERS} saves by openckpt run or broke off here"
        ours[_MOST_LEFTOVERS:] = [make_finding("run.broken-off", scene.directory, message)]
    return findings + ours


def part_names(store: Store, stat: FileStat) -> list[str]:
    """Return the names inside a save's working directory (``PREFIX_temp``), sorted; none where it cannot be read."""
    try:
        return sorted(entry.name for entry in store.scan(stat.path))
    except OSError:
        return []


def _working_directory(scene: Scene, stat: FileStat) -> Finding:
    names = part_names(scene.store, stat)
    files = "one file" if len(names) == 1 else f"{len(names)} files"
    message = f"working directory of a save, {files} in it" if names else "empty working directory of a save"
    path = scene.store.display(stat.path)
    prefix = stat.name.removesuffix(TEMP_SUFFIX)
    if is_written_to(scene.store, stat):
        return make_finding("run.saving", path, f"parts of {prefix!r} are being saved or merged, {files} so far")
    unfinished = names and any(group.name == prefix and not group.complete for group in scene.listing.groups)
    # What lies in it may be all that is left of that save: nobody should delete it on the way to restoring that.
    fix = f"when {prefix!r} is whole again, or given up: rm -r {quoted(path)}" if unfinished else None
    return make_finding("run.leftover-parts", path, message, fix=fix)


def check_stale_shards(scene: Scene) -> list[Finding]:
    """Return one finding per prefix with data files of another shard count beside its own (formats 9, row 36)."""
    by_prefix: dict[str, list[FileStat]] = {}
    for stat in stale_shards(scene.store, scene.listing):
        by_prefix.setdefault(stat.name.rpartition(".data-")[0], []).append(stat)
    findings = []
    for prefix, stats in sorted(by_prefix.items()):
        total = sum(stat.size for stat in stats)
        places = [scene.store.display(stat.path) for stat in stats]
        findings.append(
            make_finding(
                "run.stale-shards",
                places[0],
                f"{shown([stat.name for stat in stats])}: {len(stats)} data files ({total} bytes) that the index of {prefix!r} does not name",
                fix=f"rm {' '.join(map(quoted, places[:_MOST_LEFTOVERS]))}",
            )
        )
    return findings


def check_aliases(scene: Scene, named: str = "") -> list[Finding]:
    """Return one note for all links by which safetensors programs open data files that lie here, or for the one ``named``."""
    aliases = [alias for alias in scene.listing.aliases if named in ("", alias[0].name)]
    if not aliases:
        return []
    names = shown([stat.name for stat, _ in aliases])
    first, shard = aliases[0]
    what = f"the data file {shard.name!r}" if len(aliases) == 1 else "data files of checkpoints here"
    message = f"{names}: {what} under another name"
    return [make_finding("run.alias", scene.store.display(first.path), message)]


def check_orphan_metas(scene: Scene) -> list[Finding]:
    """Return a finding for meta graphs whose checkpoint is not here, all of them together."""
    metas = scene.listing.orphan_metas
    if not metas:
        return []
    first = scene.store.display(metas[0].path)
    names = shown([stat.name for stat in metas])
    return [
        make_finding(
            "run.meta-only",
            first,
            f"graphs without values: {names}",
            severity="error" if not scene.listing.groups else "note",
        )
    ]


def check_same_names(scene: Scene) -> list[Finding]:
    """Return notes where one name means two things: a file and a prefix, or the manifest and a prefix."""
    findings = []
    prefixes = {group.name: group for group in scene.listing.groups if group.index is not None}
    for name in sorted(prefixes.keys() & {group.name for group in scene.listing.groups if group.index is None}):
        other = next(group for group in scene.listing.groups if group.name == name and group.index is None)
        findings.append(
            make_finding(
                "run.same-name",
                scene.show(other),
                f"{name!r} is both a file ({other.format}) and the prefix of a checkpoint",
            )
        )
    for name in sorted(prefixes.keys() & scene.listing.manifests.keys()):
        what = f"{name!r} is both the manifest and the prefix of a checkpoint"
        findings.append(make_finding("run.manifest-is-prefix", scene.show(prefixes[name]), what))
    return findings


def renamed_copy(listing: Listing, missing: str) -> FileStat | None:
    """Return a file that looks like ``missing`` under a name that a browser or an editor made of it, or None."""
    groups = listing.groups
    indexes = (group.index for group in groups if group.index is not None and not group.shards)
    shards = (stat for group in groups if group.index is None for stat in group.shards)
    for stat in (*listing.others, *listing.archives, *indexes, *shards):
        if stat.name.startswith(missing) and stat.name[len(missing) :].lower() in _ADDED:
            return stat
        stem, dot, suffix = missing.rpartition(".")
        if dot and stat.name in (f"{stem} (1).{suffix}", f"{stem}(1).{suffix}", f"{missing} (1)"):
            return stat
    return None


_ADDED = (".txt", ".bin", ".download", ".html", ".bak", ".old", ".crdownload", ".part", " (1)", "(1)", ".1")


def check_same_bytes(scene: Scene) -> list[Finding]:
    """Return notes for steps that hold the same bytes.

    The index of a V2 checkpoint holds the checksum of every tensor, so equal indexes mean equal values; other formats are
    compared whole, when their sizes are equal and below 16 MiB.
    """
    by_sizes: dict[tuple[int, ...], list[Group]] = {}
    for group in scene.listing.groups:
        if group.complete and group.step is not None:
            by_sizes.setdefault((len(group.shards), *(stat.size for stat in _witnesses(group))), []).append(group)
    findings: list[Finding] = []
    for candidates in by_sizes.values():
        first_of: dict[bytes, Group] = {}
        for group in candidates if len(candidates) > 1 else ():
            digest = _digest(scene.store, _witnesses(group))
            first = group if digest is None else first_of.setdefault(digest, group)
            if first is not group:
                message = f"{group.name!r} has the same values, byte for byte, as {first.name!r}"
                findings.append(make_finding("run.same-bytes", scene.show(group), message))
    return findings


def _witnesses(group: Group) -> tuple[FileStat, ...]:
    return group.shards if group.index is None else (group.index,)


def _digest(store: Store, stats: Sequence[FileStat]) -> bytes | None:
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for stat in stats:
        data = read_small(store, stat.path, _COMPARED_BYTES)
        if data is None:
            return None
        digest.update(data)
    return digest.digest()
