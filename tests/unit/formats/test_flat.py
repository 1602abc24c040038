"""What the formats without checksums of their own share: a file that changes under a reader, forks, threads, locations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers import zipped
from hdf5_bytes import datasets
from openckpt.errors import ConflictError, CorruptionError
from openckpt.formats.keras_archive import open_keras
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.formats.npz import open_npz
from openckpt.formats.safetensors import open_safetensors
from openckpt.storage import LOCAL
from openckpt.storage.archive import open_archive
from together import together

VALUES = {"a": np.arange(1000, dtype=np.float32), "b": np.ones((3, 4))}


def hdf5_file(path: Path) -> None:
    path.write_bytes(datasets(VALUES))


def gzip_file(path: Path) -> None:
    path.write_bytes(datasets(VALUES, compression="gzip"))


def safetensors_file(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(VALUES, path)


def npz_file(path: Path) -> None:
    np.savez(path, **VALUES)


def keras_file(path: Path) -> None:
    path.write_bytes(zipped({"config.json": "{}", "metadata.json": "{}", "model.weights.h5": datasets(VALUES)}))


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[..., Any]]] = {
    "x.h5": (hdf5_file, open_hdf5),
    "gzip.h5": (gzip_file, open_hdf5),
    "x.safetensors": (safetensors_file, open_safetensors),
    "x.npz": (npz_file, open_npz),
    "x.keras": (keras_file, open_keras),
}


@pytest.fixture(params=FORMATS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A file that was written long ago, and a reader of it."""
    write, open_it = FORMATS[request.param]
    path = tmp_path / request.param
    write(path)
    os.utime(path, ns=(0, 0))
    return path, open_it(LOCAL, str(path))


def test_a_file_that_is_written_into_is_a_conflict(made: tuple[Path, Any]) -> None:
    """Keras and NumPy save in place: half of each must not come out as a value."""
    path, reader = made
    with path.open("r+b") as file:
        file.seek(0)
        file.write(path.read_bytes()[:1])

    for read in (lambda: reader.read("a"), lambda: reader.read_many(["a", "b"])):
        with pytest.raises(ConflictError) as caught:
            read()
        assert caught.value.code == "storage.changed"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_still_reads(made: tuple[Path, Any], how: str) -> None:
    """The open file is whole under its descriptor: the old answer, not a mixture."""
    path, reader = made
    if how == "removed":
        path.unlink()
    else:
        other = path.with_name("other")
        other.write_bytes(b"something else")
        other.replace(path)

    assert reader.read("a").tolist() == VALUES["a"].tolist()


def test_a_file_that_changes_while_it_is_opened_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed may be of two files; the caller opens again."""
    for name, (write, open_it) in FORMATS.items():
        path = tmp_path / name
        write(path)
        with monkeypatch.context() as patch:
            patch.setattr("openckpt.storage.local.LocalFile.unchanged", lambda self: False)
            with pytest.raises(ConflictError):
                open_it(LOCAL, str(path))


def test_located_bytes_can_be_attributed(made: tuple[Path, Any]) -> None:
    """Every location names a file, and its shard is a number within the files."""
    _, reader = made

    for key in VALUES:
        for place in reader.locate(key):
            assert place.shard < len(reader.files)
            assert place.nbytes == VALUES[key].nbytes


def test_threads_and_forks_read_equal(made: tuple[Path, Any]) -> None:
    """One reader, several threads, and a child that is forked from them."""
    _, reader = made
    wrong: list[str] = []

    def work(times: int) -> None:
        for _ in range(times):
            wrong.extend(key for key, value in VALUES.items() if reader.read(key).tolist() != value.tolist())

    together(work, [5, 5, 5])
    child = os.fork()
    if not child:
        work(5)
        os._exit(1 if wrong else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert wrong == []


@pytest.mark.parametrize("write", [hdf5_file, gzip_file, safetensors_file])
def test_a_flipped_bit_in_a_stored_member_is_found_on_read(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """The format has no checksum, the zip around it has one: reading a tensor checks it, whichever byte was hit."""
    write(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    damaged = bytearray(zipped({"m": content}))
    damaged[damaged.rindex(content[-16:]) + 8] ^= 1
    (tmp_path / "m.zip").write_bytes(damaged)

    store = open_archive(LOCAL.open(str(tmp_path / "m.zip")))

    reader = open_safetensors(store, "m") if write is safetensors_file else open_hdf5(store, "m")

    for key in VALUES:
        with pytest.raises(CorruptionError) as caught:
            reader.read(key)
        assert caught.value.code == "archive.crc-mismatch"
    assert "archive.crc-mismatch" in [finding.code for finding in reader.validate()]
    assert "archive.crc-mismatch" not in [finding.code for finding in reader.validate(data=False)]
