from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.definitions import build_definitions
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import supabase_on
from user_sync_pipeline_tests.orchestration.conftest import Company, checks_of, failure_of

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def judge(company: Company, only: str | None = None, **config: float) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks alone, as the button in the UI does; all of them, with settings for those of the profiles."""
    job = build_definitions().resolve_implicit_global_asset_job_def()
    keys = {key for key in job.asset_layer.asset_graph.asset_check_keys if only in (None, key.name)}
    result = job.get_subset(asset_selection=set(), asset_check_selection=keys).execute_in_process(
        instance=company.instance,
        run_config={"ops": {"profile_checks": {"config": config}}} if config else None,
        raise_on_error=False,
    )
    assert result.success, failure_of(result)
    return checks_of(result)


def figures(check: dg.AssetCheckEvaluation) -> dict[str, object]:
    return {name: value.value for name, value in check.metadata.items()}


def execute(company: Company, statement: str) -> None:
    with company.engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.slow
def test_the_counts_of_both_sides_are_shown(company: Company) -> None:
    company.run()
    check = judge(company)["salesforce_count_matches"]
    assert check.passed
    shown = figures(check)
    assert shown["salesforce_count"] == shown["sf_users_rows"] == company.scalar("SELECT count(*) FROM public.sf_users")
    assert shown["difference"] == 0


@pytest.mark.slow
def test_a_count_that_the_quota_leaves_no_request_for_is_a_warning_and_pauses_no_run(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALESFORCE_API_BUDGET_PER_RUN", "5")  # just enough to read the users
    result = company.run()
    assert result.success
    check = checks_of(result)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert (check.description or "").startswith("Not counted. This run has made the 5 API requests ")


@pytest.mark.slow
def test_a_lost_row_is_an_error(company: Company) -> None:
    company.run()
    execute(company, "DELETE FROM public.sf_users WHERE id = (SELECT min(id) FROM public.sf_users)")
    check = judge(company)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, ERROR)
    assert figures(check)["difference"] == 1
    assert "user_sync.rejected_records" in (check.description or "")


@pytest.mark.slow
def test_users_that_salesforce_no_longer_shows_are_an_error_that_says_who_may_not_see_them(company: Company) -> None:
    company.run()
    execute(
        company,
        "INSERT INTO public.sf_users (id, username, is_active, created_date, system_modstamp, sync_run_id) "
        "SELECT '005000000000000AAA', 'unseen', true, created_date, system_modstamp, sync_run_id "
        "FROM public.sf_users LIMIT 1",
    )
    check = judge(company, "salesforce_count_matches")["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, ERROR)
    assert figures(check)["difference"] == -1
    assert "no longer shown by Salesforce: 1 user." in (check.description or "")
    assert "View All Users" in (check.description or "")


@pytest.mark.slow
def test_without_quota_to_ask_even_whose_users_they_are_the_count_is_a_warning(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.run()
    signed_in = Authenticator(SalesforceSettings.from_environment()).sign_in()
    for name in [name for name in os.environ if name.startswith("SALESFORCE_CLIENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SALESFORCE_LOGIN_URL")
    monkeypatch.setenv("SALESFORCE_ACCESS_TOKEN", signed_in.access_token)  # a token alone does not tell
    monkeypatch.setenv("SALESFORCE_INSTANCE_URL", signed_in.instance_url)
    company.salesforce.org.set_daily_limit(1)
    check = judge(company, "salesforce_count_matches")["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert (check.description or "").startswith("Not counted. ")


@pytest.mark.slow
def test_the_quota_is_compared_with_what_a_run_takes(company: Company) -> None:
    check = checks_of(company.run())["api_reserve_kept"]
    assert check.passed
    shown = figures(check)
    assert shown["api_calls_of_dearest_run"] == company.scalar("SELECT max(api_calls) FROM user_sync.sync_runs")
    assert shown["api_calls_left"] > shown["api_calls_of_dearest_run"] > 1
    assert 0 < shown["api_share_percent"] < 1

    used = company.salesforce.org.quota.used
    company.salesforce.org.set_daily_limit(used + 4)
    check = judge(company, "api_reserve_kept")["api_reserve_kept"]
    assert (check.passed, check.severity) == (False, WARN)
    assert "The next one may be paused" in (check.description or "")
    company.salesforce.org.set_daily_limit(used)
    check = judge(company, "api_reserve_kept")["api_reserve_kept"]
    assert (check.passed, check.severity) == (False, WARN)
    assert "No request is left to ask with" in (check.description or "")


@pytest.mark.slow
def test_e_mails_that_vanish_in_salesforce_are_kept_from_the_table_until_somebody_means_it(company: Company) -> None:
    company.run()
    for user in tuple(company.salesforce.org.users.ordered):
        company.salesforce.org.update_user(user.id, Email=None)
    company.salesforce.clock.advance(timedelta(minutes=5))
    with_e_mail = "SELECT count(*) FROM public.sf_users WHERE email IS NOT NULL"
    stored = company.scalar(with_e_mail)
    result = company.run(company.today, company.today)
    assert not result.success
    check = checks_of(result)["null_rates_steady"]
    assert (check.passed, check.severity, check.blocking) == (False, ERROR, True)
    assert f"Email of {stored} users (100 %)" in (check.description or "")
    assert not result.asset_materializations_for_node("sf_users")
    assert company.scalar(with_e_mail) == stored == figures(check)["values_erased"]

    day = company.today.isoformat()
    only_the_table = build_definitions().resolve_implicit_global_asset_job_def()
    meant = only_the_table.execute_in_process(
        instance=company.instance, partition_key=day, asset_selection=[dg.AssetKey("sf_users")]
    )
    assert meant.success
    assert company.scalar(with_e_mail) == 0


@pytest.mark.slow
def test_a_field_that_is_hidden_from_us_is_named(company: Company) -> None:
    company.run()
    company.salesforce.org.hide_field("Division")
    check = checks_of(company.run(company.today, company.today))["salesforce_fields_unchanged"]
    assert (check.passed, check.severity) == (False, WARN)
    assert figures(check)["fields_no_longer_read"] == "Division"


@pytest.mark.slow
def test_somebody_hired_after_the_run_is_no_false_alarm(company: Company) -> None:
    company.run()
    company.salesforce.clock.advance(timedelta(minutes=5))
    company.salesforce.org.add_user(LastName="New", Username="new@example.com", Email="new@example.com")
    assert judge(company)["salesforce_count_matches"].passed


@pytest.mark.slow
def test_somebody_changed_while_the_first_run_was_reading_is_a_warning_and_no_error(company: Company) -> None:
    company.salesforce.org.update_user(company.salesforce.org.users.ordered[0].id, Title="Changed this second")
    check = checks_of(company.run())["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert figures(check)["changed_since_watermark"] == 1
    company.salesforce.clock.advance(timedelta(minutes=5))
    assert checks_of(company.run())["salesforce_count_matches"].passed


@pytest.mark.slow
def test_before_the_first_full_run_the_difference_is_a_warning_that_says_what_to_do(company: Company) -> None:
    company.run(company.today, company.today)
    check = judge(company)["salesforce_count_matches"]
    assert (check.passed, check.severity) == (False, WARN)
    assert "over all days" in (check.description or "")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_profile_of_a_deleted_user_is_an_orphan(company: Company) -> None:
    company.run()
    execute(
        company,
        "UPDATE auth.users SET deleted_at = now() WHERE id = (SELECT min(id::text)::uuid FROM public.user_profiles)",
    )
    check = judge(company)["no_orphan_profiles"]
    assert (check.passed, check.severity) == (False, WARN)
    assert figures(check)["orphan_profiles"] == 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_through_the_api_all_is_seen_with_the_functions_of_the_migration(supabase_by_http: Company) -> None:
    checks = checks_of(supabase_by_http.run())
    assert all(check.passed for check in checks.values())
    assert figures(checks["sync_percentage"])["method"] == "rpc"


@pytest.mark.slow
def test_through_the_api_alone_the_trigger_cannot_be_seen_and_the_check_says_so(supabase_by_http: Company) -> None:
    execute(
        supabase_by_http, "DROP FUNCTION public.profile_sync_report(), public.profile_backfill(integer, uuid, uuid)"
    )
    checks = checks_of(supabase_by_http.run())
    assert checks["sync_percentage"].passed
    trigger = checks["auth_trigger_installed"]
    assert (trigger.passed, trigger.severity) == (False, WARN)
    assert "SUPABASE_DB_URL" in (trigger.description or "")


@pytest.mark.slow
def test_a_wrong_key_fails_the_run_instead_of_passing_for_no_supabase(
    supabase_by_http: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_wrong")
    result = supabase_by_http.run()
    assert not result.success
    assert "SUPABASE_SERVICE_ROLE_KEY" in failure_of(result)
