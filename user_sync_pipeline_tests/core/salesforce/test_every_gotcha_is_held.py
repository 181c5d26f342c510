"""`docs/salesforce-gotchas.md` is whole, and every test that it names is there."""

from __future__ import annotations

import pytest

from user_sync_pipeline_tests.numbered_pages import all_tests, numbered_tests, rows_of

PAGE = "salesforce-gotchas.md"
HEADINGS = {
    "## Gotchas": ("gotcha", 40),
    "## What is done about which answer": ("retry_row", 9),
    "## Scenarios": ("scenario", 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("heading", HEADINGS)
def test_every_number_has_a_test_that_exists(heading: str) -> None:
    _, count = HEADINGS[heading]
    rows = rows_of(PAGE, heading)
    assert rows.keys() == set(range(1, count + 1))
    assert [number for number, names in rows.items() if not names] == []
    assert set().union(*rows.values()) - all_tests() == set()


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_test_that_bears_a_number_is_named_in_its_row(heading: str) -> None:
    kind, _ = HEADINGS[heading]
    rows = rows_of(PAGE, heading)
    numbered = numbered_tests(kind)
    assert {number for number, _ in numbered} >= rows.keys()
    assert [name for number, name in numbered if name not in rows[number]] == []
