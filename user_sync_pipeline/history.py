"""Where Dagster keeps its history: in Postgres, noting what a run is going to bring at once and not day by day.

What belongs here: what differs from Dagster's own storage, which stands in `dagster.yaml`.
What does not: this project's tables (`core/warehouse`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config

from user_sync_pipeline.core.warehouse.database import with_driver


class PostgresEventLog(PostgresEventLogStorage):
    """The event log: all planned days of a run by one statement, and each planned check once.

    Dagster hands planned days over together where `DAGSTER_EVENT_BATCH_SIZE` is set, but its own event log opens two
    connections for each; and it notes each check as planned for each day, though no check here has days, and never as
    done. For two years of days that takes longer than the run.
    """

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store several events of a run."""
        planned: list[dg.EventLogEntry] = []
        others: list[dg.EventLogEntry] = []
        for event in events:
            is_planned = event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
            (planned if is_planned else others).append(event)
        if planned:
            statement = self.prepare_insert_event_batch(planned).returning(SqlEventLogStorageTable.c.id)
            with self.index_connection() as connection:
                numbers = connection.execute(statement).scalars().all()
            newest = {event.get_dagster_event().asset_key: at for at, event in enumerate(planned)}
            for at in newest.values():
                self.store_asset_event(planned[at], numbers[at])
        if others:
            super().store_event_batch(others)

    def store_asset_check_event(self, event: dg.EventLogEntry, event_id: int | None) -> None:
        """Store what is planned for, or came of, a check of a whole table."""
        happened = event.get_dagster_event()
        planned = happened.event_specific_data
        if isinstance(planned, AssetCheckEvaluationPlanned):
            once = AssetCheckEvaluationPlanned(asset_key=planned.asset_key, check_name=planned.check_name)
            event = event._replace(dagster_event=happened._replace(event_specific_data=once))
        super().store_asset_check_event(event, event_id)


class PostgresHistory(DagsterPostgresStorage):
    """Dagster's storage at any address of Postgres, `postgres://` or `postgresql://`, whatever driver it names."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        address = with_driver(postgres_url, "psycopg2", setting="DAGSTER_POSTGRES_URL")
        super().__init__(address, should_autocreate_tables, inst_data)
        self._event_log_storage = PostgresEventLog(address, should_autocreate_tables)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Make the storage from its part of `dagster.yaml`."""
        return cls(pg_url_from_config(config_value), config_value.get("should_autocreate_tables", True), inst_data)
