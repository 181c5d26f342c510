from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import supabase_on
from user_sync_pipeline_tests.orchestration.conftest import Company, checks_of, failure_of

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def judge(company: Company, **config: float) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks alone, as the button in the UI does."""
    job = build_definitions().resolve_implicit_global_asset_job_def()
    keys = job.asset_layer.asset_graph.asset_check_keys
    result = job.get_subset(asset_selection=set(), asset_check_selection=set(keys)).execute_in_process(
        instance=company.instance,
        run_config={"ops": {"profile_checks": {"config": config}}},
        raise_on_error=False,
    )
    assert result.success, failure_of(result)
    return checks_of(result)


def figures(check: dg.AssetCheckEvaluation) -> dict[str, object]:
    return {name: value.value for name, value in check.metadata.items()}


def execute(company: Company, statement: str) -> None:
    with company.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_the_counts_of_both_sides_are_shown(company: Company) -> None:
    company.run()
    check = judge(company)["salesforce_count_matches"]
    assert check.passed
    shown = figures(check)
    assert shown["salesforce_count"] == shown["sf_users_rows"] == company.scalar("SELECT count(*) FROM public.sf_users")
    assert shown["difference"] == 0


def test_a_count_that_the_quota_leaves_no_request_for_is_a_warning_and_pauses_no_run(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALESFORCE_API_BUDGET_PER_RUN", "5")  # just enough to read the users
    result = company.run()
    assert result.success
    check = checks_of(result)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert (check.description or "").startswith("Not counted. This run has made the 5 API requests ")


def test_a_lost_row_is_an_error(company: Company) -> None:
    company.run()
    execute(company, "DELETE FROM public.sf_users WHERE id = (SELECT min(id) FROM public.sf_users)")
    check = judge(company)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, ERROR)
    assert figures(check)["difference"] == 1
    assert "user_sync.rejected_records" in (check.description or "")


def test_somebody_hired_after_the_run_is_no_false_alarm(company: Company) -> None:
    company.run()
    company.salesforce.clock.advance(timedelta(minutes=5))
    company.salesforce.org.add_user(LastName="New", Username="new@example.com", Email="new@example.com")
    assert judge(company)["salesforce_count_matches"].passed


def test_somebody_changed_while_the_first_run_was_reading_is_a_warning_and_no_error(company: Company) -> None:
    company.salesforce.org.update_user(company.salesforce.org.users.ordered[0].id, Title="Changed this second")
    check = checks_of(company.run())["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert figures(check)["changed_since_watermark"] == 1
    company.salesforce.clock.advance(timedelta(minutes=5))
    assert checks_of(company.run())["salesforce_count_matches"].passed


def test_before_the_first_full_run_the_difference_is_a_warning_that_says_what_to_do(company: Company) -> None:
    company.run(company.today, company.today)
    check = judge(company)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert "over all days" in (check.description or "")


def test_a_few_missing_profiles_warn_and_many_are_an_error(company: Company) -> None:
    company.run()
    execute(
        company, "DELETE FROM public.user_profiles WHERE id = (SELECT min(id::text)::uuid FROM public.user_profiles)"
    )
    few = judge(company)["sync_percentage"]
    assert (few.passed, few.severity) == (False, WARN)
    assert figures(few)["missing_profiles"] == 1
    assert judge(company, error_below=99.5)["sync_percentage"].severity is ERROR
    execute(company, "DELETE FROM public.user_profiles")
    many = judge(company)["sync_percentage"]
    assert (many.passed, many.severity) == (False, ERROR)
    assert figures(many)["sync_percentage"] == 0


def test_a_profile_of_a_deleted_user_is_an_orphan(company: Company) -> None:
    company.run()
    execute(
        company,
        "UPDATE auth.users SET deleted_at = now() WHERE id = (SELECT min(id::text)::uuid FROM public.user_profiles)",
    )
    check = judge(company)["no_orphan_profiles"]
    assert (check.passed, check.severity) == (False, WARN)
    assert figures(check)["orphan_profiles"] == 1


def test_a_trigger_that_is_gone_is_an_error(company: Company) -> None:
    company.run()
    execute(company, "DROP FUNCTION app_private.handle_new_auth_user() CASCADE")
    check = judge(company)["auth_trigger_installed"]
    assert (check.passed, check.severity) == (False, ERROR)
    assert "user-sync migrate apply" in (check.description or "")


@pytest.fixture
def supabase_by_http(
    company: Company,
    postgres_server: PostgresServer,
    authority: CertificateAuthority,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Company]:
    """The warehouse is a database of its own, and Supabase is seen through its API alone."""
    database = company.engine.url.database or ""
    apply_migrations(database_url=empty_database, profiles_url=None)
    with supabase_on(postgres_server, database, authority) as simulator:
        for name, value in {"USER_SYNC_DATABASE_URL": empty_database, **simulator.environment()}.items():
            monkeypatch.setenv(name, value)
        yield company


def test_through_the_api_all_is_seen_with_the_functions_of_the_migration(supabase_by_http: Company) -> None:
    checks = checks_of(supabase_by_http.run())
    assert all(check.passed for check in checks.values())
    assert figures(checks["sync_percentage"])["method"] == "rpc"


def test_through_the_api_alone_the_trigger_cannot_be_seen_and_the_check_says_so(supabase_by_http: Company) -> None:
    execute(supabase_by_http, "DROP FUNCTION public.profile_sync_report(), public.profile_backfill(integer, uuid)")
    checks = checks_of(supabase_by_http.run())
    assert checks["sync_percentage"].passed
    trigger = checks["auth_trigger_installed"]
    assert (trigger.passed, trigger.severity) == (False, WARN)
    assert "SUPABASE_DB_URL" in (trigger.description or "")


def test_a_wrong_key_fails_the_run_instead_of_passing_for_no_supabase(
    supabase_by_http: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_wrong")
    result = supabase_by_http.run()
    assert not result.success
    assert "SUPABASE_SERVICE_ROLE_KEY" in failure_of(result)
