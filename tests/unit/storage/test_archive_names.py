"""Names inside archives become plain relative paths, whatever they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openckpt.storage.archive.names import decode_name, decode_zip_name, harmless_path

PLAIN = ["ckpt.index", "run/ckpt-1.index", "a b/c[*].data-00000-of-00001", "...", "..a/b..", ".hidden/.index", "a:b/c"]
SAME = {
    "./run/ckpt.index": "run/ckpt.index",
    "run//ckpt.index": "run/ckpt.index",
    "run/./ckpt.index": "run/ckpt.index",
    "run/": "run",
    "./": "",
    "": "",
}
ODD = {
    "../x": "x",
    "a/../../b": "b",
    "a/../b": "b",
    "..": "",
    "/": "",
    "/etc/passwd": "etc/passwd",
    "//server/share": "server/share",
    "C:/run/x": "run/x",
    "c:": "",
    "nul\0byte": "nul\0byte",
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_stay(name: str) -> None:
    """What begins nowhere dangerous is left as it is."""
    assert harmless_path(name, backslash_separates=False) == (name, False)


@pytest.mark.parametrize("name", SAME)
def test_needless_parts_go(name: str) -> None:
    """ "./" and doubled slashes are how tar writes names, and nothing odd."""
    assert harmless_path(name, backslash_separates=False) == (SAME[name], False)


@pytest.mark.parametrize("name", ODD)
def test_names_that_lead_outside_are_stripped_and_noted(name: str) -> None:
    """Climbing, absolute and drive names are listed without that part."""
    assert harmless_path(name, backslash_separates=False) == (ODD[name], True)


def test_backslashes_separate_in_zips_only() -> None:
    """Windows tools write them into zips; in a tar a backslash is part of the name."""
    assert harmless_path("run\\ckpt.index", backslash_separates=True) == ("run/ckpt.index", False)
    assert harmless_path("run\\ckpt.index", backslash_separates=False) == ("run\\ckpt.index", False)
    assert harmless_path("..\\..\\x", backslash_separates=True) == ("x", True)
    assert harmless_path("C:\\run\\x", backslash_separates=True) == ("run/x", True)


@given(st.text(alphabet="a./\\:C\0 é", max_size=20), st.booleans())
def test_paths_are_always_harmless(name: str, backslash_separates: bool) -> None:
    """No path is absolute, climbs, or has empty parts; making it harmless twice changes nothing."""
    path, _ = harmless_path(name, backslash_separates=backslash_separates)

    assert not path or all(part not in ("", ".", "..") for part in path.split("/"))
    assert harmless_path(path, backslash_separates=False)[0] == path or path[1:2] == ":"


def test_text_of_names() -> None:
    """UTF-8 where it is; code page 437 in zips where it is not; surrogates where nothing else is stated."""
    assert decode_name("é".encode()) == "é"
    assert decode_name(b"\xff") == "\udcff"
    assert decode_zip_name("é".encode(), utf8=False) == "é"
    assert decode_zip_name(b"\x82", utf8=False) == "é"
    assert decode_zip_name(b"\x82", utf8=True) == "\udc82"
