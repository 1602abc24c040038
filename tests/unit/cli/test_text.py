"""Numbers, shapes and columns as text."""

from __future__ import annotations

import pytest

from openckpt.cli.text import abbreviate_key, cell_width, count_text, names_text, pad, shape_text, shorten


def test_shapes_are_one_word() -> None:
    """A shape has no blanks, so that `awk` sees columns; a scalar and an unknown rank differ."""
    assert [shape_text(shape) for shape in ((784, 10), (), (0,), None)] == ["[784,10]", "[]", "[0]", "?"]


def test_counts_agree_with_their_noun() -> None:
    """One tensor, no "1 tensors"."""
    assert [count_text(n, "tensor") for n in (0, 1, 1234)] == ["0 tensors", "1 tensor", "1,234 tensors"]


def test_width_counts_columns_not_letters() -> None:
    """East Asian letters take two columns, combining marks none."""
    assert cell_width("日本") == 4
    assert cell_width("e\u0301") == 1
    assert pad("日本", 6) == "日本  "
    assert pad("7", 3, right=True) == "  7"


@pytest.mark.parametrize("width", [4, 5, 12, 19, 20])
def test_shortened_text_fits_and_keeps_both_ends(width: int) -> None:
    """The cut is in the middle: the end of a key tells more than its start."""
    text = "model/layer-1/kernel日本"
    short = shorten(text, width)
    assert cell_width(short) <= width
    assert short[-1] == "本"
    assert "…" in short


def test_text_that_fits_stays() -> None:
    """Nothing is cut without need."""
    assert shorten("kernel", 6) == "kernel"


def test_names_are_escaped_and_counted() -> None:
    """A list of names shows the first ones and how many more there are."""
    assert names_text(["a", "b\n", "c", "d", "e"], 5) == "a, b\\n, c and 2 more"
    assert names_text([], 0) == ""


def test_abbreviated_keys_lose_only_what_all_have() -> None:
    """The names that people chose stay."""
    key = "model/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    assert abbreviate_key(key) == "model/kernel/…/optimizer/m/…"
    assert abbreviate_key("dense/kernel") == "dense/kernel"
