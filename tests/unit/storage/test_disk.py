"""`DISK`: the calls of a commit on the local file system, and what they do where a file system lacks one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openckpt.storage import disk
from openckpt.storage.disk import DISK, DiskFile, lock_is_held


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def test_a_file_is_created_written_and_read(path: str) -> None:
    """At any place; holes are zeros; more than a thousand buffers are taken by the thousand."""
    file = DISK.create(path)
    assert DISK.write(file, 3, [b"de", bytearray(b"fg"), memoryview(b"h")]) == 5
    assert (DISK.read(file, 0, 100), DISK.size(file)) == (b"\0\0\0defgh", 8)
    assert DISK.write(file, 0, [b"x"] * 1500) == 1000
    DISK.sync(file)
    DISK.close(file)
    DISK.close(file)
    DISK.sync_path(path)
    assert Path(path).read_bytes() == b"x" * 1000
    with pytest.raises(FileExistsError):
        DISK.create(path)


def test_a_file_that_nobody_holds_closes_itself(path: str) -> None:
    """After an interrupt between the call and its caller."""
    file: Any = DISK.create(path)
    number = file.number
    del file
    with pytest.raises(OSError) as caught:
        os.fstat(number)
    assert caught.value.errno == errno.EBADF


def test_space_is_reserved(path: str) -> None:
    """The file has its size, and more than a disk has is refused at once."""
    file = DISK.create(path)
    DISK.allocate(file, 0, 0)
    DISK.allocate(file, 0, 100_000)
    assert DISK.size(file) in (0, 100_000)  # 0: this file system cannot
    if DISK.size(file):
        with pytest.raises(OSError) as caught:
            DISK.allocate(file, 0, 1 << 60)
        assert caught.value.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    DISK.close(file)


def test_without_the_call_nothing_is_reserved(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never zeros written into every block."""
    monkeypatch.setattr(disk, "_c_function", lambda *signature: None)
    file = DISK.create(path)
    DISK.allocate(file, 0, 100_000)
    assert DISK.size(file) == 0
    DISK.close(file)


def without(monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    """Take away the call that renames without replacing, and hard links."""
    monkeypatch.setattr(disk, "_rename_without_replacing", lambda source, target: errno.ENOSYS)
    if not links:

        def refuse(*arguments: Any, **options: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("how", ["one call", "links", "neither"])
def test_renaming_without_replacing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """By one call, by link and unlink, or by looking first."""
    if how != "one call":
        without(monkeypatch, links=how == "links")
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    Path(source).write_text("new")
    DISK.rename_new(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    Path(source).write_text("newer")
    with pytest.raises(FileExistsError) as caught:
        DISK.rename_new(source, target)
    assert caught.value.filename in (source, target)
    assert (Path(source).read_text(), Path(target).read_text()) == ("newer", "new")
    os.unlink(target)
    Path(target).symlink_to("nowhere")  # a name is a name, also of a broken link
    with pytest.raises(FileExistsError):
        DISK.rename_new(source, target)
    with pytest.raises(FileNotFoundError):
        DISK.rename_new(str(tmp_path / "absent"), str(tmp_path / "other"))


def test_links_names_and_directories(tmp_path: Path) -> None:
    """One system call each."""
    one, two, folder = str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "folder")
    Path(one).write_text("1")
    DISK.link(one, two)
    with pytest.raises(FileExistsError):
        DISK.link(one, two)
    assert os.stat(one).st_ino == os.stat(two).st_ino
    Path(one).write_text("changed")
    DISK.rename(one, str(tmp_path / "three"))
    DISK.make_directory(folder)
    with pytest.raises(FileExistsError):
        DISK.make_directory(folder)
    assert DISK.sync_directory(folder) is True
    DISK.remove_directory(folder)
    DISK.remove(two)
    assert [path.name for path in tmp_path.iterdir()] == ["three"]
    assert (DISK.free_bytes(str(tmp_path)) or 0) > 0


def test_the_current_directory_is_the_empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a prefix without a slash."""
    monkeypatch.chdir(tmp_path)
    assert DISK.sync_directory("") is True
    assert DISK.free_bytes("") == DISK.free_bytes(".") or (DISK.free_bytes("") or 0) > 0


def test_a_lock_has_one_holder(path: str) -> None:
    """Until it is closed; its bytes can be read by others."""
    lock = DISK.try_lock(path)
    assert lock is not None
    assert DISK.try_lock(path) is None and lock_is_held(path)
    DISK.write(lock, 0, [b"note"])
    assert Path(path).read_bytes() == DISK.read(lock, 0, 10) == b"note"
    DISK.close(lock)
    assert not lock_is_held(path)
    again = DISK.try_lock(path)
    assert again is not None
    DISK.close(again)


def test_a_lock_on_a_name_that_is_gone_is_none(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened it before its holder removed it gets a new file of that name."""
    lock = DISK.try_lock(path)
    assert lock is not None
    real, tries = disk._same_file, []

    def removed_meanwhile(number: int, name: str) -> bool:
        if not tries:
            os.unlink(name)
        tries.append(number)
        return real(number, name)

    DISK.close(lock)
    monkeypatch.setattr(disk, "_same_file", removed_meanwhile)
    lock = DISK.try_lock(path)
    assert lock is not None and len(tries) == 2 and os.path.exists(path)
    DISK.close(lock)


@pytest.mark.parametrize(("number", "left"), [(errno.ENOSYS, []), (errno.ENOTSUP, []), (errno.ENOLCK, ["x.lock"])])
def test_without_locks_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, left: list[str]
) -> None:
    """The error says what the file system lacks; where locks ran out for a moment, somebody else may hold this one."""
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError) as caught:
        DISK.try_lock(str(tmp_path / "x.lock"))
    assert caught.value.errno == number
    assert ("flock" in str(caught.value)) == (not left)
    assert [path.name for path in tmp_path.iterdir()] == left


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    """It could be anybody's file."""
    (tmp_path / "precious").write_text("x")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError) as caught:
        DISK.try_lock(str(tmp_path / "lock"))
    assert caught.value.errno == errno.ELOOP


def test_a_lock_ends_with_its_process(path: str) -> None:
    """Whatever became of it."""
    program = "import sys, os; from openckpt.storage.disk import DISK; DISK.try_lock(sys.argv[1]).path; print(1, flush=True); os._exit(9)"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 9 and done.stdout == "1\n", done.stderr
    lock = DISK.try_lock(path)
    assert lock is not None
    DISK.close(lock)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_hold_its_parent_s_lock(path: str) -> None:
    """A data loader that outlives a killed trainer."""
    lock = DISK.try_lock(path)
    assert isinstance(lock, DiskFile)
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.number == -1 and DISK.try_lock(path) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock_is_held(path)
    DISK.close(lock)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_directory_that_cannot_be_synced_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Every other refusal is an error."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert DISK.sync_directory(str(tmp_path)) is False
    number = errno.EIO
    with pytest.raises(OSError) as caught:
        DISK.sync_directory(str(tmp_path))
    assert caught.value.errno == errno.EIO
