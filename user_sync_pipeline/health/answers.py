"""What is examined how often: the three examinations over the configured servers, each shared by all who ask.

What belongs here: opening and closing the connections, and all time limits. What does not: the examinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.core.warehouse.impatient import create_impatient_engine
from user_sync_pipeline.health.app import Answers
from user_sync_pipeline.health.dagster import DagsterExamination
from user_sync_pipeline.health.database import examine_database
from user_sync_pipeline.health.shared_answer import SharedAnswer, Times
from user_sync_pipeline.health.users import UsersExamination

# Prometheus gives a scrape up after ten seconds by default, and Kubernetes a probe after as many as it is told.
DATABASE_TIMES = Times(fresh=5.0, patience=4.0)
DASHBOARD_TIMES = Times(fresh=15.0, patience=5.0)
# Counting a million users takes a second or two by SQL, and minutes by the pages of an API.
USERS_TIMES = Times(fresh=30.0, patience=5.0, grace=90.0)

_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 3
_COUNT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where to look: the pipeline's database, auth users and profiles, Dagster's webserver."""

    database_url: str
    supabase: SupabaseSettings
    dagster_url: str


@contextmanager
def answers_from(surroundings: Surroundings) -> Iterator[Answers]:
    """Give the answers; connections are opened when they are first asked for, and closed at the end."""
    database = partial(create_impatient_engine, connect_seconds=_CONNECT_SECONDS)
    warehouse = database(surroundings.database_url, statement_seconds=_STATEMENT_SECONDS)
    for_counting = database(surroundings.database_url, statement_seconds=_COUNT_SECONDS)
    profiles: Engine | None = for_counting
    profiles_url = surroundings.supabase.database_url
    if profiles_url is None:
        profiles = None
    elif profiles_url != surroundings.database_url:
        profiles = database(profiles_url, statement_seconds=_COUNT_SECONDS, setting="SUPABASE_DB_URL")
    dagster = DagsterExamination(surroundings.dagster_url, seconds=DASHBOARD_TIMES.patience)
    users = UsersExamination(for_counting, profiles, surroundings.supabase)
    try:
        yield Answers(
            database=SharedAnswer(partial(examine_database, warehouse), DATABASE_TIMES, slow="database_slow"),
            users=SharedAnswer(users, USERS_TIMES, slow="profiles_slow"),
            dashboard=SharedAnswer(dagster, DASHBOARD_TIMES, slow="webserver_slow"),
        )
    finally:
        dagster.close()
        for engine in {warehouse, for_counting, profiles or for_counting}:
            engine.dispose()
