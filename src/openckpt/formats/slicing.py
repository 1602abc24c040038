"""Pieces of a partitioned tensor, put together again: what each region copies, and whether pieces tile a tensor.

Extents are as stored, ``FULL`` for a whole dimension (`openckpt.formats.slicekeys`); a region has every length. Pure, no numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from openckpt.errors import CorruptionError, LimitError, Where
from openckpt.formats.slicekeys import FULL, Extents, format_extents, shorten

Region: TypeAlias = tuple[tuple[int, int], ...]
"""``(start, length)`` per dimension, every length known; made from `Extents` by `resolve_extents`."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One step of putting a tensor together: ``target[self.target] = pieces[self.piece][self.source]``."""

    piece: int
    source: tuple[slice, ...]
    target: tuple[slice, ...]


def resolve_extents(extents: Extents, shape: Sequence[int], where: Where | str = "") -> Region:
    """Return ``extents`` with whole dimensions filled in from ``shape``, the shape of the whole tensor.

    Raises:
        CorruptionError: another rank than the tensor, or outside it (``slices.bad-extent``).
    """
    if len(extents) != len(shape):
        raise CorruptionError(
            "slices.bad-extent",
            where,
            "a slice has another rank than its tensor",
            expected=len(shape),
            found=f"{len(extents)} ({shorten(format_extents(extents))})",
        )
    region = tuple((0, size) if extent == FULL else extent for extent, size in zip(extents, shape, strict=True))
    for (start, length), size in zip(region, shape, strict=True):
        if start < 0 or length < 0 or start + length > size:
            raise CorruptionError(
                "slices.bad-extent",
                where,
                "a slice reaches outside its tensor",
                expected=f"inside {list(shape)}",
                found=shorten(format_extents(extents)),
            )
    return region


def full_region(shape: Sequence[int]) -> Region:
    """Return the region of a whole tensor."""
    return tuple((0, size) for size in shape)


def region_shape(region: Region) -> tuple[int, ...]:
    """Return the shape of the array that holds ``region``."""
    return tuple(length for _, length in region)


def intersect(a: Region, b: Region) -> Region | None:
    """Return the region common to both, or None where they share no element. Two scalars share their element."""
    common = []
    for (start_a, length_a), (start_b, length_b) in zip(a, b, strict=True):
        start = max(start_a, start_b)
        length = min(start_a + length_a, start_b + length_b) - start
        if length <= 0:
            return None
        common.append((start, length))
    return tuple(common)


def plan_copies(request: Region, pieces: Sequence[Region], where: Where | str = "") -> list[Copy]:
    """Return the copies that fill ``request`` from ``pieces``, every element exactly once.

    Args:
        request: the part of the tensor that is wanted, usually `full_region`.
        pieces: the stored slices, resolved; those that miss the request are left out of the plan.
        where: the place for messages.

    Raises:
        CorruptionError: some elements lie in no piece (``slices.gap``) or in several (``slices.overlap``).
        LimitError: so many pieces, so intertwined, that the proof would take too long (``slices.tangled``).
    """
    parts: list[Region] = []
    copies: list[Copy] = []
    for index, piece in enumerate(pieces):
        common = intersect(request, piece)
        if common is None:
            continue
        parts.append(common)
        copies.append(Copy(index, _relative(common, piece), _relative(common, request)))
    wanted = prod(region_shape(request))
    covered = sum(prod(region_shape(part)) for part in parts)
    if covered < wanted:
        raise CorruptionError(
            "slices.gap",
            where,
            f"the stored slices do not cover the tensor: {_list_regions(pieces)}",
            expected=f"{wanted} elements",
            found=f"{covered}",
        )
    check_disjoint(parts, where)
    if covered > wanted:
        raise CorruptionError("slices.overlap", where, "stored slices overlap: several")
    return copies


def check_disjoint(pieces: Sequence[Region], where: Where | str = "") -> None:
    """Raise CorruptionError (``slices.overlap``) where two pieces share an element; LimitError as `plan_copies`."""
    clash = None if len(pieces) < 2 else _find_overlap(list(pieces), where)
    if clash is not None:
        both = " and ".join(format_extents(part) for part in clash)
        raise CorruptionError("slices.overlap", where, f"stored slices overlap: {shorten(both)}")


def _relative(common: Region, frame: Region) -> tuple[slice, ...]:
    return tuple(
        slice(start - origin, start - origin + length)
        for (start, length), (origin, _) in zip(common, frame, strict=True)
    )


def _find_overlap(parts: list[Region], where: Where | str) -> tuple[Region, Region] | None:
    """Return two parts that share an element, or None.

    Cuts a group of parts wherever a plane along one axis passes through none of them, and goes on with what lies between
    two planes along the other axes: a grid, or anything made by cutting and cutting again, falls apart into single parts.
    What no plane divides (a pinwheel) is compared pairwise. The work is bounded, so that a million hostile slices cannot
    hold the reader up: TensorFlow itself only makes what the cuts take apart.
    """
    rank = len(parts[0])
    axes = [axis for axis in range(rank) if any(part[axis] != parts[0][axis] for part in parts)]
    budget = 1_000_000 + 16 * len(parts) * max(1, len(axes))
    groups = [parts]
    while groups:
        group = groups.pop()
        if len(group) == 1:
            continue
        for axis in axes:
            budget -= len(group)
            divided = _divide(group, axis)
            if len(divided) > 1:
                groups.extend(divided)
                break
        else:
            budget -= len(group) ** 2 // 2
            if budget >= 0:
                for index, part in enumerate(group):
                    for other in group[:index]:
                        if intersect(part, other) is not None:
                            return other, part
        if budget < 0:
            raise LimitError(
                "slices.tangled",
                where,
                f"{len(parts)} slices are too intertwined to be proven free of overlaps",
            )
    return None


def _divide(group: list[Region], axis: int) -> list[list[Region]]:
    ordered = sorted(group, key=lambda part: part[axis])
    divided: list[list[Region]] = []
    reach = -1
    for part in ordered:
        start, length = part[axis]
        if start >= reach:
            divided.append([])
        divided[-1].append(part)
        reach = max(reach, start + length)
    return divided


def _list_regions(regions: Sequence[Region]) -> str:
    shown = ", ".join(format_extents(region) or "scalar" for region in regions[:4])
    more = f" and {len(regions) - 4} more" if len(regions) > 4 else ""
    return shorten(f"slices {shown}{more}" if regions else "there is none")
