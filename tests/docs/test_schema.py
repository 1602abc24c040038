"""The validator of the documented schemas itself: a test that cannot fail proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from docs.schema import faults, schemas

GOOD = {
    "path": "p",
    "prefix": "p",
    "format": "npz",
    "step": None,
    "tensors": [{"key": "k", "dtype": "int8", "shape": [2], "bytes": 2}],
}


def test_every_command_has_a_schema() -> None:
    """One block per document that the program prints."""
    assert {"ls", "tree", "show", "doctor", "find", "error", "finding", "tensor"} <= schemas().keys()


def test_a_good_document_has_no_faults() -> None:
    """What the contract says is accepted."""
    assert faults(GOOD, schemas()["ls"]) == []


@pytest.mark.parametrize(
    "change",
    [{"step": "7"}, {"step": True}, {"format": "bundle"}, {"extra": 1}, {"tensors": None}, {"tensors": [{"key": "k"}]},
     {"tensors": [{"key": "k", "dtype": "int8", "shape": ["2"], "bytes": 2}]}],
)  # fmt: skip
def test_a_document_that_breaks_the_contract_is_named(change: dict[str, Any]) -> None:
    """Wrong types, unknown words, missing and undocumented fields."""
    assert faults({**GOOD, **change}, schemas()["ls"])
