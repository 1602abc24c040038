"""Caps against hostile input: what a refusal says."""

from __future__ import annotations

import pytest

import openckpt
from openckpt.limits import FREE_BYTES, Limits, growth_of


@pytest.mark.parametrize(("cap", "value", "raised"), [(10, 11, 20), (10, 64, 64), (1, 2, 2)])
def test_the_limit_that_a_refusal_proposes_is_enough_soon(cap: int, value: int, raised: int) -> None:
    """What is counted on the way is one above the cap when it stops; following the advice must not take a million runs."""
    with pytest.raises(openckpt.LimitError) as caught:
        Limits(shards=cap).check("shards", value, "p", "the number of shards")
    assert caught.value.message == f"the number of shards is {value}, above the limit shards={cap}"
    assert (caught.value.fix or "").endswith(f"--limit shards={raised}")
    Limits(shards=raised).check("shards", value, "p", "the number of shards")


@pytest.mark.parametrize(
    ("size", "stored", "growth"),
    [(0, 0, 0), (FREE_BYTES, 0, 0), (FREE_BYTES + 1, 0, 1), (FREE_BYTES + 1000, 10, 100), (FREE_BYTES + 1001, 10, 101)],
)
def test_growth_counts_what_is_beyond_the_free_bytes(size: int, stored: int, growth: int) -> None:
    """64 MiB may come out of anything; from there on every begun multiple of the stored bytes counts."""
    assert growth_of(size, stored) == growth
