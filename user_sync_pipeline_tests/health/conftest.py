"""One migrated database for a test file, a webserver that says what it is told to say, and the endpoints over both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from starlette.types import ASGIApp

from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.health.answers import Surroundings, answers_from
from user_sync_pipeline.health.app import build_app
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url, run_as_superuser
from user_sync_pipeline_tests.health.scripted_webserver import ScriptedWebserver

_databases = itertools.count()


@pytest.fixture(scope="module")
def one_database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    name = f"health_{next(_databases)}"
    run_as_superuser(postgres_server, f"CREATE DATABASE {name} TEMPLATE {migrated_template} OWNER postgres")
    yield role_url(postgres_server, name)
    run_as_superuser(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def one_engine(one_database: str) -> Iterator[Engine]:
    engine = create_database_engine(one_database)
    yield engine
    engine.dispose()


@pytest.fixture
def database(one_database: str, one_engine: Engine) -> str:
    """Address of the database of this test file, migrated, and empty."""
    with one_engine.begin() as connection:
        connection.execute(text("TRUNCATE user_profiles, user_sync.sync_runs CASCADE"))
        connection.execute(text("DELETE FROM auth.users"))
    return one_database


@pytest.fixture
def webserver() -> Iterator[ScriptedWebserver]:
    server = ScriptedWebserver()
    yield server
    server.close()


@pytest.fixture
def endpoints(webserver: ScriptedWebserver) -> Iterator[Callable[..., ASGIApp]]:
    """Build the application over a database; its connections are closed at the end of the test."""
    opened: list[Any] = []

    def build(
        database: str,
        *,
        token: str | None = None,
        dagster_url: str | None = None,
        supabase: SupabaseSettings | None = None,
    ) -> ASGIApp:
        about = Surroundings(
            database, supabase or SupabaseSettings(database_url=database), dagster_url or webserver.url
        )
        manager = answers_from(about)
        opened.append(manager)
        return build_app(manager.__enter__(), token=token)

    yield build
    for manager in opened:
        manager.__exit__(None, None, None)


def ask(app: ASGIApp, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    return ask_at_once(app, path, 1, method, **headers)[0]


def ask_at_once(app: ASGIApp, path: str, times: int, method: str = "GET", **headers: str) -> list[httpx.Response]:
    """Send so many requests at the same time."""

    async def send() -> list[httpx.Response]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pipeline") as client:
            return await asyncio.gather(*(client.request(method, path, headers=named) for _ in range(times)))

    return asyncio.run(send())
