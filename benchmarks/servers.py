"""Servers for the benchmarks: a Salesforce simulator in a process of its own, and a migrated Postgres.

What is measured then shares neither interpreter nor memory with what serves it.
"""

from __future__ import annotations

import multiprocessing
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Nobody changed since then, except those whom a benchmark changes.
QUIET_SINCE = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)


@contextmanager
def simulator(users: int, *, delay: float = 0, changed_today: int = 0) -> Iterator[dict[str, str]]:
    """Serve an organisation of so many users and yield the settings that lead there.

    Each answer takes `delay` seconds longer; `changed_today` users changed a day after all others.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, users, delay, changed_today), daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv()
    finally:
        here.close()
        process.join()


@contextmanager
def database() -> Iterator[Engine]:
    """Yield an empty database with the tables of the Salesforce side."""
    from user_sync_pipeline.core.warehouse.database import create_database_engine
    from user_sync_pipeline.core.warehouse.migrations import apply_migrations
    from user_sync_pipeline.sandbox.postgres import PostgresServer

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder) / "postgres", password=secrets.token_urlsafe())
        server.start()
        try:
            apply_migrations(database_url=server.url(), profiles_url=None)
            engine = create_database_engine(server.url())
            yield engine
            engine.dispose()
        finally:
            server.stop()


def _serve(parent: Connection, users: int, delay: float, changed_today: int) -> None:
    from user_sync_pipeline.sandbox.certificates import CertificateAuthority
    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
    from user_sync_pipeline.sandbox.salesforce.faults import Fault, FaultScript

    faults = FaultScript([Fault(delay=delay)] if delay else [])
    with tempfile.TemporaryDirectory() as folder:
        authority = CertificateAuthority(Path(folder))
        with SalesforceSimulator(users, authority, org_start=QUIET_SINCE, faults=faults) as salesforce:
            for user in salesforce.org.users.ordered[:changed_today]:
                salesforce.org.update_user(user.id, Title="Changed today")
            salesforce.clock.advance(timedelta(minutes=10))
            parent.send(salesforce.environment())
            parent.poll(None)  # until the other end closes
