"""`docs/salesforce-gotchas.md` is whole, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
DOCUMENT = TESTS.parent / "docs" / "salesforce-gotchas.md"
ROW = re.compile(r"\| (\d+) \|(.*)")
NAME = re.compile(r"`(test_\w+)`")
HEADINGS = {
    "## Gotchas": ("gotcha", 40),
    "## What is done about which answer": ("retry_row", 9),
    "## Scenarios": ("scenario", 16),
}


def rows_of(heading: str) -> dict[int, set[str]]:
    """The names of the tests of each row below a heading, by the number of the row."""
    _, _, part = DOCUMENT.read_text().partition(f"{heading}\n")
    part, _, _ = part.partition("\n## ")
    found = [(int(match[1]), set(NAME.findall(match[2]))) for match in map(ROW.match, part.splitlines()) if match]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.fixture(scope="module")
def tests() -> set[str]:
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.slow
@pytest.mark.parametrize("heading", HEADINGS)
def test_every_number_has_a_test_that_exists(heading: str, tests: set[str]) -> None:
    _, count = HEADINGS[heading]
    rows = rows_of(heading)
    assert rows.keys() == set(range(1, count + 1))
    assert [number for number, names in rows.items() if not names] == []
    assert set().union(*rows.values()) - tests == set()


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_test_that_bears_a_number_is_named_in_its_row(heading: str, tests: set[str]) -> None:
    kind, _ = HEADINGS[heading]
    rows = rows_of(heading)
    numbered = [(int(match[1]), match[0]) for name in tests if (match := re.match(rf"test_{kind}_(\d+)_.*", name))]
    assert {number for number, _ in numbered} >= rows.keys()
    assert [name for number, name in numbered if name not in rows[number]] == []
