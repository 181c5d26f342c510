"""What `docs/postgres.md` tells people to type works on the tables as they are."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from user_sync_pipeline.io_managers import PostgresIOManager

PAGE = Path(__file__).parents[2] / "docs" / "postgres.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_statement_of_the_page_runs(engine: Engine) -> None:
    statements = [each for block in blocks("sql") for each in block.split(";") if each.strip()]
    assert len(statements) == 9
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE reporting"))
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.rollback()


def test_every_table_of_the_private_schema_is_told_of(engine: Engine) -> None:
    page = PAGE.read_text()
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'user_sync'")).scalars()
        assert [name for name in tables if f"user_sync.{name}" not in page] == []


@pytest.mark.slow
def test_the_asset_of_the_page_reads_and_writes_a_table(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("python")
    found: dict[str, dg.AssetsDefinition] = {}
    exec(source, found)  # noqa: S102
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA reporting"))
        connection.execute(text("CREATE TABLE reporting.users_by_department (department text, users bigint)"))
        connection.execute(
            text("""
                INSERT INTO public.sf_users
                    (id, username, is_active, created_date, system_modstamp, department, sync_run_id)
                SELECT '0055g000001' || letter || '00' || check_characters, letter, true, now(), now(), department,
                       gen_random_uuid()
                FROM (VALUES ('A', '1AAA', 'Sales'), ('B', '1AAA', 'Sales'), ('C', '1AAA', 'IT'))
                     AS person (letter, check_characters, department)
            """)
        )
    monkeypatch.setenv("USER_SYNC_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    sf_users = dg.AssetSpec("sf_users", metadata={"dagster/table_name": "public.sf_users"})
    ended = dg.materialize([sf_users, found["users_by_department"]], resources={"io_manager": PostgresIOManager()})
    assert ended.success
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM reporting.users_by_department ORDER BY 1")).all()
    assert [tuple(row) for row in rows] == [("IT", 1), ("Sales", 2)]
