"""Plain HDF5 as openckpt writes it: paths, attributes, forms; and errors of the file below libhdf5."""

from __future__ import annotations

import errno
import io
from typing import Any

import h5py
import numpy as np
import pytest

from openckpt.errors import UnsupportedError
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.hdf5.encoder import HDF5Writer
from openckpt.formats.hdf5.plain import is_path, plan_paths
from openckpt.formats.keras_h5 import open_hdf5
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore
from trees import check_reads_as, encoded, everything, numbers, objects, same


def written(tree: dict[str, tuple[str, np.ndarray]]) -> bytes:
    return encoded(HDF5Writer, tree)


def opened(data: bytes) -> Any:
    return open_hdf5(MemoryStore({"x.h5": data}), "x.h5")


@pytest.mark.parametrize(
    ("keys", "paths"),
    [
        (["a", "b/c"], ["a", "b/c"]),
        (["a", "a/b"], ["a/__value__", "a/b"]),
        (["a", "a/b", "a/b/c"], ["a/__value__", "a/b/__value__", "a/b/c"]),
        (["a", "a/b", "a/__value__"], ["a/__value__1", "a/b", "a/__value__"]),
        (["a", "a/__value__/c"], ["a/__value__1", "a/__value__/c"]),
        (["../x", "/x", "x//y", "."], ["../x", "key-0", "key-1", "key-2"]),
        (["key-0", "."], ["key-0", "key-1"]),
        ([".", "key-0/x"], ["key-0/__value__", "key-0/x"]),
        (["\udcff", "n\0l"], ["key-0", "key-1"]),
    ],
)
def test_paths(keys: list[str], paths: list[str]) -> None:
    """The key where it can be a path; beside what lies below it, where it is a group."""
    assert list(plan_paths(keys).values()) == paths


@pytest.mark.parametrize("key", ["a", "a/b", "..", "a/../b", "é", " ", "a:0", "x" * 60_000])
def test_what_can_be_a_path(key: str) -> None:
    """Two dots are a name like any other in HDF5."""
    assert is_path(key)


@pytest.mark.parametrize(
    "key", ["", "/", "/a", "a/", "a//b", ".", "a/./b", "n\0l", "\udcff", "/".join("d" * 49), "x" * 60_001]
)
def test_what_cannot_be_a_path(key: str) -> None:
    """HDF5 would read another path, or none."""
    assert not is_path(key)


def test_everything_comes_back_and_the_doctor_is_quiet() -> None:
    """Every type, odd keys, deep shapes; equal tensors give equal bytes."""
    tree = everything()
    data = written(tree)
    reader = opened(data)
    check_reads_as(reader, tree)
    assert data == written(tree)


def test_the_child_process_sees_the_same(tmp_path: Any) -> None:
    """Keys that are no text travel between processes too."""
    (tmp_path / "x.h5").write_bytes(written(everything()))
    source = LOCAL.open(str(tmp_path / "x.h5"))
    with HDF5Child() as child:
        report = child.inspect(source, data=True)
    source.close()
    assert {dataset.key for dataset in report.datasets} == set(everything())
    assert report.problems == ()


def test_types_of_whole_bytes_are_viewed_in_place() -> None:
    """One run of bytes each; int4 is decoded."""
    tree = {key: (key, numbers(key, (4,))) for key in ("float32", "bfloat16", "qint16", "complex64", "int4")}
    reader = opened(written(tree))
    for key in ("float32", "bfloat16", "qint16", "complex64"):
        assert same(reader.view(key), tree[key][1])
    with pytest.raises(UnsupportedError):
        reader.view("int4")


def test_a_file_without_our_mark_keeps_its_paths() -> None:
    """``openckpt_key`` counts only beside the attribute of the root."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["a"] = np.zeros(2)
        file["a"].attrs["openckpt_key"] = "b"
    assert list(opened(buffer.getvalue()).keys()) == ["a"]


def test_keras_groups_in_a_plain_file_are_just_names() -> None:
    """A converted Keras checkpoint is not taken for Keras' own file."""
    reader = opened(
        written({"layers/dense/vars/0": ("float32", np.zeros(2, "f4")), "layer_names": ("int8", np.zeros(1, "i1"))})
    )
    assert reader.attributes.layout == "plain"


def test_two_datasets_of_one_key_are_told() -> None:
    """A hard link gives a dataset a second path; the first one is read."""
    buffer = io.BytesIO(written({"a": ("float32", np.ones(2, "f4"))}))
    with h5py.File(buffer, "r+") as file:
        file["again"] = file["a"]
    reader = opened(buffer.getvalue())
    assert list(reader.keys()) == ["a"]
    assert [finding.code for finding in reader.validate()] == ["hdf5.duplicate-key"]


class _Full(io.BytesIO):
    """A disk with room for so many bytes."""

    room = 4000

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_an_error_of_the_file_is_not_swallowed() -> None:
    """libhdf5 would; whoever writes hears it at once, and the writer can be let go."""
    writer = HDF5Writer(_Full(), ["a", "b"])
    with pytest.raises(OSError) as caught:
        writer.add("a", np.zeros(10_000), "float64")
        writer.finish()
    writer.abandon()
    assert caught.value.errno == errno.ENOSPC


def test_an_interrupt_inside_the_library_comes_out() -> None:
    """h5py drops exceptions of its file object, Ctrl-C too."""

    class Interrupted(io.BytesIO):
        def write(self, data: Any) -> int:
            if len(data) > 1000:
                raise KeyboardInterrupt
            return super().write(data)

    writer = HDF5Writer(Interrupted(), ["a"])
    with pytest.raises(KeyboardInterrupt):
        writer.add("a", np.zeros(10_000), "float64")
    writer.abandon()


def test_an_abandoned_file_is_left_alone() -> None:
    """Nothing is written behind the caller's back."""
    file = io.BytesIO()
    writer = HDF5Writer(file, ["a"])
    writer.add("a", objects(b"text"), "string")
    before = file.getvalue()
    writer.abandon()
    writer.abandon()
    assert file.getvalue() == before
