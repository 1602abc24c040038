"""One abuse attempt: files that somebody made to hurt, and the code with which openckpt must refuse them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Attack:
    """A folder of hostile files.

    Attributes:
        name: unique, says what the file does, e.g. "block-handle-past-end".
        files: name -> bytes, or a function that makes them (for large ones). Names may contain "/".
        path: what is handed to openckpt, relative to the folder.
        code: the code that must come out.
        how: "read" = `openckpt.open`, list all specs, read every tensor (the error's code); "doctor" = `openckpt.diagnose`
            (one finding must have the code, and nothing may raise).
    """

    name: str
    files: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]]
    path: str
    code: str
    how: Literal["read", "doctor"] = "read"
