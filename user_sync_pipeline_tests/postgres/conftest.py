"""A plain Postgres database with the Salesforce side applied, empty at the start of each test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.warehouse.database import create_database_engine
from user_sync_pipeline.core.warehouse.migrations import apply_migrations
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.postgres.users import clear_tables

DATABASE = "warehouse"


@pytest.fixture(scope="session")
def warehouse_url(postgres_server: PostgresServer) -> str:
    execute(postgres_server.url(), f"CREATE DATABASE {DATABASE}")
    url = postgres_server.url(DATABASE)
    apply_migrations(database_url=url, profiles_url=None)
    return url


@pytest.fixture(scope="session")
def warehouse_engine(warehouse_url: str) -> Iterator[Engine]:
    engine = create_database_engine(warehouse_url)
    yield engine
    engine.dispose()


@pytest.fixture
def warehouse(warehouse_engine: Engine) -> Engine:
    clear_tables(warehouse_engine)
    return warehouse_engine


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
