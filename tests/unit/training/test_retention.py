"""Which steps stay: decided on plain values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from openckpt.training.retention import Plan, Retention, SavedStep, best_steps, plan_retention

HOUR = 3600.0


def steps(*times: float, **metrics: list[float]) -> list[SavedStep]:
    return [
        SavedStep(
            f"run/ckpt-{n}",
            n,
            at,
            {name: values[n - 1] for name, values in metrics.items() if len(values) >= n},
            10 * n,
        )
        for n, at in enumerate(times, 1)
    ]


def plan(found: list[SavedStep], last: float = 0.0, pinned: set[str] | None = None, **rules: Any) -> Plan:
    return plan_retention(found, Retention(**{"max_to_keep": 2, **rules}), last, pinned or set())


def numbers(found: Any) -> list[int]:
    return [step.step for step in found]


@pytest.mark.parametrize(
    ("keep", "listed", "deleted"), [(1, [4], [1, 2, 3]), (2, [3, 4], [1, 2]), (4, [1, 2, 3, 4], []), (9, [1, 2, 3, 4], []), (None, [1, 2, 3, 4], [])]
)  # fmt: skip
def test_the_newest_stay(keep: int | None, listed: list[int], deleted: list[int]) -> None:
    """As many as asked for; None keeps all."""
    found = plan(steps(1, 2, 3, 4), max_to_keep=keep)
    assert (numbers(found.listed), numbers(found.deleted), found.preserved) == (listed, deleted, ())


def test_hours_count_from_the_last_preserved_step() -> None:
    """A step that is exactly that late is preserved, leaves the list, and the next hours count from it."""
    found = plan(steps(HOUR, 1.5 * HOUR, 2 * HOUR, 3 * HOUR, 9 * HOUR), last=0.0, max_to_keep=1, every_n_hours=1.0)
    assert (numbers(found.preserved), numbers(found.deleted), found.last_preserved) == ([1, 3, 4], [2], 3 * HOUR)


def test_without_hours_the_last_preserved_time_stays() -> None:
    """It belongs to the manifest, whatever the rules are now."""
    assert plan(steps(1, 2, 3), last=0.5).last_preserved == 0.5


def test_round_steps_are_preserved() -> None:
    """Multiples leave the list for good, one without a number never does."""
    found = plan([SavedStep("run/x", None, 1.0), *steps(1, 2, 3, 4, 5, 6)], every_n_steps=2, max_to_keep=1)
    assert (numbers(found.preserved), numbers(found.deleted)) == ([2, 4], [None, 1, 3, 5])


def test_pinned_steps_are_preserved() -> None:
    """Once they are behind the newest."""
    found = plan(steps(1, 2, 3, 4), pinned={"run/ckpt-1", "run/ckpt-4"})
    assert (numbers(found.preserved), numbers(found.deleted), numbers(found.listed)) == ([1], [2], [3, 4])


@pytest.mark.parametrize(("mode", "best"), [("min", [2, 5]), ("max", [3, 1])])
def test_the_best_stay_in_the_list(mode: str, best: list[int]) -> None:
    """Beside the newest, in the order of the list; they may go when better ones come."""
    found = steps(1, 2, 3, 4, 5, 6, loss=[0.5, 0.1, 0.9, math.nan, 0.2])
    assert numbers(best_steps(found, Retention(2, best="loss", mode=mode, keep_best=2))) == best  # type: ignore[arg-type]
    held = plan(found, best="loss", mode=mode, keep_best=2)
    assert numbers(held.listed) == sorted({*best, 5, 6})
    assert held.preserved == ()


def test_of_equally_good_steps_the_newer_is_better() -> None:
    """And infinity is a value like others."""
    found = steps(1, 2, 3, 4, loss=[0.5, 0.5, math.inf])
    assert numbers(best_steps(found, Retention(1, best="loss", keep_best=9))) == [2, 1, 3]


def test_a_policy_sees_all_steps_and_its_paths_stay() -> None:
    """A budget of bytes as a function over plain values; paths that are not in the list say nothing."""

    def newest_within_120_bytes(found: Any) -> list[str]:
        kept, total = ["run/ckpt-77"], 0
        for step in reversed(found):
            total += step.nbytes
            if total <= 120:
                kept.append(step.path)
        return kept

    found = plan(steps(1, 2, 3, 4, 5), policy=newest_within_120_bytes, max_to_keep=1)  # 10, 20, 30, 40, 50 bytes
    assert (numbers(found.listed), numbers(found.deleted)) == ([3, 4, 5], [1, 2])


def test_the_step_that_was_just_saved_always_stays() -> None:
    """Whatever the times, the metrics and the policy say (P9)."""
    found = plan(steps(9, 8, -1, loss=[0.0, 0.0, 9.0]), max_to_keep=1, best="loss", policy=lambda _: [])
    assert numbers(found.listed)[-1] == 3


@pytest.mark.parametrize("rules", [{"max_to_keep": 0}, {"every_n_steps": 0}, {"keep_best": -1}, {"mode": "least"}])
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    """With the name of the argument."""
    with pytest.raises(ValueError, match=next(iter(rules))):
        Retention(**{"max_to_keep": 1, **rules})


def test_what_cannot_be_restored_takes_nobodys_place() -> None:
    """It stays until as many whole ones as asked for are newer, is no best and is not preserved; pinned it stays for good."""
    found = steps(HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR, loss=[1.0, 2.0, 3.0, 4.0, 5.0])
    bad = {found[0].path, found[3].path}
    assert numbers(plan_retention(found[:4], Retention(2), 0.0, (), bad).listed) == [1, 2, 3, 4]
    rules = Retention(2, every_n_hours=3.0, best="loss")
    kept = plan_retention(found, rules, 0.0, (), bad)
    assert (numbers(kept.listed), numbers(kept.deleted), kept.preserved) == ([2, 3, 4, 5], [1], ())
    assert numbers(plan_retention(found, rules, 0.0, bad, bad).preserved) == [1]
