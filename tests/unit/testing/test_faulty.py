"""`FaultyFS` fails where it is told to, and nowhere else."""

from __future__ import annotations

import errno

import pytest

from openckpt.testing import FaultyFS, PowerLossFS


def save(fs: FaultyFS) -> None:
    """Eight calls."""
    file = fs.create("t")
    fs.write(file, 0, [b"abc", b"defgh"])
    fs.sync(file)
    fs.close(file)
    fs.rename("t", "a")
    fs.sync_directory("")
    fs.stat("a")
    fs.open("a").close()


CALLS = ["create", "write", "sync", "close", "rename", "sync_directory", "stat", "open"]


@pytest.mark.parametrize(("number", "name"), list(enumerate(CALLS, 1)))
def test_the_nth_call_fails_with_the_error_asked_for(number: int, name: str) -> None:
    """Number, path and class are those of the system; the call is named."""
    fs = FaultyFS(PowerLossFS(), fail_at=number, error=errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        save(fs)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == fs.fired[0].path
    assert [call.name for call in fs.calls] == CALLS[:number]
    assert [call.name for call in fs.fired] == [name]


def test_an_errno_becomes_its_class() -> None:
    """As with the system."""
    with pytest.raises(PermissionError):
        save(FaultyFS(PowerLossFS(), fail_at=1, error=errno.EACCES))
    with pytest.raises(InterruptedError):
        save(FaultyFS(PowerLossFS(), fail_at=1, error=errno.EINTR))


def test_a_call_that_fails_has_no_effect() -> None:
    """The file keeps its name."""
    disk = PowerLossFS()
    with pytest.raises(OSError):
        save(FaultyFS(disk, fail_at=5))
    assert [stat.name for stat in disk.scan("")] == ["t"]


def test_a_close_that_fails_has_let_go() -> None:
    """A descriptor is gone whatever close says; so is a lock."""
    disk = PowerLossFS()
    fs = FaultyFS(disk, fail_at=2)
    lock = fs.try_lock("l")
    assert lock is not None
    with pytest.raises(OSError):
        fs.close(lock)
    assert disk.try_lock("l") is not None


def test_a_late_failure_has_its_effect() -> None:
    """The answer was lost, not the call."""
    disk = PowerLossFS()
    with pytest.raises(OSError):
        save(FaultyFS(disk, fail_at=5, late=True))
    assert [stat.name for stat in disk.scan("")] == ["a"]
    disk = PowerLossFS()
    with pytest.raises(OSError):
        save(FaultyFS(disk, fail_at=2, late=True))
    assert disk.open("t").read_at(0, 8) == b"abcdefgh"


def test_once_is_once_and_for_ever_is_for_ever() -> None:
    """A disk that hiccups, and one that went away."""
    once = FaultyFS(PowerLossFS({"a": b""}), fail_at=2)
    once.stat("a")
    with pytest.raises(OSError):
        once.stat("a")
    once.stat("a")
    gone = FaultyFS(PowerLossFS({"a": b""}), fail_at=2, forever=True)
    gone.stat("a")
    for _ in range(3):
        with pytest.raises(OSError):
            gone.stat("a")
    assert len(gone.fired) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_short_write_takes_a_part_and_says_how_much(seed: int) -> None:
    """At least one byte, not all, of the buffers in their order."""
    disk = PowerLossFS()
    fs = FaultyFS(disk, fail_at=2, short=True, seed=seed)
    file = fs.create("a")
    taken = fs.write(file, 0, [b"abc", b"", b"defgh"])
    assert 0 < taken < 8
    assert disk.open("a").read_at(0, taken) == b"abcdefgh"[:taken]
    assert disk.size(file) == taken
    assert fs.write(file, taken, [b"abcdefgh"[taken:]]) == 8 - taken
    assert [call.name for call in fs.fired] == ["write"]


def test_a_torn_write_leaves_a_part_and_fails() -> None:
    """What is on the disk is a beginning of what was written."""
    left = set()
    for seed in range(30):
        disk = PowerLossFS()
        fs = FaultyFS(disk, fail_at=2, torn=True, seed=seed)
        file = fs.create("a")
        with pytest.raises(OSError):
            fs.write(file, 0, [b"abc", b"defgh"])
        data = disk.read(file, 0, 100)
        assert b"abcdefgh".startswith(data)
        left.add(len(data))
    assert left == set(range(8))


def test_calls_that_are_no_write_are_never_short() -> None:
    """``short`` alone fails nothing."""
    fs = FaultyFS(PowerLossFS(), fail_at=3, short=True)
    save(fs)
    assert not fs.fired


def test_the_replay_line_says_what_to_type() -> None:
    """Arguments and the call that failed."""
    fs = FaultyFS(PowerLossFS(), fail_at=2, error=errno.EDQUOT, torn=True, seed=3)
    with pytest.raises(OSError):
        save(fs)
    assert fs.replay == "FaultyFS(fail_at=2, error=errno.EDQUOT, torn=True, seed=3): 2 write t 0+8"
