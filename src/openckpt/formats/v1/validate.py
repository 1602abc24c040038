"""What is wrong with a V1 checkpoint: missing shards, damaged blocks, values that do not fit their list.

A damaged block costs the tensors whose values lie in it and no others; they are found by what is then not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, Where, shown
from openckpt.findings import Finding, Lost, Progress, finding_of, make_finding
from openckpt.formats.slicekeys import Extents, encode_slice_key, parse_slice_key
from openckpt.formats.slicing import full_region, plan_copies, region_shape, resolve_extents
from openckpt.formats.v1.reader import Piece

if TYPE_CHECKING:
    from openckpt.formats.v1.reader import V1Reader, V1Shard

_SHOWN = 5


def validate_v1(reader: V1Reader, *, data: bool, progress: Progress | None) -> Iterator[Finding]:
    """Yield the findings of one open checkpoint; see `V1Reader.validate`."""
    sizes = {key: spec.size for key, spec in reader.items()}
    total = sum(sizes.values())

    def lost(keys: list[str]) -> Lost:
        return Lost(tuple(keys), sum(sizes[key] for key in keys), total)

    bad: set[str] = set()
    found = list(_check_lists(reader, lost, bad))
    if reader.missing:
        # Slices that are not there because their shard is not are one fault with it.
        gapped = [finding.where.key for finding in found if finding.code == "slices.gap" and finding.where.key]
        found = [finding for finding in found if finding.code != "slices.gap"]
        count = len(reader.missing) + len(reader.shards)
        yield make_finding(
            "v1.shard-missing",
            Where(reader.missing[0]),
            f"{len(reader.missing)} of {count} shards are not there: {shown(reader.missing, _SHOWN)}; their tensors are unknown",
            expected=f"{count} shards",
            found=str(len(reader.shards)),
            lost=lost(gapped) if gapped else None,
        )
    yield from found
    for number, shard in enumerate(reader.shards):
        yield from shard.table.validate()
        if data:
            for finding, keys in _check_values(reader, number, shard, bad, progress):
                yield finding.with_lost(lost(keys)) if keys else finding


def _check_lists(reader: V1Reader, lost: Callable[[list[str]], Lost], bad: set[str]) -> Iterator[Finding]:
    """Check what can be checked without the values, dtypes and slices; puts the keys of those that fail into ``bad``."""
    keys = reader.keys()
    for key in keys:
        try:
            shape, _ = reader.readable(key)
            where = Where(reader.path, key)
            regions = [resolve_extents(piece.extents, shape, where) for piece in reader.pieces(key)]
            plan_copies(full_region(shape), regions, where)
        except CheckpointError as error:
            bad.add(key)
            yield finding_of(error).with_lost(lost([key]))


def _check_values(
    reader: V1Reader, number: int, shard: V1Shard, bad: set[str], progress: Progress | None
) -> Iterator[tuple[Finding, list[str]]]:
    """Yield the findings of one table, each with the keys that it costs."""
    wanted: dict[bytes, tuple[str, Extents]] = {}
    for key, tensor in shard.meta.tensors.items():
        try:
            # A tensor whose own record is at fault is not looked for, and its values, if any, are not checked.
            listed = [] if key in bad else tensor.slices(Where(shard.source.path, key), reader.limits)
        except CheckpointError:
            continue
        for extents in listed:
            wanted[encode_slice_key(tensor.name, extents)] = (key, extents)
    unlisted = done = 0
    damaged = False
    for block in shard.table.salvage_blocks():
        if isinstance(block, Finding):
            damaged = True
            yield block, []
            continue
        for raw, value in zip(*block, strict=True):
            done += len(value)
            place = wanted.pop(raw, None)
            if place is not None:
                yield from _check_value(reader, number, *place, value)
            elif raw and not _is_of(raw, bad):
                unlisted += 1
        if progress is not None:
            progress(f"checking {shard.source.path}", done, shard.source.size)
    if unlisted:
        yield (
            make_finding(
                "v1.unlisted-value", Where(shard.source.path), f"{unlisted} values belong to no tensor of the list"
            ),
            [],
        )
    if wanted:
        keys = list(dict.fromkeys(key for key, _ in wanted.values()))
        why = "lie in a damaged block" if damaged else "are not in the table"
        yield (
            make_finding(
                "v1.slice-missing",
                Where(shard.source.path, keys[0]),
                f"the values of {len(keys)} tensors {why}: {shown(keys, _SHOWN)}",
                expected=f"{len(shard.meta.tensors)} tensors",
                found=f"{len(shard.meta.tensors) - len(keys)}",
            ),
            keys,
        )


def _is_of(raw: bytes, keys: set[str]) -> bool:
    """Return whether a table key is that of a slice of one of these tensors."""
    try:
        return bool(keys) and parse_slice_key(raw)[0].decode("utf-8", "surrogateescape") in keys
    except CheckpointError:
        return False


def _check_value(
    reader: V1Reader, number: int, key: str, extents: Extents, value: bytes
) -> Iterator[tuple[Finding, list[str]]]:
    try:
        shape, dtype = reader.readable(key)
        region = resolve_extents(extents, shape, Where(reader.path, key))
    except CheckpointError:
        return  # reported from the list
    try:
        reader.decode_piece(key, Piece(number, extents), region_shape(region), dtype, value)
    except CheckpointError as error:
        yield finding_of(error), [key]
