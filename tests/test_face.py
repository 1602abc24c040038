"""The public face: its list is complete, sorted and true, and its types are what callers rely on."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import openckpt

TYPING = Path(__file__).parent / "typing"


def test_the_export_list_is_sorted_and_unique() -> None:
    """``__all__`` reads like an index: classes, dunder, functions, each in order."""
    assert openckpt.__all__ == sorted(set(openckpt.__all__))


def test_the_export_list_equals_the_homes() -> None:
    """Every exported name has a home, every home is exported."""
    assert set(openckpt.__all__) == {*openckpt._HOMES, "__version__"}


@pytest.mark.parametrize("name", openckpt.__all__)
def test_every_name_can_be_imported_and_is_documented(name: str) -> None:
    """A lazy name that fails when it is used would only be noticed by users."""
    value = getattr(openckpt, name)
    if name != "__version__":
        assert (inspect.getdoc(value) or "").strip()
        assert value.__name__ == name


@pytest.mark.parametrize("name", openckpt.__all__)
def test_every_public_method_is_documented(name: str) -> None:
    """The API page is made of docstrings, so each public method and property has one."""
    value = getattr(openckpt, name)
    if not isinstance(value, type):
        return
    bare = [
        member
        for member, target in vars(value).items()
        if not member.startswith("_")
        and (inspect.isfunction(target) or isinstance(target, (property, classmethod, staticmethod)))
        and not inspect.getdoc(target)
    ]
    assert not bare


def test_dir_lists_every_exported_name() -> None:
    """Completion in a shell finds names that nobody has used yet."""
    assert set(openckpt.__all__) <= set(dir(openckpt))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """``hasattr`` and typing errors behave as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        openckpt.opne  # type: ignore[attr-defined]


def test_star_import_gives_exactly_the_export_list() -> None:
    """``from openckpt import *`` brings no private name."""
    space: dict[str, object] = {}
    exec("from openckpt import *", space)
    assert set(space) - {"__builtins__"} == set(openckpt.__all__)


def test_the_version_is_the_packages() -> None:
    """The number in the code and the number of the installed distribution are one."""
    from importlib.metadata import version

    assert openckpt.__version__ == version("openckpt")


def test_callers_see_precise_types(tmp_path: Path) -> None:
    """A sample program passes strict mypy; `reveal_type` in it says what a caller gets."""
    pytest.importorskip("mypy")
    sample = TYPING / "sample.py"
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path),
         "--config-file", str(TYPING / "mypy.ini"), str(sample)],
        capture_output=True, text=True, timeout=240, cwd=TYPING,
    )  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if line]
    notes = [line for line in lines if " note: " in line]
    assert [line for line in lines if line not in notes] == []
    revealed = [line.split('Revealed type is "')[1].rstrip('"') for line in notes if "Revealed type" in line]
    expected = [
        line.split("# ->")[1].strip()
        for line in sample.read_text(encoding="utf-8").splitlines()
        if "reveal_type(" in line and "# ->" in line
    ]
    assert [text.replace("builtins.", "").replace("generic[Any]", "generic") for text in revealed] == expected
