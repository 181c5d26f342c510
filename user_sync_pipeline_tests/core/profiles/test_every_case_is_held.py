"""`docs/profiles-cases.md` is whole, and every test that it names is there."""

from __future__ import annotations

import re

import pytest

from user_sync_pipeline.core.profiles.reconcile import FINDINGS
from user_sync_pipeline_tests.numbered_pages import DOCS, all_tests, numbered_tests, rows_of

PAGE = "profiles-cases.md"
HEADINGS = {"## Cases": ("case", 23), "## Complaints": ("complaint", 18)}


@pytest.mark.slow
@pytest.mark.parametrize("heading", HEADINGS)
def test_every_number_has_a_test_named_after_it_and_every_name_is_a_test(heading: str) -> None:
    kind, count = HEADINGS[heading]
    rows = rows_of(PAGE, heading)
    assert rows.keys() == set(range(1, count + 1))
    assert set().union(*rows.values()) - all_tests() == set()
    numbered = numbered_tests(kind)
    assert {number for number, _ in numbered} == rows.keys()
    assert [name for number, name in numbered if name not in rows[number]] == []


def test_the_page_tells_what_to_do_about_each_finding() -> None:
    _, _, part = (DOCS / "profiles.md").read_text().partition("\n## Findings\n")
    assert set(re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE)) == set(FINDINGS)
