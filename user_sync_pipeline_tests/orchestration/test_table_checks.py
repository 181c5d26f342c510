"""The checks that ask the tables and the ledger, each both ways, on tables that hold just what the check is about."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import create_database, drop_database, role_url
from user_sync_pipeline_tests.orchestration.conftest import checks_of, failure_of
from user_sync_pipeline_tests.postgres.users import Row, clear_tables, user, user_id
from user_sync_pipeline_tests.postgres.whole_runs import FIELDS, finish, land, reject

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
RAW, USERS, PROFILES = "salesforce_users_raw", "sf_users", "profile_reconciliation"
OPS = {RAW: "landing_checks", USERS: "user_checks", PROFILES: "profile_checks"}
DATABASE = "checked_tables"


@pytest.fixture(scope="module")
def job() -> dg.JobDefinition:
    return build_definitions().resolve_implicit_global_asset_job_def()


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def tables(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Engine]:
    create_database(postgres_server, DATABASE, template=migrated_template, owner="postgres")
    engine = create_database_engine(role_url(postgres_server, DATABASE))
    yield engine
    engine.dispose()
    drop_database(postgres_server, DATABASE)


@pytest.fixture(autouse=True)
def _these_tables(tables: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clear_tables(tables)
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", tables.url.render_as_string(hide_password=False))


@pytest.fixture
def judge(job: dg.JobDefinition, instance: dg.DagsterInstance) -> Any:
    """Run one check of an asset alone, and return its evaluation."""

    def evaluate(asset: str, name: str, **config: float) -> dg.AssetCheckEvaluation:
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        result = job.get_subset(asset_selection=set(), asset_check_selection={key}).execute_in_process(
            instance=instance, run_config={"ops": {OPS[asset]: {"config": config}}}, raise_on_error=False
        )
        evaluations = checks_of(result)
        assert list(evaluations) == [name], failure_of(result)
        return evaluations[name]

    return evaluate


def says(check: dg.AssetCheckEvaluation, severity: dg.AssetCheckSeverity, *words: str) -> None:
    """Hold that the check did not pass, and what its sentence says."""
    assert (check.passed, check.severity) == (False, severity)
    assert [word for word in words if word not in (check.description or "")] == [], check.description


def figures(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in check.metadata.items()}


def people(count: int, changed: float = 1, **same: object) -> list[Row]:
    return [user(number, changed, **same) for number in range(1, count + 1)]


def up_to(moment: datetime) -> SyncWindow:
    return SyncWindow(None, moment)


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


# What has landed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["window_read_whole", "salesforce_fields_unchanged"])
def test_before_the_first_run_the_checks_say_what_to_do(judge: Any, name: str) -> None:
    says(judge(RAW, name), WARN, "run the job user_sync over all days")


def test_a_window_that_was_read_whole_passes(judge: Any, tables: Engine) -> None:
    land(tables, user(1), closing_count=1)
    check = judge(RAW, "window_read_whole")
    assert check.passed
    shown = figures(check)
    assert (shown["users_read"], shown["users_missing"], shown["held_minutes"]) == (1, 0, 0)
    assert shown["held_reason"] == "none"


@pytest.mark.slow
def test_users_that_were_not_read_are_an_error_and_with_open_transactions_a_warning(judge: Any, tables: Engine) -> None:
    land(tables, user(1), closing_count=3)
    check = judge(RAW, "window_read_whole")
    says(check, ERROR, "Not read: 2 users that Salesforce counts.", "View All Users")
    assert figures(check)["users_missing"] == 2
    land(tables, user(1), closing_count=3, covered_until=ago(minutes=5), held_reason="Somebody is at it.")
    says(judge(RAW, "window_read_whole"), WARN, "Not read: 2 users. Somebody is at it.")


@pytest.mark.slow
def test_a_watermark_that_is_held_back_for_long_is_a_warning_with_its_reason(judge: Any, tables: Engine) -> None:
    until = ago(minutes=1)
    held = {"covered_until": until - timedelta(minutes=90), "held_reason": "Somebody is at it."}
    land(tables, user(1), window=up_to(until), closing_count=1, **held)
    says(judge(RAW, "window_read_whole"), WARN, "held back by 90 minutes. Somebody is at it.")
    check = judge(RAW, "window_read_whole", hold_tolerated_minutes=90)
    assert check.passed
    assert figures(check)["held_reason"] == "Somebody is at it."
    assert figures(check)["held_minutes"] == 90


@pytest.mark.slow
def test_fields_that_are_gone_or_new_are_named_until_a_run_over_all_days(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables))
    assert judge(RAW, "salesforce_fields_unchanged").passed
    other, recent = (*FIELDS[:-1], "Region__c"), SyncWindow(ago(days=1), ago(minutes=1))
    finish(tables, land(tables, window=recent, fields=other), recent)
    check = judge(RAW, "salesforce_fields_unchanged")
    says(check, WARN, "No longer read: External_ID__c.", "field-level security", "of users who have changed since")
    assert figures(check)["fields_newly_read"] == "Region__c"
    finish(tables, land(tables, fields=other))
    says(judge(RAW, "salesforce_fields_unchanged"), WARN, "No longer read: External_ID__c.")
    finish(tables, land(tables, window=recent, fields=other), recent)
    assert judge(RAW, "salesforce_fields_unchanged").passed


@pytest.mark.slow
def test_a_column_that_is_gone_blocks_and_one_of_another_type_warns(
    judge: Any, tables: Engine, job: dg.JobDefinition
) -> None:
    assert judge(RAW, "table_columns_unchanged").passed
    with tables.begin() as connection:
        connection.execute(text("ALTER TABLE public.sf_users ALTER COLUMN title TYPE varchar(80)"))
    try:
        says(judge(RAW, "table_columns_unchanged"), WARN, "public.sf_users.title (character varying(80), made as text)")
        with tables.begin() as connection:
            connection.execute(text("ALTER TABLE public.sf_users RENAME COLUMN fax TO telefax"))
        check = judge(RAW, "table_columns_unchanged")
    finally:
        with tables.begin() as connection:
            connection.execute(text("ALTER TABLE public.sf_users ALTER COLUMN title TYPE text"))
            connection.execute(text("ALTER TABLE public.sf_users RENAME COLUMN telefax TO fax"))
    says(check, ERROR, "public.sf_users.fax")
    assert check.blocking


@pytest.mark.slow
def test_many_erased_e_mails_block_and_few_do_not(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables, *people(80, email="a@example.com")))
    assert judge(RAW, "null_rates_steady").passed
    land(tables, *people(20, 2, email=None))
    check = judge(RAW, "null_rates_steady")
    says(check, ERROR, "erase Email of 20 users (25 %)", "materialize sf_users alone")
    assert check.blocking
    shown = figures(check)
    assert (shown["null_percent_email"], shown["null_percent_external_id"], shown["values_erased"]) == (25, 100, 20)
    assert "example.com" not in repr(check)

    says(judge(RAW, "null_rates_steady", erased_percent=30), WARN, "Email (0 % to 25 %)")
    assert judge(RAW, "null_rates_steady", fewest_users=21).passed
    land(tables, *people(19, 2, email=None))
    assert judge(RAW, "null_rates_steady").passed


@pytest.mark.slow
def test_another_column_that_is_emptied_is_a_warning_that_names_it(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables, *people(80, title="Clerk", fax="1")))
    run_id = land(tables, *people(70, 2, title=None, fax="1"))
    says(judge(RAW, "null_rates_steady"), WARN, "Title (0 % to 87.5 %)", "data load")
    finish(tables, run_id)
    assert judge(RAW, "null_rates_steady").passed


@pytest.mark.slow
def test_neither_the_first_run_nor_many_newcomers_are_an_alarm(judge: Any, tables: Engine) -> None:
    run_id = land(tables, *people(30, email=None, title=None))
    assert judge(RAW, "null_rates_steady").passed
    finish(tables, run_id)
    land(tables, *people(90, 2, email=None, title=None))
    assert judge(RAW, "null_rates_steady").passed


def test_a_hidden_column_keeps_what_is_stored_and_is_no_erasure(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables, *people(40, email="a@example.com")))
    land(tables, *people(40, 2), columns=[column for column in USER_COLUMNS if column != "email"])
    assert judge(RAW, "null_rates_steady").passed


# The table of users --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_watermark_grows_old_by_its_hours(judge: Any, tables: Engine) -> None:
    says(judge(USERS, "watermark_is_recent"), WARN, "run the job user_sync over all days")
    window = up_to(ago(hours=30))
    finish(tables, land(tables, window=window), window)
    check = judge(USERS, "watermark_is_recent")
    says(check, WARN, "30 hours old", "No run has ended well since then, the newest is complete", "to today")
    assert 30 <= figures(check)["watermark_age_hours"] < 31
    says(judge(USERS, "watermark_is_recent", watermark_error_hours=29), ERROR, f"from {window.until.date()} to today")
    assert judge(USERS, "watermark_is_recent", watermark_warn_hours=31).passed


@pytest.mark.slow
def test_why_the_watermark_is_old_is_said(judge: Any, tables: Engine) -> None:
    window = up_to(ago(hours=60))
    finish(tables, land(tables, window=window, covered_until=ago(hours=70), held_reason="Somebody is at it."), window)
    says(judge(USERS, "watermark_is_recent"), ERROR, "70 hours old. Somebody is at it.")
    window = SyncWindow(ago(hours=80), ago(hours=50))
    finish(tables, land(tables, window=window, closing_count=1), window)
    says(judge(USERS, "watermark_is_recent"), ERROR, "fewer users than Salesforce counts", "window_read_whole")
    window = SyncWindow(ago(hours=40), ago(hours=20))
    finish(tables, land(tables, window=window), window)
    says(judge(USERS, "watermark_is_recent"), ERROR, "left out days")


@pytest.mark.slow
def test_who_could_not_be_stored_is_named_with_the_reason_until_stored(judge: Any, tables: Engine) -> None:
    finish(tables, run_id := land(tables, user(1)))
    reject(tables, run_id, user_id(1), row_stored=True)
    check = judge(USERS, "no_rejected_records")
    assert check.passed
    assert (figures(check)["users_rejected"], figures(check)["values_cleaned"]) == (0, 1)
    for number in range(2, 14):
        reject(tables, run_id, user_id(number))
    check = judge(USERS, "no_rejected_records")
    says(check, WARN, "Not stored as Salesforce has them: 12 users, most often because of Username")
    assert len(figures(check)["salesforce_ids"].split(", ")) == 10
    [row] = figures(check)["reasons"].records
    assert row.data == {"field": "Username", "reason": "Username is missing", "users": 12}


@pytest.mark.slow
def test_gotcha_35_users_who_share_an_external_id_are_named(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables, user(1, external_id="E-1"), user(2, external_id="E-2")))
    assert judge(USERS, "external_ids_unique").passed
    finish(tables, land(tables, user(2, 2, external_id="e-1"), user(3, external_id="E-3")))
    check = judge(USERS, "external_ids_unique")
    says(check, WARN, "1 external id, by 2 in all", "in Salesforce")
    assert figures(check)["salesforce_ids"] == f"{user_id(1)}, {user_id(2)}"
    assert "e-1" not in repr(check), "an external id may be anything, also an e-mail"


# Profiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_who_left_a_while_ago_and_can_still_sign_in_is_a_warning(judge: Any, tables: Engine) -> None:
    finish(tables, land(tables, user(1, is_active=False)))
    assert judge(PROFILES, "leavers_cannot_sign_in").passed
    leaver = "00000000-0000-4000-8000-000000000001"
    with tables.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO user_sync.profile_reconciliation (finding, auth_user_id, salesforce_user_id, reason)
                VALUES ('inactive_in_salesforce_can_sign_in', CAST(:leaver AS uuid), :id, 'a reason')
            """),
            {"leaver": leaver, "id": user_id(1)},
        )
    check = judge(PROFILES, "leavers_cannot_sign_in")
    assert check.passed, "everybody has a day"
    assert (figures(check)["leavers_who_can_sign_in"], figures(check)["leavers_overdue"]) == (1, 0)
    check = judge(PROFILES, "leavers_cannot_sign_in", leaver_grace_hours=0)
    says(check, WARN, "still able to sign in: 1 person. Ban or delete")
    assert figures(check)["auth_user_ids"] == leaver


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "back", "problem", "seen"),
    [
        (
            "ALTER TRIGGER on_auth_user_created ON auth.users RENAME TO another",
            "ALTER TRIGGER another ON auth.users RENAME TO on_auth_user_created",
            "is missing",
            (False, False, False),
        ),
        (
            "ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created",
            "ALTER TABLE auth.users ENABLE TRIGGER on_auth_user_created",
            "is switched off",
            (True, False, True),
        ),
        (
            "ALTER FUNCTION app_private.handle_new_auth_user() SECURITY INVOKER",
            "ALTER FUNCTION app_private.handle_new_auth_user() SECURITY DEFINER",
            "is not as it was made",
            (True, True, False),
        ),
    ],
    ids=["gone", "switched off", "changed"],
)
def test_what_is_wrong_with_the_trigger_is_told_apart(
    judge: Any, postgres_server: PostgresServer, change: str, back: str, problem: str, seen: tuple[bool, bool, bool]
) -> None:
    with psycopg.connect(postgres_server.url(DATABASE), autocommit=True) as owner:
        owner.execute(change.encode())
        try:
            check = judge(PROFILES, "auth_trigger_installed")
        finally:
            owner.execute(back.encode())
    says(check, ERROR, problem, "user-sync migrate verify", "user-sync migrate apply")
    assert tuple(figures(check)[name] for name in ("present", "enabled", "unchanged")) == seen
    assert judge(PROFILES, "auth_trigger_installed").passed
