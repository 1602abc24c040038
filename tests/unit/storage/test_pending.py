"""Files under a temporary name: when the disk is told to begin, and what a refusal leaves."""

import errno
from pathlib import Path

import pytest

from openckpt.storage.disk import DISK
from openckpt.storage.pending import PendingFile
from openckpt.testing import CallFS, FaultyFS

LARGE = bytes(1 << 20)


def calls_of(store: CallFS) -> list[str]:
    return [call.name for call in store.calls]


def write_three(path: Path, store: CallFS, *, durable: bool) -> None:
    file = PendingFile(store, str(path), durable=durable)
    file.write(0, [LARGE], len(LARGE))
    file.write(len(LARGE), [b"small"], 5)
    file.write(len(LARGE) + 5, [LARGE, b"more"], len(LARGE) + 4)
    file.settle()


def test_the_disk_begins_with_each_large_write_of_a_durable_file(tmp_path: Path) -> None:
    """A hint behind every write of a MiB and more; one sync at the end."""
    store = CallFS(DISK)

    write_three(tmp_path / "file", store, durable=True)

    assert calls_of(store) == ["create", "write", "start_sync", "write", "write", "start_sync", "sync", "close"]
    assert [call.detail for call in store.calls if call.name == "start_sync"] == ["0+1048576", "1048581+1048580"]
    assert (tmp_path / "file").read_bytes() == LARGE + b"small" + LARGE + b"more"


def test_a_file_that_need_not_last_is_never_synced(tmp_path: Path) -> None:
    store = CallFS(DISK)

    write_three(tmp_path / "file", store, durable=False)

    assert calls_of(store) == ["create", "write", "write", "write", "close"]


def test_the_hint_may_be_refused_like_any_call(tmp_path: Path) -> None:
    """The error says call and path: a disk that cannot begin will not finish."""
    store = FaultyFS(DISK, fail_at=3)

    with pytest.raises(OSError) as caught:
        write_three(tmp_path / "file", store, durable=True)

    assert caught.value.errno == errno.EIO
    assert [call.name for call in store.fired] == ["start_sync"]
    assert str(tmp_path / "file") in caught.value.__notes__[0]


def test_a_refused_sync_is_never_tried_again(tmp_path: Path) -> None:
    """A second one may say yes to pages that are gone: the first answer stays."""
    store = FaultyFS(DISK, fail_at=3)
    file = PendingFile(store, str(tmp_path / "file"), durable=True)
    file.write(0, [b"bytes"], 5)

    for _ in range(2):
        with pytest.raises(OSError):
            file.settle()
    file.close()

    assert calls_of(store) == ["create", "write", "sync", "close"]
