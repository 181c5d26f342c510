"""Taking a sync back: exactly what it did and nothing else, however often and after whatever break."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.profiles import sql_directory
from user_sync_pipeline.core.profiles.directory import Kept, ProfileImage
from user_sync_pipeline.core.profiles.reconcile import find_findings, sync_profiles
from user_sync_pipeline.core.profiles.sql_directory import SqlDirectory
from user_sync_pipeline.core.profiles.undo import undo_sync
from user_sync_pipeline.core.settings import Retention
from user_sync_pipeline.core.warehouse import profile_ledger
from user_sync_pipeline.core.warehouse.profile_ledger import ProfileLedger, open_profile_ledger
from user_sync_pipeline.core.warehouse.retention import forget_old_profile_runs
from user_sync_pipeline_tests.postgres.accounts import add_user, execute, profile_ids, refuse_profiles_of

PEOPLE = 4


def rows(engine: Engine, table: str = "user_profiles") -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).mappings()]


def ledger_on(engine: Engine) -> ProfileLedger:
    return ProfileLedger(engine, started_by="test")


def sync(engine: Engine, *, preserve: bool = True) -> UUID:
    result = sync_profiles(SqlDirectory(engine), preserve=preserve, ledger=ledger_on(engine))
    assert result.run_id is not None
    return result.run_id


def undo(engine: Engine, run_id: UUID) -> tuple[int, int, tuple[Kept, ...]]:
    undone = undo_sync(SqlDirectory(engine), ledger_on(engine), run_id).undone
    return undone.removed, undone.restored, undone.kept


def change_email(engine: Engine, user_id: UUID, email: str) -> None:
    execute(engine, "UPDATE auth.users SET email = :email WHERE id = :id", email=email, id=user_id)


# Of what happens between two runs: a profile goes, a user signs up, changes the e-mail or the phone.
STEPS = st.one_of(
    st.tuples(st.sampled_from(["sync", "refresh", "sign up"]), st.just(0)),
    st.tuples(st.sampled_from(["lose profile", "change e-mail", "change phone"]), st.integers(0, PEOPLE - 1)),
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=1, max_size=10))
def test_undoing_the_runs_one_after_the_other_gives_back_every_row_as_it_was(
    profiles: Engine, steps: list[tuple[str, int]]
) -> None:
    execute(profiles, "TRUNCATE auth.users CASCADE")
    people = [add_user(profiles, f"{number}@example.com", profile=True) for number in range(PEOPLE)]
    runs: list[tuple[UUID, list[dict[str, Any]]]] = []
    for number, (step, person) in enumerate(steps):
        if step in ("sync", "refresh"):
            before = rows(profiles)
            runs.append((sync(profiles, preserve=step == "sync"), before))
        elif step == "lose profile":
            execute(profiles, "DELETE FROM user_profiles WHERE id = :id", id=people[person])
            # What others take away is not given back.
            runs = [(run_id, [row for row in before if row["id"] != people[person]]) for run_id, before in runs]
        elif step == "sign up":
            add_user(profiles, f"new{number}@example.com")
        else:
            column, value = ("email", f"{number}@example.org") if step == "change e-mail" else ("phone", f"49{number}")
            statement = f"UPDATE auth.users SET {column} = :value WHERE id = :id"
            execute(profiles, statement, value=value, id=people[person])
    for run_id, before in reversed(runs):
        assert undo(profiles, run_id)[2] == ()
        assert rows(profiles) == before


def test_an_undo_removes_what_the_run_made_and_the_next_sync_makes_it_again(profiles: Engine) -> None:
    made = {add_user(profiles) for _ in range(3)}
    there = add_user(profiles, profile=True)
    run_id = sync(profiles)
    assert undo(profiles, run_id) == (3, 0, ())
    assert profile_ids(profiles) == {there}
    assert undo(profiles, run_id) == (0, 0, ())
    sync(profiles)
    assert profile_ids(profiles) == made | {there}
    assert undo(profiles, run_id) == (0, 0, ())


def test_an_undo_gives_back_the_former_e_mail_and_phone_to_the_letter(profiles: Engine) -> None:
    user_id = add_user(profiles, "new@example.com", profile=True)
    execute(profiles, "UPDATE user_profiles SET email = ' Old@Example.com', phone = ''")
    before = rows(profiles)
    run_id = sync(profiles, preserve=False)
    assert [(row["email"], row["phone"]) for row in rows(profiles)] == [("new@example.com", None)]
    assert undo(profiles, run_id) == (0, 1, ())
    assert rows(profiles) == before
    assert undo(profiles, run_id) == (0, 0, ())
    assert user_id in profile_ids(profiles)


def test_a_profile_that_was_changed_since_is_kept_and_named(profiles: Engine) -> None:
    made, refreshed = add_user(profiles), add_user(profiles, "a@example.com", profile=True)
    change_email(profiles, refreshed, "b@example.com")
    run_id = sync(profiles, preserve=False)
    execute(profiles, "UPDATE user_profiles SET full_name = 'Chosen' WHERE id = :id", id=made)
    execute(profiles, "UPDATE user_profiles SET email = 'c@example.com' WHERE id = :id", id=refreshed)
    removed, restored, kept = undo(profiles, run_id)
    assert (removed, restored) == (0, 0)
    assert {(one.user_id, one.reason) for one in kept} == {(made, "changed since"), (refreshed, "changed since")}
    assert {row["email"] for row in rows(profiles)} == {None, "c@example.com"}


def test_a_change_of_other_columns_is_left_and_dated_while_the_e_mail_goes_back(profiles: Engine) -> None:
    user_id = add_user(profiles, "a@example.com", profile=True)
    change_email(profiles, user_id, "b@example.com")
    run_id = sync(profiles, preserve=False)
    execute(profiles, "UPDATE user_profiles SET full_name = 'Chosen', role = 'admin'")
    [changed] = rows(profiles)
    assert undo(profiles, run_id) == (0, 1, ())
    [restored] = rows(profiles)
    assert restored == {**changed, "email": "a@example.com", "updated_at": restored["updated_at"]}
    assert restored["updated_at"] > changed["updated_at"]


@pytest.mark.parametrize("deletion", ["CASCADE", "RESTRICT", "SET NULL"])
def test_a_profile_that_an_application_refers_to_is_kept(engine: Engine, deletion: str) -> None:
    used, unused = add_user(engine), add_user(engine)
    run_id = sync(engine)
    execute(engine, f"CREATE TABLE orders (owner uuid REFERENCES user_profiles ON DELETE {deletion}, number integer)")
    execute(engine, "INSERT INTO orders VALUES (:owner, 1)", owner=used)
    assert undo(engine, run_id) == (1, 0, (Kept(used, "in use by public.orders"),))
    assert profile_ids(engine) == {used}
    assert [row["owner"] for row in rows(engine, "orders")] == [used]
    assert unused not in profile_ids(engine)


def test_a_user_who_was_deleted_since_is_neither_restored_nor_kept(profiles: Engine) -> None:
    made, refreshed = add_user(profiles), add_user(profiles, "a@example.com", profile=True)
    change_email(profiles, refreshed, "b@example.com")
    run_id = sync(profiles, preserve=False)
    execute(profiles, "DELETE FROM auth.users WHERE id IN (:made, :refreshed)", made=made, refreshed=refreshed)
    assert undo(profiles, run_id) == (0, 0, ())


def test_profiles_of_other_runs_and_of_sign_ups_are_not_touched(profiles: Engine) -> None:
    first = add_user(profiles)
    run_id = sync(profiles)
    second = add_user(profiles)
    sync(profiles)
    third = add_user(profiles, profile=True)
    undo(profiles, run_id)
    assert profile_ids(profiles) == {second, third}
    assert first not in profile_ids(profiles)


def test_a_refusal_keeps_only_the_profile_at_fault(engine: Engine) -> None:
    users = [add_user(engine, f"{number}@example.com", profile=True) for number in range(5)]
    for number, user_id in enumerate(users):
        change_email(engine, user_id, f"{number}@example.org")
    run_id = sync(engine, preserve=False)
    execute(engine, "ALTER TABLE user_profiles ADD CONSTRAINT newer CHECK (email <> '2@example.com')")
    assert undo(engine, run_id) == (0, 4, (Kept(users[2], "SQLSTATE 23514, constraint newer"),))


def test_a_run_that_nobody_knows_is_refused(profiles: Engine) -> None:
    with pytest.raises(UsageError, match="no run"):
        undo(profiles, uuid4())


@pytest.mark.parametrize("slice_", [1, 2, 3])
def test_any_size_of_slice_takes_back_the_same(profiles: Engine, slice_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_directory, "SLICE", slice_)
    monkeypatch.setattr(profile_ledger, "IMAGES_A_FETCH", 2)
    for number in range(6):
        user_id = add_user(profiles, f"{number}@example.com", profile=number % 2 == 0)
        change_email(profiles, user_id, f"{number}@example.org")
    before = rows(profiles)
    run_id = sync(profiles, preserve=False)
    assert len(profile_ids(profiles)) == 6
    assert undo(profiles, run_id) == (3, 3, ())
    assert rows(profiles) == before


# A run that breaks off ---------------------------------------------------------------------------------------------


class BrokenLedger(ProfileLedger):
    """Loses its connection when it has noted the images of so many slices."""

    def __init__(self, engine: Engine, slices: int) -> None:
        super().__init__(engine, started_by="test")
        self.left = slices

    def note_images(self, run_id: UUID, images: Any) -> None:
        super().note_images(run_id, images)
        self.left -= 1
        if not self.left:
            raise ConnectionError("lost")


@pytest.mark.parametrize("slices", [1, 2])
def test_a_run_that_breaks_off_behind_the_note_and_before_the_writing_is_undone_as_well(
    profiles: Engine, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_directory, "SLICE", 2)
    for number in range(4):
        change_email(profiles, add_user(profiles, f"{number}@example.com", profile=True), f"{number}@example.org")
    before = rows(profiles)
    with pytest.raises(ConnectionError):
        sync_profiles(SqlDirectory(profiles), preserve=False, ledger=BrokenLedger(profiles, slices))
    [run] = rows(profiles, "user_sync.profile_runs")
    assert (run["outcome"], run["finished_at"] is None) == ("failed", False)
    assert undo(profiles, run["run_id"]) == (0, 2 * (slices - 1), ())
    assert rows(profiles) == before


def test_images_are_noted_before_a_profile_is_written(profiles: Engine) -> None:
    change_email(profiles, add_user(profiles, "a@example.com", profile=True), "b@example.com")
    seen: list[tuple[str | None, str]] = []

    def look(images: Any) -> None:
        [image] = images
        assert isinstance(image, ProfileImage)
        seen.append((image.after["email"], rows(profiles)[0]["email"]))

    assert SqlDirectory(profiles).refresh_mirrored(dry_run=False, journal=look) == 1
    assert seen == [("b@example.com", "a@example.com")]


# The ledger --------------------------------------------------------------------------------------------------------


def test_the_ledger_tells_what_a_run_did_and_what_came_of_undoing_it(engine: Engine) -> None:
    refused = add_user(engine)
    add_user(engine)
    change_email(engine, add_user(engine, "a@example.com", profile=True), "b@example.com")
    refuse_profiles_of(engine, [refused])
    run_id = sync(engine, preserve=False)
    undo(engine, run_id)
    [run] = rows(engine, "user_sync.profile_runs")
    counts = {name: run[name] for name in ("created", "refreshed", "vanished", "failed", "removed", "restored")}
    assert counts == {"created": 1, "refreshed": 1, "vanished": 0, "failed": 1, "removed": 1, "restored": 1}
    assert (run["door"], run["outcome"], run["started_by"]) == ("sql", "complete", "test")
    assert run["undone_at"] >= run["finished_at"] >= run["started_at"]


def test_a_dry_run_leaves_no_trace_in_the_ledger(profiles: Engine) -> None:
    change_email(profiles, add_user(profiles, "a@example.com", profile=True), "b@example.com")
    add_user(profiles)
    before = rows(profiles)
    result = sync_profiles(SqlDirectory(profiles), dry_run=True, preserve=False, ledger=ledger_on(profiles))
    assert (result.profiles_created, result.refreshed_profiles, result.run_id) == (1, 1, None)
    assert rows(profiles) == before
    assert rows(profiles, "user_sync.profile_runs") == rows(profiles, "user_sync.profile_images") == []


def test_a_database_without_the_tables_has_no_ledger(supabase_database: str) -> None:
    from user_sync_pipeline.core.warehouse.database import create_database_engine

    engine = create_database_engine(supabase_database)
    assert open_profile_ledger(engine, started_by="test") is None
    engine.dispose()


def test_old_runs_go_with_the_e_mails_in_them(profiles: Engine) -> None:
    change_email(profiles, add_user(profiles, "a@example.com", profile=True), "b@example.com")
    old, new = sync(profiles, preserve=False), sync(profiles)
    execute(profiles, "UPDATE user_sync.profile_images SET noted_at = noted_at - interval '50 days'")
    execute(
        profiles,
        "UPDATE user_sync.profile_runs SET finished_at = finished_at - interval '50 days' WHERE run_id = :run_id",
        run_id=old,
    )
    forget_old_profile_runs(profiles, Retention(run_days=None))
    assert len(rows(profiles, "user_sync.profile_runs")) == 2
    forget_old_profile_runs(profiles, Retention(run_days=30))
    assert [run["run_id"] for run in rows(profiles, "user_sync.profile_runs")] == [new]
    assert rows(profiles, "user_sync.profile_images") == []
    with pytest.raises(UsageError):
        undo(profiles, old)


def test_the_e_mail_of_who_is_gone_goes_with_the_next_reconciliation(profiles: Engine) -> None:
    gone, stays = (add_user(profiles, f"{name}@example.com", profile=True) for name in ("ann", "bob"))
    execute(profiles, "UPDATE auth.users SET email = 'later-' || email")
    run_id = sync(profiles, preserve=False)
    execute(profiles, "DELETE FROM auth.users WHERE id = :id", id=gone)
    with profiles.begin() as connection:
        find_findings(SqlDirectory(profiles), connection)
    assert [image["user_id"] for image in rows(profiles, "user_sync.profile_images")] == [stays]
    assert undo(profiles, run_id) == (0, 1, ())


@pytest.mark.parametrize("api_role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize("table", ["profile_runs", "profile_images", "profile_links"])
def test_no_role_of_the_api_reads_the_ledger(profiles: Engine, api_role: str, table: str) -> None:
    with profiles.connect() as connection:
        asked = text(
            "SELECT has_schema_privilege(:role, 'user_sync', 'USAGE'), has_table_privilege(:role, :table, 'SELECT')"
        )
        may = connection.execute(asked, {"role": api_role, "table": f"user_sync.{table}"}).one()
    assert tuple(may) == (False, False)
