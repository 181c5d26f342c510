"""Dagster, as far as it is set: its folder, the database of its history, its webserver.

What belongs here: `DAGSTER_HOME`, `DAGSTER_POSTGRES_URL`, `USER_SYNC_DAGSTER_URL`. What does not: Dagster, which core
never imports; whether its daemons are alive is for `user-sync serve` to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
from sqlalchemy import Connection, Engine, text

from user_sync_pipeline.core.doctor.checks import Finding, Look, broken, not_configured, ok, warning
from user_sync_pipeline.core.doctor.database import DatabaseLooks
from user_sync_pipeline.core.errors import UnreachableError
from user_sync_pipeline.core.settings import DagsterSettings

SETTING = "DAGSTER_POSTGRES_URL"
_SECONDS = 10

_HISTORY = text("SELECT to_regclass('runs') IS NOT NULL, has_schema_privilege(current_schema(), 'CREATE')")


class _ServerInfo(msgspec.Struct):
    dagster_version: str


def looks_at_dagster(settings: DagsterSettings, engine: Engine | None) -> Sequence[Look]:
    """Return what to look at; `engine` is that of the history, None where it is not set."""
    around = (Look("home", lambda: _home(settings.home)), Look("webserver", lambda: _webserver(settings.webserver_url)))
    if engine is None:
        return *around, Look("history", lambda: not_configured(f"{SETTING} is not set"))
    database = DatabaseLooks(engine, SETTING)
    return (
        *around,
        Look("connection", database.connection, needed=True),
        Look("history", lambda: database.ask(_history)),
    )


def _home(path: str | None) -> Finding:
    if path is None:
        return not_configured("DAGSTER_HOME is not set")
    folder = Path(path)
    if not folder.is_absolute() or not folder.is_dir():
        return broken("DAGSTER_HOME is not an absolute path of a folder", "Make that folder, and write its whole path.")
    if not (folder / "dagster.yaml").is_file():
        mend = "Copy dagster.yaml of this project there; without it nothing limits runs, and history is in files."
        return warning("DAGSTER_HOME holds no dagster.yaml", mend)
    return ok("holds dagster.yaml")


def _webserver(url: str | None) -> Finding:
    if url is None:
        return not_configured("USER_SYNC_DAGSTER_URL is not set")
    try:
        answer = httpx.get(f"{url}/server_info", timeout=_SECONDS, trust_env=False)
        version = msgspec.json.decode(answer.content, type=_ServerInfo).dagster_version
    except httpx.TransportError:
        raise UnreachableError(
            "USER_SYNC_DAGSTER_URL does not answer; start Dagster's webserver, or correct the address."
        ) from None
    except msgspec.MsgspecError:
        mend = "Correct USER_SYNC_DAGSTER_URL; it takes the path prefix of the webserver, if that has one."
        return broken("what answers there is no webserver of Dagster", mend)
    return ok(f"answers, Dagster {version}")


def _history(connection: Connection) -> Finding:
    has_tables, may_create = connection.execute(_HISTORY).one()
    if has_tables:
        return ok("has its tables")
    if not may_create:
        return broken("empty, and this role may not make tables in it", f"Let the role of {SETTING} create tables.")
    return ok("empty; Dagster makes its tables when it starts")
