"""The set-based query for findings against the same rule told one person at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from user_sync_pipeline.core.profiles.reconcile import find_findings
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline_tests.postgres.accounts import execute

Finding = tuple[str, str | None, str | None]
EMAILS = st.sampled_from([None, "a@example.com", "b@example.com", "c@example.com"])


@dataclass(frozen=True)
class AuthUser:
    id: str
    email: str | None
    is_verified: bool
    is_banned: bool
    has_profile: bool


@dataclass(frozen=True)
class SalesforceUser:
    id: str
    email: str | None
    is_active: bool
    external_id: str | None


@dataclass(frozen=True)
class World:
    auth_users: list[AuthUser]
    salesforce_users: list[SalesforceUser]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    ids = [str(UUID(int=number + 1)) for number in range(draw(st.integers(1, 4)))]
    flag = st.booleans()
    auth_users = [AuthUser(id, draw(EMAILS), draw(flag), draw(flag), draw(flag)) for id in ids]
    external_ids = st.sampled_from([None, str(UUID(int=99)), *ids])
    return World(
        auth_users,
        [
            SalesforceUser(salesforce_id("005", number), draw(EMAILS), draw(flag), draw(external_ids))
            for number in range(1, draw(st.integers(2, 6)))
        ],
    )


def told_one_by_one(world: World) -> Counter[Finding]:
    auth, people = {user.id: user for user in world.auth_users}, world.salesforce_users
    named_by = Counter[str | None](person.external_id for person in people if person.external_id in auth)
    accounts_of = Counter(user.email for user in world.auth_users)
    people_of = Counter(person.email for person in people)
    open_people = [person for person in people if person.external_id not in auth]
    open_users = [user for user in world.auth_users if user.id not in named_by]
    links = {person.id: person.external_id for person in people if named_by[person.external_id] == 1}
    findings: Counter[Finding] = Counter()

    def standing(email: str | None) -> Literal["apart", "pair", "tie"]:
        """What an e-mail means for somebody open: nobody open on the other side, exactly two, or too many."""
        sides = ({someone.email for someone in side} for side in (open_people, open_users))
        if email is None or not all(email in side for side in sides):
            return "apart"
        return "pair" if accounts_of[email] == people_of[email] == 1 else "tie"

    for person in open_people:
        if standing(person.email) == "pair":
            (user,) = (user for user in open_users if user.email == person.email)
            if user.is_verified:
                links[person.id] = user.id
        elif standing(person.email) == "tie":
            findings["ambiguous_email", None, person.id] += 1
    for user in open_users:
        if standing(user.email) == "tie":
            findings["ambiguous_email", user.id, None] += 1
    for person in people:
        if named_by[person.external_id] > 1:
            findings["ambiguous_external_id", person.external_id, person.id] += 1
        elif (linked := links.get(person.id)) is not None:
            if not person.is_active and not auth[linked].is_banned:
                findings["inactive_in_salesforce_can_sign_in", linked, person.id] += 1
            if person.is_active and auth[linked].is_banned:
                findings["active_in_salesforce_without_sign_in", linked, person.id] += 1
        elif person.is_active and standing(person.email) != "tie":
            findings["active_in_salesforce_without_sign_in", None, person.id] += 1
    linked_people = {user_id: person_id for person_id, user_id in links.items()}
    for user in world.auth_users:
        if not user.has_profile:
            findings["missing_profile", user.id, linked_people.get(user.id)] += 1
    return findings


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_the_query_finds_what_the_rule_told_one_by_one_finds(engine: Engine, world: World) -> None:
    build(engine, world)
    with engine.begin() as connection:
        rows = find_findings(SqlDirectory(engine), connection).to_pylist()

    found = Counter((row["finding"], row["auth_user_id"], row["salesforce_user_id"]) for row in rows)
    assert found == told_one_by_one(world)
    assert not any("@" in row["reason"] for row in rows)


def build(engine: Engine, world: World) -> None:
    execute(engine, "DELETE FROM auth.users; DELETE FROM sf_users")
    with engine.begin() as connection:
        for user in world.auth_users:
            connection.execute(
                text("""
                    INSERT INTO auth.users (id, aud, is_sso_user, email, email_confirmed_at, banned_until)
                    VALUES (:id, 'authenticated', true, upper(:email), CASE WHEN :is_verified THEN now() END,
                            CASE WHEN :is_banned THEN timestamptz '2999-01-01' END)
                """),
                user.__dict__,
            )
            if not user.has_profile:
                connection.execute(text("DELETE FROM user_profiles WHERE id = :id"), {"id": user.id})
        for person in world.salesforce_users:
            connection.execute(
                text("""
                    INSERT INTO sf_users (id, username, email, is_active, external_id, created_date,
                                          system_modstamp, sync_run_id)
                    VALUES (:id, :id, ' ' || :email, :is_active, upper(:external_id), now(), now(), gen_random_uuid())
                """),
                person.__dict__,
            )
