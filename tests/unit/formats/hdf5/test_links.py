"""Links, virtual datasets and lies in HDF5 files: named, and never followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hdf5_bytes import ONES, codes, datasets, hdf5, legacy_weights, opened
from openckpt.errors import CheckpointError, LimitError, UnsafeError
from openckpt.limits import Limits
from refusals import error_of


def _link(make: Callable[[Any], None]) -> bytes:
    def build(file: Any) -> None:
        file["ok"] = ONES
        make(file)

    return hdf5(build)


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (2,))
    file.create_virtual_dataset("bad", layout)


def _external(file: Any) -> None:
    file.create_dataset("bad", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _soft(target: str) -> Callable[[Any], None]:
    import h5py

    def make(file: Any) -> None:
        file["bad"] = h5py.SoftLink(target)

    return make


def _outside(file: Any) -> None:
    import h5py

    file["bad"] = h5py.ExternalLink("/etc/passwd", "/data")


REFUSED = {
    "external link": (_outside, "hdf5.external-link", "error"),
    "soft link": (_soft("/ok"), "hdf5.soft-link", "warning"),
    "dangling soft link": (_soft("/etc/passwd"), "hdf5.soft-link", "warning"),
    "virtual dataset": (_virtual, "hdf5.virtual-dataset", "error"),
    "external storage": (_external, "hdf5.external-storage", "error"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leads_elsewhere_is_named_and_not_followed(name: str) -> None:
    """It is listed under its name, refused when read, a finding of the doctor, and the rest reads."""
    make, code, severity = REFUSED[name]
    reader = opened(_link(make))

    assert sorted(reader.keys()) == ["bad", "ok"]
    assert reader.spec("bad").dtype.startswith("unknown-")
    error = error_of(reader.read, "bad")
    assert isinstance(error, UnsafeError)
    assert error.code == code
    assert error_of(reader.view, "bad").code == code
    assert [(finding.code, finding.severity) for finding in reader.validate()] == [(code, severity)]
    assert reader.read("ok").tolist() == ONES.tolist()


def test_groups_that_contain_themselves_end() -> None:
    """A loop of hard links is listed once, with a note."""

    def build(file: Any) -> None:
        file["a/w"] = ONES
        file["a/b/c"] = file["a"]
        file["root"] = file["/"]

    reader = opened(hdf5(build))

    assert list(reader.keys()) == ["a/w"]
    assert codes(reader) == ["hdf5.shared-group", "hdf5.shared-group"]


def test_one_dataset_under_two_names_is_listed_twice() -> None:
    """Tied weights may be hard links."""

    def build(file: Any) -> None:
        file["a"] = ONES
        file["b"] = file["a"]

    assert sorted(opened(hdf5(build)).keys()) == ["a", "b"]


def test_nesting_and_number_of_objects_have_limits() -> None:
    """Both are counted while walking, so that nothing is built first."""
    deep = hdf5(lambda file: file.create_dataset("/".join("g" * 70), data=ONES))
    many = datasets({str(number): ONES for number in range(20)})

    for data, limits in ((deep, Limits()), (many, Limits(hdf5_objects=10))):
        with pytest.raises(LimitError):
            opened(data, limits=limits)
    assert len(opened(deep, limits=Limits(hdf5_depth=80))) == 1


def test_contiguous_bytes_beyond_the_end_are_found() -> None:
    """A dataset whose stated address leads out of the file cannot be read, and the others can."""
    data = bytearray(datasets({"a": ONES, "b": ONES + 1}))
    place = data.index(np.uint64(opened(bytes(data)).locate("a")[0].offset).tobytes())
    data[place : place + 8] = np.uint64(len(data) - 4).tobytes()

    reader = opened(bytes(data))

    assert error_of(reader.read, "a").code in ("hdf5.data-past-end", "hdf5.object-damaged")
    assert reader.read("b").tolist() == (ONES + 1).tolist()


def test_every_flipped_byte_gives_an_answer_or_an_error_of_ours() -> None:
    """Whatever libhdf5 raises becomes a CheckpointError; nothing else comes out."""
    data = hdf5(legacy_weights({"a": {"a/k:0": ONES}}))
    rng = np.random.default_rng(3)
    for position in rng.choice(len(data), 150, replace=False).tolist():
        broken = bytearray(data)
        broken[position] ^= 0xFF
        try:
            reader = opened(bytes(broken))
            for key in list(reader.keys()):
                try:
                    reader.read(key)
                except CheckpointError as error:
                    assert str(error)
        except CheckpointError as error:
            assert str(error)
