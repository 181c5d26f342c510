"""What the account may do: four fixed questions, which open no way for any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.rights import ASKING_FOR_RIGHTS, AccountRights
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator


@pytest.fixture
def service(company: SalesforceSimulator) -> Iterator[RestUserService]:
    with RestUserService(SalesforceSettings.from_environment(company.environment())) as service:
        yield service


def active(company: SalesforceSimulator) -> int:
    return sum(user.person.is_active for user in company.org.users.ordered)


def test_an_account_that_only_reads(company: SalesforceSimulator, service: RestUserService) -> None:
    rights = service.account_rights()
    assert rights == AccountRights(frozenset({"ViewAllUsers"}), active(company), active(company), None)
    assert service.usage.calls == 3


def test_an_account_that_manages_users_sees_who_is_frozen(
    company: SalesforceSimulator, service: RestUserService
) -> None:
    company.org.permissions.manage_users = True
    first, second = company.org.users.ordered[:2]
    company.org.freeze_user(first.id)
    company.org.freeze_user(second.id)
    rights = service.account_rights()
    assert rights.granted == {"ManageUsers", "ManageInternalUsers", "ViewAllUsers"}
    assert rights.frozen_users == 2


def test_what_is_refused_is_not_known(company: SalesforceSimulator, service: RestUserService) -> None:
    company.org.permissions.own_rights = False
    company.org.permissions.setup = False
    assert service.account_rights() == AccountRights(None, None, active(company), None)


def test_a_quota_that_is_used_up_is_no_answer(company: SalesforceSimulator, service: RestUserService) -> None:
    company.org.set_daily_limit(0)
    with pytest.raises(PausedError):
        service.account_rights()


@pytest.mark.parametrize(
    "question",
    [
        "SELECT Id FROM UserLogin",
        "SELECT Id FROM User",
        "SELECT COUNT() FROM UserLogin WHERE IsFrozen = FALSE",
        "SELECT UsedLicenses FROM UserLicense FOR VIEW",
        "select UsedLicenses from UserLicense",
    ],
)
def test_no_other_question_goes_the_same_way(
    company: SalesforceSimulator, service: RestUserService, question: str
) -> None:
    with service._session(ASKING_FOR_RIGHTS, retry=None) as session:
        url = f"{company.url}/services/data/v66.0/query/"
        sent = len(company.journal.exchanges)
        for attempt in (
            lambda: session.get(url, params={"q": question}),
            lambda: session.get(url, params={"q": "SELECT UsedLicenses FROM UserLicense", "explain": "1"}),
            lambda: session.post(url, data={"q": "SELECT UsedLicenses FROM UserLicense"}),
        ):
            with pytest.raises(NotReadOnlyError):
                attempt()
    assert len(company.journal.exchanges) == sent


def test_a_sync_asks_none_of_these(company: SalesforceSimulator, service: RestUserService) -> None:
    service.count_users()
    with pytest.raises(NotReadOnlyError):
        service._client().query("SELECT UsedLicenses FROM UserLicense")
