"""Which of several processes writes: the first, as their launcher counts them.

A rank counts only beside the number of processes: ``RANK=16`` alone is some setting of the program, and a run that took it for its
place among others would save nothing, without a word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # mpirun
    ("PMI_RANK", "PMI_SIZE"),  # mpiexec
)


class Rank(NamedTuple):
    """One process of several.

    Attributes:
        number: from 0.
        total: how many there are.
        source: what says so: an environment variable, or "jax".
    """

    number: int
    total: int
    source: str

    def __str__(self) -> str:
        return f"rank {self.number} of {self.total} ({self.source})"


def find_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Return which process this is, None where it is one of its own: as JAX says where it is distributed, else the launcher."""
    jax = sys.modules.get("jax")
    if jax is not None and getattr(jax, "distributed", None) is not None and jax.distributed.is_initialized():
        return Rank(jax.process_index(), jax.process_count(), "jax")
    found = os.environ if environment is None else environment
    for rank, count in _LAUNCHERS:
        said = found.get(rank, ""), found.get(count, "")
        if all(map(str.isdecimal, said)) and int(said[0]) < int(said[1]):
            return Rank(int(said[0]), int(said[1]), rank)
    return None
