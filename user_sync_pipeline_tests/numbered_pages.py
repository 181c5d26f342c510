"""Pages with numbered rows that name the tests which hold them: their rows, and the tests that there are.

What belongs here: reading both. What does not: what a page has to name (the tests beside its subject).
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
_ROW = re.compile(r"\| (\d+) \|(.*)")
_NAME = re.compile(r"`(test_\w+)`")


def rows_of(page: str, heading: str) -> dict[int, set[str]]:
    """Return the names of the tests of each row below a heading, by the number of the row."""
    _, _, part = (DOCS / page).read_text().partition(f"{heading}\n")
    part, _, _ = part.partition("\n## ")
    found = [(int(match[1]), set(_NAME.findall(match[2]))) for match in map(_ROW.match, part.splitlines()) if match]
    assert len(found) == len(dict(found))
    return dict(found)


@cache
def all_tests() -> frozenset[str]:
    """Return the names of all tests."""
    return frozenset(
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def numbered_tests(kind: str) -> list[tuple[int, str]]:
    """Return (number, name) of the tests that are called after a number of this kind."""
    pattern = re.compile(rf"test_{kind}_(\d+)_.*")
    return [(int(match[1]), match[0]) for match in map(pattern.match, all_tests()) if match]
