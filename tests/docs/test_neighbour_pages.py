"""The worked hex examples of the safetensors, npz and HDF5 pages are what the readers read and stock writers write."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from docs.test_format_pages import hex_blocks
from hdf5_bytes import datasets
from openckpt.formats.hdf5.superblock import read_superblock
from openckpt.formats.safetensors import open_safetensors
from openckpt.storage.memory import MemorySource, MemoryStore

VALUE = np.array([1, 2], np.int16)


def test_the_safetensors_page_shows_a_whole_file() -> None:
    """As stock safetensors writes it, and as openckpt reads it."""
    from safetensors.numpy import save

    (example,) = hex_blocks("safetensors.md")

    assert save({"a": VALUE}) == example
    assert open_safetensors(MemoryStore({"x": example}), "x").read("a").tolist() == [1, 2]


def test_the_npz_page_shows_a_member() -> None:
    """The bytes inside the zip that NumPy writes."""
    (example,) = hex_blocks("npz.md")
    buffer = io.BytesIO()
    np.savez(buffer, a=VALUE)

    assert zipfile.ZipFile(buffer).read("a.npy") == example


def test_the_hdf5_page_shows_a_superblock() -> None:
    """The first bytes of what h5py writes; the end that they state is the size of the file."""
    (example,) = hex_blocks("hdf5-and-keras.md")
    file = datasets({"a": VALUE})

    assert file[: len(example)] == example
    assert read_superblock(MemorySource("x", file)).end == len(file)
