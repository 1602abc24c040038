"""A power cut at any moment leaves every prefix old, new or absent, and a manifest that names a whole checkpoint (P1, P2).

Two hundred histories, a cut behind every call, and of each moment the images that a weak file system may leave; see
`openckpt.testing.weakdisk` for what is meant by weak. And the other way round: every sync and every order of the protocol is
taken out once, and then some image must be broken - else the barrier is useless, or these tests are blind.

``OPENCKPT_SOAK=N`` (``make soak``) takes N times as many histories.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from fault.histories import PLAIN, History, Save, Tally, drawn_history, is_part, judge
from fault.judging import ABSENT, Judge, read_state
from openckpt.testing import PowerLossFS
from openckpt.testing.record import Change

SOAK = int(os.environ.get("OPENCKPT_SOAK", "1"))
HISTORIES = 200 * SOAK
IMAGES = 50_000
RESTARTS = 40 * SOAK

Report = Callable[[str], None]


def test_no_power_cut_breaks_a_checkpoint(report: Report) -> None:
    """Fresh and repeated saves, one to four shards, overwrites, manifests, failed and killed writers: nothing is ever mixed."""
    tally = Tally(set(), [])
    cuts = reads = 0
    histories: list[History] = [make() for make in PLAIN.values()]
    for number in range(HISTORIES):
        history = histories[number] if number < len(histories) else drawn_history(number)
        reads += judge(history, tally, limit=20, seed=number).reads
        cuts += len(history.fs.changes) + 1
        assert not tally.broken, f"{tally.broken[0]}; drawn_history({number})\n" + "\n".join(history.fs.history)
    report(
        f"power loss: {HISTORIES} histories cut at {cuts} moments, {tally.images} images judged, {len(tally.digests)} of them "
        f"distinct trees ({reads} distinct sets of checkpoint files, each opened by a fresh reader), {len(tally.broken)} broken"
    )
    assert len(tally.digests) >= IMAGES


def test_after_a_power_cut_the_next_save_succeeds_and_sweeps(report: Report) -> None:
    """On any image, over anything, and no temporary name is left; the power may go again meanwhile."""
    restarts = images = 0
    for number in range(RESTARTS):
        history = drawn_history(1_000_000 + number)
        draw = random.Random(number)
        cuts = list(range(len(history.fs.changes) + 1))
        chosen = set(draw.sample(cuts, min(4, len(cuts))))
        for at, (cut, _) in enumerate(history.cuts()):
            if at not in chosen:
                continue
            image = draw.choice(list(cut.images(limit=12, seed=number)))
            fs = PowerLossFS(image, name=f"after-{number}")
            save = Save(
                draw.choice([one for one in history.saves if not is_part(one)]).prefix,
                77,
                groups=draw.choice((1, 2)),
                overwrite=True,
                manifest=True,
            )
            was = read_state(image, save.prefix)
            promised = all(one.durability == "power-loss" for one in history.saves if not is_part(one))
            assert not (promised and was.startswith("broken")), image.replay
            whole = {read_state(image, one.prefix) for one in history.saves if not is_part(one)} - {ABSENT}
            if promised and whole:  # what `openckpt.open(directory)` chooses, by the manifest or by a scan
                assert read_state(image, history.directory) in whole, image.replay
            others = {one.prefix for one in history.saves} - {save.prefix}
            found = {prefix: read_state(image, prefix) for prefix in others}
            save.run(fs)
            assert {prefix: read_state(fs, prefix) for prefix in others} == found, image.replay
            restarts += 1
            assert read_state(fs, save.prefix) == save.state, image.replay
            assert not [stat.path for stat in fs.scan(history.directory) if ".openckpt-" in stat.name], image.replay
            judge_ = Judge(history.directory)
            for again in fs.cuts():
                for second in again.images(limit=6):
                    images += 1
                    state = judge_._state(second, save.prefix, sorted(second.files.items()))
                    assert state in (was, save.state), f"{image.replay}, then {second.replay}"
            assert {read_state(last, save.prefix) for last in fs.images()} == {save.state}, image.replay
    report(f"power loss twice: {restarts} saves on the image of a power cut, {images} images of a second cut, 0 broken")


# ---------------------------------------------------------------------------------------------------------- barriers

ESSENTIAL = (
    "one-shard",
    "four-shards",
    "manifest",
    "overwrite-alone",
    "dead-maker",
    "dead-switcher",
    "merge",
    "merge-over",
)
"""Histories in which every sync is needed. Not "overwrite": where the manifest names the overwritten prefix already, the sync
behind the manifest does for the switch as well."""


def syncs_of(history: History) -> list[Change]:
    """Return every sync, but for that of the directory's own name where an earlier save has done it."""
    changes = history.fs.changes
    done = next((change.number for change in changes if change.name == "note" and "saved" in change.path), 0)
    return [
        change
        for change in changes
        if change.name in ("sync", "sync_path")
        or (
            change.name == "sync_directory"
            and (change.path or change.number < done)
            and not change.path.endswith("_temp")
        )
    ]


def kind_of(change: Change, changes: list[Change]) -> str:
    """Return what a sync is for: the file's final name, or the rename before it."""
    if change.name != "sync_directory":
        named = next(
            c.target
            for c in changes
            if c.path == change.path and c.name in ("rename", "rename_new", "link") and c.number > change.number
        )
        return f"bytes of the {what_is(named)}"
    before = [c for c in changes if c.number < change.number and c.name in ("rename", "rename_new", "make_directory")][
        -1
    ]
    return f"name of the {what_is(before.target) if before.target else 'directory'}"


def what_is(name: str) -> str:
    return "data" if ".data-" in name else "index" if name.endswith(".index") else "manifest"


def broken_without(history: History, changes: list[Change]) -> int:
    tally = Tally(set(), [])
    judge(history, tally, limit=48, changes=changes)
    return len(tally.broken)


def test_every_sync_is_needed_and_its_loss_is_noticed(report: Report) -> None:
    """With all of them nothing breaks; without any one of them something does."""
    kinds: dict[str, list[int]] = {}
    for name in ESSENTIAL:
        history = PLAIN[name]()
        assert broken_without(history, history.fs.changes) == 0
        for sync in syncs_of(history):
            count = broken_without(history, [change for change in history.fs.changes if change is not sync])
            assert count, f"{name}: nothing breaks without {sync}"
            kinds.setdefault(kind_of(sync, history.fs.changes), []).append(count)
    assert set(kinds) == {
        "name of the directory", "bytes of the data", "name of the data", "bytes of the index", "name of the index",
        "bytes of the manifest", "name of the manifest",
    }  # fmt: skip
    for kind, counts in sorted(kinds.items()):
        report(
            f"barrier out - sync for the {kind}: {len(counts)} taken out one by one, {min(counts)} to {max(counts)} images broken"
        )


def first(changes: list[Change], name: str, ending: str, *, number: int = 0) -> int:
    """Return the place of a call whose path, or target where it has one, ends so."""
    return [n for n, c in enumerate(changes) if c.name == name and (c.target or c.path).endswith(ending)][number]


def moved(changes: list[Change], what: int, behind: int) -> list[Change]:
    """Return the record with one call made later."""
    assert what < behind
    found = [*changes[:what], *changes[what + 1 : behind + 1], changes[what], *changes[behind + 1 :]]
    assert sorted(c.number for c in found) == [c.number for c in changes]
    return found


def swaps() -> Iterator[tuple[str, History, Callable[[list[Change]], list[Change]]]]:
    """Yield every order of the protocol turned round: its name, a history, and the change of the record."""
    over, manifest = PLAIN["overwrite-alone"](), PLAIN["manifest"]()

    def later(what: tuple[str, str, int], behind: tuple[str, str, int]) -> Callable[[list[Change]], list[Change]]:
        return lambda changes: moved(
            changes, first(changes, what[0], what[1], number=what[2]), first(changes, behind[0], behind[1], number=behind[2])
        )  # fmt: skip

    switch = ("rename", "x.index", 1)
    yield (
        "the index is named before the bytes of the data are synced",
        over,
        later(("sync", "x.0.openckpt-tmp", 1), switch),
    )
    yield "the index is named before the data", over, later(("rename_new", "3-of-00004", 0), switch)
    yield (
        "the index is named before the names of the data are synced",
        over,
        later(("sync_directory", "run", 2), switch),
    )
    yield "the index is named before it is synced", over, later(("sync", "x.4.openckpt-tmp", 0), switch)
    yield (
        "old data goes before the switch",
        over,
        lambda changes: moved(
            changes, first(changes, "rename", "x.index", number=1), first(changes, "remove", "0-of-00001")
        ),
    )
    yield (
        "old data goes before the switch is synced",
        over,
        later(("sync_directory", "run", 3), ("remove", "0-of-00001", 0)),
    )
    newest = ("rename", "run/checkpoint", 1)
    yield "the manifest is named before the index", manifest, later(("rename", "x-2.index", 0), newest)
    yield (
        "the manifest is named before the name of the index is synced",
        manifest,
        later(("sync_directory", "run", 4), newest),
    )
    yield (
        "the manifest is named before it is synced",
        manifest,
        lambda changes: moved(
            changes,
            max(n for n, c in enumerate(changes) if c.name == "sync"),
            first(changes, "rename", "run/checkpoint", number=1),
        ),
    )
    yield "the save returns before the last sync", manifest, later(("sync_directory", "run", 5), ("note", "saved 2", 0))


def test_every_order_is_needed_and_its_loss_is_noticed(report: Report) -> None:
    """Each pair of neighbours in the protocol the other way round breaks something."""
    for name, history, change in swaps():
        count = broken_without(history, change(history.fs.changes))
        assert count, f"nothing breaks when {name}"
        report(f"barrier out - {name}: {count} images broken")


def test_a_sweep_removes_no_data_that_may_still_be_needed() -> None:
    """A writer dies at any call of an overwrite; the next save in the directory sweeps, and the power goes at any moment."""
    first, second = Save("run/x", 1), Save("run/x", 2, overwrite=True, groups=2)
    for dies_at in range(1, 60):
        history = History(f"dies-at-{dies_at}", [first, replace(second, dies_at=dies_at), Save("run/y", 3)])
        tally = Tally(set(), [])
        judge(history, tally, limit=16)
        assert not tally.broken, tally.broken[0]
        if "died in 2" not in history.expected:
            break
    assert dies_at > 30


def test_without_syncs_a_power_cut_breaks_what_a_kill_does_not(report: Report) -> None:
    """What "process-crash" gives up is what "power-loss" is for."""
    promised = PLAIN["manifest"]()
    history = History("no-syncs", [replace(save, durability="process-crash") for save in promised.saves])
    assert syncs_of(history) == []
    broken = broken_without(promised, [change for change in promised.fs.changes if not change.name.startswith("sync")])
    assert broken
    report(f"all barriers out, as with durability process-crash: {broken} images broken")


def test_an_absent_prefix_is_absent_until_the_index_has_its_name() -> None:
    """Data alone is no checkpoint."""
    history = PLAIN["four-shards"]()
    seen = []
    for cut, _ in history.cuts():
        everything = cut.images(limit=2)  # all lost, and nothing lost
        seen.append([read_state(image, "run/x") for image in everything][-1])
    assert seen == sorted(seen, key=lambda state: state != ABSENT)
    assert seen[-1] == history.saves[0].state
