"""The catalogue of codes and the sources say the same, and every fix can be followed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from openckpt.cli.program import COMMANDS, program
from openckpt.codes import _AREAS, CATALOGUE, fix_for
from openckpt.codes.quoting import quoted
from openckpt.errors import CorruptionError, Where

SOURCE = Path(__file__).parent.parent / "src" / "openckpt"
AREAS = {module.__name__.rpartition(".")[2]: module for module in _AREAS}
CODE = re.compile(rf"({'|'.join(AREAS)})\.[a-z0-9]+(-[a-z0-9]+)*")

FILE_NAMES = {"graph.pbtxt"}
"""Literals that only look like codes."""


def codes_in_sources() -> dict[str, list[str]]:
    """Return every string literal of the sources, the catalogue aside, that reads like a code, with its places."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name == "codes":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if is_text and CODE.fullmatch(node.value) and node.value not in FILE_NAMES:
                found.setdefault(node.value, []).append(f"{path.relative_to(SOURCE)}:{node.lineno}")
            if isinstance(node, ast.JoinedStr) and (suffix := suffix_of(node)) is not None:
                for code in CATALOGUE:
                    if code.endswith(suffix):
                        found.setdefault(code, []).append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    return found


def suffix_of(node: ast.JoinedStr) -> str | None:
    """Return ".empty" of ``f"{area}.empty"``, the one other way to write a code: the same fault in several areas."""
    match node.values:
        case [ast.FormattedValue(value=ast.Name(id="area")), ast.Constant(value=str(text))]:
            return text
    return None


def error_classes() -> set[str]:
    tree = ast.parse((SOURCE / "errors.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Error")}


def test_every_code_in_the_sources_is_in_the_catalogue() -> None:
    """A code that is raised or reported has a cause and a fix."""
    missing = {code: places for code, places in codes_in_sources().items() if code not in CATALOGUE}
    assert not missing


def test_every_code_of_the_catalogue_is_used() -> None:
    """The page of codes lists nothing that openckpt never says."""
    assert sorted(CATALOGUE.keys() - codes_in_sources().keys()) == []


def test_every_error_is_made_with_a_literal_code_of_a_known_area() -> None:
    """``raise CorruptionError("...")`` with a code of no area would slip through the two tests above."""
    names = error_classes() | {"make_finding"}
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if called in names and isinstance(first, ast.Constant) and not CODE.fullmatch(str(first.value)):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {first.value!r}")
    assert not wrong


@pytest.mark.parametrize("area", AREAS)
def test_codes_stand_in_the_module_of_their_area(area: str) -> None:
    """The part before the dot is the module's name."""
    assert all(code.partition(".")[0] == area and CODE.fullmatch(code) for code in AREAS[area].CODES)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_cause_and_fix_read_well(name: str) -> None:
    """A cause is one or more whole sentences; a fix has only the known placeholders; both are one line."""
    code = CATALOGUE[name]
    assert code.severity in ("error", "warning", "note")
    assert re.fullmatch(r"[A-Z`\"'\d.].{15,}[.!?)]", code.cause), code.cause
    assert "\n" not in code.cause
    if code.fix is not None:
        assert "\n" not in code.fix
        assert set(re.findall(r"\{(\w*)\}", code.fix)) <= {"path", "prefix", "dir", "key"}, code.fix


def options_of(command: str) -> set[str]:
    context = click.Context(program, info_name="openckpt")
    found = program.get_command(context, command)
    assert found is not None
    return {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize(
    "name", sorted(name for name, code in CATALOGUE.items() if code.fix and "openckpt" in code.fix)
)
def test_fixes_name_only_commands_and_options_that_exist(name: str) -> None:
    """Whoever follows a fix must not end at a usage error."""
    fix = CATALOGUE[name].fix
    assert fix is not None
    text = re.sub(r"pip install[^;,]*openckpt\S*", "", fix)
    for call in re.findall(r"(?<![.\w])openckpt ([a-z]+[^;,)]*)", text):
        command, *rest = call.split()
        assert command in COMMANDS, fix
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert options <= options_of(command), fix


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "-dash",
        "sp ace",
        "quo'te\\",
        "new\nline",
        "\x1b[31mred\x1b]0;t\x07",
        os.fsdecode(b"\xff\xfe 'x\\"),
        "\u202eevil",
        "ü",
    ],
)
def test_a_quoted_path_is_the_path_again_in_a_shell(name: str) -> None:
    """Any name survives being printed as part of a command and pasted, and none is an option or moves the cursor."""
    text = quoted(name)
    assert text.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == (f"./{name}" if name.startswith("-") else name)


def test_placeholders_are_filled_shell_quoted() -> None:
    """A path with a quote or a key with a semicolon is one word of the command that is shown."""
    nasty = "it's; rm -rf $HOME/`x`"
    for name, code in CATALOGUE.items():
        for placeholder in ("path", "key"):
            if code.fix and f"{{{placeholder}}}" in code.fix:
                filled = fix_for(name, Where(nasty, nasty))
                assert filled is not None
                assert shlex.quote(nasty) in filled


@pytest.mark.parametrize(
    ("path", "around"),
    [("run/ckpt-1.index", "run"), ("run", "."), ("run/", "."), (".", ".."), ("..", "../.."), ("/run", "/"), ("/", "/")],
)
def test_the_directory_around_a_place_is_another_one(path: str, around: str) -> None:
    """Also where the place is a directory called by dots: searching it again would find nothing again."""
    assert fix_for("run.none", Where(path)) == f"openckpt find {around}"


def test_the_error_carries_the_catalogues_fix() -> None:
    """An error shows the fix of its code, with the place filled in."""
    error = CorruptionError("storage.short-read", Where("run/ckpt-1.data-00000-of-00001"), "too short")
    assert error.fix == "openckpt doctor run"
    assert str(error).endswith("[storage.short-read]; openckpt doctor run")
