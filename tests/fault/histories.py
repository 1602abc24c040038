"""Histories of saves: what is saved, in which order, and what may be seen at each moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openckpt
from fault.judging import ABSENT, ANYTHING, Expected, Judge, state_of
from openckpt.formats.spec import TensorSpec
from openckpt.storage.writable import Durability, WritableStore
from openckpt.testing import CallFS, Cut, FaultyFS, PowerLossFS
from openckpt.testing.record import Change
from openckpt.writing import ByGroup


@dataclass(frozen=True)
class Save:
    """One save of a history.

    Attributes:
        prefix: where.
        seed: of the values.
        groups: data files.
        blocks: about how many blocks of 4 KiB each data file has.
        dies_at: number of the call at which the process dies, 0 for none.
        fails_at: number of the call that fails once, 0 for none.
        parts: what several writers have saved; then this is their merge.
    """

    prefix: str
    seed: int
    groups: int = 1
    blocks: int = 1
    overwrite: bool = False
    manifest: bool = False
    layout: str = "dual"
    durability: Durability = "power-loss"
    dies_at: int = 0
    fails_at: int = 0
    parts: tuple[Save, ...] = ()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the values: a large one and a small one for each data file."""
        if self.parts:
            return {key: value for part in self.parts for key, value in part.tensors().items()}
        draw = np.random.default_rng(self.seed)
        found: dict[str, NDArray[Any]] = {}
        for group in range(self.groups):
            group = self.seed * 10 + group
            found[f"{group}/large"] = draw.integers(0, 256, max(1, 4096 * self.blocks - 1500), dtype=np.uint8)
            found[f"{group}/small"] = draw.standard_normal(3)
        return found

    @property
    def state(self) -> str:
        """What a reader finds when it is done."""
        return state_of(self.tensors(), dual=self.layout == "dual")

    def run(self, store: WritableStore) -> openckpt.SavedPath:
        """Save, or merge the parts."""
        if self.parts:
            return openckpt.merge_parts(
                self.prefix,
                overwrite=self.overwrite,
                durability=self.durability,
                update_manifest=self.manifest,
                store=store,
            )
        return openckpt.save(
            self.prefix, self.tensors(), layout=self.layout, overwrite=self.overwrite, durability=self.durability,  # type: ignore[arg-type]
            update_manifest=self.manifest, store=store, sharding=ByGroup(group_of) if self.groups > 1 else None,
        )  # fmt: skip


def merge_of(prefix: str, seed: int, count: int, **options: Any) -> list[Save]:
    """Return the saves of some writers, a part each, and the merge of them."""
    parts = tuple(
        Save(
            openckpt.part_prefix(prefix, part, count),
            seed * 10 + part,
            groups=1 + part % 2,
            blocks=2,
            overwrite=True,
            # The merge is what must be durable, and syncs what it takes over; but not a chain of new directories.
            durability="power-loss" if prefix.count("/") > 1 else "process-crash",
        )
        for part in range(count)
    )
    return [*parts, Save(prefix, seed, parts=parts, **options)]


def is_part(save: Save) -> bool:
    return "_temp/part-" in save.prefix


def group_of(key: str, spec: TensorSpec) -> str:
    return key.partition("/")[0]


class History:
    """Some saves into one directory of a `PowerLossFS`, and what may be seen when."""

    def __init__(self, name: str, saves: Iterable[Save], fs: PowerLossFS | None = None) -> None:
        self.name = name
        self.saves = list(saves)
        self.directory = self.saves[-1].prefix.rpartition("/")[0]
        self.fs = fs or PowerLossFS(name=name)
        self.expected: dict[str, Expected] = {
            "": Expected({save.prefix: {ABSENT} for save in self.saves if not is_part(save)})
        }
        for number, save in enumerate(self.saves, 1):
            self._run(f"{number}", save)

    def _run(self, number: str, save: Save) -> None:
        before = list(self.expected.values())[-1]
        if is_part(save):  # nobody reads it but the merge
            self._note(f"begin {number}", before)
            save.run(self.fs)
            self._note(f"saved {number}", before)
            return
        new = save.state
        during, after = before.copy(), before.copy()
        during.states[save.prefix].add(new)
        after.states[save.prefix] = {new}
        if save.manifest:
            during.latest.add(save.prefix)
            after.latest = {save.prefix}
        if save.durability != "power-loss":
            during.states[save.prefix].add(ANYTHING)
            if save.manifest:
                during.latest.add(ANYTHING)
        self._note(f"begin {number}", during)
        if save.dies_at:
            try:
                save.run(FaultyFS(self.fs, fail_at=save.dies_at, forever=True))
            except OSError:
                self.fs.kill_writers()
                # Nobody has promised anything: old or new, until somebody saves it again.
                self._note(f"died in {number}", during)
                return
        elif save.fails_at:
            try:
                save.run(FaultyFS(self.fs, fail_at=save.fails_at))
            except OSError:
                self._note(f"failed {number}", before)
                return
        else:
            save.run(self.fs)
        self._note(f"saved {number}", after if save.durability == "power-loss" else during)

    def _note(self, text: str, expected: Expected) -> None:
        self.expected[text] = expected
        self.fs.note(text)

    def cuts(self, changes: Iterable[Change] | None = None) -> Iterator[tuple[Cut, Expected]]:
        """Yield every moment with what may be seen then."""
        for cut in self.fs.cuts(changes):
            yield cut, self.expected[cut.notes[-1] if cut.notes else ""]


@dataclass
class Tally:
    """What came out of judging.

    Attributes:
        digests: of the images.
        broken: replay line and verdict of those that were broken.
        images: how many were judged.
    """

    digests: set[bytes]
    broken: list[str]
    images: int = 0


def judge(
    history: History, tally: Tally, *, limit: int | None, seed: int = 0, changes: Iterable[Change] | None = None
) -> Judge:
    """Judge every image of every cut."""
    fresh = Judge(history.directory)
    for cut, expected in history.cuts(changes):
        for image in cut.images(limit, seed):
            tally.images += 1
            tally.digests.add(image.digest)
            verdict = fresh.verdict(image, expected)
            if verdict:
                tally.broken.append(f"{image.replay}: {verdict}")
    return fresh


def drawn_history(seed: int) -> History:
    """Return a history drawn from everything that a training program and its crashes do."""
    draw = random.Random(f"history {seed}")
    directory = draw.choice(("run", "run", "deep/run", ""))
    saves: list[Save] = []
    for number in range(draw.choice((1, 2, 2, 3, 3, 4))):
        again = bool(saves) and draw.random() < 0.4
        prefix = (
            draw.choice([s for s in saves if not is_part(s)]).prefix
            if again
            else f"{directory}/ckpt-{number}".lstrip("/")
        )
        save = Save(
            prefix,
            seed * 100 + number,
            groups=draw.choice((1, 1, 1, 2, 4)),
            blocks=draw.choice((1, 1, 2, 3, 6)),
            overwrite=again,
            manifest=draw.random() < 0.6,
            layout=draw.choice(("dual", "tensorflow")),
        )
        if draw.random() < 0.15:
            *parts, save = merge_of(prefix, save.seed, draw.choice((1, 2, 3)), overwrite=again, manifest=save.manifest)
            saves += parts
        if draw.random() < 0.08 and directory.count("/") < 1:  # it would leave a chain of new directories unsynced
            save = replace(save, durability="process-crash")
        what = draw.random()
        if what < 0.15:
            saves.append(replace(save, dies_at=draw.randrange(3, 40)))
        elif what < 0.25:
            saves.append(replace(save, fails_at=draw.randrange(3, 40)))
        if what < 0.25 and save.parts:
            saves += save.parts  # the merge that failed may have come far
        if what < 0.25 and not again:
            save = replace(save, overwrite=True)  # the save that failed may have come far
        saves.append(save)
    return History(f"drawn-{seed}", saves)


def dead_switcher() -> History:
    """Return a history in which a writer dies between the rename of its index and the sync of it, and another one sweeps."""
    first, second = Save("run/x", 15), Save("run/x", 16, overwrite=True, groups=2)
    fs = PowerLossFS()
    first.run(fs)
    counting = CallFS(fs)
    second.run(counting)
    switch = next(call.number for call in counting.calls if call.name == "rename" and call.detail == "-> run/x.index")
    return History("dead-switcher", [first, replace(second, dies_at=switch + 1), Save("run/y", 17)])


Make = Callable[[], History]

PLAIN: dict[str, Make] = {
    "one-shard": lambda: History("one-shard", [Save("run/x", 1, blocks=3)]),
    "four-shards": lambda: History("four-shards", [Save("run/x", 2, groups=4, blocks=2)]),
    "manifest": lambda: History(
        "manifest", [Save("run/x-1", 3, manifest=True), Save("run/x-2", 4, manifest=True, blocks=2)]
    ),
    "overwrite": lambda: History(
        "overwrite",
        [
            Save("run/x", 5, manifest=True),
            Save("run/x", 6, overwrite=True, manifest=True),
            Save("run/x", 7, overwrite=True, manifest=True),
        ],
    ),
    "dead-switcher": dead_switcher,
    "merge": lambda: History("merge", merge_of("run/x", 12, 2, manifest=True)),
    "merge-over": lambda: History("merge-over", [Save("run/x", 13), *merge_of("run/x", 14, 3, overwrite=True)]),
    "dead-maker": lambda: History(
        "dead-maker",
        [Save("run/x", 10, dies_at=3), Save("run/x", 11)],  # behind mkdir, before the sync of its name
    ),
    "overwrite-alone": lambda: History(
        "overwrite-alone", [Save("run/x", 8), Save("run/x", 9, overwrite=True, groups=4)]
    ),
}
