"""Caps against hostile input: what a refusal says."""

from __future__ import annotations

import pytest

import openckpt
from openckpt.limits import Limits


@pytest.mark.parametrize(("cap", "value", "raised"), [(10, 11, 20), (10, 64, 64), (1, 2, 2)])
def test_the_limit_that_a_refusal_proposes_is_enough_soon(cap: int, value: int, raised: int) -> None:
    """What is counted on the way is one above the cap when it stops; following the advice must not take a million runs."""
    with pytest.raises(openckpt.LimitError) as caught:
        Limits(shards=cap).check("shards", value, "p", "the number of shards")
    assert caught.value.message == f"the number of shards is {value}, above the limit shards={cap}"
    assert (caught.value.fix or "").endswith(f"--limit shards={raised}")
    Limits(shards=raised).check("shards", value, "p", "the number of shards")
