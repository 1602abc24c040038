"""Which tensors go into which data file."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openckpt.formats.bundle.splitting import Piece, plan_shards
from openckpt.formats.spec import TensorSpec


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
