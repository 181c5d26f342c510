"""`user-sync serve` as a program: where it listens, what it refuses, behind a proxy, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from user_sync_pipeline.core.errors import ConfigurationError, UsageError
from user_sync_pipeline.health.server import listen
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import run_as_superuser
from user_sync_pipeline_tests.end_to_end.commands import run
from user_sync_pipeline_tests.health.scripted_webserver import ScriptedWebserver

USER_SYNC = str(Path(sys.executable).parent / "user-sync")
USERS = "/admin/users/health-check"
# A machine that stalls must not fail a test; one that hangs does.
SECONDS_TO_STOP = 30


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
def test_other_machines_are_served_with_a_token_alone(host: str) -> None:
    with pytest.raises(ConfigurationError, match="USER_SYNC_ADMIN_TOKEN"):
        listen(host, 0, token=None)
    listen(host, 0, token="secret").close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_is_served_without_one(host: str) -> None:
    listen(host, 0, token=None).close()


def test_an_address_that_is_taken_or_is_none_of_ours_is_named() -> None:
    with listen("127.0.0.1", 0, token=None) as taken, pytest.raises(UsageError, match="--port is"):
        listen("127.0.0.1", taken.getsockname()[1], token=None)
    with pytest.raises(UsageError, match="--host is"):
        listen("no.such.host.invalid", 0, token=None)
    with pytest.raises(UsageError, match="cannot be used"):
        listen("192.0.2.1", 0, token="secret")


@pytest.mark.parametrize(
    ("arguments", "settings", "exit_code", "words"),
    [
        (["--port", "0"], {}, 2, "--port"),
        (["--root-path", "no path"], {}, 2, "--root-path"),
        ([], {}, 3, "USER_SYNC_DATABASE_URL"),
        (["--host", "0.0.0.0"], {"USER_SYNC_DATABASE_URL": "postgresql://h/d"}, 3, "USER_SYNC_ADMIN_TOKEN"),  # noqa: S104
        ([], {"USER_SYNC_ADMIN_TOKEN": "two words"}, 3, "USER_SYNC_ADMIN_TOKEN"),
        ([], {"USER_SYNC_DATABASE_URL": "postgresql://h/d", "USER_SYNC_DAGSTER_URL": "h"}, 3, "USER_SYNC_DAGSTER_URL"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    settings: dict[str, str],
    exit_code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    result = run("serve", *arguments, exit_code=exit_code)
    (sentence,) = result.stderr.splitlines()
    assert words in sentence
    assert "two words" not in sentence


class Serving:
    """A running `user-sync serve`."""

    def __init__(self, *arguments: str, cwd: Path, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command = [USER_SYNC, "serve", "--port", port, *arguments]
        self.process = subprocess.Popen(command, cwd=cwd, env=settings, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        assert self.said.startswith("Serving http://"), self.said
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Return the exit code and what was said since."""
        self.process.send_signal(by)
        code = self.process.wait(SECONDS_TO_STOP)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        self.process.stderr.close()
        self.client.close()
        return code, said


@pytest.fixture
def serve(database: str, webserver: ScriptedWebserver, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    running: list[Serving] = []

    def start(*arguments: str, **settings: str) -> Serving:
        about = {"USER_SYNC_DATABASE_URL": database, "USER_SYNC_DAGSTER_URL": webserver.url}
        running.append(Serving(*arguments, cwd=tmp_path, **about | settings))
        return running[-1]

    yield start
    for serving in running:
        if serving.process.poll() is None:
            serving.stop()


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_all_four_paths_answer_and_a_signal_ends_it_without_a_trace(
    serve: Callable[..., Serving], by: signal.Signals
) -> None:
    serving = serve()
    for path in ("/health", USERS, "/dashboard/health-check", "/metrics"):
        assert serving.client.get(path).status_code == 200
        head = serving.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert serving.client.get("/nowhere").json() == {"error": "not_found"}
    code, said = serving.stop(by)
    assert code == 128 + by
    assert said.strip() in ("", "Stopped.")


@pytest.mark.slow
def test_a_hundred_at_once_are_answered_by_one_look_at_each_server(
    serve: Callable[..., Serving], webserver: ScriptedWebserver, one_engine: Engine, database: str
) -> None:
    serving = serve()
    paths = ("/health", USERS, "/dashboard/health-check", "/metrics")

    async def ask() -> list[int]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=serving.client.base_url, limits=limits, timeout=60) as client:
            answers = await asyncio.gather(*(client.get(path) for path in paths * 25))
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [200] * 100
    assert webserver.asked == 1
    with one_engine.connect() as connection:
        name = make_url(database).database
        sessions = connection.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"),
            {"name": name},
        )
    assert sessions is not None
    assert sessions <= 3


@pytest.mark.slow
def test_it_ends_also_while_a_request_waits_for_a_server_that_hangs(
    serve: Callable[..., Serving], webserver: ScriptedWebserver
) -> None:
    webserver.delay.clear()
    serving = serve()
    told: list[object] = []

    def wait() -> None:
        try:
            told.append(serving.client.get("/dashboard/health-check").status_code)
        except httpx.HTTPError as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not webserver.asked:
        time.sleep(0.01)
    code, said = serving.stop()
    waiting.join(SECONDS_TO_STOP)
    assert told
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in said


@pytest.mark.slow
def test_behind_a_proxy_that_takes_a_prefix_away_the_paths_are_the_same(serve: Callable[..., Serving]) -> None:
    serving = serve("--root-path", "/user-sync", USER_SYNC_ADMIN_TOKEN="secret")
    forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    assert serving.client.get("/health", headers=forwarded).json() == {"status": "healthy"}
    assert serving.client.get(USERS, headers=forwarded).status_code == 401
    authorized = serving.client.get(USERS, headers={**forwarded, "Authorization": "Bearer secret"})
    assert authorized.status_code == 200
    assert serving.said.rstrip().endswith("stops it.")


@pytest.mark.slow
def test_a_database_that_comes_and_goes_is_told_as_it_is(
    serve: Callable[..., Serving], postgres_server: PostgresServer
) -> None:
    name = "comes_and_goes"
    serving = serve(USER_SYNC_DATABASE_URL=postgres_server.url(name))
    causes = [serving.client.get("/health").json()["cause"]]
    run_as_superuser(postgres_server, f"CREATE DATABASE {name}")
    causes += _wait_for_another_cause(serving, causes[-1])
    run_as_superuser(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
    causes += _wait_for_another_cause(serving, causes[-1])
    assert causes == ["database_refused", "tables_missing", "database_refused"]


def _wait_for_another_cause(serving: Serving, former: str) -> list[str]:
    deadline = time.monotonic() + 60
    while (cause := serving.client.get("/health").json()["cause"]) == former and time.monotonic() < deadline:
        time.sleep(0.2)
    return [cause]
