"""The examples of the documentation, read out of its fenced blocks.

```python            runs as a program
```python needs=torch   runs where that is installed, and is skipped loudly elsewhere
```console           `$ command` lines run in bash; lines after one are its output, `...` stands for anything
<!-- not run: why -->  right before a block, is the only way out
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"(?P<indent> *)```(?P<info>[^\n`]*)")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.{10,}) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path below the repository's root.
        line: number of the opening fence.
        info: what stands behind the fence: "python", "console", "json schema=ls".
        text: the block's content.
        excuse: why it is not run, or None.
    """

    page: str
    line: int
    info: str
    text: str
    excuse: str | None

    @property
    def needs(self) -> tuple[str, ...]:
        """What of `oracle.NEEDS` the example needs."""
        return tuple(word.removeprefix("needs=") for word in self.info.split() if word.startswith("needs="))

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info.split() else ""


def pages() -> list[Path]:
    """Return every page of documentation."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of one page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if fence is None:
            number += 1
            continue
        start, indent = number, len(fence["indent"])
        number += 1
        body = []
        while number < len(lines) and lines[number].strip() != "```":
            body.append(lines[number][indent:])
            number += 1
        number += 1
        before = [line for line in lines[max(0, start - 2) : start] if line.strip()]
        excuse = _NOT_RUN.search(before[-1]) if before else None
        yield Block(
            str(page.relative_to(ROOT)), start + 1, fence["info"].strip(), "\n".join(body), excuse and excuse["reason"]
        )


def all_blocks(language: str) -> list[Block]:
    """Return every block of one language on every page."""
    return [block for page in pages() for block in blocks_of(page) if block.language == language]


@dataclass(frozen=True)
class Call:
    """One `$ command` of a console block, and the output that the page shows for it."""

    command: str
    output: str


def calls_of(block: Block) -> list[Call]:
    """Split a console block into its commands; a line that ends in a backslash goes on."""
    calls: list[Call] = []
    command, output, open_command = "", [], False
    for line in block.text.splitlines():
        if line.startswith("$ ") and not open_command:
            if command:
                calls.append(Call(command, "\n".join(output).strip("\n")))
            command, output = line[2:], []
            open_command = line.endswith("\\")
        elif open_command:
            command += "\n" + line
            open_command = line.endswith("\\")
        else:
            output.append(line)
    if command:
        calls.append(Call(command, "\n".join(output).strip("\n")))
    return calls


def matches(shown: str, real: str) -> bool:
    """Return whether real output is what the page shows; `...` in it stands for anything, trailing blanks do not count."""
    pattern = ".*".join(re.escape(part) for part in "\n".join(map(str.rstrip, shown.splitlines())).split("..."))
    return re.fullmatch(pattern, "\n".join(map(str.rstrip, real.strip("\n").splitlines())), re.DOTALL) is not None
