"""The same days through every way of launching: the same tables, the same days marked, the same checks.

One webserver and one daemon serve all of it; each launch finds a database and a history as if it were the first.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from user_sync_pipeline.core.recent_changes import Days
from user_sync_pipeline_tests.conftest import FEW_PEOPLE
from user_sync_pipeline_tests.orchestration import launch_paths
from user_sync_pipeline_tests.orchestration.launch_paths import DAYS_OF_AXIS, LaunchPath, LiveCompany, Outcome, keys_of
from user_sync_pipeline_tests.orchestration.live_dagster import LiveDagster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FULL, SUB_RANGE, RECENT = "the full axis", "a sub-range", "the recent two days"
WINDOWS = {FULL: (DAYS_OF_AXIS - 1, 0), SUB_RANGE: (4, 3), RECENT: (1, 0)}

EVERYWHERE: dict[str, LaunchPath] = {
    "dagster asset materialize": launch_paths.by_asset_command,
    "the Launchpad": launch_paths.by_launchpad,
    "a job backfill": launch_paths.by_job_backfill,
    "an asset backfill": launch_paths.by_asset_backfill,
}
SENSOR: dict[str, LaunchPath] = {"the sensor, after a pause": launch_paths.by_sensor_after_a_pause}
PATHS: dict[str, dict[str, LaunchPath]] = {
    FULL: {**EVERYWHERE, **SENSOR, "the daily schedule": launch_paths.by_daily_schedule},
    SUB_RANGE: {**EVERYWHERE, **SENSOR},
    RECENT: {**EVERYWHERE, "the sensor": launch_paths.by_sensor_after_changes},
}
ROWS = [pytest.param(window, path, id=f"{path}, {window}") for window, paths in PATHS.items() for path in paths]


class Reference:
    """What each window comes to by `materialize` in Python, to which every other way is compared."""

    def __init__(self, company: LiveCompany, live: LiveDagster) -> None:
        self._company, self._live = company, live
        self._outcomes: dict[str, Outcome] = {}

    def days(self, window: str) -> Days:
        return self._company.days(*WINDOWS[window])

    def prepare(self, window: str) -> None:
        self._company.prepare(read_before=window == RECENT)
        self._live.forget_everything()

    def outcome(self, window: str) -> Outcome:
        if window not in self._outcomes:
            self.prepare(window)
            launch_paths.by_python(self._company, self._live, self.days(window))
            self._outcomes[window] = self._company.outcome(self._live.instance)
        return self._outcomes[window]


@pytest.fixture(scope="module")
def reference(live_company: LiveCompany, live: LiveDagster) -> Reference:
    return Reference(live_company, live)


@pytest.mark.parametrize(("window", "path"), ROWS)
def test_every_way_of_launching_comes_to_the_same(
    window: str, path: str, live_company: LiveCompany, live: LiveDagster, reference: Reference
) -> None:
    expected = reference.outcome(window)
    reference.prepare(window)
    PATHS[window][path](live_company, live, reference.days(window))
    assert live_company.outcome(live.instance) == expected

    # The same days once more change nothing.
    launch_paths.by_python(live_company, live, reference.days(window))
    again = live_company.outcome(live.instance)
    assert (again.tables, again.days, again.checks) == (expected.tables, expected.days, expected.checks)
    assert {**again.ledger, "inserted": 0, "updated": 0} == again.ledger
    assert again.ledger["unchanged"] == again.ledger["fetched"] == expected.ledger["fetched"]


@pytest.mark.parametrize("window", WINDOWS)
def test_the_command_without_dagster_comes_to_the_same_users(
    window: str, live_company: LiveCompany, live: LiveDagster, reference: Reference
) -> None:
    expected = reference.outcome(window)
    reference.prepare(window)
    launch_paths.by_own_command(live_company, live, reference.days(window))
    tables = live_company.tables()
    for table in ("sf_users", "salesforce_users_raw", "rejected_records"):
        assert tables[table] == expected.tables[table]
    ledger = live_company.ledger()
    for count in ("outcome", "fetched", "inserted", "updated", "unchanged", "rejected"):
        assert ledger[count] == expected.ledger[count]


def test_each_window_holds_what_it_should(live_company: LiveCompany, reference: Reference) -> None:
    everybody = FEW_PEOPLE + 1
    for window, stored, fetched, inserted in (
        (FULL, everybody, everybody, everybody),
        (SUB_RANGE, 2, 2, 2),
        (RECENT, everybody, 5, 1),
    ):
        outcome, days = reference.outcome(window), reference.days(window)
        assert outcome.tables["sf_users"][0] == stored
        assert (outcome.ledger["fetched"], outcome.ledger["inserted"]) == (fetched, inserted)
        first, last = (live_company.at(0, days_ago=number) for number in WINDOWS[window])
        assert outcome.ledger["since"] == (None if window == FULL else first)
        assert outcome.ledger["until"] == last + timedelta(days=1)
        assert set(map(frozenset, outcome.days.values())) == {frozenset(keys_of(days))}
        passed = {check: passed for check, (passed, _) in outcome.checks.items()}
        assert passed["sync_percentage"]
        assert passed["salesforce_count_matches"] == (window != SUB_RANGE)
