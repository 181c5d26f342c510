"""Turns the pipeline's errors into what Dagster understands: a failure, another try, or a pause.

What belongs here: which errors are worth another try, and how Dagster is told.
What does not: the sentences, which are written where the errors are raised (`core/`).

A server that does not answer may answer later: the step waits and tries again, at last it fails. A quota that is used
up is a pause: the run is neither good nor bad but canceled, so that nobody is told of a failure and nothing repeats
it, it bears the tag `user_sync/paused`, and the sensor launches it again when there is quota. Everything else stays
wrong until a person acts, and is not repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import dagster as dg

from user_sync_pipeline.core.errors import PausedError, UnreachableError, UserSyncError
from user_sync_pipeline.core.warehouse.database import database_errors

# `allow_retries=False` stops the retries of a step; those of a whole run look at this tag alone.
RUN_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"
PAUSED_TAG = "user_sync/paused"
# In seconds, before the second and the third try of a step.
WAITS = (15.0, 60.0)


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

    In a step, `dagster.RetryRequested` where that is worth another try and there have been few.
    """
    try:
        with database_errors():
            yield
    except UserSyncError as error:
        # The sentence is the whole story for a person; the way it came here would only hide it.
        if isinstance(error, UnreachableError):
            failure = dg.Failure(str(error))
            tries = getattr(context, "retry_number", len(WAITS))
            if tries < len(WAITS):
                raise dg.RetryRequested(max_retries=len(WAITS), seconds_to_wait=WAITS[tries]) from failure
            raise failure from None
        sentence = str(error)
        if context.instance and context.run:
            context.instance.add_run_tags(context.run.run_id, {RUN_RETRY_TAG: "false"})
        if isinstance(error, PausedError):
            sentence = f"Paused: {error}"
            if context.instance and context.run:
                _pause(context.instance, context.run, sentence)
        raise dg.Failure(sentence, allow_retries=False) from None


def _pause(instance: dg.DagsterInstance, run: dg.DagsterRun, sentence: str) -> None:
    """Let the run end as canceled, and not as failed, when its step fails."""
    instance.add_run_tags(run.run_id, {PAUSED_TAG: "true"})
    instance.report_run_canceling(run, message=sentence)
