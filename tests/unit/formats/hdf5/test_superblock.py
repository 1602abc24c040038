"""The superblock: HDF5 or not, whole or cut off, without libhdf5."""

from __future__ import annotations

import numpy as np
import pytest

from hdf5_bytes import ONES, datasets, hdf5
from openckpt.errors import CheckpointError
from openckpt.formats.hdf5.superblock import SIGNATURE, find_signature, read_superblock
from openckpt.storage.memory import MemorySource


def code_of(data: bytes) -> str | None:
    try:
        read_superblock(MemorySource("x.h5", data))
    except CheckpointError as error:
        return error.code
    return None


def plain(**options: object) -> bytes:
    return hdf5(lambda file: file.create_dataset("a", data=ONES), **options)


@pytest.mark.parametrize(("libver", "versions"), [("earliest", {0}), ("v108", {2}), ("v110", {3}), ("latest", {3})])
def test_every_version_that_h5py_writes_is_whole(libver: str, versions: set[int]) -> None:
    """The stated end is the end of the file, whatever the version."""
    data = plain(libver=libver)

    block = read_superblock(MemorySource("x.h5", data))

    assert block.version in versions
    assert block.end == len(data)
    assert (block.offset, block.offset_size, block.length_size) == (0, 8, 8)
    assert not block.open_for_writing


@pytest.mark.parametrize("address", [b"\0" * 8, b"\xff" * 5 + b"\0" * 3, b"\x60" + b"\0" * 7])
def test_a_driver_information_block_is_refused(address: bytes) -> None:
    """One file of several; libhdf5 would take the process down at its end (found by damaging files)."""
    data = bytearray(plain(libver="earliest"))
    assert data[48:56] == b"\xff" * 8
    data[48:56] = address

    assert code_of(bytes(data)) == "hdf5.driver"


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_truncation_is_seen(libver: str) -> None:
    """Any missing byte at the end has the code of truncation, without a look at anything but the superblock."""
    data = plain(libver=libver)

    assert {code_of(data[:size]) for size in range(8, len(data))} == {"hdf5.truncated"}


def test_signature_behind_a_user_block() -> None:
    """A user block of 512 bytes or a power of two times that may lie before the signature."""
    data = plain(userblock_size=1024)

    assert find_signature(MemorySource("x.h5", data)) == 1024
    assert code_of(data) is None
    assert code_of(data[:-1]) == "hdf5.truncated"


def test_a_stripped_user_block_moves_the_end() -> None:
    """libhdf5 reads such a file, so it is no truncated one."""
    assert code_of(plain(userblock_size=512)[512:]) is None


REJECTED = {
    "empty": (b"", "hdf5.no-signature"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "hdf5.no-signature"),
    "error page": (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "hdf5.no-signature"),
    "text mode, CRLF to LF": (SIGNATURE.replace(b"\r\n", b"\n") + bytes(100), "hdf5.text-mode"),
    "text mode, LF to CRLF": (SIGNATURE.replace(b"\n", b"\r\n") + bytes(100), "hdf5.text-mode"),
    "decoded as UTF-8": (b"\xef\xbf\xbdHDF\r\n\x1a\n" + bytes(100), "hdf5.text-mode"),
    "only a signature": (SIGNATURE, "hdf5.truncated"),
    "version 9": (SIGNATURE + b"\x09" + bytes(100), "hdf5.version"),
    "offsets of 3 bytes": (SIGNATURE + bytes(5) + b"\3\3" + bytes(100), "hdf5.superblock"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejected(name: str) -> None:
    """What is not an HDF5 file, and how it stopped being one."""
    data, code = REJECTED[name]

    assert code_of(data) == code


def test_file_that_was_never_closed() -> None:
    """Version 3 marks a file as open for writing until its writer closes it."""
    data = bytearray(plain(libver="latest"))
    data[11] |= 1

    assert read_superblock(MemorySource("x.h5", bytes(data))).open_for_writing


def test_large_file_is_judged_by_its_first_bytes() -> None:
    """Only the superblock is read, not the data."""

    class Counting(MemorySource):
        __slots__ = ("read",)

        def read_at(self, offset: int, size: int) -> bytes:
            self.read = getattr(self, "read", 0) + size
            return super().read_at(offset, size)

    source = Counting("x.h5", datasets({"a": np.zeros(1 << 20)}))
    read_superblock(source)

    assert source.read < 200
