"""What the commands need around them: a folder without settings, a migrated database, a Salesforce."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def database(
    in_an_empty_folder: Path,
    migrated_database: str,
    salesforce: SalesforceSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """A migrated database; the settings point at it and at the Salesforce simulator."""
    from user_sync_pipeline.core.warehouse.database import create_database_engine

    monkeypatch.setenv("USER_SYNC_DATABASE_URL", migrated_database)
    for name, value in salesforce.environment().items():
        monkeypatch.setenv(name, value)
    engine = create_database_engine(migrated_database)
    yield engine
    engine.dispose()
