"""What a trainer changes while its directory is read is looked at again; what is broken stays broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openckpt
from openckpt.errors import ConflictError, CorruptionError, PathNotFoundError
from openckpt.formats.bundle import encode_bundle, open_bundle
from openckpt.opening import group_directory, opener, settling
from openckpt.opening.choosing import locate_entry
from openckpt.storage import LOCAL, FileStat
from openckpt.storage.local import LocalFile, LocalStore
from openckpt.storage.reading import ByteSource

FILES = encode_bundle({"w": np.arange(4, dtype=np.float32)}, "ckpt-1")
INDEX, SHARD = "ckpt-1.index", "ckpt-1.data-00000-of-00001"


class Trained(LocalStore):
    """The local files while somebody else works on them: steps run before the n-th scan or open."""

    def __init__(self, **steps: Callable[[], object]) -> None:
        self.steps = steps
        self.scans = self.opens = 0

    def scan(self, path: str) -> list[FileStat]:
        self.scans += 1
        found = super().scan(path)  # what was there, before the step that this scan does not see
        self.steps.get(f"scan{self.scans}", lambda: None)()
        return found

    def open(self, path: str) -> ByteSource:
        self.opens += 1
        self.steps.get(f"open{self.opens}", lambda: None)()
        return super().open(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits cost nothing here."""
    monkeypatch.setattr(settling.time, "sleep", lambda seconds: None)


def test_data_file_that_the_scan_missed_is_seen(run: Path) -> None:
    """The data came under its name after the scan had passed there, the index before it ended."""
    (run / SHARD).unlink()
    store = Trained(scan1=lambda: (run / SHARD).write_bytes(FILES[SHARD]))
    (group,) = group_directory(store, str(run)).groups
    assert group.complete and group.missing == ()


def test_checkpoint_that_was_swept_since_the_scan_is_gone(run: Path) -> None:
    """Neither a damaged index nor orphan data is left of it in the listing."""
    store = Trained(scan1=lambda: [(run / name).unlink() for name in (INDEX, SHARD)])
    listing = group_directory(store, str(run))
    assert (listing.groups, listing.orphan_shards) == ((), ())


def test_index_that_is_being_written_is_waited_for(run: Path) -> None:
    """TensorFlow writes the index in place; its working directory tells that it is not done."""
    (run / "ckpt-1_temp").mkdir()
    (run / INDEX).write_bytes(b"")

    def finish() -> None:
        (run / INDEX).write_bytes(FILES[INDEX])
        (run / "ckpt-1_temp").rmdir()

    (group,) = group_directory(Trained(open4=finish), str(run)).groups
    assert group.complete


def test_index_of_a_save_that_died_is_damaged(run: Path) -> None:
    """A working directory that stays does not make it wait for ever."""
    (run / "ckpt-1_temp").mkdir()
    (run / INDEX).write_bytes(b"")
    listing = group_directory(LocalStore(), str(run))
    (group,) = listing.groups
    assert getattr(group.damage, "code", None) == "table.too-short"
    assert [stat.name for stat in listing.leftovers] == ["ckpt-1_temp"]


def test_what_is_broken_for_good_is_scanned_once(run: Path) -> None:
    """Ten thousand broken checkpoints must not cost ten thousand scans."""
    (run / SHARD).unlink()
    (run / "bad.index").write_bytes(b"")
    store = Trained()
    listing = group_directory(store, str(run))
    assert [group.complete for group in listing.groups] == [False, False]
    assert store.scans == 1


def test_manifest_that_moves_on_is_read_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the manifest named was swept; what it names now is there."""
    from openckpt.opening import choosing

    (run / "checkpoint").write_text('model_checkpoint_path: "ckpt-0"')
    store = Trained(scan2=lambda: (run / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"'))
    choice, _ = choosing.choose_in_directory(store, str(run))
    assert choice is not None
    assert (choice.kind, choice.group.name) == ("manifest", "ckpt-1")


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), ConflictError("storage.changed", "x", "replaced")])
def test_open_tries_again_what_was_swept_or_replaced(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A checkpoint that goes between finding and opening it is looked for again."""
    real, failures = opener.open_target, [error, error]

    def unlucky(*args: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(opener, "open_target", unlucky)
    with openckpt.open(run) as ckpt:
        assert ckpt.step == 1


def test_open_gives_up_in_the_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vanishes again and again is a PathNotFoundError, what is replaced again and again a ConflictError."""

    def gone(*args: object, **options: object) -> None:
        raise FileNotFoundError(2, "gone")

    def replaced(*args: object, **options: object) -> None:
        raise ConflictError("storage.changed", "x", "replaced")

    monkeypatch.setattr(opener, "open_target", gone)
    with pytest.raises(PathNotFoundError) as caught:
        openckpt.open(run)
    assert caught.value.code == "path.vanished"
    monkeypatch.setattr(opener, "open_target", replaced)
    with pytest.raises(ConflictError):
        openckpt.open(run)


def test_an_index_that_is_replaced_each_time_is_a_conflict(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight attempts to open index and shards together, then an error: never the index of one save over data of another."""
    looks = []
    monkeypatch.setattr(LocalFile, "unchanged", lambda file: looks.append(file.path) or False)
    with pytest.raises(ConflictError) as caught:
        open_bundle(LOCAL, str(run / "ckpt-1"))
    assert caught.value.code == "storage.changed"
    assert looks == [str(run / INDEX)] * 8


def test_a_shard_that_went_with_its_save_is_a_conflict(tmp_path: Path) -> None:
    """The first 64 are opened with the index; of the others one may go when the prefix is saved over or removed."""
    tensors = {f"w{number:02d}": np.full(3, number, np.float32) for number in range(70)}
    for name, data in encode_bundle(tensors, "m", shards=70).items():
        (tmp_path / name).write_bytes(data)
    with openckpt.open(tmp_path / "m.index") as ckpt:
        late = [key for key in tensors if ckpt.locate(key)[0].shard >= 64]
        openckpt.save(str(tmp_path / "m"), {"w": np.zeros(2)}, overwrite=True)
        assert ckpt[next(iter(set(tensors) - set(late)))].shape == (3,)
        with pytest.raises(ConflictError) as caught:
            ckpt[late[0]]
    assert caught.value.code == "storage.changed"


def test_a_shard_that_was_never_there_is_missing(tmp_path: Path) -> None:
    """The index is the one that was opened: it is the copy that is broken."""
    tensors = {f"w{number:02d}": np.full(3, number, np.float32) for number in range(70)}
    for name, data in encode_bundle(tensors, "m", shards=70).items():
        if "data-00069" not in name:
            (tmp_path / name).write_bytes(data)
    with openckpt.open(tmp_path / "m.index") as ckpt:
        (key,) = [key for key in tensors if ckpt.locate(key)[0].shard == 69]
        with pytest.raises(CorruptionError) as caught:
            ckpt[key]
    assert caught.value.code == "bundle.shard-missing"


def test_a_manifest_newer_than_the_listing_names_what_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that it names was saved after the names were read."""
    listing = group_directory(LOCAL, str(run))
    for name, data in encode_bundle({"w": np.arange(4, dtype=np.float32)}, "ckpt-2").items():
        (run / name).write_bytes(data)
    entry = locate_entry(LOCAL, listing, "ckpt-2")
    assert entry.group is not None and entry.group.complete
    assert locate_entry(LOCAL, listing, "ckpt-3").group is None


def test_names_read_before_a_save_over_them_are_read_again(run: Path) -> None:
    """The index already counts the new data files, which the scan has missed, while the old ones still lie there."""
    new = encode_bundle({"w": np.arange(4, dtype=np.float32), "b": np.zeros(3)}, "ckpt-1", shards=2)

    def save_over() -> None:
        for name, data in new.items():
            (run / f"{name}.tmp").write_bytes(data)
            (run / f"{name}.tmp").replace(run / name)

    (group,) = group_directory(Trained(scan1=save_over), str(run)).groups
    assert (group.num_shards, group.header_shards, group.complete) == (2, None, True)
