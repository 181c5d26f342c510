"""The Supabase door against Supabase Lite, Supabase's own server for small projects, and against our simulator.

Lite speaks the Data API over the same database; it has no admin API, so users come from the simulator in both cases.
It takes node and the npm packages `@supabase/lite` and `postgres` in the folder that NODE_TOOLS names.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.core.errors import UserSyncError
from user_sync_pipeline.core.profiles.directory import ProfileImage
from user_sync_pipeline.core.profiles.reconcile import sync_profiles
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline.sandbox.supabase import SupabaseSimulator
from user_sync_pipeline_tests.conftest import role_url, supabase_on
from user_sync_pipeline_tests.postgres.accounts import add_user, execute

pytestmark = pytest.mark.slow

SECONDS_TO_START = 120
CONFIGURATION = """\
project_id = "lite"
[api]
port = {port}
max_rows = 1000
[db]
driver = "postgres"
url = "{url}"
[auth]
publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"
secret_key = "env(SUPABASE_SECRET_KEY)"
"""
MANY = 1100
RUN = UUID("7d1f3b0e-0000-4000-8000-000000000001")


@pytest.fixture(scope="module")
def lite_program() -> Path:
    """The entry of the command line of Lite."""
    folder = os.environ.get("NODE_TOOLS", "")
    program = Path(folder) / "node_modules/@supabase/lite/dist/cli/index.js"
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not folder or not program.exists() or not (Path(folder) / "node_modules/postgres").exists():
        pytest.skip("NODE_TOOLS names no folder with the npm packages @supabase/lite and postgres")
    return program


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, make_supabase_database: Callable[..., str]) -> str:
    """A migrated project of its own, since Lite adds tables to it."""
    name = make_supabase_database()
    url = role_url(postgres_server, name)
    apply_migrations(database_url=url, profiles_url=url)
    return name


@pytest.fixture(scope="module")
def project(
    postgres_server: PostgresServer, database: str, authority: CertificateAuthority
) -> Iterator[SupabaseSimulator]:
    with supabase_on(postgres_server, database, authority) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def lite(
    lite_program: Path,
    postgres_server: PostgresServer,
    database: str,
    project: SupabaseSimulator,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.URL]:
    """The address of Lite over the project's database, with the project's keys."""
    folder = tmp_path_factory.mktemp("lite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "supabase").mkdir()
    (folder / "supabase/config.toml").write_text(CONFIGURATION.format(port=port, url=postgres_server.url(database)))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SUPABASE_PUBLISHABLE_KEY": project.keys.publishable_key,
        "SUPABASE_SECRET_KEY": project.keys.secret_key,
    }
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            ["node", str(lite_program), "--no-telemetry", "start", "--no-admin"],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_for(port, process, folder / "log")
            yield httpx.URL(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"Supabase Lite did not start: {log.read_text()[-2000:]}")


@contextmanager
def data_api_of(lite: httpx.URL) -> Iterator[list[str]]:
    """Send what goes to the Data API to Lite; yields the paths that were."""
    handle = httpx.HTTPTransport.handle_request
    sent: list[str] = []

    def redirected(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/rest/v1"):
            sent.append(request.url.path)
            request.url = request.url.copy_with(scheme=lite.scheme, host=lite.host, port=lite.port)
        return handle(transport, request)

    with patch.object(httpx.HTTPTransport, "handle_request", redirected):
        yield sent


@pytest.fixture
def engine(postgres_server: PostgresServer, database: str) -> Iterator[Engine]:
    engine = create_database_engine(role_url(postgres_server, database))
    yield engine
    engine.dispose()


def observe(engine: Engine, project: SupabaseSimulator, authority: CertificateAuthority) -> list[Any]:
    """Do everything that the door can do, and return what it said and what is stored then."""
    execute(engine, "DELETE FROM auth.users")
    users = [add_user(engine, f"user{number}@example.com", profile=number % 2 == 0) for number in range(MANY)]
    names = {user_id: number for number, user_id in enumerate(users)}
    execute(engine, "UPDATE auth.users SET email = 'new-' || email WHERE id = ANY (:ids)", ids=users[:3])
    refused, elsewhere = users[5], users[7]
    # Lite has no words for a violated CHECK (HTTP 500, where PostgREST answers with 400), so it is a UNIQUE here.
    execute(engine, "UPDATE user_profiles SET email = 'user5@example.com' WHERE id = :id", id=users[4])
    execute(
        engine,
        f"""
        ALTER TABLE user_profiles ADD CONSTRAINT refused_here UNIQUE (email);
        CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.id = '{elsewhere}' THEN new.id = gen_random_uuid(); END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER vanish BEFORE INSERT ON user_profiles FOR EACH ROW EXECUTE FUNCTION vanish();
        """,
    )
    seen: list[Any] = []
    images: list[ProfileImage] = []
    key = project.keys.secret_key
    with SupabaseDirectory(project.url, key, ca_bundle=str(authority.ca_file)) as door:
        seen.append(door.status())
        creations = list(door.create_missing(RUN))
        seen.append(
            [(one.created, one.vanished, [(names[f.user_id], f.reason) for f in one.failures]) for one in creations]
        )
        seen.append(door.create_profile(users[0], role="admin"))
        seen.append(door.create_profile(refused, role="user").failures[0].reason)
        seen.append(door.refresh_mirrored(dry_run=False, journal=images.extend))
        seen.append(sorted((names[image.user_id], image.after["email"]) for image in images))
        account = door.account(users[1])
        assert account is not None
        seen.append(account._replace(auth_user_id=""))
        seen.append(door.status())
        seen.append(stored(engine, names))
        try:
            undone = door.undo(RUN, iter(images))
            seen.append((undone.removed, undone.restored, undone.kept))
        except UserSyncError as error:
            seen.append(str(error))
        execute(engine, "REVOKE SELECT ON user_profiles FROM service_role")
        try:
            sync_profiles(door)
        except UserSyncError as error:
            seen.append(str(error))
        finally:
            execute(engine, "GRANT SELECT ON user_profiles TO service_role")
    execute(
        engine,
        "ALTER TABLE user_profiles DROP CONSTRAINT refused_here; DROP FUNCTION vanish CASCADE",
    )
    seen.append(stored(engine, names))
    return seen


def stored(engine: Engine, names: dict[UUID, int]) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, email, phone, role, source, sync_run_id FROM user_profiles"))
        return sorted((names[row.id], *row[1:]) for row in rows)


@pytest.mark.parametrize("way", ["rpc", "api"])
def test_the_door_does_the_same_by_supabase_lite_as_by_the_simulator(
    engine: Engine, project: SupabaseSimulator, lite: httpx.URL, authority: CertificateAuthority, way: str
) -> None:
    functions = ("profile_sync_report()", "profile_backfill(integer, uuid, uuid)", "profile_undo(uuid, integer, uuid)")
    if way == "api":
        for function in functions:
            execute(engine, f"DROP FUNCTION {function}")
        execute(engine, "NOTIFY pgrst, 'reload schema'")

    by_simulator = observe(engine, project, authority)
    with data_api_of(lite) as sent:
        by_lite = observe(engine, project, authority)

    assert len(sent) > 10
    assert by_lite == by_simulator
    assert by_lite[0].method == way
