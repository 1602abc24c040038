"""The worked hex examples of the format pages are what the code reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from openckpt.errors import Where
from openckpt.formats.bundle import Strings, encode_bundle, parse_entry
from openckpt.formats.crc import crc32c
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.archive import open_archive
from openckpt.storage.memory import MemorySource

PAGES = Path(__file__).parents[2] / "docs" / "format"


def hex_blocks(page: str) -> list[bytes]:
    """Return the bytes of every ```hex block of a page; comments start with #."""
    text = (PAGES / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)
    return [bytes.fromhex(re.sub(r"#.*", "", block)) for block in blocks]


def test_the_table_page_shows_the_index_that_the_encoder_writes() -> None:
    """121 bytes: one int32 tensor."""
    (example,) = hex_blocks("table.md")
    files = encode_bundle({"a": np.array([1, 2], "int32")}, "p")
    assert files["p.index"] == example


def test_the_bundle_page_shows_an_entry_and_a_string_tensor() -> None:
    """The entry parses to what its comments say, and the strings are encoded so."""
    entry, strings = hex_blocks("bundle.md")
    parsed = parse_entry(entry, Where("page"), DEFAULT_LIMITS)
    assert (parsed.enum, parsed.shape, parsed.size) == (3, (2,), 8)
    assert parsed.crc == crc32c(np.array([1, 2], "<i4").tobytes())
    files = encode_bundle({"s": Strings([b"a", b"bc", b""], (3,))}, "p")
    assert files["p.data-00000-of-00001"] == strings


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_format_pages_stay_short(page: str) -> None:
    """A format page is read in one sitting: under 120 lines."""
    assert len((PAGES / page).read_text(encoding="utf-8").splitlines()) < 120


def test_the_archives_page_shows_a_zip() -> None:
    """A hundred bytes that open as an archive of one stored member."""
    (example,) = hex_blocks("archives.md")
    store = open_archive(MemorySource("x.zip", example))
    assert store.open("x").read_at(0, 1) == b"1"
    assert list(store.validate()) == []
