"""Every example of the documentation runs, in a folder that holds what ``openckpt demo demo`` writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.examples import Block, all_blocks, calls_of, matches

pytestmark = pytest.mark.xdist_group("docs")


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


def environment() -> dict[str, str]:
    """Return the environment of a plain pipe, with this Python's scripts first."""
    found = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    found["PYTHONWARNINGS"] = "error"
    found["PYTHONIOENCODING"] = "utf-8"
    return found


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo in it, made once."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run(
        [sys.executable, "-m", "openckpt.cli", "demo", "demo"], cwd=folder, env=environment(), check=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    return folder


@pytest.fixture
def folder(demo_folder: Path, tmp_path: Path, block: Block) -> Path:
    """A copy of the demo's folder, so that an example may write; one for all of a page that is read from top to bottom."""
    is_read_through = block.page == "README.md" or block.page.startswith("docs/how-to/")
    found = demo_folder / "pages" / block.page if is_read_through else tmp_path
    if not (found / "demo").exists():
        shutil.copytree(demo_folder / "demo", found / "demo")
    return found


def runnable(block: Block) -> object:
    return pytest.param(block, id=name_of(block), marks=[getattr(pytest.mark, need) for need in block.needs])


@pytest.mark.parametrize("block", [runnable(b) for b in all_blocks("python") if not b.excuse])
def test_python_example_runs(block: Block, folder: Path) -> None:
    """A reader who copies the example gets no error."""
    result = subprocess.run(
        [sys.executable, "-c", block.text], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120,
        encoding="utf-8",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = [line.split("# ->", 1)[1].strip() for line in block.text.splitlines() if "# ->" in line]
    if said:
        assert matches("\n".join(said), result.stdout), f"the page shows {said}, the example prints {result.stdout!r}"


@pytest.mark.parametrize("block", [b for b in all_blocks("console") if not b.excuse], ids=name_of)
def test_console_example_runs_and_prints_what_the_page_shows(block: Block, folder: Path) -> None:
    """A reader who types the commands sees the same output; commands of openckpt may say no (1), nothing worse."""
    calls = calls_of(block)
    assert calls, "a console block needs a `$ command`"
    for call in calls:
        result = subprocess.run(
            ["bash", "-c", call.command], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120, encoding="utf-8",
        )  # fmt: skip
        assert result.returncode in (0, 1), f"{call.command}: {result.stdout}"
        assert "Traceback" not in result.stdout
        if call.output:
            assert matches(call.output, result.stdout), f"$ {call.command}\n{result.stdout}"


def test_the_readme_has_an_example_that_runs() -> None:
    """The first page shows Python and the command line, and neither is excused."""
    for language in ("python", "console"):
        assert any(block.page == "README.md" and not block.excuse for block in all_blocks(language))


def test_blocks_of_code_say_their_language() -> None:
    """An unlabelled or ``bash`` block would slip through the tests above; drawings need no label."""
    from docs.examples import blocks_of, pages

    labels = {"python", "console", "json", "text", "proto", "toml", "hex"}
    code = re.compile(r"^(\$ |>>> |import |from \w+ import|with \w+\.)", re.MULTILINE)
    wrong = []
    for block in (block for page in pages() for block in blocks_of(page)):
        if block.language not in labels and (block.language or code.search(block.text)):
            wrong.append(f"{name_of(block)}: {block.info}")
    assert not wrong
