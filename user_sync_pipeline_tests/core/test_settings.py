from datetime import date
from pathlib import Path

import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.settings import (
    SalesforceSettings,
    SupabaseSettings,
    admin_token,
    dagster_url,
    database_url,
    horizon,
)

SALESFORCE = {"SALESFORCE_CLIENT_ID": "id", "SALESFORCE_CLIENT_SECRET": "s3cret"}


def test_client_credentials_are_enough() -> None:
    settings = SalesforceSettings.from_environment(SALESFORCE)
    assert settings.login_url == "https://login.salesforce.com"
    assert settings.page_size is None


def test_the_budget_is_open_and_a_tenth_of_the_quota_is_left_to_others_unless_told_otherwise() -> None:
    settings = SalesforceSettings.from_environment(SALESFORCE)
    assert (settings.api_budget_per_run, settings.api_reserve_percent) == (None, 10)
    told = {"SALESFORCE_API_BUDGET_PER_RUN": "500", "SALESFORCE_API_RESERVE_PERCENT": "0"}
    settings = SalesforceSettings.from_environment(SALESFORCE | told)
    assert (settings.api_budget_per_run, settings.api_reserve_percent) == (500, 0)


def test_extra_fields_keep_their_order_and_lose_repetitions() -> None:
    settings = SalesforceSettings.from_environment({**SALESFORCE, "SALESFORCE_EXTRA_FIELDS": "B__c, A__c,B__c"})
    assert settings.extra_fields == ("B__c", "A__c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SALESFORCE_CLIENT_ID", ""),
        ("SALESFORCE_CLIENT_SECRET", "  "),
        ("SALESFORCE_LOGIN_URL", "http://login.salesforce.com"),
        ("SALESFORCE_LOGIN_URL", "login.salesforce.com"),
        ("SALESFORCE_LOGIN_URL", "https://login.salesforce.com/services"),
        ("SALESFORCE_LOGIN_URL", "https://user:password@login.salesforce.com"),
        ("SALESFORCE_API_VERSION", "v66"),
        ("SALESFORCE_PAGE_SIZE", "199"),
        ("SALESFORCE_PAGE_SIZE", "2001"),
        ("SALESFORCE_PAGE_SIZE", "many"),
        ("SALESFORCE_TRANSPORT", "soap"),
        ("SALESFORCE_API_BUDGET_PER_RUN", "0"),
        ("SALESFORCE_API_BUDGET_PER_RUN", "ten"),
        ("SALESFORCE_API_BUDGET_PER_RUN", "9" * 5000),
        ("SALESFORCE_API_RESERVE_PERCENT", "100"),
        ("SALESFORCE_API_RESERVE_PERCENT", "-1"),
        ("SALESFORCE_API_RESERVE_PERCENT", "10%"),
        ("SALESFORCE_EXTRA_FIELDS", "Region__c,1st"),
        ("SALESFORCE_EXTRA_FIELDS", "Id FROM Account--"),
        ("SALESFORCE_CA_BUNDLE", "no/such/file.pem"),
    ],
)
def test_a_wrong_salesforce_setting_is_refused_by_name_without_its_secret(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as failure:
        SalesforceSettings.from_environment({**SALESFORCE, name: value})
    assert "s3cret" not in str(failure.value)
    assert "password@" not in str(failure.value)


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({"SUPABASE_URL": "https://example.supabase.co"}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}, "SUPABASE_URL"),
    ],
)
def test_half_a_supabase_is_refused_by_naming_the_other_half(environment: dict[str, str], missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        SupabaseSettings.from_environment(environment)


def test_the_profiles_are_looked_for_in_the_warehouse_unless_told_otherwise() -> None:
    assert (
        SupabaseSettings.from_environment({"USER_SYNC_DATABASE_URL": "postgresql://w"}).database_url == "postgresql://w"
    )
    both = {"USER_SYNC_DATABASE_URL": "postgresql://w", "SUPABASE_DB_URL": "postgresql://s"}
    assert SupabaseSettings.from_environment(both).database_url == "postgresql://s"


def test_nothing_of_supabase_needs_to_be_set() -> None:
    assert SupabaseSettings.from_environment({}) == SupabaseSettings()


def test_a_missing_database_is_named() -> None:
    with pytest.raises(ConfigurationError, match="USER_SYNC_DATABASE_URL"):
        database_url({})


def test_the_horizon_is_a_day_in_the_past() -> None:
    assert horizon({}) == date(2026, 1, 1)
    assert horizon({"USER_SYNC_HORIZON": "2025-05-01"}) == date(2025, 5, 1)
    for wrong in ("2999-01-01", "soon"):
        with pytest.raises(ConfigurationError, match="USER_SYNC_HORIZON"):
            horizon({"USER_SYNC_HORIZON": wrong})


def test_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    salesforce = SalesforceSettings.from_environment({**SALESFORCE, "SALESFORCE_PROXY": "http://u:hidden@proxy:1"})
    supabase = SupabaseSettings.from_environment(
        {
            "SUPABASE_URL": "https://example.supabase.co",
            "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_hidden",
            "SUPABASE_DB_URL": "postgresql://user:hidden@host/db",
        }
    )
    assert "s3cret" not in repr(salesforce)
    assert "hidden" not in repr(salesforce) + repr(supabase)


@pytest.mark.parametrize("url", ["http://dagster-webserver", "https://dagster.example.com/prefix", "http://[::1]:3000"])
def test_dagster_may_be_anywhere_and_behind_a_prefix(url: str) -> None:
    assert dagster_url({"USER_SYNC_DAGSTER_URL": f"{url}/"}) == url
    assert dagster_url({}) == "http://127.0.0.1:3000"


@pytest.mark.parametrize(
    "url", ["dagster:3000", "ftp://dagster", "http://ann:secret@dagster", "http://d?x=secret", "http://["]
)
def test_what_is_no_address_of_a_webserver_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError, match="USER_SYNC_DAGSTER_URL") as refusal:
        dagster_url({"USER_SYNC_DAGSTER_URL": url})
    assert "secret" not in str(refusal.value)


def test_a_token_is_one_word_of_plain_letters() -> None:
    assert admin_token({}) is None
    assert admin_token({"USER_SYNC_ADMIN_TOKEN": " a-Z_0.9 "}) == "a-Z_0.9"
    for token in ("two words", "secr\u00e9t", "a\nb"):
        with pytest.raises(ConfigurationError, match="USER_SYNC_ADMIN_TOKEN") as refusal:
            admin_token({"USER_SYNC_ADMIN_TOKEN": token})
        assert token not in str(refusal.value)
