"""Which of several processes writes."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from openckpt.training.primary import Rank, find_rank


@pytest.fixture(autouse=True)
def _without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jax", raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "4"}, Rank(0, 4, "RANK")),
        ({"RANK": "3"}, None),
        ({"RANK": "3", "WORLD_SIZE": ""}, None),
        ({"RANK": "16", "WORLD_SIZE": "1"}, None),
        ({"RANK": "", "WORLD_SIZE": "2"}, None),
        ({"RANK": "first", "WORLD_SIZE": "2"}, None),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, None),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8"}, Rank(2, 8, "OMPI_COMM_WORLD_RANK")),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Rank(1, 2, "PMI_RANK")),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8", "RANK": "5"}, Rank(2, 8, "OMPI_COMM_WORLD_RANK")),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "1"}, None),
    ],
)
def test_launchers_say_it_in_the_environment(environment: dict[str, str], expected: Rank | None) -> None:
    """torchrun, Open MPI, MPICH; a rank within one machine says nothing, nor does one of which nobody knows how many there are:
    that may be the rank of a matrix, and a run that takes it for its own would save nothing."""
    assert find_rank(environment) == expected


@pytest.mark.parametrize("is_distributed", [True, False])
def test_jax_is_asked_only_where_it_is_distributed(monkeypatch: pytest.MonkeyPatch, is_distributed: bool) -> None:
    """Asking a JAX that is not would start its devices."""

    def number() -> int:
        assert is_distributed
        return 6

    distributed = SimpleNamespace(is_initialized=lambda: is_distributed)
    jax = SimpleNamespace(distributed=distributed, process_index=number, process_count=lambda: 8)
    monkeypatch.setitem(sys.modules, "jax", jax)  # type: ignore[arg-type]
    found = find_rank({"RANK": "1", "WORLD_SIZE": "2"})
    assert found == (Rank(6, 8, "jax") if is_distributed else Rank(1, 2, "RANK"))


def test_a_rank_reads_well() -> None:
    """In messages."""
    assert str(Rank(3, 8, "RANK")) == "rank 3 of 8 (RANK)"
