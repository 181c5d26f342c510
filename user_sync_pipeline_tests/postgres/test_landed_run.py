"""What is told of a run that has landed, before and after it is merged."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse.landed_run import ColumnFill, LandedRun, count_values, newest_landing
from user_sync_pipeline_tests.postgres.users import EVERYTHING, Row, day, days, user
from user_sync_pipeline_tests.postgres.whole_runs import FIELDS, finish, land, reject


def newest(engine: Engine, started_by: str | None = None) -> LandedRun:
    with engine.connect() as connection:
        run = newest_landing(connection, started_by)
    assert run is not None
    return run


def values(engine: Engine) -> dict[str, ColumnFill]:
    with engine.connect() as connection:
        run = newest_landing(connection)
        assert run is not None
        return {fill.column: fill for fill in count_values(connection, run)}


def people(count: int, changed: float = 1, **same: object) -> list[Row]:
    return [user(number, changed, **same) for number in range(1, count + 1)]


def test_nothing_has_landed_in_an_empty_ledger(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        assert newest_landing(connection) is None


def test_the_run_that_was_started_by_this_one_comes_before_newer_ones_and_limited_runs_do_not_count(
    warehouse: Engine,
) -> None:
    mine = land(warehouse, user(), started_by="dagster 1")
    newer = land(warehouse, started_by="another")
    land(warehouse, started_by="dagster 1", limit=5)
    assert newest(warehouse, "dagster 1").run_id == mine
    assert newest(warehouse, "dagster 2").run_id == newest(warehouse).run_id == newer


def test_a_run_tells_how_much_it_missed_and_how_long_it_is_held_back(warehouse: Engine) -> None:
    window = days(None, 5)
    land(warehouse, user(), window=window, covered_until=day(4.5), held_reason="Why", closing_count=3)
    run = newest(warehouse)
    assert (run.certificate.missing, run.held_back, run.held_reason) == (2, timedelta(hours=12), "Why")


def test_a_cleaned_value_is_counted_and_a_rejected_row_is_not_one(warehouse: Engine) -> None:
    run_id = land(warehouse, user())
    reject(warehouse, run_id, "x", row_stored=True)
    reject(warehouse, run_id, "y")
    assert newest(warehouse).values_cleaned == 1


def test_the_first_run_has_no_fields_to_compare_with(warehouse: Engine) -> None:
    land(warehouse)
    run = newest(warehouse)
    assert (run.fields_before, run.fields_no_longer_read, run.fields_newly_read) == (None, (), ())


def test_fields_are_compared_with_the_last_run_over_all_days_until_the_next_one(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse))
    other = (*FIELDS[:-1], "Region__c")
    for _ in range(2):
        finish(warehouse, land(warehouse, window=days(3, 5), fields=other), days(3, 5))
        run = newest(warehouse)
        assert (run.fields_no_longer_read, run.fields_newly_read) == (("External_ID__c",), ("Region__c",))
    finish(warehouse, land(warehouse, fields=other))
    finish(warehouse, land(warehouse, window=days(3, 5), fields=other), days(3, 5))
    run = newest(warehouse)
    assert (run.fields_no_longer_read, run.fields_newly_read) == ((), ())


def test_a_run_that_did_not_end_well_is_nothing_to_compare_with(warehouse: Engine) -> None:
    land(warehouse, fields=FIELDS)
    land(warehouse, fields=FIELDS[:-1])
    assert newest(warehouse).fields_before is None


def test_values_are_compared_before_the_merge_and_the_same_after_it(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse, *people(8, email="a@example.com", title="Clerk")))
    changed = [*people(3, changed=2, email=None, title="Clerk"), user(9, 2, email=None, title="Clerk")]
    run_id = land(warehouse, *changed, window=days(2, 3))
    email = values(warehouse)["email"]
    assert (email.users, email.values, email.users_after, email.values_after, email.erased) == (8, 8, 9, 5, 3)
    assert (email.null_percent, email.null_percent_after, email.erased_percent) == (0, 44.44, 37.5)
    assert email.nulls_added == 4
    title = values(warehouse)["title"]
    assert (title.erased, title.null_percent_after) == (0, 0)

    finish(warehouse, run_id, days(2, 3))
    email = values(warehouse)["email"]
    assert (email.users, email.values, email.erased) == (email.users_after, email.values_after, 0) == (9, 5, 0)


def test_an_older_version_of_a_user_erases_nothing(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse, user(1, 4, email="a@example.com")))
    land(warehouse, user(1, 2, email=None), window=days(2, 3))
    assert values(warehouse) == {}


def test_a_column_that_was_hidden_from_the_run_and_one_that_is_never_empty_are_left_out(warehouse: Engine) -> None:
    finish(warehouse, land(warehouse, user(1, 1, email="a@example.com")))
    land(warehouse, user(1, 2), columns=[column for column in USER_COLUMNS if column != "email"])
    compared = values(warehouse)
    assert "external_id" in compared
    assert not {"email", "id", "username", "system_modstamp"} & set(compared)


def test_the_first_run_erases_nothing(warehouse: Engine) -> None:
    land(warehouse, *people(3))
    email = values(warehouse)["email"]
    assert (email.users, email.erased, email.null_percent, email.null_percent_after) == (0, 0, 0, 100)
    assert EVERYTHING.since is None
