"""The situations that a client of Salesforce gets into, lived through in whole runs: pages, changes and values.

`sandbox/test_salesforce_scenarios.py` plays the same ones on the simulator alone. The numbers are those of
`docs/salesforce-gotchas.md`; 14 is with the tests of Bulk, 16 with those of going on after a break.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.user_sync import VISIBILITY_LAG
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import Fault, SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.cursors import OLDER_RULES, Consistency
from user_sync_pipeline.sandbox.salesforce.soql import parse
from user_sync_pipeline.sandbox.sample_people import people
from user_sync_pipeline_tests.core.in_process import answered_in_process
from user_sync_pipeline_tests.core.salesforce.whole_runs import (
    FEW,
    MADE_AT,
    NOW,
    after_page,
    asked,
    catch_up,
    everybody,
    in_salesforce,
    stored,
    sync,
)

# 1 to 4: pages, sessions and cursors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "largest_page", "empty_last_page"),
    [(0, None, True), (1, None, True), (199, 150, True), (200, None, False), (200, None, True), (201, 150, False)],
)
def test_scenario_01_any_number_of_users_arrives_whatever_the_pages(
    authority: CertificateAuthority, warehouse: Engine, count: int, largest_page: int | None, empty_last_page: bool
) -> None:
    reads_all_of(count, authority, warehouse, largest_page, empty_last_page)


@pytest.mark.slow
@pytest.mark.parametrize("empty_last_page", [False, True])
@pytest.mark.parametrize("largest_page", [None, 1500])
@pytest.mark.parametrize("count", [2000, 2001])
def test_scenario_01_two_thousand_users_arrive_whatever_the_pages(
    authority: CertificateAuthority, warehouse: Engine, count: int, largest_page: int | None, empty_last_page: bool
) -> None:
    reads_all_of(count, authority, warehouse, largest_page, empty_last_page)


def reads_all_of(
    count: int, authority: CertificateAuthority, warehouse: Engine, largest_page: int | None, empty_last_page: bool
) -> None:
    org = SalesforceSimulator(people(count, seed=7, until=MADE_AT), authority, port=443)
    org.clock.set(NOW)
    org.org.largest_page, org.org.empty_last_page = largest_page, empty_last_page
    with answered_in_process(org.application):
        assert sync(org, warehouse).complete
    assert len(stored(warehouse)) == count
    assert stored(warehouse) == in_salesforce(org)


def test_scenario_02_a_session_ends_between_two_pages(paged: SalesforceSimulator, warehouse: Engine) -> None:
    def end_the_session(org: SalesforceSimulator) -> None:
        org.tokens.revoke_tokens()

    after_page(paged, warehouse, 1, end_the_session)
    assert stored(warehouse) == in_salesforce(paged)
    assert len(asked(paged, "/oauth2/token")) == 2


@pytest.mark.parametrize(
    "refusal",
    [Fault(on="next_page", status=401, body="html", times=1), Fault(on="page", error="INVALID_AUTH_HEADER", times=1)],
    ids=["HTML", "INVALID_AUTH_HEADER"],
)
def test_scenario_02_a_token_is_refused_in_an_odd_way(
    paged: SalesforceSimulator, warehouse: Engine, refusal: Fault
) -> None:
    paged.faults.add(refusal)
    assert sync(paged, warehouse).complete
    assert stored(warehouse) == in_salesforce(paged)
    assert len(asked(paged, "/oauth2/token")) == 2


def test_scenario_02_the_token_endpoint_stumbles_once_or_for_ever(
    paged: SalesforceSimulator, warehouse: Engine
) -> None:
    paged.faults.add(Fault(on="token", status=503, times=1))
    assert sync(paged, warehouse).complete
    paged.faults.add(Fault(on="token", status=503, body="html"))
    with pytest.raises(UnreachableError, match="SALESFORCE_LOGIN_URL"):
        sync(paged, warehouse)


def test_scenario_03_every_call_names_the_page_size_also_after_a_new_sign_in(
    paged: SalesforceSimulator, warehouse: Engine
) -> None:
    paged.faults.add(Fault(on="next_page", status=401, times=1))
    sync(paged, warehouse)
    sizes = {each.headers.get("sforce-query-options") for each in paged.journal.exchanges if "/v66.0/" in each.path}
    assert sizes == {"batchSize=200"}
    assert len(asked(paged, "/oauth2/token")) == 2


@pytest.mark.parametrize("how", ["expired", "released by others", "forged"])
def test_scenario_04_a_cursor_is_lost(paged: SalesforceSimulator, warehouse: Engine, how: str) -> None:
    paged.org.cursors.rules = OLDER_RULES

    def lose(org: SalesforceSimulator) -> None:
        if how == "expired":
            org.clock.advance(timedelta(minutes=16))
        elif how == "released by others":
            query = parse("SELECT Id FROM User")
            for _ in range(10):
                org.org.cursors.open(query, org.org.find(query))
        else:
            org.org.cursors.release_all()

    after_page(paged, warehouse, 1, lose)
    assert stored(warehouse) == in_salesforce(paged)


# 5 to 7: changes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("delay", [timedelta(seconds=1), timedelta(minutes=6), timedelta(minutes=45)], ids=str)
@pytest.mark.parametrize("ends_in", ["commit", "rollback"])
def test_scenario_05_a_transaction_ends_late(
    company: SalesforceSimulator, warehouse: Engine, delay: timedelta, ends_in: str
) -> None:
    sync(company, warehouse)
    transaction = company.org.begin()
    transaction.update_user(everybody(company)[0], Title="Late")
    transaction.add_user(Username="late@example.com", LastName="Late")
    company.clock.advance(delay)
    with_it_open = catch_up(company, warehouse)
    assert with_it_open.watermark is not None
    assert with_it_open.watermark <= transaction.started
    getattr(transaction, ends_in)()
    company.clock.advance(timedelta(minutes=5))
    assert catch_up(company, warehouse).watermark == company.clock.now() - VISIBILITY_LAG
    assert stored(warehouse) == in_salesforce(company)
    assert (len(stored(warehouse)) == FEW) == (ends_in == "rollback")


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [200, 2000])
def test_scenario_06_five_thousand_users_have_one_stamp(
    authority: CertificateAuthority, warehouse: Engine, page_size: int
) -> None:
    """Their pages are found again behind (SystemModstamp, Id), since every cursor is lost at once."""
    org = SalesforceSimulator(people(5_000, seed=7, until=MADE_AT), authority, port=443)
    org.clock.set(NOW - timedelta(hours=1))
    with org.org.begin() as transaction:
        for user_id in everybody(org):
            transaction.update_user(user_id, Title="Migrated")
    org.clock.set(NOW)
    org.faults.add(Fault(on="next_page", error="INVALID_QUERY_LOCATOR"))
    with answered_in_process(org.application):
        assert sync(org, warehouse, page_size=page_size).complete
    assert stored(warehouse) == in_salesforce(org)


@pytest.mark.slow
@pytest.mark.parametrize("consistency", Consistency)
def test_scenario_07_users_change_between_the_pages(
    paged: SalesforceSimulator, warehouse: Engine, consistency: Consistency
) -> None:
    """What was read already, is being read and is to be read: all of it is as in Salesforce after the next run."""
    paged.org.cursors.consistency = consistency
    edited, deactivated, back_again, renamed, first, second = everybody(paged)[4::10]

    def change(org: SalesforceSimulator) -> None:
        names = {user_id: values[0] for user_id, values in in_salesforce(org, "Username").items()}
        org.org.update_user(edited, Department="Legal")
        org.org.deactivate_user(deactivated)
        org.org.deactivate_user(back_again)
        org.org.update_user(back_again, IsActive=True)
        org.org.update_user(renamed, Username="another@example.com", LastName="Nováková")
        with org.org.begin() as swap:
            swap.update_user(first, Username=names[second])
            swap.update_user(second, Username=names[first])

    after_page(paged, warehouse, 1, change)
    changed = {edited, deactivated, back_again, renamed, first, second}
    assert set(everybody(paged)) - stored(warehouse).keys() <= (changed if consistency is Consistency.LIVE else set())
    paged.clock.advance(timedelta(minutes=5))
    assert catch_up(paged, warehouse).complete
    assert stored(warehouse) == in_salesforce(paged)


# 8 and 9: fields and values -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scenario_08_a_field_is_hidden_from_the_start_and_shown_later(
    company: SalesforceSimulator, warehouse: Engine
) -> None:
    company.org.hide_field("External_ID__c")
    assert sync(company, warehouse).landing.hidden_fields == ("External_ID__c",)
    assert set(stored(warehouse, "External_ID__c").values()) == {(None,)}
    company.org.show_field("External_ID__c")
    shown = sync(company, warehouse)
    assert (shown.complete, shown.landing.hidden_fields) == (True, ())
    assert stored(warehouse, "External_ID__c") == in_salesforce(company, "External_ID__c")


@pytest.mark.slow
def test_scenario_08_a_field_is_hidden_between_two_pages_and_shown_again(
    paged: SalesforceSimulator, warehouse: Engine
) -> None:
    sync(paged, warehouse)
    before = stored(warehouse, "Fax")
    after_page(paged, warehouse, 1, lambda org: org.org.hide_field("Fax"))
    assert stored(warehouse, "Fax") == before
    paged.org.show_field("Fax")
    paged.org.update_user(everybody(paged)[0], Fax="+33 1 00 00 00 00")
    paged.clock.advance(timedelta(minutes=5))
    catch_up(paged, warehouse)
    assert stored(warehouse, "Fax") == in_salesforce(paged, "Fax")


def test_scenario_08_a_field_gets_another_type(company: SalesforceSimulator, warehouse: Engine) -> None:
    sync(company, warehouse)
    before = stored(warehouse)
    company.org.retype_field("IsActive", "string")
    with pytest.raises(ConfigurationError, match=r"User\.IsActive is of type string.*boolean"):
        sync(company, warehouse)
    assert stored(warehouse) == before


def test_scenario_09_addresses_and_texts_of_every_kind(company: SalesforceSimulator, warehouse: Engine) -> None:
    nothing = dict.fromkeys(
        ("Street", "City", "State", "StateCode", "PostalCode", "Country", "CountryCode", "Latitude", "Longitude",
         "GeocodeAccuracy")
    )  # fmt: skip
    none = next(user.id for user in company.org.users.ordered if user.address is None)
    emptied, partial, odd = [user.id for user in company.org.users.ordered if user.address is not None][:3]
    street = '1 rue "A", B\r\nBât. 🏠\t\\'
    company.org.update_user(emptied, **nothing)
    company.org.update_user(partial, **(nothing | {"City": "Lyon", "Latitude": 45.75}))
    company.org.update_user(odd, Street=street + "\0", Title="NA", Department="null", Division="\u2028")
    company.clock.advance(timedelta(minutes=5))

    result = sync(company, warehouse)
    found = {user_id: address for user_id, (address,) in stored(warehouse, "Address").items()}
    assert found[none] is found[emptied] is None
    assert {key: value for key, value in found[partial].items() if value is not None} == {
        "city": "Lyon",
        "latitude": 45.75,
    }
    assert found[odd]["street"] == street
    assert stored(warehouse, "Title", "Department", "Division")[odd] == ("NA", "null", "\u2028")
    assert [(note.salesforce_id, note.field) for note in result.landing.rejected] == [(odd, "Address")]

    with_codes = found
    company.org.hide_field("CountryCode")
    company.org.hide_field("StateCode")
    sync(company, warehouse)
    for user_id, (address,) in stored(warehouse, "Address").items():
        whole = with_codes[user_id]
        assert address == (whole and whole | {"countryCode": None, "stateCode": None})
