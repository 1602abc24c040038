"""Imports only point down, only storage opens files, and the listing path stays light.

The order is drawn in docs/overview.md. A room may import itself and every room before it; inside a capability's room the
front file says what else it must not import.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "openckpt"

ORDER: tuple[tuple[str, ...], ...] = (
    ("errors", "limits", "findings", "codes", "lazy"),
    ("storage",),
    ("formats",),
    ("opening", "writing"),
    ("finding", "doctor", "conversion", "training"),
    ("openckpt", "keras"),  # the face: openckpt/__init__.py, and what needs a framework to be imported
    ("testing",),  # shipped, for tests of savers
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
MAY_USE = {("doctor", "finding")}
"""The only imports between two rooms of one rank, the bottom row aside."""

HEAVY = ("numpy", "rich", "h5py", "google.protobuf", "ml_dtypes", "click")


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "openckpt" if parts == ("__init__",) else parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(line, absolute module name)`` for every import, inside functions and TYPE_CHECKING blocks too."""
    package = ("openckpt", *path.relative_to(SOURCE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package[: len(package) - node.level + (1 if path.name == "__init__.py" else 0)]
                base = ".".join((*up, base)).rstrip(".")
            if base == "openckpt":
                for (
                    alias
                ) in node.names:  # `from openckpt import storage` names a room, `from openckpt import open` the face
                    yield node.lineno, f"openckpt.{alias.name}" if alias.name in RANK else "openckpt"
            else:
                yield node.lineno, base


def test_every_room_has_a_place_in_the_order() -> None:
    """A new file or folder at the top of the package must be put into the order first."""
    assert {room_of(path) for path in modules()} == set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_point_down(path: Path) -> None:
    """No module imports a room above its own, nor a sibling capability."""
    own = room_of(path)
    wrong = []
    for line, name in imports_of(path):
        if name != "openckpt" and not name.startswith("openckpt."):
            continue
        target = name.split(".")[1] if "." in name else "openckpt"
        allowed = (
            target == own or RANK[target] < RANK[own] or (RANK[target] == RANK[own] == 0) or (own, target) in MAY_USE
            # The face names the homes of its names for type checkers, all below it; the library never imports the face.
        )
        if not allowed:
            wrong.append(f"line {line}: {own} imports {name}")
    assert not wrong


OPENERS = {
    "os": {"open", "stat", "lstat", "listdir", "scandir", "walk", "remove", "unlink", "rename", "replace", "mkdir",
           "makedirs", "readlink", "fdopen"},
    "os.path": {"exists", "isfile", "isdir", "getsize", "getmtime", "realpath", "lexists", "islink"},
    "io": {"open", "FileIO", "open_code"},
}  # fmt: skip
BANNED_MODULES = {"pathlib", "shutil", "tempfile", "glob", "mmap", "zipfile", "tarfile", "pickle", "shelve", "marshal"}
SHUTIL_FOR_THE_SCREEN = ("cli", "shutil")  # get_terminal_size


@pytest.mark.parametrize(
    "path", [p for p in modules() if room_of(p) != "storage"], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_only_storage_touches_the_disk(path: Path) -> None:
    """One door: no other room opens, stats, lists or renames files, or imports a module that would."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own_names = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.name] if isinstance(node, ast.FunctionDef)
            else [alias.asname or alias.name for alias in node.names] if isinstance(node, ast.ImportFrom)
            else []
        )
    }  # fmt: skip
    wrong = []
    for line, name in imports_of(path):
        top = name.split(".")[0]
        if top in BANNED_MODULES and (room_of(path), top) != SHUTIL_FOR_THE_SCREEN:
            wrong.append(f"line {line}: imports {name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, attribute = called.rpartition(".")
        if called == "open" and "open" not in own_names:
            wrong.append(f"line {node.lineno}: calls open()")
        if attribute in OPENERS.get(owner, ()):
            wrong.append(f"line {node.lineno}: calls {called}")
    assert not wrong


def loaded_by(code: str) -> set[str]:
    """Return the names in ``sys.modules`` after a fresh Python ran ``code``."""
    script = f"import sys\n{code}\nsys.stderr.write('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(result.stderr.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    """``import openckpt`` loads no library but the standard one, and of ours only what makes it lazy."""
    loaded = loaded_by("import openckpt")
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("openckpt")} == {"openckpt", "openckpt.lazy"}


def test_the_command_line_loads_only_the_command_that_runs() -> None:
    """A command that is not run is not imported; neither is anything that draws."""
    loaded = loaded_by("from openckpt.cli.program import run\nassert run(['--version']) == 0")
    assert not loaded & {"numpy", "rich", "h5py", "google.protobuf", "ml_dtypes"}
    assert not loaded & {f"openckpt.cli.{name}" for name in ("doctor", "find", "ls", "tree", "show", "demo")}
