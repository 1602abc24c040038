"""Which of several processes writes: the first, as their launcher counts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "torchrun"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "mpirun"),
    ("PMI_RANK", "PMI_SIZE", "mpiexec"),
)


class Rank(NamedTuple):
    """One process of several.

    Attributes:
        number: from 0.
        total: how many there are; None where nothing says.
        source: what says so: an environment variable, or "jax".
    """

    number: int
    total: int | None
    source: str

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"rank {self.number}{of} ({self.source})"


def find_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Return which process this is, None where it is one of its own: as JAX says where it is distributed, else the launcher."""
    jax = sys.modules.get("jax")
    if jax is not None and getattr(jax, "distributed", None) is not None and jax.distributed.is_initialized():
        return Rank(jax.process_index(), jax.process_count(), "jax")
    found = os.environ if environment is None else environment
    for rank, count, _ in _LAUNCHERS:
        if found.get(rank, "").isdecimal():
            return Rank(int(found[rank]), int(found[count]) if found.get(count, "").isdecimal() else None, rank)
    return None
