"""Bulk 2.0 query jobs: what they are, how they get on by the virtual clock, and what is refused.

What belongs here: jobs and their states. What does not: HTTP (`bulk_api.py`), and the text of results (`bulk_csv.py`).
A job fixes its rows when it is created. Without ORDER BY they come in no order that means anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING

from user_sync_pipeline.sandbox.salesforce.bulk_csv import CsvFormat, CsvWriter
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, usual_error
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id, with_check_characters
from user_sync_pipeline.sandbox.salesforce.soql import Query, parse

if TYPE_CHECKING:
    from user_sync_pipeline.sandbox.salesforce.org import Org
    from user_sync_pipeline.sandbox.salesforce.users import Record

KEPT = timedelta(days=7)
DAILY_JOBS = 10_000

_DAY = timedelta(hours=24)
_PREFIX = "750"
_ALL_FIELDS = re.compile(r"\bfields\s*\(", re.IGNORECASE)
_COMPOUND = "Selecting compound data not supported in Bulk Query"


class JobState(Enum):
    """The states of a query job, as Salesforce writes them."""

    UPLOAD_COMPLETE = "UploadComplete"
    IN_PROGRESS = "InProgress"
    JOB_COMPLETE = "JobComplete"
    FAILED = "Failed"
    ABORTED = "Aborted"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; only then can it be deleted, and only before then be aborted."""
        return self not in (JobState.UPLOAD_COMPLETE, JobState.IN_PROGRESS)


class Outcome(Enum):
    """What becomes of a job."""

    COMPLETE = auto()
    FAIL = auto()
    ABORT = auto()
    """An administrator aborts it."""
    STAY_IN_PROGRESS = auto()


_END_STATES = {
    Outcome.COMPLETE: JobState.JOB_COMPLETE,
    Outcome.FAIL: JobState.FAILED,
    Outcome.ABORT: JobState.ABORTED,
    Outcome.STAY_IN_PROGRESS: JobState.IN_PROGRESS,
}


@dataclass(slots=True)
class BulkSettings:
    """What tests can change: the first four for jobs that are yet to be created, the others at once.

    Jobs are queued for `queue_time`, then at work for `work_time`; nought is "at the next look". `failure` is the text
    of a failed job, which may be missing. `page_rows` is how many rows the server puts in a page by itself.
    """

    queue_time: timedelta = timedelta()
    work_time: timedelta = timedelta()
    outcome: Outcome = Outcome.COMPLETE
    failure: str | None = "InternalServerError: the query could not be processed"
    page_rows: int = 50_000
    page_count_error: int = 0
    """Added to the `Sforce-NumberOfRecords` of every page."""
    job_count_error: int = 0
    """Added to the `numberRecordsProcessed` of every job."""
    locator_header: bool = True
    link_names: tuple[str, str] = ("resultUrl", "nextRecordsUrl")
    """The page about parallel results has them as `resultLink` and `nextRecordUrl` too."""
    daily_jobs: int = DAILY_JOBS
    storage_left: bool = True


@dataclass(slots=True)
class BulkJob:
    """One job, its plan and its rows. `version` is the API version that it was created under."""

    id: str
    operation: str
    query: Query
    format: CsvFormat
    version: str
    created: datetime
    begins: datetime
    ends: datetime
    outcome: Outcome
    failure: str | None
    records: Sequence[Record]
    writer: CsvWriter
    aborted: datetime | None = None

    def state(self, now: datetime) -> JobState:
        """Return how far the job is at a moment."""
        if self.aborted is not None:
            return JobState.ABORTED
        if now < self.begins:
            return JobState.UPLOAD_COMPLETE
        return JobState.IN_PROGRESS if now < self.ends else _END_STATES[self.outcome]

    @property
    def is_chunked(self) -> bool:
        """Whether Salesforce may split the job; ORDER BY and LIMIT keep it from that."""
        return not self.query.order and self.query.limit is None


class JobStore:
    """The query jobs of an organisation, each for seven days."""

    def __init__(self, org: Org) -> None:
        self.settings = BulkSettings()
        self._org = org
        self._created = 0
        self._jobs: dict[str, BulkJob] = {}
        self._moments: list[datetime] = []

    @property
    def remaining(self) -> int:
        """How many more jobs the last 24 hours leave room for."""
        horizon = self._org.clock.now() - _DAY
        self._moments = [moment for moment in self._moments if moment > horizon]
        return max(0, self.settings.daily_jobs - len(self._moments))

    def create(self, operation: str, statement: str, csv_format: CsvFormat, version: str) -> BulkJob:
        """Start a job; raises `ApiError` for what Salesforce refuses."""
        self._refuse_over_quota()
        if _ALL_FIELDS.search(statement):
            raise ApiError(400, "API_ERROR", _COMPOUND)
        query = parse(statement)
        name = query.object_name.path
        if name.lower() != "user":
            raise ApiError(400, "INVALIDENTITY", f"Entity '{name}' is not supported by the Bulk API.")
        if not query.fields:
            raise ApiError(400, "API_ERROR", "Aggregate Relationships not supported in Bulk Query")
        if query.offset:
            raise ApiError(400, "API_ERROR", "Implementation restriction: OFFSET is not supported in Bulk Query")
        columns = self._org.columns(query)
        if any(column.field.type == "address" for column in columns):
            raise ApiError(400, "API_ERROR", _COMPOUND)
        found = self._org.find(query)
        if not query.order:
            found.sort(key=lambda record: record.id[14::-1])
        settings, now = self.settings, self._org.clock.now()
        self._created += 1
        begins = now + settings.queue_time
        job = BulkJob(
            id=salesforce_id(_PREFIX, self._created),
            operation=operation,
            query=query,
            format=csv_format,
            version=version,
            created=now,
            begins=begins,
            ends=begins + settings.work_time,
            outcome=settings.outcome,
            failure=settings.failure,
            records=[copy(record) for record in found],
            writer=CsvWriter(query, columns, csv_format, moments_end_in_z=self._org.quirks.bulk_moments_end_in_z),
        )
        self._jobs[job.id] = job
        self._moments.append(now)
        return job

    def find(self, job_id: str) -> BulkJob:
        """Return the job with this id, of 15 or 18 characters; raises `ApiError` when there is none."""
        job = self._jobs.get(with_check_characters(job_id[:15]) if len(job_id) in (15, 18) else job_id)
        if job is None or self._org.clock.now() - job.created > KEPT:
            raise usual_error("NOT_FOUND")
        return job

    def all(self) -> list[BulkJob]:
        """Return the jobs that are still there, in no order that means anything."""
        horizon = self._org.clock.now() - KEPT
        return sorted((job for job in self._jobs.values() if job.created >= horizon), key=lambda job: job.id[14::-1])

    def abort(self, job: BulkJob) -> None:
        """Abort a job that has not ended; raises `ApiError` for any other."""
        now = self._org.clock.now()
        state = job.state(now)
        if state.is_final:
            raise ApiError(400, "INVALIDJOBSTATE", f"Aborting a job in state {state.value} is not allowed")
        job.aborted = now

    def delete(self, job: BulkJob) -> None:
        """Remove a job that has ended; raises `ApiError` for any other."""
        if not job.state(self._org.clock.now()).is_final:
            message = "Error encountered when deleting the job because the job is not terminated"
            raise ApiError(400, "API_ERROR", message)
        del self._jobs[job.id]

    def _refuse_over_quota(self) -> None:
        most = self.settings.daily_jobs
        if self.remaining == 0:
            message = f"Max bulk v2 query jobs ({most}) per 24 hrs has been reached ({len(self._moments)})"
            raise ApiError(400, "LIMIT_EXCEEDED", message)
        if not self.settings.storage_left:
            message = "Max bulk v2 query result size stored (1000000000) kb per 24 hrs has been exceeded"
            raise ApiError(400, "LIMIT_EXCEEDED", message)
