"""People who have left by Salesforce's account and can still sign in."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.profiles.leavers import Leavers, leavers_who_can_sign_in
from user_sync_pipeline_tests.postgres.users import sync, user, user_id

A_DAY = timedelta(days=1)


def auth_id(number: int) -> UUID:
    return UUID(int=number)


def find(connection: Connection, number: int, *, finding: str = "inactive_in_salesforce_can_sign_in") -> None:
    connection.execute(
        text(
            "INSERT INTO user_sync.profile_reconciliation VALUES (:finding, :auth_user_id, :salesforce_id, 'a reason')"
        ),
        {"finding": finding, "auth_user_id": auth_id(number), "salesforce_id": user_id(number)},
    )


def has_left(connection: Connection, number: int, *, days_ago: float) -> None:
    connection.execute(
        text("UPDATE public.sf_users SET deactivated_at = now() - CAST(:ago AS interval) WHERE id = :id"),
        {"id": user_id(number), "ago": timedelta(days=days_ago)},
    )


def test_those_who_left_longest_ago_are_named_and_newcomers_among_them_have_a_while(warehouse: Engine) -> None:
    sync(warehouse, *(user(number, is_active=False) for number in range(1, 4)), user(4))
    with warehouse.connect() as connection:
        for number, days_ago in ((1, 2), (2, 0.5), (3, 9)):
            find(connection, number)
            has_left(connection, number, days_ago=days_ago)
        find(connection, 4)  # found inactive, but back since then
        find(connection, 1, finding="missing_profile")
        assert leavers_who_can_sign_in(connection, A_DAY) == Leavers(3, 2, (str(auth_id(3)), str(auth_id(1))))
        assert leavers_who_can_sign_in(connection, timedelta(days=30)) == Leavers(3, 0, ())


def test_ten_are_named_at_most(warehouse: Engine) -> None:
    sync(warehouse, *(user(number, is_active=False) for number in range(12)))
    with warehouse.connect() as connection:
        for number in range(12):
            find(connection, number)
        found = leavers_who_can_sign_in(connection, timedelta())
        assert (found.people, found.overdue, len(found.auth_user_ids)) == (12, 12, 10)


def test_nobody_is_found_before_the_first_reconciliation(warehouse: Engine) -> None:
    with warehouse.connect() as connection:
        assert leavers_who_can_sign_in(connection, A_DAY) == Leavers(0, 0, ())
