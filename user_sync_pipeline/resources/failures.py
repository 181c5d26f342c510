"""Turns the pipeline's errors into Dagster failures that say one sentence and are repeated only where that helps.

What belongs here: which errors are worth another try, and how Dagster is told.
What does not: the sentences, which are written where the errors are raised (`core/`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import dagster as dg

from user_sync_pipeline.core.errors import PausedError, UnreachableError, UserSyncError
from user_sync_pipeline.core.warehouse.database import database_errors

# `allow_retries=False` stops the retries of a step; those of a whole run look at this tag alone.
RUN_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"


class RunContext(Protocol):
    """What assets, checks and resources have in common: the instance and the run they work for."""

    @property
    def instance(self) -> dg.DagsterInstance | None:
        """The Dagster instance; None outside of one."""

    @property
    def run(self) -> dg.DagsterRun | None:
        """The run; None outside of one."""


@contextmanager
def errors_as_failures(context: RunContext) -> Iterator[None]:
    """Raise `dagster.Failure` with the sentence of a `UserSyncError` or of a failure of the database.

    A server that does not answer may answer later; everything else stays wrong until a person acts, or is
    paused on purpose, and is not repeated.
    """
    try:
        with database_errors():
            yield
    except UserSyncError as error:
        worth_repeating = isinstance(error, UnreachableError)
        if not worth_repeating and context.instance and context.run:
            context.instance.add_run_tags(context.run.run_id, {RUN_RETRY_TAG: "false"})
        sentence = f"Paused: {error}" if isinstance(error, PausedError) else str(error)
        # The sentence is the whole story for a person; the way it came here would only hide it.
        raise dg.Failure(sentence, allow_retries=worth_repeating) from None
