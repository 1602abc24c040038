"""Any call may fail, once or for ever: the error names it, nothing new is visible, nothing old is harmed, the next save works (P3)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from fault.histories import Save, is_part, merge_of
from fault.judging import ABSENT, read_latest, read_state
from openckpt.errors import CheckpointError
from openckpt.storage.writable import WritableStore
from openckpt.testing import CallFS, FaultyFS, OrderFS, PowerLossFS

Report = Callable[[str], None]

ERRNOS = (
    errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EINTR, errno.ENOTSUP,
)  # fmt: skip
MOST_CALLS = 200


@dataclass(frozen=True)
class Scene:
    """A directory, and the save into it of which a call fails.

    Attributes:
        before: saves that are there.
        save: the save.
    """

    save: Save
    before: tuple[Save, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict, compare=False)

    def made(self) -> Scene:
        fs = PowerLossFS()
        for save in self.before:
            save.run(fs)
        (image,) = fs.images(limit=1) if not self.before else [list(fs.images(limit=2))[-1]]
        return replace(self, files=dict(image.files))

    @property
    def stems(self) -> set[str]:
        return {save.prefix for save in (*self.before, self.save) if not is_part(save)}


A, B = Save("run/a", 1, manifest=True), Save("run/b", 2, manifest=True)

*PARTS, MERGE = merge_of("run/b", 5, 2, manifest=True)

SCENES = {
    "fresh": Scene(Save("new/run/a", 1)).made(),
    "four-shards": Scene(Save("run/b", 2, groups=4), (A,)).made(),
    "manifest": Scene(B, (A,)).made(),
    "overwrite": Scene(replace(B, seed=3, overwrite=True, manifest=False), (A, B)).made(),
    "overwrite-manifest": Scene(replace(A, seed=4, groups=2, overwrite=True, layout="tensorflow"), (A, B)).made(),
    "merge": Scene(MERGE, (A, *PARTS)).made(),
    "merge-over": Scene(replace(MERGE, overwrite=True), (B, A, *PARTS)).made(),
}


def states(store: WritableStore, scene: Scene) -> dict[str, str]:
    """Return what a fresh reader finds: each prefix, and what the manifest names."""
    directory = scene.save.prefix.rpartition("/")[0]
    return {**{stem: read_state(store, stem) for stem in scene.stems}, "latest": read_latest(store, directory)}


def after(scene: Scene, before: dict[str, str]) -> dict[str, str]:
    save = scene.save
    return {**before, save.prefix: save.state, "latest": save.prefix if save.manifest else before["latest"]}


def names(store: WritableStore, directory: str) -> list[str]:
    return sorted(stat.name for stat in store.scan(directory))


def check_named(error: OSError, fs: FaultyFS) -> None:
    """The error says which call failed, on what, and with which number."""
    paths = {path for call in fs.fired for path in (call.path or ".", call.detail.removeprefix("-> "))}
    said = [note for note in getattr(error, "__notes__", ()) if note.startswith("the call that failed: ")]
    assert error.filename in {*paths, *(call.path for call in fs.fired)}, (fs.fired, error)
    assert said and any(said[0].endswith(f" of {path}") for path in paths), (fs.fired, error, said)


def run(scene: Scene, **fault: object) -> tuple[FaultyFS, BaseException | None, WritableStore]:
    disk = OrderFS(PowerLossFS(scene.files))
    fs = FaultyFS(disk, **fault)  # type: ignore[arg-type]
    raised: BaseException | None = None
    try:
        scene.save.run(fs)
    except (OSError, CheckpointError) as error:
        raised = error
    disk.check()
    return fs, raised, disk.store


def check_next_save(scene: Scene, disk: WritableStore, replay: str) -> None:
    """The same save succeeds, and nothing of the one that failed is left."""
    save = replace(scene.save, overwrite=True)
    for part in save.parts:
        part.run(disk)
    save.run(disk)
    assert read_state(disk, save.prefix) == save.state, replay
    directory, _, stem = save.prefix.rpartition("/")
    found = names(disk, directory)
    assert not [name for name in found if ".openckpt-" in name], replay
    counts = {name.rpartition("-of-")[2] for name in found if name.startswith(f"{stem}.data-")}
    assert len(counts) == 1, (replay, found)


def count_calls_of(scene: Scene) -> int:
    fs, raised, _ = run(scene, fail_at=MOST_CALLS)
    assert raised is None
    assert len(fs.calls) < MOST_CALLS
    return len(fs.calls)


@pytest.mark.parametrize("name", SCENES)
def test_a_call_that_fails_once_leaves_everything_as_it_was(name: str, report: Report) -> None:
    """Whichever call it is; only what tidies up behind the commit may fail unheard, and then the save is whole."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    calls, failed, unheard = count_calls_of(scene), 0, 0
    for at in range(1, calls + 1):
        for error in ERRNOS:
            fs, raised, disk = run(scene, fail_at=at, error=error)
            if not fs.fired:
                continue  # threads: this run had a call less
            found = states(disk, scene)
            if raised is None:
                unheard += 1
                assert found == after(scene, before), fs.replay
            else:
                failed += 1
                assert found == before, fs.replay
                assert isinstance(raised, OSError) and raised.errno == error, (fs.replay, raised)
                check_named(raised, fs)
            check_next_save(scene, disk, fs.replay)
    report(f"a call fails once, {name}: {calls} calls x {len(ERRNOS)} errors, {failed} saves failed and left no trace, "
           f"{unheard} were whole all the same")  # fmt: skip
    assert failed > 2 * unheard


@pytest.mark.parametrize("name", SCENES)
def test_a_disk_that_goes_away_leaves_old_or_new(name: str, report: Report) -> None:
    """From the n-th call on everything fails, the tidying up too: old, or new and whole and said so; the next save sweeps."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    wanted = after(scene, before)
    calls, old, new = count_calls_of(scene), 0, 0
    for at in range(1, calls + 1):
        for error in ERRNOS:
            fs, raised, disk = run(scene, fail_at=at, error=error, forever=True)
            if not fs.fired:
                continue
            found = states(disk, scene)
            old, new = old + (found == before), new + (found != before)
            if raised is None:
                assert found == wanted, fs.replay
            else:
                assert isinstance(raised, OSError) and raised.errno == error, (fs.replay, raised)
                check_named(raised, fs)
                for what, state in found.items():
                    assert state in (before[what], wanted[what]), fs.replay
                if found != before:
                    notes = " ".join(raised.__notes__)
                    assert "could not be undone completely" in notes and scene.save.prefix in notes, fs.replay
            check_next_save(scene, disk, fs.replay)
    report(
        f"the disk goes away, {name}: {calls} calls x {len(ERRNOS)} errors, {old} left the old, {new} the new, 0 a mixture"
    )
    assert old and new


@pytest.mark.parametrize("name", SCENES)
def test_a_call_that_fails_and_took_effect_leaves_everything_as_it_was(name: str, report: Report) -> None:
    """A network file system may lose the answer and not the call: a rename that failed may have happened."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    calls, failed = count_calls_of(scene), 0
    for at in range(1, calls + 1):
        fs, raised, disk = run(scene, fail_at=at, late=True)
        if not fs.fired:
            continue
        assert isinstance(disk, PowerLossFS)
        disk.kill_writers()  # a lock of which nobody got the handle
        assert states(disk, scene) == (after(scene, before) if raised is None else before), fs.replay
        failed += raised is not None
        check_next_save(scene, disk, fs.replay)
    report(f"a call fails and took effect, {name}: {calls} calls, {failed} saves failed and left no trace")


class NoLinks(CallFS):
    """A file system without hard links, as FAT and some network mounts are."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", target)


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.save.overwrite])
def test_without_hard_links_the_old_comes_back_too(name: str) -> None:
    """What is kept for the way back is then a copy, and as safe as what it is a copy of."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    for at in range(1, count_calls_of(scene) + 8):
        disk = OrderFS(PowerLossFS(scene.files))
        fs = FaultyFS(NoLinks(disk), fail_at=at)
        try:
            scene.save.run(fs)
        except OSError:
            assert states(disk.store, scene) == before, fs.replay
        else:
            assert states(disk.store, scene) == after(scene, before), fs.replay
        disk.check()
        assert isinstance(disk.store, PowerLossFS)
        for image in disk.store.images(limit=30):
            assert read_state(image, scene.save.prefix) in (before[scene.save.prefix], scene.save.state), fs.replay
        check_next_save(scene, disk.store, fs.replay)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("forever", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("name", SCENES)
def test_short_writes_are_finished(name: str, forever: bool, seed: int) -> None:
    """A system that takes fewer bytes than it was given is given the rest: the files are the same to the byte."""
    scene = SCENES[name]
    plain, _, plain_disk = run(scene, fail_at=MOST_CALLS)
    directory = scene.save.prefix.rpartition("/")[0]
    meant = {
        stat.name: plain_disk.open(stat.path).read_at(0, stat.size)
        for stat in plain_disk.scan(directory) if stat.name != "checkpoint"  # it has the time in it
    }  # fmt: skip
    shortened = 0
    for at in [call.number for call in plain.calls if call.name == "write"][: 1 if forever else None]:
        fs, raised, disk = run(scene, fail_at=at, short=True, forever=forever, seed=seed)
        assert raised is None, fs.replay
        shortened += len(fs.fired)
        found = {name: disk.open(f"{directory}/{name}").read_at(0, len(data)) for name, data in meant.items()}
        assert found == meant, fs.replay
        assert names(disk, directory) == names(plain_disk, directory), fs.replay
    assert shortened >= 3


@pytest.mark.parametrize("name", SCENES)
def test_a_torn_write_shows_nothing(name: str) -> None:
    """Half of the bytes and an error: as if the save had never been tried."""
    scene = SCENES[name]
    before = states(PowerLossFS(scene.files), scene)
    plain, _, _ = run(scene, fail_at=MOST_CALLS)
    for at in [call.number for call in plain.calls if call.name == "write"]:
        for seed in range(4):
            fs, raised, disk = run(scene, fail_at=at, error=errno.ENOSPC, torn=True, seed=seed)
            if not fs.fired:
                continue
            assert isinstance(raised, OSError) and raised.errno == errno.ENOSPC, fs.replay
            assert states(disk, scene) == before, fs.replay
            check_named(raised, fs)
            check_next_save(scene, disk, fs.replay)


def test_the_scenes_are_what_they_say() -> None:
    """Old checkpoints are whole, what will be saved anew is absent."""
    for name, scene in SCENES.items():
        found = states(PowerLossFS(scene.files), scene)
        old = {save.prefix: save.state for save in scene.before if not is_part(save)}
        newest = [save.prefix for save in scene.before if save.manifest]
        assert found == {scene.save.prefix: ABSENT, **old, "latest": newest[-1] if newest else ABSENT}, name
