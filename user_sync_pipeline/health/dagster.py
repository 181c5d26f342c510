"""Whether Dagster is well: its webserver, its daemons, our code location, and how old each asset is.

What belongs here: the one GraphQL question and the reading of its answer. What does not: Dagster itself, which is
never imported here; the webserver may run on another machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import httpx
import msgspec

from user_sync_pipeline.health.report import Cause, Report

ASSETS = ("salesforce_users_raw", "sf_users", "profile_reconciliation")

_QUESTION = """
query Health($assets: [AssetKeyInput!]!) {
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
  assetNodes(assetKeys: $assets) { assetKey { path } assetMaterializations(limit: 1) { timestamp } }
}
"""
_BODY = {"query": _QUESTION, "variables": {"assets": [{"path": [name]} for name in ASSETS]}}


class _DaemonStatus(msgspec.Struct):
    required: bool
    healthy: bool | None


class _DaemonHealth(msgspec.Struct, rename="camel"):
    all_daemon_statuses: list[_DaemonStatus]


class _Instance(msgspec.Struct, rename="camel"):
    daemon_health: _DaemonHealth


class _AssetKey(msgspec.Struct):
    path: list[str]


class _Materialization(msgspec.Struct):
    timestamp: str
    """Milliseconds since 1970, as text."""


class _AssetNode(msgspec.Struct, rename="camel"):
    asset_key: _AssetKey
    asset_materializations: list[_Materialization]


class _Data(msgspec.Struct, rename="camel"):
    instance: _Instance
    asset_nodes: list[_AssetNode]


class _Answer(msgspec.Struct):
    data: _Data


class DagsterExamination:
    """Asks the webserver at `url`, which takes no longer than `seconds` for each piece of its answer."""

    def __init__(self, url: str, *, seconds: float, now: Callable[[], float] = time.time) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # below that, it logs every address
        self._url = f"{url}/graphql"
        self._now = now
        self._http = httpx.Client(timeout=seconds, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __call__(self) -> Report:
        """Ask, and judge the answer."""
        try:
            response = self._http.post(self._url, json=_BODY)
            response.raise_for_status()
            data = msgspec.json.decode(response.content, type=_Answer).data
        except httpx.TimeoutException:
            return _silent("webserver_slow")
        except httpx.TransportError:
            return _silent("webserver_unreachable")
        except (httpx.HTTPStatusError, msgspec.MsgspecError):
            return _silent("webserver_refused")
        daemons = all(status.healthy for status in data.instance.daemon_health.all_daemon_statuses if status.required)
        ages = {node.asset_key.path[-1]: self._age(node) for node in data.asset_nodes}
        location = ages.keys() >= set(ASSETS)
        cause: Cause | None = None if location else "code_location_unhealthy"
        return Report(cause if daemons else "daemon_unhealthy", _figures(True, daemons, location, ages))

    def _age(self, node: _AssetNode) -> float | None:
        if not node.asset_materializations:
            return None
        return max(0.0, round(self._now() - float(node.asset_materializations[0].timestamp) / 1000, 1))


def _silent(cause: Cause) -> Report:
    return Report(cause, _figures(False, None, None, {}))


def _figures(
    webserver: bool, daemons: bool | None, code_location: bool | None, ages: dict[str, float | None]
) -> dict[str, object]:
    """Return the figures; None is for what is not known."""
    return {
        "webserver": webserver,
        "daemons": daemons,
        "code_location": code_location,
        "asset_age_seconds": {name: ages.get(name) for name in ASSETS},
    }
