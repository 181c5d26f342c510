"""Reading users by a Bulk 2.0 query job: create it, wait for it, read its results, delete it.

What belongs here: the states of a job, and what is done in each. What does not: its results (`bulk_results.py`), which
requests may be sent (`own_jobs.py`), and what is read instead when Bulk is refused (`core/extraction.py`).

Creating a job is asked once. When its answer is lost nobody knows whether there is a job, and asking again might leave
one behind that nobody deletes; REST can read the same users without that doubt. The job that may be there reads only,
ends by itself, and is deleted by Salesforce after seven days.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError, UserSyncError
from user_sync_pipeline.core.positions import Position
from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.bulk_csv import CsvDecoder, NotInBulkError
from user_sync_pipeline.core.salesforce.bulk_results import (
    PAGE_RECORDS,
    PAGES_IN_A_LIST,
    Connect,
    JobResults,
    not_whole,
)
from user_sync_pipeline.core.salesforce.decisions import Decision
from user_sync_pipeline.core.salesforce.errors import BulkRefusedError, RefusedError
from user_sync_pipeline.core.salesforce.records import UserPage
from user_sync_pipeline.core.salesforce.selection import VisibleFields
from user_sync_pipeline.core.salesforce.transport import SalesforceSession
from user_sync_pipeline.core.windows import SyncWindow

# `auto` takes Bulk from so many records on. It spares calls at any size (9 against 110 here, 16 against 259 for
# 500,000), but no time: REST was about as quick or quicker in every measurement (`benchmarks/README.md`), and a real
# job waits in Salesforce's queue on top. So REST stays the way up to where its calls weigh on the quota of others.
RECORDS_WORTH_A_JOB = 200_000
# What a forecast takes for the work of a job. Salesforce promises nothing, but twice as slow is one look more.
RECORDS_A_SECOND = 20_000
# These refusals are no matter of Bulk: REST would meet them as well.
_REFUSED_ANYWHERE = (Decision.PAUSE, Decision.NEW_TOKEN)


class JobState(StrEnum):
    """The states of a query job, as Salesforce writes them."""

    UPLOAD_COMPLETE = "UploadComplete"
    IN_PROGRESS = "InProgress"
    JOB_COMPLETE = "JobComplete"
    FAILED = "Failed"
    ABORTED = "Aborted"


_UNFINISHED = (JobState.UPLOAD_COMPLETE, JobState.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a job: pauses in seconds that double up to the longest, `deadline` of them in all."""

    first_pause: float = 1.0
    longest_pause: float = 30.0
    deadline: float = 1800.0
    sleep: Callable[[float], object] = time.sleep

    def pauses(self) -> Iterator[float]:
        """Yield the pause before each look at the job."""
        pause, waited = self.first_pause, 0.0
        while waited + pause <= self.deadline:
            yield pause
            waited += pause
            pause = min(2 * pause, self.longest_pause)

    def looks(self, seconds: float) -> int:
        """Return how often a job that takes so long is looked at."""
        return 1 + sum(waited < seconds for waited in accumulate(self.pauses()))


class _Created(msgspec.Struct):
    id: str


class _Told(msgspec.Struct, rename="camel"):
    state: JobState
    number_records_processed: int | None = None


@dataclass(slots=True)
class _Job:
    """A job as it was last seen; `records` is how many it found, known when it is complete."""

    url: str
    decoder: CsvDecoder
    state: JobState = JobState.UPLOAD_COMPLETE
    records: int | None = None


class BulkReader:
    """Reads stretches of users, each by one job. `jobs_url` is where jobs are created, `workers` read the results."""

    def __init__(
        self, connect: Connect, fields: VisibleFields, *, jobs_url: str, workers: int, patience: Patience
    ) -> None:
        self._connect = connect
        self._fields = fields
        self._jobs_url = jobs_url
        self._workers = workers
        self._patience = patience

    def pages(self, window: SyncWindow, after: Position | None = None) -> Generator[UserPage, None, None]:
        """Yield the users changed in `window`, and behind a position, in no order that means anything.

        All were read when this ends without an error. Raises `BulkRefusedError` when the way on is REST, also behind
        some pages, and `UnreachableError` when records are missing.
        """
        # What changes something in Salesforce is asked once; the module says why.
        with closing(self._connect(tries=1)) as once, _refusals():
            job = self._create(once, window, after)
            try:
                self._wait(job)
                results = JobResults(self._connect, job.url, job.decoder, job.records or 0, workers=self._workers)
                fetched = 0
                with closing(results.pages()) as pages:
                    for page in pages:
                        fetched += page.fetched
                        yield page
                if fetched != job.records:
                    raise not_whole()
            finally:
                _clean_up(once, job)

    def _create(self, once: SalesforceSession, window: SyncWindow, after: Position | None) -> _Job:
        selection = self._fields.selection()
        while True:
            try:
                decoder = CsvDecoder(selection)
                # ORDER BY and LIMIT would keep Salesforce from splitting the job.
                cursor = soql.Cursor(*after) if after else None
                query = soql.select_users(decoder.names, window, after=cursor, ordered=False)
                answer = once.post(self._jobs_url, json={"operation": "query", "query": query, "contentType": "CSV"})
                return _Job(f"{self._jobs_url}/{msgspec.json.decode(answer.content, type=_Created).id}", decoder)
            except NotInBulkError as reason:
                raise BulkRefusedError(str(reason)) from None
            except RefusedError as refused:
                if refused.decision is not Decision.REDESCRIBE:
                    raise
                selection = self._fields.look_again(selection, refused)
            except (UnreachableError, ValueError):
                raise BulkRefusedError("the answer to the creation of its job was lost") from None

    def _wait(self, job: _Job) -> None:
        """Look at a job until it is complete."""
        with closing(self._connect()) as session:
            for pause in self._patience.pauses():
                self._patience.sleep(pause)
                _look(session, job)
                match job.state:
                    case JobState.UPLOAD_COMPLETE | JobState.IN_PROGRESS:
                        continue
                    case JobState.JOB_COMPLETE:
                        return
                    case JobState.FAILED:
                        raise BulkRefusedError("its job failed")
                    case JobState.ABORTED:
                        raise BulkRefusedError("somebody aborted its job")
        raise BulkRefusedError(f"its job was not done after {self._patience.deadline / 60:.0f} minutes")


def expected_calls(records: int, patience: Patience) -> int:
    """Return how many API calls a job takes from its creation to its deletion; its looks at the job are a guess."""
    pages = max(1, math.ceil(records / PAGE_RECORDS))
    looks = patience.looks(records / RECORDS_A_SECOND)
    return 1 + looks + math.ceil(pages / PAGES_IN_A_LIST) + pages + 1


def _look(session: SalesforceSession, job: _Job) -> None:
    try:
        told = msgspec.json.decode(session.get(job.url).content, type=_Told)
    except ValueError:
        raise ConfigurationError(
            "Salesforce tells something about a Bulk job that this release does not know, such as a new state; set "
            "SALESFORCE_TRANSPORT=rest, or use a newer release."
        ) from None
    job.state, job.records = told.state, told.number_records_processed


def _clean_up(once: SalesforceSession, job: _Job) -> None:
    """Leave no job behind; a failure here must not hide the one that led here, and needs no attention of its own.

    Where a quota or a budget keeps us even from this, Salesforce deletes the job after seven days.
    """
    if job.state in _UNFINISHED:
        with suppress(UserSyncError):
            once.patch(job.url, json={"state": JobState.ABORTED})
    with suppress(UserSyncError):
        once.delete(job.url)


@contextmanager
def _refusals() -> Iterator[None]:
    """Tell refusals that concern Bulk alone from those that REST would meet as well."""
    try:
        yield
    except RefusedError as refused:
        if refused.decision in _REFUSED_ANYWHERE:
            raise
        raise BulkRefusedError(f"Salesforce refused it ({refused.code or 'without a code'})") from None
