"""Why the data files of a V2 checkpoint are not what its index says: missing, renamed, replaced, mangled, of another step."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import closing

from openckpt.codes.quoting import quoted
from openckpt.doctor.content import find_replacement
from openckpt.doctor.damage import has_grown_by, text_mode_pairs
from openckpt.doctor.leftovers import renamed_copy
from openckpt.doctor.loss import data_end, merge_losses
from openckpt.doctor.mixing import find_true_step, read_counter
from openckpt.doctor.scene import Scene, stem_of
from openckpt.errors import CheckpointError, Where, shown
from openckpt.findings import Finding, make_finding
from openckpt.formats.names import parse_shard_name, shard_name, step_of
from openckpt.formats.spec import Extent, TensorReader
from openckpt.opening.listing import Group
from openckpt.storage import ByteSource, FileStat

_CRC_CODES = frozenset({"bundle.crc-mismatch", "bundle.string-lengths", "bundle.variant"})
_SUSPICIOUS = _CRC_CODES | {"bundle.data-truncated", "bundle.unused-bytes"}


def explain_shards(scene: Scene, group: Group, reader: TensorReader, found: Sequence[Finding]) -> Iterator[Finding]:
    """Return what happened to data files that are missing or do not hold what the index says.

    Args:
        scene: the directory.
        group: the checkpoint's files.
        reader: open over them.
        found: what `reader.validate` said.
    """
    yield from _check_renamed(scene, group, found)
    files = {scene.store.display(stat.path): stat for stat in group.shards}
    unexplained: list[Finding] = []
    for path in dict.fromkeys(finding.where.path for finding in found if finding.code in _SUSPICIOUS):
        stat = files.get(path)
        if stat is None:
            continue
        about = [finding for finding in found if finding.where.path == path and finding.code in _SUSPICIOUS]
        finding = _explain_content(scene, stat, reader, about)
        if finding is not None:
            yield finding
        elif all(other.code in _CRC_CODES for other in about):
            unexplained += about
    if unexplained:
        yield from _check_mixed_steps(scene, group, reader, unexplained)
    for path in dict.fromkeys(finding.where.path for finding in found if finding.code in _SUSPICIOUS):
        if path in files:
            yield from _name_sharers(scene, group, files[path], path)


def _name_sharers(scene: Scene, group: Group, stat: FileStat, path: str) -> Iterator[Finding]:
    """Say which other steps have a damaged data file under another name: delta saves link them."""
    if not stat.identity:
        return
    others = [
        other.name
        for other in scene.listing.groups
        if other.name != group.name and any(shard.identity[:2] == stat.identity[:2] for shard in other.shards)
    ]
    if others:
        yield make_finding("run.shared-damage", path, f"{shown(others, 100)} have this data file too, by hard links")


def _explain_content(scene: Scene, stat: FileStat, reader: TensorReader, about: Sequence[Finding]) -> Finding | None:
    """Return what lies in a data file instead of tensors, or None where nothing explains it."""
    try:
        source = scene.store.open(stat.path)
    except (CheckpointError, OSError):
        return None
    try:
        return _explain_bytes(source, reader, about)
    except (CheckpointError, OSError):
        return None  # it shrank under us
    finally:
        source.close()


def _explain_bytes(source: ByteSource, reader: TensorReader, about: Sequence[Finding]) -> Finding | None:
    lost = merge_losses(about)
    instead = find_replacement(source)
    if instead is not None:
        return instead.with_lost(lost)
    pairs = text_mode_pairs(source)
    if pairs is None:
        return None
    end = data_end(reader, source.path)  # walks over the whole index
    if not has_grown_by(source, end, pairs):
        return None
    message = f"every line feed byte has a carriage return before it, {pairs} of them"
    found, expected = f"{source.size} bytes", f"{end} bytes"
    return make_finding("detect.text-damaged", source.path, message, found=found, expected=expected, lost=lost)


def _check_renamed(scene: Scene, group: Group, found: Sequence[Finding]) -> Iterator[Finding]:
    """Compare the missing data files with those that lie here under other counts or with a suffix (formats 9, row 10)."""
    if any(finding.code == "bundle.shard-count" for finding in found) and group.header_shards is not None:
        moves = [(stat.name, shard_name(group.name, _shard_id(stat), group.header_shards)) for stat in group.shards]
        message = f"the index counts {group.header_shards} data files, the names on the disk say {group.num_shards}"
        yield make_finding(
            "run.shards-renamed", scene.show(group), message, severity="warning", fix=_moves(scene, moves)
        )
        return
    missing = [finding.where.path for finding in found if finding.code == "bundle.shard-missing"]
    if not missing:
        return
    strays = {}
    for stat in scene.listing.orphan_shards:
        parsed = parse_shard_name(stat.name)
        if parsed is not None and parsed[0] == group.name:
            strays[parsed[1]] = stat
    moves = []
    for path in missing:
        name = posixpath.basename(path)
        parsed = parse_shard_name(name)
        copy = renamed_copy(scene.listing, name)
        stray = copy if copy is not None or parsed is None else strays.get(parsed[1])
        if stray is not None:
            moves.append((stray.name, name))
    if moves:
        message = f"{shown([name for _, name in moves])} missing, but {shown([name for name, _ in moves])} here"
        yield make_finding("run.shards-renamed", missing[0], message, fix=_moves(scene, moves))


def _shard_id(stat: FileStat) -> int:
    parsed = parse_shard_name(stat.name)
    return 0 if parsed is None else parsed[1]


def _moves(scene: Scene, moves: Sequence[tuple[str, str]]) -> str:
    return " && ".join(f"mv {quoted(scene.path(old))} {quoted(scene.path(new))}" for old, new in moves[:20])


# ------------------------------------------------------------------------------------------------------- another step's


def _check_mixed_steps(
    scene: Scene, group: Group, reader: TensorReader, failed: Sequence[Finding]
) -> Iterator[Finding]:
    """Say whose data this is, when sizes fit and checksums do not (formats 9, row 24)."""
    keys = list(dict.fromkeys(finding.where.key for finding in failed if finding.where.key is not None))
    place = failed[0].where.path
    lost = merge_losses(failed)
    true_step = _true_step(scene, group, reader, keys)
    if true_step is not None:
        message = f"the data is that of {true_step!r}, the index is not: {len(keys)} of {len(reader)} tensors differ"
        yield make_finding("run.mixed-steps", place, message, lost=lost)
        return
    counter = read_counter(reader)
    named = step_of(group.name)
    if counter is not None and counter[0] in keys and named is not None and counter[1] != named:
        message = f"the data says step {counter[1]}, the index is of step {named}: {len(keys)} of {len(reader)} tensors differ"
        yield make_finding(
            "run.mixed-steps", Where(place, counter[0]), message, found=counter[1], expected=named, lost=lost
        )
    elif len(keys) > 1 and 2 * len(keys) >= len(reader):
        message = f"{len(keys)} of {len(reader)} tensors have the right size and another checksum"
        yield make_finding("run.mixed-steps", place, message, lost=lost)


def _true_step(scene: Scene, group: Group, reader: TensorReader, keys: Sequence[str]) -> str | None:
    from openckpt.doctor.checkpoint_checks import target_of
    from openckpt.opening.opener import open_target

    paths = {scene.store.display(stat.path): stat.path for stat in group.shards}

    def read(extent: Extent) -> bytes:
        with closing(scene.store.open(paths[extent.path])) as source:
            return source.read_at(extent.offset, extent.nbytes)

    def siblings() -> Iterator[tuple[str, TensorReader]]:
        for other in scene.listing.groups:
            if (
                other.format == "bundle-v2"
                and other.index is not None
                and other is not group
                and stem_of(other) == stem_of(group)
            ):
                try:
                    sibling = open_target(target_of(scene, other), limits=scene.limits)
                except (CheckpointError, OSError):
                    continue
                try:
                    yield other.name, sibling
                finally:
                    sibling.close()

    return find_true_step(reader, keys, siblings(), read)
