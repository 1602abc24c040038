"""Which tensors go into which data file."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from openckpt.errors import CheckpointError, shown
from openckpt.formats.bundle.splitting import Piece, plan_shards
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import Extents
from openckpt.formats.slicing import Region, full_region, plan_copies, resolve_extents
from openckpt.formats.spec import TensorSpec
from openckpt.limits import DEFAULT_LIMITS


class Sharding(Protocol):
    """A policy: the pieces of each data file, every tensor in exactly one of them or tiled by its pieces."""

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return one list of pieces per data file, at least one.

        Specs come in the order in which they were given. ``nbytes`` of a string tensor is the sum of the lengths of its
        elements where that is known.
        """
        ...


class OneShard:
    """Everything in one data file, as TensorFlow does by default."""

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return one list with every tensor."""
        return [[Piece(key) for key, _ in specs]]


@dataclass(frozen=True, slots=True)
class MaxShardSize:
    """Data files of at most so many bytes of tensors, by the rule of TensorFlow's ``MaxShardSizePolicy`` (formats 7.5).

    Large tensors are cut into slices that stock TensorFlow puts together again; a tensor that cannot be cut - a single row
    is too large, or TensorFlow cannot reassemble its dtype - has a data file of its own.

    Attributes:
        max_bytes: of one data file; string tensors count the bytes of their elements.
        split_any: cut dtypes too that TensorFlow cannot put together again (formats 2.9); openckpt can.
    """

    max_bytes: int
    split_any: bool = False

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"a data file of at most {self.max_bytes} bytes holds nothing")

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return the pieces of each data file."""
        return plan_shards(specs, self.max_bytes, split_any=self.split_any)


@dataclass(frozen=True, slots=True)
class ByGroup:
    """One data file per group; groups in the order in which their first tensor is given.

    Attributes:
        group_of: from key and spec to the group, any hashable value: ``lambda key, spec: key.split("/")[0]``.
    """

    group_of: Callable[[str, TensorSpec], Hashable]

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return the tensors of each group."""
        groups: dict[Hashable, list[Piece]] = {}
        for key, spec in specs:
            groups.setdefault(self.group_of(key, spec), []).append(Piece(key))
        return list(groups.values()) or [[]]


def check_plan(planned: Sequence[Sequence[Piece]], specs: Mapping[str, TensorSpec]) -> list[list[Piece]]:
    """Return what a policy planned, with pieces that are a whole tensor as whole tensors, once it holds every byte once.

    Raises:
        ValueError: it leaves a tensor out, repeats one or names a foreign one, its pieces of a tensor are not the whole, or
            there are more data files than readers take.
    """
    if len(planned) > DEFAULT_LIMITS.shards:
        raise ValueError(f"the sharding policy makes {len(planned)} data files, more than {DEFAULT_LIMITS.shards}")
    whole: set[str] = set()
    cut: dict[str, list[Extents]] = {}
    for key, extents in (piece for pieces in planned for piece in pieces):
        if key not in specs:
            raise ValueError(f"the sharding policy names {key!r}, which is no tensor of this checkpoint")
        if key in whole or (extents is None and key in cut):
            raise ValueError(f"the sharding policy has {key!r} twice")
        if extents is None:
            whole.add(key)
        else:
            cut.setdefault(key, []).append(extents)
    missing = specs.keys() - whole - cut.keys()
    if missing:
        raise ValueError(f"the sharding policy leaves out {shown(sorted(missing))}")
    full = {
        key for key, pieces in cut.items() if _regions(key, pieces, specs[key]) == [full_region(specs[key].shape or ())]
    }
    return [[Piece(key, None if key in full else extents) for key, extents in pieces] for pieces in planned]


def _regions(key: str, pieces: Sequence[Extents], spec: TensorSpec) -> list[Region]:
    """Return the pieces of a cut tensor, which must make it up."""
    shape = spec.shape or ()
    if not BY_NAME[spec.dtype].is_numeric:
        raise ValueError(f"the sharding policy cuts {key!r}, of type {spec.dtype}, which no reader puts together again")
    try:
        regions = [resolve_extents(extents, shape) for extents in pieces]
        plan_copies(full_region(shape), regions)
    except CheckpointError as error:
        raise ValueError(
            f"the pieces in which the sharding policy cuts {key!r} are not the tensor: {error.message}"
        ) from error
    return regions
