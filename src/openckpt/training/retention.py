"""Which steps a run keeps: decided on plain values, before anything is touched.

    newest first    the newest `max_to_keep` stay; only what is behind them is looked at, oldest first
    preserved       `every_n_hours` since the last preserved one, a multiple of `every_n_steps`, pinned: leave the list, for good
    held            the best by a metric, what the policy names: stay in the list, and may go later
    deleted         the rest

With no more than `max_to_keep` and `every_n_hours` this is TensorFlow's rule to the letter (formats 7.1).
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class SavedStep:
    """One checkpoint of a run, as retention sees it.

    Attributes:
        path: its prefix.
        step: the training step, where the manager has a step counter; else the number in its name; None where it has none.
        time: when it was saved, seconds since 1970 by the clock of that program.
        metrics: what was said of it when it was saved.
        nbytes: bytes of its files; 0 where they were not counted.
    """

    path: str
    step: int | None
    time: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    nbytes: int = 0


Policy: TypeAlias = Callable[[Sequence[SavedStep]], Iterable[str | os.PathLike[str] | SavedStep]]
"""From all steps in the list, oldest first, to those that stay beside what the other rules keep: the steps or their paths."""


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules of one manager.

    Attributes:
        max_to_keep: how many of the newest stay; None keeps everything.
        every_n_hours: a step that is about to go is preserved when it is that much later than the last preserved one.
        every_n_steps: steps that are multiples of it are preserved.
        best: the metric by which the best are held.
        mode: whether a low or a high value is good.
        keep_best: how many of the best.
        policy: a rule of the caller's.
    """

    max_to_keep: int | None
    every_n_hours: float | None = None
    every_n_steps: int | None = None
    best: str | None = None
    mode: Mode = "min"
    keep_best: int = 1
    policy: Policy | None = None

    def __post_init__(self) -> None:
        for name in ("max_to_keep", "every_n_steps", "keep_best"):
            value = getattr(self, name)
            if value is not None and operator.index(value) <= 0:
                raise ValueError(f"{name} is a positive number or None, not {value}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', not {self.mode!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of the steps in the list.

    Attributes:
        listed: stay in the list, oldest first.
        preserved: stay on the disk and leave the list, so that no manager ever looks at them again.
        deleted: go, oldest first.
        last_preserved: time of the last one that `every_n_hours` preserved.
    """

    listed: tuple[SavedStep, ...]
    preserved: tuple[SavedStep, ...]
    deleted: tuple[SavedStep, ...]
    last_preserved: float


def plan_retention(
    steps: Sequence[SavedStep],
    rules: Retention,
    last_preserved: float,
    pinned: Collection[str] = (),
    damaged: Collection[str] = (),
) -> Plan:
    """Return what is to become of the steps; the last one, which has just been saved, always stays.

    Args:
        steps: those in the list, oldest first.
        rules: what to keep.
        last_preserved: see `Plan`.
        pinned: paths that are never deleted.
        damaged: paths that cannot be restored: none counts among the newest or the best, and goes with those that are older.

    Raises:
        Exception: as the caller's policy, with a note; TypeError where it names anything but steps and paths.
    """
    whole = [step for step in steps if step.path not in damaged]
    if rules.max_to_keep is None or len(whole) <= rules.max_to_keep:
        return Plan(tuple(steps), (), (), last_preserved)
    held = {step.path for step in best_steps(whole, rules)}
    if rules.policy is not None:
        held.update(_named_by(rules.policy, whole))
    listed: list[SavedStep] = []
    preserved: list[SavedStep] = []
    deleted: list[SavedStep] = []
    newest = steps.index(whole[-rules.max_to_keep])
    for step in steps[:newest]:
        if step.path in damaged and step.path not in pinned:
            deleted.append(step)
        elif rules.every_n_hours and step.time - rules.every_n_hours * 3600.0 >= last_preserved:
            last_preserved = step.time
            preserved.append(step)
        elif step.path in pinned or _is_round(step, rules.every_n_steps):
            preserved.append(step)
        elif step.path in held:
            listed.append(step)
        else:
            deleted.append(step)
    return Plan((*listed, *steps[newest:]), tuple(preserved), tuple(deleted), last_preserved)


def _named_by(policy: Policy, steps: Sequence[SavedStep]) -> list[str]:
    try:
        named = policy(tuple(steps))
        if isinstance(named, (str, bytes)):
            raise TypeError(f"the policy returned {named!r}, which is one text: it returns steps or paths")
        return [step.path if isinstance(step, SavedStep) else os.fsdecode(step) for step in named]
    except Exception as error:
        error.add_note("the manager's policy was asked which steps stay; none was removed")
        raise


def best_steps(steps: Sequence[SavedStep], rules: Retention) -> list[SavedStep]:
    """Return the best by the rules' metric, the best first; of equal ones the newer. A step without the metric is never good."""
    name = rules.best
    if name is None:
        return []
    sign = 1.0 if rules.mode == "min" else -1.0
    ranked = [(sign * step.metrics[name], -number, step) for number, step in enumerate(steps) if name in step.metrics]
    ranked = [entry for entry in ranked if not math.isnan(entry[0])]
    return [step for _, _, step in sorted(ranked, key=lambda entry: entry[:2])[: rules.keep_best]]


def _is_round(step: SavedStep, every: int | None) -> bool:
    return every is not None and step.step is not None and step.step % every == 0
