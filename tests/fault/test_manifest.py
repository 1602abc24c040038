"""`update_checkpoint_state` is one file with a moment of its own: the old manifest or the new one, whatever happens."""

from __future__ import annotations

import errno
from contextlib import suppress

from fault.judging import read_latest
from openckpt.storage.writable import WritableStore
from openckpt.testing import FaultyFS, OrderFS, PowerLossFS
from openckpt.writing import update_checkpoint_state

OLD = b'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\n'


def update(store: WritableStore) -> None:
    update_checkpoint_state("run", "run/b", ["run/a"], save_relative_paths=True, store=store)


def test_a_power_cut_leaves_the_old_or_the_new_manifest() -> None:
    """And the new one once it has returned."""
    fs = PowerLossFS({"run/checkpoint": OLD})
    update(fs)
    fs.note("saved")
    seen: dict[bool, set[str]] = {False: set(), True: set()}
    for cut in fs.cuts():
        for image in cut.images():
            seen["saved" in cut.notes].add(read_latest(image, "run"))
    assert seen == {False: {"run/a", "run/b"}, True: {"run/b"}}


def test_every_sync_of_it_is_needed() -> None:
    """Without one some image names nothing that can be read, or the old one after the end."""
    fs = PowerLossFS({"run/checkpoint": OLD})
    update(fs)
    fs.note("saved")
    for sync in [c for c in fs.changes if c.name == "sync" or (c.name == "sync_directory" and c.path)]:
        bad = [
            image.replay
            for cut in fs.cuts([change for change in fs.changes if change is not sync])
            for image in cut.images()
            if read_latest(image, "run") not in (("run/b",) if "saved" in cut.notes else ("run/a", "run/b"))
        ]
        assert bad, sync


def test_a_call_that_fails_leaves_the_old_manifest() -> None:
    """Once; the next update sweeps."""
    counting = OrderFS(PowerLossFS({"run/checkpoint": OLD}))
    update(counting)
    counting.check_end()
    for at in range(1, len(counting.calls) + 1):
        for late in (False, True):
            disk = PowerLossFS({"run/checkpoint": OLD})
            fs = FaultyFS(disk, fail_at=at, error=errno.EIO, late=late)
            raised = True
            with suppress(OSError):
                update(fs)
                raised = False
            disk.kill_writers()
            assert read_latest(disk, "run") == ("run/a" if raised else "run/b"), fs.replay
            update(disk)
            assert [stat.name for stat in disk.scan("run")] == ["checkpoint"], fs.replay
