"""The documentation is whole: links resolve, generated pages are fresh, everything public is described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from docs.examples import ROOT, pages
from openckpt.cli.program import COMMANDS, program
from openckpt.codes import CATALOGUE

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a Markdown viewer makes of the headings."""
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchors.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path) -> None:
    """A link to a file that is not there, or to a heading that nobody wrote, is a defect."""
    broken = []
    for target in _LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        exists = other.exists()
        if not exists or (anchor and other.suffix == ".md" and anchor not in anchors_of(other)):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_first() -> None:
    """Whoever begins at docs/README.md and follows links comes to every page."""
    first = ROOT / "docs" / "README.md"
    reached, pending = {first}, [first]
    while pending:
        page = pending.pop()
        for target in _LINK.findall(text_of(page)):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_relative_to(ROOT / "docs") and path not in reached:
                reached.add(path)
                pending.append(path)
    assert reached == set((ROOT / "docs").rglob("*.md"))


def test_the_overview_has_every_room() -> None:
    """A row for each folder of the package, and one for each file that is a room of its own."""
    overview = (ROOT / "docs" / "overview.md").read_text()
    rooms = {path.name for path in (ROOT / "src" / "openckpt").iterdir() if (path / "__init__.py").exists()}
    rows = "".join(line.split("|")[1] for line in overview.splitlines() if line.startswith("| `"))
    assert {room for room in rooms if f"`{room}`" not in rows} == set()


def test_generated_pages_are_fresh() -> None:
    """The pages of codes, commands and functions say what the sources say."""
    result = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr


def command_of(name: str) -> click.Command:
    command = program.get_command(click.Context(program, info_name="openckpt"), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    """A command has a line for the list and a text of its own; each of its options says what it does."""
    command = command_of(name)
    assert command.short_help
    assert len(command.help or "") > len(command.short_help)
    bare = [p.name for p in command.params if isinstance(p, click.Option) and not p.help and p.name != "help"]
    assert not bare


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """The reference has a section per command, and some hand-written page uses it."""
    assert f"## `openckpt {name}`" in (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    handwritten = [page for page in pages() if page.name not in ("cli.md", "codes.md", "api.md")]
    assert any(f"openckpt {name}" in page.read_text(encoding="utf-8") for page in handwritten)


def test_every_code_is_on_the_page_of_codes() -> None:
    """Whoever meets a code can look it up."""
    page = (ROOT / "docs/reference/codes.md").read_text(encoding="utf-8")
    assert [code for code in CATALOGUE if f"### `{code}`" not in page] == []


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    """The reference has a section for everything in ``openckpt.__all__``."""
    import openckpt

    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    missing = [name for name in openckpt.__all__ if name != "__version__" and f"### `openckpt.{name}" not in page]
    assert not missing


def test_codes_named_in_hand_written_pages_exist() -> None:
    """A page that explains a code which was renamed misleads."""
    areas = {code.partition(".")[0] for code in CATALOGUE}
    wrong = []
    for page in pages():
        for area, rest in re.findall(r"`([a-z0-9]+)\.([a-z0-9-]+)`", text_of(page)):
            if area in areas and "-" in rest and f"{area}.{rest}" not in CATALOGUE:
                wrong.append(f"{page.name}: {area}.{rest}")
    assert not wrong


def test_decisions_are_listed_and_complete() -> None:
    """Every decision page is in the list, and says context, choice and cost."""
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("0*.md")):
        text = page.read_text(encoding="utf-8")
        assert page.name in listed
        assert all(f"**{part}.**" in text for part in ("Context", "Choice", "Cost")), page.name


def test_changes_are_one_line_each() -> None:
    """A note is one line for users; the folder is joined into release notes by line."""
    for path in sorted((ROOT / "changes").glob("*.md")):
        assert len(path.read_text(encoding="utf-8").strip().splitlines()) == 1, path.name


def test_the_readme_fits_one_screen() -> None:
    """The first page is an invitation, not a manual."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60
