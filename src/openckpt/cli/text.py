"""Numbers, shapes and columns as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openckpt.errors import printable
from openckpt.formats.spec import VALUE_SUFFIX


def shape_text(shape: Sequence[int] | None) -> str:
    """Return ``[784,10]``; ``[]`` for a scalar, ``?`` where the rank is unknown."""
    return "?" if shape is None else f"[{','.join(map(str, shape))}]"


def count_text(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 tensor``, ``1,234 tensors``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def cell_width(text: str) -> int:
    """Return the columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return ``text`` filled with spaces to ``width`` columns; ``right`` aligns it there."""
    space = " " * max(0, width - cell_width(text))
    return space + text if right else text + space


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return ``text`` cut in its middle to ``width`` columns: both ends of a key or a path say something."""
    if cell_width(text) <= width:
        return text
    room = max(0, width - len(ellipsis))
    head, tail = room // 3, room - room // 3
    start, end = "", ""
    for char in text:
        if cell_width(start + char) > head:
            break
        start += char
    for char in reversed(text):
        if cell_width(char + end) > tail:
            break
        end = char + end
    return start + ellipsis + end


def abbreviate_key(key: str, ellipsis: str = "…") -> str:
    """Return a key without the words that TensorFlow writes into every one."""
    return key.replace(VALUE_SUFFIX, f"/{ellipsis}").replace("/.OPTIMIZER_SLOT/", f"/{ellipsis}/")


def names_text(names: Iterable[str], total: int, *, most: int = 3) -> str:
    """Return the first names, escaped, and how many more there are."""
    shown = [printable(name) for _, name in zip(range(most), names, strict=False)]
    more = total - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
