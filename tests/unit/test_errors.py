"""What errors and reports share: texts for people."""

from __future__ import annotations

import pytest

from openckpt.errors import CheckpointWarning, size_text, warn


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (31_360, "31.4 kB"), (10**15, "1.0 PB"), (10**19, "10000 PB"), (None, "?")],
)  # fmt: skip
def test_sizes_have_decimal_units(nbytes: int | None, text: str) -> None:
    """Three digits and a unit; never "1000 kB"."""
    assert size_text(nbytes) == text


def test_a_warning_names_the_line_of_the_program_that_called() -> None:
    """Not a line of openckpt, however deep in it the warning is given."""
    inside: dict[str, object] = {"__name__": "openckpt.somewhere", "warn": warn}
    exec("def deep():\n    warn('careful')\ndef face():\n    deep()", inside)

    with pytest.warns(CheckpointWarning, match="careful") as said:
        inside["face"]()  # type: ignore[operator]
    assert said[0].filename == __file__
