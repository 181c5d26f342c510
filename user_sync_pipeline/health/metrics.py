"""The same figures in the form that Prometheus scrapes.

What belongs here: names, units and help texts of the metrics. What does not: asking; a scrape takes the reports that
everybody shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from user_sync_pipeline.health.report import Report

_DASHBOARD = {
    "webserver": ("user_sync_dagster_webserver_up", "Whether Dagster's webserver answers."),
    "daemons": ("user_sync_dagster_daemons_up", "Whether every daemon that Dagster needs is alive."),
    "code_location": ("user_sync_dagster_code_location_up", "Whether the pipeline's code location is loaded."),
}
_LAST_SYNCS = {
    "complete_age_seconds": ("user_sync_last_complete_age_seconds", "Since a sync of this side was complete."),
    "failed": ("user_sync_last_run_failed", "Whether the last sync of this side failed."),
    "watermark_age_seconds": ("user_sync_watermark_age_seconds", "Since the moment up to which everything is read."),
}
_PROFILES = {
    "total_auth_users": ("user_sync_auth_users", "Who can sign in."),
    "total_user_profiles": ("user_sync_user_profiles", "Profiles there are."),
    "missing_profiles": ("user_sync_missing_profiles", "Users without a profile."),
    "sync_percentage": ("user_sync_sync_percentage", "Share of the users who have a profile, 0 to 100."),
    "orphan_profiles": ("user_sync_orphan_profiles", "Profiles without a user."),
    "soft_deleted_users": ("user_sync_soft_deleted_users", "Users who are marked as deleted."),
}
_TRIGGER = {
    "present": ("user_sync_trigger_present", "Whether the trigger that makes a profile at sign-up is there."),
    "enabled": ("user_sync_trigger_enabled", "Whether that trigger fires."),
    "unchanged": ("user_sync_trigger_unchanged", "Whether that trigger and its function are as installed."),
}


def exposition(database: Report, dashboard: Report, users: Report | None, accept: str) -> tuple[bytes, str]:
    """Return the body and its media type, as the scraper accepts it; `users` is None for who may not see them."""
    registry = CollectorRegistry()
    registry.register(_Reports(database, dashboard, users))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Reports(Collector):
    def __init__(self, database: Report, dashboard: Report, users: Report | None) -> None:
        self._database = database
        self._dashboard = dashboard
        self._users = users

    def collect(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "user_sync_database_up",
            "Whether the database answers and holds the tables of the pipeline.",
            float(self._database.is_healthy),
        )
        yield from _gauges(_DASHBOARD, self._dashboard.figures)
        ages = self._dashboard.figures.get("asset_age_seconds") or {}
        yield _labelled("user_sync_asset_age_seconds", "Since the last materialization of an asset.", "asset", ages)
        if self._users is not None:
            figures = self._users.figures
            yield GaugeMetricFamily(
                "user_sync_users_healthy", "Whether nothing is wrong with users and profiles.", self._users.is_healthy
            )
            sides = figures.get("last_syncs") or {}
            for key, (name, meaning) in _LAST_SYNCS.items():
                yield _labelled(name, meaning, "side", {side: told.get(key) for side, told in sides.items()})
            yield from _gauges(_PROFILES, figures.get("profiles"))
            yield from _gauges(_TRIGGER, figures.get("trigger"))


def _gauges(named: dict[str, tuple[str, str]], figures: Any) -> Iterator[GaugeMetricFamily]:
    """Yield a gauge for each figure that is known; one that is not is left out, as Prometheus would have it."""
    for key, (name, meaning) in named.items():
        value = (figures or {}).get(key)
        if value is not None:
            yield GaugeMetricFamily(name, meaning, float(value))


def _labelled(name: str, meaning: str, label: str, values: Mapping[str, Any]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in values.items():
        if value is not None:
            gauge.add_metric([key], float(value))
    return gauge
