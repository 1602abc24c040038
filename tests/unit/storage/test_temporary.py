"""The names under which a save works read back as they are made, and are nobody else's."""

from __future__ import annotations

import pytest

from openckpt.storage.temporary import lock_name, stem_of, temporary_name


@pytest.mark.parametrize("stem", ["ckpt-7", "", "model.ckpt", "a.3", "checkpoint", "x.openckpt-tmp", "Zeitung ü"])
def test_names_read_back(stem: str) -> None:
    """Whatever the last part of the prefix is, the empty prefix included."""
    assert stem_of(lock_name(stem)) == stem
    assert stem_of(temporary_name(stem, 0)) == stem
    assert stem_of(temporary_name(stem, 123)) == stem


@pytest.mark.parametrize(
    "name",
    ["ckpt-7", "ckpt-7.index", "openckpt-lock", "a.openckpt-tmp", "a..openckpt-tmp", "a.-1.openckpt-tmp", "a.²3.openckpt-tmp",
     "a.1.openckpt-tmp.bak", "a.openckpt-lock2"],
)  # fmt: skip
def test_other_names_are_none_of_ours(name: str) -> None:
    """What a sweep removes is only what a save has made."""
    assert stem_of(name) is None
