"""What errors and reports share: texts for people."""

from __future__ import annotations

import pytest

from openckpt.errors import CheckpointWarning, MismatchError, UnsupportedError, Where, size_text, warn, with_article


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


@pytest.mark.parametrize(
    ("where", "text"),
    [(Where("run/ckpt-1", "w", 7), "run/ckpt-1 (key 'w', offset 7): no"), (Where("", "(root).f"), "key '(root).f': no"),
     (Where(""), "no")],
)  # fmt: skip
def test_what_is_not_known_of_a_place_is_not_shown(where: Where, text: str) -> None:
    """An object of a program has a name and no file."""
    assert str(UnsupportedError("training.not-trackable", where, "no")).startswith(f"{text} [")


def test_articles() -> None:
    """As people say the word."""
    assert [with_article("Dense"), with_article("Adam"), with_article("object")] == ["a Dense", "an Adam", "an object"]


def test_a_library_that_wraps_an_error_shows_its_text() -> None:
    """Keras makes an error of its own from the first argument of one that comes out of a layer's call."""
    error = MismatchError("training.mismatch", "run/ckpt-1", "the shapes differ")
    error.message = "the configs differ; the shapes differ"
    assert error.args == (str(error),)
    assert "the configs differ" in error.args[0]
