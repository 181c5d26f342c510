"""What `migrate verify` finds when the profiles side was lost, changed or opened up, and whether its mend mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine

from user_sync_pipeline.core.files import shipped_path
from user_sync_pipeline.core.profiles import installation_plan as plan
from user_sync_pipeline.core.profiles.installation import (
    APPLY,
    Deviation,
    Inspection,
    TriggerState,
    inspect_installation,
    read_trigger_state,
    verify_installation,
)
from user_sync_pipeline.core.warehouse.copying import driver_connection
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url

TRIGGER = "trigger on_auth_user_created"
TRIGGER_FUNCTION = "function app_private.handle_new_auth_user"
TABLE = "table public.user_profiles"

# What was done to the installation, by whom, and what is named.
DAMAGE = {
    "the trigger was lost in a restore": ("DROP TRIGGER on_auth_user_created ON auth.users", TRIGGER),
    "the trigger was switched off": ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", TRIGGER),
    "the trigger only fires on a replica": (
        "ALTER TABLE auth.users ENABLE REPLICA TRIGGER on_auth_user_created",
        TRIGGER,
    ),
    "the trigger runs before the insert": (
        "CREATE OR REPLACE TRIGGER on_auth_user_created BEFORE INSERT ON auth.users "
        "FOR EACH ROW EXECUTE FUNCTION app_private.handle_new_auth_user()",
        TRIGGER,
    ),
    "the trigger has got a condition": (
        "CREATE OR REPLACE TRIGGER on_auth_user_created AFTER INSERT ON auth.users "
        "FOR EACH ROW WHEN (new.email IS NOT NULL) EXECUTE FUNCTION app_private.handle_new_auth_user()",
        TRIGGER,
    ),
    "the kill switch was pulled": ("-- 0002_profiles_side.off.sql", TRIGGER_FUNCTION),
    "the function has got another text": (
        "CREATE OR REPLACE FUNCTION app_private.handle_new_auth_user() RETURNS trigger LANGUAGE plpgsql "
        "SECURITY DEFINER SET search_path = '' SET lock_timeout = '1500ms' AS 'BEGIN RETURN new; END'",
        TRIGGER_FUNCTION,
    ),
    "the function runs with the rights of the caller": (
        "ALTER FUNCTION app_private.handle_new_auth_user() SECURITY INVOKER",
        TRIGGER_FUNCTION,
    ),
    "the function waits for locks as long as it takes": (
        "ALTER FUNCTION app_private.handle_new_auth_user() RESET lock_timeout",
        TRIGGER_FUNCTION,
    ),
    "the function has no search_path": (
        "ALTER FUNCTION app_private.handle_new_auth_user() RESET search_path",
        TRIGGER_FUNCTION,
    ),
    "the function belongs to somebody else": (
        "ALTER FUNCTION app_private.handle_new_auth_user() OWNER TO supabase_auth_admin",
        TRIGGER_FUNCTION,
    ),
    "the owner may no longer write": (
        "REVOKE INSERT ON public.user_profiles FROM postgres, service_role",
        TRIGGER_FUNCTION,
    ),
    "the function was dropped with its trigger": (
        "DROP FUNCTION app_private.handle_new_auth_user() CASCADE",
        TRIGGER_FUNCTION,
    ),
    "a function of the service key was dropped": (
        "DROP FUNCTION public.profile_sync_report()",
        "function public.profile_sync_report",
    ),
    "changes are no longer dated": (
        "ALTER TABLE public.user_profiles DISABLE TRIGGER user_profiles_set_updated_at",
        "trigger user_profiles_set_updated_at",
    ),
    "the table was dropped": ("DROP TABLE public.user_profiles", TABLE),
    "the table belongs to somebody else": (
        "ALTER TABLE app_private.profile_failures OWNER TO supabase_auth_admin",
        "table app_private.profile_failures",
    ),
    "the mark of the table was lost": ("COMMENT ON TABLE public.user_profiles IS 'Ours'", TABLE),
    "the failures have nowhere to go": (
        "DROP TABLE app_private.profile_failures",
        "table app_private.profile_failures",
    ),
    "row level security is off": ("ALTER TABLE public.user_profiles DISABLE ROW LEVEL SECURITY", TABLE),
    "a policy was dropped": (
        "DROP POLICY user_profiles_select_own ON public.user_profiles",
        "policy user_profiles_select_own",
    ),
    "a policy shows everything": (
        "ALTER POLICY user_profiles_select_own ON public.user_profiles USING (true)",
        "policy user_profiles_select_own",
    ),
    "a policy shows everything to everybody": (
        "ALTER POLICY user_profiles_update_own ON public.user_profiles TO PUBLIC WITH CHECK (true)",
        "policy user_profiles_update_own",
    ),
    "a policy is for another command": (
        "DROP POLICY user_profiles_select_own ON public.user_profiles; "
        "CREATE POLICY user_profiles_select_own ON public.user_profiles FOR DELETE TO authenticated USING (true)",
        "policy user_profiles_select_own",
    ),
    "a column was dropped": ("ALTER TABLE public.user_profiles DROP phone", "column public.user_profiles.phone"),
    "a column has got another type": (
        "ALTER TABLE public.user_profiles ALTER phone TYPE varchar(20)",
        "column public.user_profiles.phone",
    ),
    "the e-mail is required": (
        "ALTER TABLE public.user_profiles ALTER email SET NOT NULL",
        "column public.user_profiles.email",
    ),
    "a default was dropped": (
        "ALTER TABLE public.user_profiles ALTER role DROP DEFAULT",
        "column public.user_profiles.role",
    ),
    "a required column was added": (
        "ALTER TABLE public.user_profiles ADD team text NOT NULL",
        "column public.user_profiles.team",
    ),
    "a check was dropped": (
        "ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_role_allowed",
        "constraint public.user_profiles.user_profiles_role_allowed",
    ),
    "a check was changed": (
        "ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_full_name_length, "
        "ADD CONSTRAINT user_profiles_full_name_length CHECK (char_length(full_name) <= 2)",
        "constraint public.user_profiles.user_profiles_full_name_length",
    ),
    "the primary key was dropped": ("ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_pkey", TABLE),
    "the foreign key was dropped": ("ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_id_fkey", TABLE),
    "the foreign key does not cascade": (
        "ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_id_fkey, "
        "ADD CONSTRAINT user_profiles_id_fkey FOREIGN KEY (id) REFERENCES auth.users (id)",
        "foreign key public.user_profiles.user_profiles_id_fkey",
    ),
    "the foreign key was never checked": (
        "ALTER TABLE public.user_profiles DROP CONSTRAINT user_profiles_id_fkey, "
        "ADD CONSTRAINT user_profiles_id_fkey FOREIGN KEY (id) REFERENCES auth.users (id) ON DELETE CASCADE NOT VALID",
        "foreign key public.user_profiles.user_profiles_id_fkey",
    ),
    "a foreign key is checked at commit": (
        "ALTER TABLE public.user_profiles ADD CONSTRAINT late FOREIGN KEY (sync_run_id) REFERENCES auth.users (id) "
        "DEFERRABLE INITIALLY DEFERRED",
        "constraint late",
    ),
    "a unique key is checked at commit": (
        "ALTER TABLE public.user_profiles ADD CONSTRAINT late UNIQUE (email) DEFERRABLE INITIALLY DEFERRED",
        "constraint late",
    ),
    "a trigger runs at commit": (
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.user_profiles DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION app_private.set_updated_at()",
        "constraint late",
    ),
    "visitors may read profiles": ("GRANT SELECT ON public.user_profiles TO anon", "public.user_profiles"),
    "everybody may read failures": (
        "GRANT SELECT ON app_private.profile_failures TO PUBLIC",
        "app_private.profile_failures",
    ),
    "users may change their role": (
        "GRANT UPDATE (role) ON public.user_profiles TO authenticated",
        "public.user_profiles",
    ),
    "visitors may fill profiles": (
        "GRANT EXECUTE ON FUNCTION public.profile_backfill TO anon",
        "public.profile_backfill",
    ),
    "the private schema is open": ("GRANT USAGE ON SCHEMA app_private TO authenticated", "app_private"),
    "the service key was shut out": ("REVOKE ALL ON public.user_profiles FROM service_role", "public.user_profiles"),
    "users were shut out": ("REVOKE ALL ON public.user_profiles FROM authenticated", "public.user_profiles"),
}


@pytest.fixture(scope="module")
def database(make_supabase_database: Callable[..., str], postgres_server: PostgresServer) -> str:
    """Name of a database where a new object is open to everybody, unless it is closed."""
    name = make_supabase_database(legacy_default_grants=True)
    engine = create_database_engine(role_url(postgres_server, name))
    with engine.begin() as connection:
        run(connection, script("up"))
    engine.dispose()
    return name


@pytest.fixture(scope="module")
def superuser(postgres_server: PostgresServer, database: str) -> Iterator[Engine]:
    engine = create_database_engine(postgres_server.url(database))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(superuser: Engine) -> Iterator[Connection]:
    """A superuser's connection; nothing of it is ever committed."""
    with superuser.connect() as connection:
        yield connection
        connection.rollback()


def script(kind: str) -> str:
    return (shipped_path("sql/migrations") / f"0002_profiles_side.{kind}.sql").read_text()


def run(connection: Connection, statements: str, role: str | None = None) -> None:
    """Run them in the transaction of the connection, as another role."""
    if role:
        statements = f"SET LOCAL ROLE {role};\n{statements};\nRESET ROLE"
    driver_connection(connection).execute(statements.encode())


def mend(connection: Connection, deviation: Deviation) -> None:
    """Do as the deviation says; what a role of a hosted project may not do itself, its owner does."""
    if deviation.mend == APPLY:
        run(connection, script("up"), "postgres")
    else:
        run(connection, deviation.mend.removesuffix(";"))


def test_a_fresh_installation_is_as_it_should_be_where_nothing_is_granted_by_default(engine: Engine) -> None:
    with engine.connect() as connection:
        assert inspect_installation(connection) == Inspection(())


def test_a_fresh_installation_is_as_it_should_be_where_everything_is_granted(connection: Connection) -> None:
    assert inspect_installation(connection) == Inspection(())
    assert read_trigger_state(connection) == TriggerState(present=True, enabled=True, unchanged=True)


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_is_named_and_its_mend_mends_it_when(connection: Connection, damage: str) -> None:
    statements, name = DAMAGE[damage]
    run(connection, script("off") if statements.startswith("--") else statements)

    found = verify_installation(connection)
    assert name in [deviation.name for deviation in found]

    for _ in range(len(found) + 1):
        if found:
            mend(connection, found[0])
        found = verify_installation(connection)
    assert found == ()


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        ("the trigger was lost in a restore", TriggerState(present=False, enabled=False, unchanged=False)),
        ("the trigger was switched off", TriggerState(present=True, enabled=False, unchanged=True)),
        ("the kill switch was pulled", TriggerState(present=True, enabled=True, unchanged=False)),
        ("the trigger has got a condition", TriggerState(present=True, enabled=True, unchanged=False)),
        ("the owner may no longer write", TriggerState(present=True, enabled=True, unchanged=False)),
        ("a policy was dropped", TriggerState(present=True, enabled=True, unchanged=True)),
    ],
)
def test_the_state_of_the_trigger_when(connection: Connection, damage: str, state: TriggerState) -> None:
    statements, _ = DAMAGE[damage]
    run(connection, script("off") if statements.startswith("--") else statements)

    assert read_trigger_state(connection) == state


def test_a_second_trigger_on_the_same_function_is_named(connection: Connection) -> None:
    run(
        connection,
        "CREATE TRIGGER again AFTER INSERT ON auth.users "
        "FOR EACH ROW EXECUTE FUNCTION app_private.handle_new_auth_user()",
    )

    [found] = verify_installation(connection)
    assert found.name == "trigger again"
    run(connection, script("down"), "postgres")
    run(connection, script("up"), "postgres")
    assert verify_installation(connection) == ()


def test_what_others_made_is_remarked_upon_and_not_called_broken(connection: Connection) -> None:
    run(
        connection,
        """
        CREATE TABLE public.orders (user_id uuid CONSTRAINT buyer REFERENCES auth.users (id));
        CREATE FUNCTION public.greet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER greet AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION public.greet();
        ALTER TABLE public.user_profiles ADD CONSTRAINT one_email UNIQUE (email);
        """,
    )

    found = inspect_installation(connection)
    assert found.deviations == ()
    assert [word for word in ("greet", "buyer", "one_email") if word not in " ".join(found.remarks)] == []


def test_a_project_without_any_of_it_hears_one_sentence(connection: Connection) -> None:
    run(connection, script("down"), "postgres")

    assert verify_installation(connection) == (Deviation("profiles side", "is not installed", APPLY),)
    assert read_trigger_state(connection) == TriggerState(present=False, enabled=False, unchanged=False)


def test_a_database_without_auth_users_says_which_one_is_needed(empty_database: str) -> None:
    engine = create_database_engine(empty_database)
    with engine.connect() as connection:
        [found] = verify_installation(connection)
    engine.dispose()

    assert found.name == "auth.users"
    assert "SUPABASE_DB_URL" in found.mend


def test_line_ends_of_a_browser_are_no_change(connection: Connection) -> None:
    run(connection, script("up").replace("\n", "\r\n"), "postgres")

    assert verify_installation(connection) == ()


def test_the_mark_is_the_one_that_the_migration_goes_by() -> None:
    assert script("up").count(f"'{plan.MARK}'") == 2


def test_reading_takes_no_rights_on_anything(connection: Connection) -> None:
    run(connection, "CREATE ROLE looks_only; SET LOCAL ROLE looks_only")

    assert verify_installation(connection) == ()


def test_a_search_path_changes_nothing_about_what_is_found(connection: Connection) -> None:
    run(connection, "SET LOCAL search_path = app_private, public")

    assert verify_installation(connection) == ()
