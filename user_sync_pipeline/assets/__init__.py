"""The three assets, each a thin step: window in, service called, figures out.

What belongs here: what an asset is called, what it depends on, and what it reports.
What does not: fetching, storing and comparing (`core/`), and connections (`resources/`).
"""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dagster as dg

# How old a materialization may be, by the schedules: a night was missed, or two; some hours, or all of a day.
NIGHTLY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
HOURLY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=3), fail_window=timedelta(hours=26))


def asset_in_one_run(**arguments: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorate like `dagster.asset`, so that any range of partitions is computed in a single run."""
    with warnings.catch_warnings():
        # The policy itself is stable; its parameter is still called beta.
        warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
        decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
            backfill_policy=dg.BackfillPolicy.single_run(), **arguments
        )
    return decorate
