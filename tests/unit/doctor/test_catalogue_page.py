"""The page of the failure catalogue, the catalogue of codes and the tests of the faults say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from openckpt.codes import _AREAS, CATALOGUE

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "reference" / "failure-catalogue.md"
TESTS = HERE / "test_failure_catalogue.py"


def rows() -> dict[int, list[tuple[str, str]]]:
    """Return ``{row: [(code, severity)]}`` of the page's table."""
    found: dict[int, list[tuple[str, str]]] = {}
    number = 0
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 6 and (cells[0].isdigit() or not cells[0]):
            number = int(cells[0] or number)
            found.setdefault(number, []).append((cells[3].strip("`"), cells[4]))
    return found


def sources_by_row() -> dict[int, str]:
    """Return ``{row: source of the tests named after it}``."""
    text = TESTS.read_text("utf-8")
    found: dict[int, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_rows?_(\d\d)(?:_and_(\d\d))?_", node.name)):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            source = "\n".join(text.splitlines()[start - 1 : node.end_lineno])
            for number in filter(None, match.groups()):
                found[int(number)] = found.get(int(number), "") + source
    return found


def test_every_row_is_on_the_page_and_has_a_test() -> None:
    """Rows 1 to 42, no more, no fewer."""
    assert sorted(rows()) == list(range(1, 43))
    assert sorted(sources_by_row()) == list(range(1, 43))


def test_every_code_of_a_row_is_tested_there() -> None:
    """The test of a row asks for every code that the page promises for it."""
    sources = sources_by_row()
    assert [
        (number, code) for number, codes in rows().items() for code, _ in codes if f'"{code}"' not in sources[number]
    ] == []


def test_severities_are_those_of_the_catalogue() -> None:
    """The page does not promise another severity than the code has."""
    assert [
        (number, code)
        for number, codes in rows().items()
        for code, severity in codes
        if CATALOGUE[code].severity != severity
    ] == []


def test_codes_named_below_the_table_exist() -> None:
    """Every other code on the page is one."""
    areas = "|".join(module.__name__.rpartition(".")[2] for module in _AREAS)
    named = re.findall(rf"`((?:{areas})\.[a-z0-9-]+)`", PAGE.read_text("utf-8"))
    assert [code for code in named if code not in CATALOGUE] == []
