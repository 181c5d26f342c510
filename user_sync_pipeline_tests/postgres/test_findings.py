"""Who can sign in against who is in Salesforce: every finding has its reason, and no link is a guess."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.profiles.reconcile import FINDINGS, count_links, find_findings
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline_tests.postgres.accounts import add_user, execute

_SALESFORCE_USER = text("""
    INSERT INTO sf_users (id, username, email, is_active, external_id, created_date, system_modstamp, sync_run_id)
    VALUES (:id, :id, :email, :is_active, :external_id, now(), now(), :run_id)
""")


def add_salesforce_user(
    engine: Engine, number: int, email: str | None = None, *, is_active: bool = True, external_id: object = None
) -> str:
    user_id = salesforce_id("005", number)
    with engine.begin() as connection:
        connection.execute(
            _SALESFORCE_USER,
            {
                "id": user_id,
                "email": email,
                "is_active": is_active,
                "external_id": None if external_id is None else str(external_id),
                "run_id": uuid4(),
            },
        )
    return user_id


def findings(engine: Engine) -> set[tuple[str, UUID | None, str | None]]:
    with engine.begin() as connection:
        table = find_findings(SqlDirectory(engine), connection)
    rows = table.to_pylist()
    assert {row["finding"] for row in rows} <= set(FINDINGS)
    assert all(row["reason"] and "@" not in row["reason"] for row in rows)
    return {
        (row["finding"], UUID(row["auth_user_id"]) if row["auth_user_id"] else None, row["salesforce_user_id"])
        for row in rows
    }


def links(engine: Engine) -> set[tuple[UUID, str, str]]:
    """Whom the last call of `findings` linked, and by what."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT auth_user_id, salesforce_user_id, linked_by FROM user_sync.profile_links")
        )
        return {(row.auth_user_id, row.salesforce_user_id, row.linked_by) for row in rows}


@pytest.mark.parametrize("linked_by", ["external id", "verified e-mail"])
def test_a_linked_active_person_with_a_profile_is_no_finding(engine: Engine, linked_by: str) -> None:
    user_id = add_user(engine, "ann@example.com", profile=True)
    if linked_by == "external id":
        add_salesforce_user(engine, 1, "somebody.else@example.com", external_id=user_id)
    else:
        add_salesforce_user(engine, 1, " Ann@Example.com ")
    assert findings(engine) == set()


def test_somebody_who_left_salesforce_and_can_sign_in_is_found(engine: Engine) -> None:
    user_id = add_user(engine, "ann@example.com", profile=True)
    left = add_salesforce_user(engine, 1, is_active=False, external_id=str(user_id).upper())
    assert findings(engine) == {("inactive_in_salesforce_can_sign_in", user_id, left)}


def test_somebody_who_left_and_is_banned_is_no_finding(engine: Engine) -> None:
    user_id = add_user(engine, "ann@example.com", profile=True, banned=True)
    add_salesforce_user(engine, 1, is_active=False, external_id=user_id)
    assert findings(engine) == set()


def test_an_active_person_without_an_auth_user_is_found(engine: Engine) -> None:
    alone = add_salesforce_user(engine, 1, "ann@example.com")
    assert findings(engine) == {("active_in_salesforce_without_sign_in", None, alone)}


def test_an_unverified_e_mail_makes_no_link(engine: Engine) -> None:
    add_user(engine, "ann@example.com", profile=True, verified=False)
    alone = add_salesforce_user(engine, 1, "ann@example.com")
    assert findings(engine) == {("active_in_salesforce_without_sign_in", None, alone)}


def test_an_e_mail_that_two_people_share_is_reported_and_never_linked(engine: Engine) -> None:
    user_id = add_user(engine, "team@example.com", profile=True)
    sharers = [add_salesforce_user(engine, number, "team@example.com", is_active=number > 1) for number in (1, 2)]
    assert findings(engine) == {
        ("ambiguous_email", user_id, None),
        *(("ambiguous_email", None, sharer) for sharer in sharers),
    }


def test_an_external_id_that_two_people_claim_is_reported_and_never_linked(engine: Engine) -> None:
    user_id = add_user(engine, "ann@example.com", profile=True)
    claimants = [add_salesforce_user(engine, number, external_id=user_id, is_active=False) for number in (1, 2)]
    assert findings(engine) == {("ambiguous_external_id", user_id, claimant) for claimant in claimants}


def test_an_external_id_decides_before_an_e_mail(engine: Engine) -> None:
    named = add_user(engine, "ann@example.com", profile=True)
    other = add_user(engine, "bob@example.com", profile=True)
    left = add_salesforce_user(engine, 1, "bob@example.com", is_active=False, external_id=named)
    assert findings(engine) == {("inactive_in_salesforce_can_sign_in", named, left)}
    assert other not in {user_id for _, user_id, _ in findings(engine)}


def test_missing_and_orphan_profiles_are_found(engine: Engine) -> None:
    missing = add_user(engine, "new@example.com")
    orphan = add_user(engine, "gone@example.com", profile=True)
    execute(engine, "UPDATE auth.users SET deleted_at = now() WHERE id = :id", id=orphan)
    assert findings(engine) == {("missing_profile", missing, None), ("orphan_profile", orphan, None)}


def test_a_profile_with_another_e_mail_is_found_and_only_where_there_is_a_user(engine: Engine) -> None:
    stale, fresh = (add_user(engine, f"{name}@example.com", profile=True) for name in ("ann", "bob"))
    person = add_salesforce_user(engine, 1, "ann@example.com")
    execute(engine, "UPDATE user_profiles SET email = 'old@example.com' WHERE id = :id", id=stale)
    execute(engine, "UPDATE user_profiles SET email = ' BOB@example.com', phone = '1' WHERE id = :id", id=fresh)
    gone = add_user(engine, "cid@example.com", profile=True)
    execute(engine, "UPDATE auth.users SET email = 'hash', deleted_at = now() WHERE id = :id", id=gone)
    assert findings(engine) == {("stale_email", stale, person), ("orphan_profile", gone, None)}


def test_links_are_kept_with_their_reason_and_the_moment_of_the_first(engine: Engine) -> None:
    ann, bob, cid = (add_user(engine, f"{name}@example.com", profile=True) for name in ("ann", "bob", "cid"))
    by_id = add_salesforce_user(engine, 1, external_id=ann)
    by_email = add_salesforce_user(engine, 2, "bob@example.com")
    alone = add_salesforce_user(engine, 3, "nobody@example.com", is_active=False)
    assert findings(engine) == set()
    assert links(engine) == {(ann, by_id, "External_ID__c"), (bob, by_email, "verified e-mail")}

    moments = text("SELECT auth_user_id, linked_at FROM user_sync.profile_links")
    with engine.connect() as connection:
        first = {row.auth_user_id: row.linked_at for row in connection.execute(moments)}
    execute(engine, "UPDATE sf_users SET external_id = :id WHERE email = 'bob@example.com'", id=str(cid))
    assert findings(engine) == set()
    assert links(engine) == {(ann, by_id, "External_ID__c"), (cid, by_email, "External_ID__c")}
    with engine.begin() as connection:
        again = {row.auth_user_id: row.linked_at for row in connection.execute(moments)}
        assert count_links(connection) == {"External_ID__c": 2, "verified e-mail": 0}
    assert again[ann] == first[ann]
    assert alone not in {salesforce_user for _, salesforce_user, _ in links(engine)}
