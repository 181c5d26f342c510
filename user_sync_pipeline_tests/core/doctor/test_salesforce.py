"""Each thing that can be wrong on the side of Salesforce, one a test."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.doctor.examination import examine
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.core.doctor.conftest import finding
from user_sync_pipeline_tests.postgres.accounts import execute

pytestmark = pytest.mark.usefixtures("with_salesforce")

SALESFORCE = "salesforce"


def test_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "a wrong one")
    examination = examine()
    found = finding(SALESFORCE, "sign-in", examination)
    assert (found.state, examination.exit_code) == ("broken", 3)
    assert "SALESFORCE_CLIENT_SECRET" in found.detail + found.mend
    assert "a wrong one" not in str(examination.as_json())


def test_a_given_token_that_will_end(company: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from user_sync_pipeline.core.salesforce.auth import Authenticator

    token = Authenticator(SalesforceSettings.from_environment()).access_token()
    for name in ("SALESFORCE_CLIENT_ID", "SALESFORCE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SALESFORCE_ACCESS_TOKEN", token)
    monkeypatch.setenv("SALESFORCE_INSTANCE_URL", company.url)
    examination = examine()
    assert finding(SALESFORCE, "sign-in", examination).state == "warning"
    assert token not in str(examination.as_json())


@pytest.mark.parametrize("by", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_that_is_off(company: SalesforceSimulator, by: timedelta) -> None:
    company.clock.shift(by)
    found = finding(SALESFORCE, "clock")
    assert found.state == "warning"
    assert ("ahead" if by > timedelta() else "behind") in found.detail


def test_another_organisation_than_the_one_in_the_ledger(with_database: str, one_ledger: Engine) -> None:
    execute(
        one_ledger,
        """
        INSERT INTO user_sync.sync_runs (run_id, org_id, mode, until, selected_fields, fetched_columns, started_by,
                                         landed_at)
        VALUES (gen_random_uuid(), '00D000000000001AAA', 'full', now(), '{}', '{}', 'test', now())
        """,
    )
    try:
        found = finding(SALESFORCE, "organisation")
    finally:
        execute(one_ledger, "TRUNCATE user_sync.sync_runs CASCADE")
    assert (found.state, found.unreachable) == ("broken", False)
    assert "00D000000000001AAA" in found.detail


def test_an_organisation_without_a_database_to_compare_it_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding(SALESFORCE, "organisation").state == "ok"
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", "postgresql://somebody:secret@127.0.0.1:1/postgres")
    assert finding(SALESFORCE, "organisation").state == "warning"


def test_hidden_fields(company: SalesforceSimulator) -> None:
    company.org.hide_field("MobilePhone")
    company.org.hide_field("External_ID__c")
    examination = examine()
    fields, external_id = (finding(SALESFORCE, name, examination) for name in ("fields", "External_ID__c"))
    assert (fields.state, fields.detail) == ("warning", "hidden or not there: MobilePhone")
    assert (external_id.state, examination.exit_code) == ("warning", 0)


def test_a_hidden_field_without_which_nothing_goes(company: SalesforceSimulator) -> None:
    company.org.hide_field("SystemModstamp")
    examination = examine()
    assert finding(SALESFORCE, "fields", examination).state == "broken"
    assert finding(SALESFORCE, "API requests", examination).state == "ok"


def test_an_account_that_may_change_users(company: SalesforceSimulator) -> None:
    company.org.permissions.manage_users = True
    company.org.freeze_user(company.org.users.ordered[0].id)
    examination = examine()
    found = finding(SALESFORCE, "nothing but reading", examination)
    assert found.state == "warning"
    assert "ManageUsers" in found.detail
    assert "ModifyAllData" not in found.detail
    frozen = finding(SALESFORCE, "frozen users", examination)
    assert (frozen.state, frozen.detail[:2]) == ("ok", "1,")


def test_permissions_that_are_not_shown(company: SalesforceSimulator) -> None:
    company.org.permissions.own_rights = False
    assert finding(SALESFORCE, "nothing but reading").state == "warning"


def test_users_who_are_hidden(company: SalesforceSimulator) -> None:
    company.org.hidden_users = 100
    found = finding(SALESFORCE, "all users")
    assert (found.state, found.mend) == ("warning", "Grant the integration user View All Users.")


def test_users_who_may_be_hidden(company: SalesforceSimulator) -> None:
    company.org.permissions.view_all_users = False
    assert finding(SALESFORCE, "all users").state == "warning"


def test_licences_that_are_not_shown_are_no_fault(company: SalesforceSimulator) -> None:
    company.org.permissions.setup = False
    assert finding(SALESFORCE, "all users").state == "ok"


def test_few_requests_left(company: SalesforceSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    company.org.set_daily_limit(2000)
    monkeypatch.setenv("SALESFORCE_API_RESERVE_PERCENT", "99")
    found = finding(SALESFORCE, "API requests")
    assert found.state == "warning"
    assert found.mend


def test_no_requests_left_at_all(company: SalesforceSimulator) -> None:
    company.org.set_daily_limit(3)
    examination = examine()
    paused = [check for check in examination.checks if "requests" in check.finding.detail]
    assert {check.finding.state for check in paused} == {"warning"}
    assert finding(SALESFORCE, "sign-in", examination).state == "ok"


def test_no_api_at_all(company: SalesforceSimulator) -> None:
    company.org.permissions.api_for_user = False
    examination = examine()
    broken = [check for check in examination.checks if check.finding.state == "broken"]
    assert broken
    assert all("API Enabled" in check.finding.detail + check.finding.mend for check in broken)
    assert examination.exit_code == 3
