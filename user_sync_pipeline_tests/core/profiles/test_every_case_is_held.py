"""`docs/profiles-cases.md` is whole, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from user_sync_pipeline.core.profiles.reconcile import FINDINGS

TESTS = Path(__file__).parents[2]
DOCS = TESTS.parent / "docs"
ROW = re.compile(r"\| (\d+) \|(.*)")
NAME = re.compile(r"`(test_\w+)`")
HEADINGS = {"## Cases": ("case", 23), "## Complaints": ("complaint", 18)}


def rows_of(heading: str) -> dict[int, set[str]]:
    """The names of the tests of each row below a heading, by the number of the row."""
    _, _, part = (DOCS / "profiles-cases.md").read_text().partition(f"{heading}\n")
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
def test_every_number_has_a_test_named_after_it_and_every_name_is_a_test(heading: str, tests: set[str]) -> None:
    kind, count = HEADINGS[heading]
    rows = rows_of(heading)
    assert rows.keys() == set(range(1, count + 1))
    assert set().union(*rows.values()) - tests == set()
    numbered = [(int(match[1]), match[0]) for name in tests if (match := re.match(rf"test_{kind}_(\d+)_.*", name))]
    assert {number for number, _ in numbered} == rows.keys()
    assert [name for number, name in numbered if name not in rows[number]] == []


def test_the_page_tells_what_to_do_about_each_finding() -> None:
    _, _, part = (DOCS / "profiles.md").read_text().partition("\n## Findings\n")
    assert set(re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)) == set(FINDINGS)
