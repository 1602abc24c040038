"""What large tensors go through - pieces, a thread that writes behind, syncs begun early - under the same faults.

The sizes from which a tensor is large are made small here, so that a few blocks are a large tensor.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fault.histories import History, Save, Tally, judge
from fault.test_failing_calls import Scene, after, check_named, check_next_save, run, states
from openckpt.storage import pending
from openckpt.testing import PowerLossFS
from openckpt.writing import behind, data, filling

OLD = Save("run/a", 1, blocks=9, manifest=True)
NEW = replace(OLD, seed=2, groups=3, overwrite=True)


@pytest.fixture(autouse=True)
def _small_is_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK", 4096)
        patch.setattr(data, "_BATCH_BYTES", 8192)
        patch.setattr(data, "_RESERVED", 4096)
        patch.setattr(filling, "_RUN_BYTES", 8192)
        patch.setattr(behind, "_MOST_BYTES", 20_000)
        patch.setattr(pending, "_START_BYTES", 4096)
        yield


def test_the_pieces_are_many() -> None:
    """Or these tests would be those of small tensors."""
    fs = PowerLossFS()
    OLD.run(fs)
    assert len([change for change in fs.changes if change.name == "write" and ".data" not in change.path]) > 9


@pytest.mark.parametrize("layout", ["dual", "tensorflow"])
def test_no_power_cut_breaks_a_large_checkpoint(layout: str, report: Callable[[str], None]) -> None:
    """Fresh, then over it with three data files."""
    tally = Tally(set(), [])
    saves = [replace(OLD, layout=layout), replace(NEW, layout=layout)]
    judge(History(f"large-{layout}", saves), tally, limit=120)
    assert not tally.broken, tally.broken[0]
    report(
        f"power loss, large tensors, {layout}: {tally.images} images judged, {len(tally.digests)} distinct, 0 broken"
    )


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for-ever"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=lambda number: errno.errorcode[number])
def test_a_call_that_fails_on_the_thread_behind_fails_the_save(error: int, forever: bool) -> None:
    """As if it had failed in the caller's own."""
    scene = Scene(NEW, (OLD,)).made()
    before = states(PowerLossFS(scene.files), scene)
    wanted = after(scene, before)
    calls = len(run(scene, fail_at=10_000)[0].calls)
    assert calls > 80
    for at in range(1, calls + 1):
        fs, raised, disk = run(scene, fail_at=at, error=error, forever=forever)
        if not fs.fired:
            continue
        found = states(disk, scene)
        if raised is None:
            assert found == wanted, fs.replay
        else:
            assert isinstance(raised, OSError) and raised.errno == error, (fs.replay, raised)
            check_named(raised, fs)
            if forever:
                assert all(state in (before[what], wanted[what]) for what, state in found.items()), fs.replay
            else:
                assert found == before, fs.replay
        check_next_save(scene, disk, fs.replay)


@pytest.mark.parametrize("torn", [False, True], ids=["short", "torn"])
def test_short_and_torn_writes_of_large_tensors(torn: bool) -> None:
    """The rest is written; or nothing is seen."""
    scene = Scene(NEW, (OLD,)).made()
    before = states(PowerLossFS(scene.files), scene)
    plain = run(scene, fail_at=10_000)[0]
    for call in [call for call in plain.calls if call.name == "write"]:
        fs, raised, disk = run(scene, fail_at=call.number, short=not torn, torn=torn, seed=call.number)
        if fs.fired:
            assert (raised is not None) == torn, fs.replay
            assert states(disk, scene) == (before if torn else after(scene, before)), fs.replay
