"""Changes that are stamped when they are made and seen when they are committed, over TLS."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
import requests

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.transactions import RowLockedError, Transaction
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, NOW, USERS, Client, Json, error_code

MIDNIGHT = "2026-06-03T00:00:00Z"
STAMPED_NOW = "2026-06-02T10:30:00.000+0000"


def ask_updated(client: Client, *, start: str = "2026-06-02T10:00:00Z", end: str = MIDNIGHT) -> requests.Response:
    return client.get(f"{DATA}/sobjects/User/updated/", start=start, end=end)


def updated(client: Client, *, end: str = MIDNIGHT) -> Json:
    return ask_updated(client, end=end).json()


def titles(client: Client, title: str) -> list[str]:
    soql = f"SELECT Id, SystemModstamp FROM User WHERE Title = '{title}' ORDER BY Id"
    return [record["SystemModstamp"] for record in client.query(soql)["records"]]


def fail(_: Transaction) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("held", [timedelta(seconds=1), timedelta(minutes=6), timedelta(minutes=45)])
def test_a_change_is_seen_at_commit_with_the_stamp_of_the_moment_it_was_made(
    simulator: SalesforceSimulator, client: Client, held: timedelta
) -> None:
    user = simulator.org.users.ordered[0].id
    transaction = simulator.org.begin()
    transaction.update_user(user, Title="Late")
    simulator.clock.advance(held)
    assert titles(client, "Late") == []
    assert updated(client) == {"ids": [], "latestDateCovered": STAMPED_NOW}
    transaction.commit()
    assert titles(client, "Late") == [STAMPED_NOW]
    covered = (NOW + held).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    assert updated(client) == {"ids": [user], "latestDateCovered": covered}


def test_what_is_rolled_back_leaves_no_trace(simulator: SalesforceSimulator, client: Client) -> None:
    before = client.query("SELECT Id, Title, SystemModstamp FROM User ORDER BY Id")
    user = simulator.org.users.ordered[0].id
    for end_with in (Transaction.rollback, fail):
        with contextlib.suppress(ZeroDivisionError), simulator.org.begin() as transaction:
            transaction.update_user(user, Title="Never")
            transaction.deactivate_user(simulator.org.users.ordered[1].id)
            transaction.add_user(LastName="Nobody")
            end_with(transaction)
    assert client.query("SELECT Id, Title, SystemModstamp FROM User ORDER BY Id") == before
    assert updated(client) == {"ids": [], "latestDateCovered": STAMPED_NOW}
    simulator.org.update_user(user, Title="Free again")


def test_coverage_goes_back_to_the_start_of_the_oldest_open_transaction(
    simulator: SalesforceSimulator, client: Client
) -> None:
    transactions = []
    for minutes in (1, 1, 1):
        simulator.clock.advance(timedelta(minutes=minutes))
        transactions.append(simulator.org.begin())
    covered = []
    for transaction in (transactions[1], transactions[0], transactions[2]):
        covered.append(updated(client)["latestDateCovered"][11:19])
        transaction.commit()
    assert covered == ["10:31:00", "10:31:00", "10:33:00"]
    simulator.org.begin()
    assert updated(client, end="2026-06-02T10:20:00Z")["latestDateCovered"][11:19] == "10:20:00"


def test_each_change_of_a_transaction_has_its_own_moment_and_the_last_one_counts(
    simulator: SalesforceSimulator, client: Client
) -> None:
    first, second = (user.id for user in simulator.org.users.ordered[:2])
    with simulator.org.begin() as transaction:
        transaction.update_user(first, Title="First", FirstName="Zoë")
        simulator.clock.advance(timedelta(minutes=1))
        transaction.update_user(second, Title="Second")
        added = transaction.add_user(Title="Added", LastName="Ötzi")
        simulator.clock.advance(timedelta(minutes=1))
        transaction.update_user(added, FirstName="Ana")
        transaction.deactivate_user(second)
        simulator.clock.advance(timedelta(minutes=1))
    assert [titles(client, title)[0][11:19] for title in ("First", "Second", "Added")] == [
        "10:30:00",
        "10:32:00",
        "10:32:00",
    ]
    soql = f"SELECT Name, IsActive FROM User WHERE Id IN ('{second}', '{added}') ORDER BY IsActive"
    assert [record["IsActive"] for record in client.query(soql)["records"]] == [False, True]
    assert client.query(f"SELECT Name FROM User WHERE Id = '{added}'")["records"][0]["Name"] == "Ana Ötzi"
    assert client.query("SELECT COUNT() FROM User")["totalSize"] == USERS + 1


def test_a_user_in_one_open_transaction_cannot_be_changed_by_another(simulator: SalesforceSimulator) -> None:
    user = simulator.org.users.ordered[0].id
    with simulator.org.begin() as transaction:
        transaction.update_user(user, Title="Mine")
        with pytest.raises(RowLockedError):
            simulator.org.update_user(user, Title="Theirs")
        with simulator.org.begin() as other, pytest.raises(KeyError):
            other.update_user("005000000000000AAA", Title="x")
    simulator.org.update_user(user, Title="Theirs")
    with pytest.raises(RuntimeError):
        transaction.update_user(user, Title="Too late")
    with pytest.raises(RuntimeError):
        transaction.commit()


def test_two_users_swap_their_usernames_in_one_transaction(simulator: SalesforceSimulator, client: Client) -> None:
    first, second = simulator.org.users.ordered[:2]
    names = first.person.username, second.person.username
    with simulator.org.begin() as transaction:
        transaction.update_user(first.id, Username=names[1])
        transaction.update_user(second.id, Username=names[0])
    soql = f"SELECT Id, Username FROM User WHERE Id IN ('{first.id}', '{second.id}')"
    found = {record["Id"]: record["Username"] for record in client.query(soql)["records"]}
    assert found == {first.id: names[1], second.id: names[0]}


def test_updated_names_no_more_ids_than_it_may(simulator: SalesforceSimulator, client: Client) -> None:
    simulator.org.most_updated_ids = 2
    for number, user in enumerate(simulator.org.users.ordered[:3]):
        response = ask_updated(client)
        assert len(response.json()["ids"]) == number
        simulator.org.update_user(user.id, Title="Changed")
    assert error_code(ask_updated(client)) == (400, "EXCEEDED_ID_LIMIT")


def test_updated_looks_back_thirty_days(simulator: SalesforceSimulator, client: Client) -> None:
    for start, expected in ((NOW - timedelta(days=30), 200), (NOW - timedelta(days=30, minutes=1), 400)):
        assert ask_updated(client, start=f"{start:%Y-%m-%dT%H:%M:%SZ}").status_code == expected
