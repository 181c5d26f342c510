"""What README, `.env.example` and the pages under `docs/` say is what the program does."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from user_sync_pipeline.core import login_flows, settings
from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.settings import SalesforceSettings, SupabaseSettings
from user_sync_pipeline.sandbox.salesforce.faults import FaultScript

ROOT = Path(__file__).parents[2]
README, EXAMPLE, SALESFORCE = (ROOT / name for name in ("README.md", ".env.example", "docs/salesforce.md"))
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Read by Dagster, or by its settings file.
OF_DAGSTER = {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "DAGSTER_EVENT_BATCH_SIZE"}
NAME = re.compile(r"\b(?:SALESFORCE|SUPABASE|USER_SYNC|DAGSTER)_[A-Z_]+\b")


class Listening(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, **variables: str) -> None:
        super().__init__(variables)
        self.asked: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


def settings_that_are_read() -> set[str]:
    """Every variable that the program asks for, in each of the ways to sign in."""
    flows = (
        Listening(SALESFORCE_CLIENT_ID="id", SALESFORCE_CLIENT_SECRET="secret"),
        Listening(SALESFORCE_CLIENT_ID="id", SALESFORCE_USERNAME="user", SALESFORCE_PRIVATE_KEY="no key"),
        Listening(SALESFORCE_ACCESS_TOKEN="token", SALESFORCE_INSTANCE_URL="https://example.my.salesforce.com"),
        Listening(SUPABASE_URL="https://example.supabase.co", SUPABASE_SERVICE_ROLE_KEY="key"),
        Listening(USER_SYNC_DATABASE_URL="postgresql://localhost/postgres"),
    )
    functions = [
        function
        for name, function in inspect.getmembers(settings, inspect.isfunction)
        if not name.startswith("_") and list(inspect.signature(function).parameters) == ["environment"]
    ]
    for environment in flows:
        for read in (SalesforceSettings.from_environment, SupabaseSettings.from_environment, *functions):
            with suppress(ConfigurationError):
                read(environment)
    return set().union(*(environment.asked for environment in flows)) - set(login_flows._PASSWORDS)


def in_table(page: Path) -> set[str]:
    """The variables that stand in the first column of a table."""
    return named(line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `"))


def named(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in NAME.findall(text)}


def test_every_setting_stands_in_the_readme_and_no_other() -> None:
    assert in_table(README) == settings_that_are_read() | OF_DAGSTER - {"DAGSTER_EVENT_BATCH_SIZE"}


def test_every_setting_of_salesforce_stands_on_its_page_and_no_other() -> None:
    of_salesforce = {name for name in settings_that_are_read() if name.startswith("SALESFORCE_")}
    assert in_table(SALESFORCE) == of_salesforce


def test_every_setting_stands_in_the_example_and_no_other() -> None:
    written = dotenv_values(stream=StringIO(re.sub(r"^#(?=[A-Z_]+=)", "", EXAMPLE.read_text(), flags=re.MULTILINE)))
    assert set(written) == settings_that_are_read() | OF_DAGSTER


def test_settings_are_called_by_their_right_names_everywhere() -> None:
    known = settings_that_are_read() | OF_DAGSTER | set(login_flows._PASSWORDS)
    assert named(page.read_text() for page in PAGES) <= known


def test_the_script_of_faults_on_the_page_is_one(tmp_path: Path) -> None:
    [script] = re.findall(r"```json\n(.*?)```", SALESFORCE.read_text(), flags=re.DOTALL)
    file = tmp_path / "faults.json"
    file.write_text(script)
    assert len(FaultScript.from_file(file).faults) == len(json.loads(script))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target
