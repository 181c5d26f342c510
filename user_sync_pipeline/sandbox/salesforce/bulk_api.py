"""What `jobs/query` answers: creating, looking at, aborting and deleting jobs, and their results page by page.

What belongs here: the shapes of Bulk 2.0 answers. What does not: what becomes of a job (`bulk.py`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

import msgspec
from starlette.requests import Request

from user_sync_pipeline.sandbox.salesforce.answers import Answer
from user_sync_pipeline.sandbox.salesforce.bulk import BulkJob, JobState
from user_sync_pipeline.sandbox.salesforce.bulk_csv import CsvFormat
from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.errors import ApiError, usual_error
from user_sync_pipeline.sandbox.salesforce.org import Org

FIRST_VERSION_WITH_PAGES = 58
_PAGES_AT_ONCE = 5
_encode = msgspec.json.encode


class _NewJob(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    operation: Literal["query", "queryAll"]
    query: str
    content_type: Literal["CSV"] = "CSV"
    column_delimiter: str = "COMMA"
    line_ending: str = "LF"


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    state: Literal["Aborted"]


class BulkHandlers:
    """Answers out of an organisation's jobs; every method raises `ApiError` for what Salesforce refuses."""

    def __init__(self, org: Org) -> None:
        self._org = org

    async def create(self, request: Request) -> Answer:
        """Start a job."""
        content = await request.body()
        version = request.path_params["version"]
        try:
            wanted = msgspec.json.decode(content, type=_NewJob)
            csv_format = CsvFormat(wanted.column_delimiter, wanted.line_ending)
        except (msgspec.DecodeError, ValueError) as error:
            raise ApiError(400, "JSON_PARSER_ERROR", str(error)) from None
        with self._org.lock:
            self._org.permissions.require_bulk()
            job = self._org.jobs.create(wanted.operation, wanted.query, csv_format, version)
            return Answer(_encode(self._summary(job, JobState.UPLOAD_COMPLETE)))

    async def list(self, request: Request) -> Answer:
        """List the jobs, perhaps only some kinds."""
        wanted = request.query_params
        with self._org.lock:
            jobs = [
                job
                for job in self._org.jobs.all()
                if wanted.get("jobType", "V2Query") == "V2Query"
                and wanted.get("concurrencyMode", "Parallel").lower() == "parallel"
                and wanted.get("isPkChunkingEnabled", "").lower() in ("", str(job.is_chunked).lower())
            ]
            now = self._org.clock.now()
            records = [self._summary(job, job.state(now)) | {"jobType": "V2Query"} for job in jobs]
        return Answer(_encode({"done": True, "nextRecordsUrl": None, "records": records}))

    async def look(self, request: Request) -> Answer:
        """Tell how far a job is."""
        with self._org.lock:
            return Answer(_encode(self._details(self._job(request))))

    async def change(self, request: Request) -> Answer:
        """Abort a job, the only change that there is."""
        content = await request.body()
        try:
            msgspec.json.decode(content, type=_Change)
        except msgspec.DecodeError as error:
            raise ApiError(400, "INVALIDJOBSTATE", str(error)) from None
        with self._org.lock:
            job = self._job(request)
            self._org.jobs.abort(job)
            return Answer(_encode(self._details(job)))

    async def delete(self, request: Request) -> Answer:
        """Remove a job and its results."""
        with self._org.lock:
            self._org.jobs.delete(self._job(request))
        return Answer(status=204)

    async def results(self, request: Request) -> Answer:
        """Answer a page of results: from `locator` on, at most `maxRecords`."""
        with self._org.lock:
            job = self._finished_job(request)
            settings = self._org.jobs.settings
            start = _offset(request.query_params.get("locator"), len(job.records))
            end = min(start + _most_records(request, settings.page_rows), len(job.records))
            headers = {
                "Content-Type": "text/csv",
                "Sforce-NumberOfRecords": str(end - start + settings.page_count_error),
            }
            if settings.locator_header:
                headers["Sforce-Locator"] = _locator(end) if end < len(job.records) else "null"
            return Answer(job.writer.write(job.records[start:end]), headers=headers)

    async def result_pages(self, request: Request) -> Answer:
        """Name up to five pages of results, to be fetched in parallel."""
        version = request.path_params["version"]
        if float(version) < FIRST_VERSION_WITH_PAGES:
            raise usual_error("NOT_FOUND")
        with self._org.lock:
            job = self._finished_job(request)
            rows = self._org.jobs.settings.page_rows
            link, next_link = self._org.jobs.settings.link_names
            start = _offset(request.query_params.get("locator"), len(job.records))
        path = f"/services/data/v{version}/jobs/query/{job.id}"
        starts = range(start, max(1, len(job.records)), rows)
        pages = [{link: f"{path}/results?locator={_locator(each)}"} for each in starts[:_PAGES_AT_ONCE]]
        rest = starts[_PAGES_AT_ONCE:]
        more = f"{path}/resultPages?locator={_locator(rest[0])}" if rest else None
        return Answer(_encode({"resultPages": pages, next_link: more, "done": not rest}))

    def _job(self, request: Request) -> BulkJob:
        return self._org.jobs.find(request.path_params["job"])

    def _finished_job(self, request: Request) -> BulkJob:
        """Return the job whose results are asked for; raises `ApiError` when it has none, or not for this version."""
        job = self._job(request)
        if job.version != request.path_params["version"]:
            raise ApiError(409, "", "")
        state = job.state(self._org.clock.now())
        if state is not JobState.JOB_COMPLETE:
            raise ApiError(400, "INVALIDJOBSTATE", f"The job is in state {state.value} and has no results")
        return job

    def _summary(self, job: BulkJob, state: JobState) -> dict[str, Any]:
        changed = job.aborted or {
            JobState.UPLOAD_COMPLETE: job.created,
            JobState.IN_PROGRESS: job.begins,
        }.get(state, job.ends)
        return {
            "id": job.id,
            "operation": job.operation,
            "object": "User",
            "createdById": self._org.api_user_id,
            "createdDate": wire_time(job.created),
            "systemModstamp": wire_time(changed),
            "state": state.value,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(job.version),
            "lineEnding": job.format.line_ending,
            "columnDelimiter": job.format.delimiter,
        }

    def _details(self, job: BulkJob) -> dict[str, Any]:
        state = job.state(self._org.clock.now())
        done = state is JobState.JOB_COMPLETE
        details = self._summary(job, state) | {
            "jobType": "V2Query",
            "numberRecordsProcessed": len(job.records) + self._org.jobs.settings.job_count_error if done else 0,
            "retries": 0,
            "totalProcessingTime": round((job.ends - job.begins).total_seconds() * 1000) if done else 0,
            "isPkChunkingSupported": job.is_chunked,
        }
        if state is JobState.FAILED and job.failure is not None:
            details["errorMessage"] = job.failure
        return details


def _locator(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode().rstrip("=")


def _offset(locator: str | None, end: int) -> int:
    """Return where a page starts; raises `ApiError` for a locator that was not given out."""
    if locator is None:
        return 0
    try:
        offset = int(base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)))
    except (binascii.Error, ValueError):
        offset = -1
    if not (offset == 0 or 0 < offset < end):
        raise ApiError(400, "API_ERROR", "Invalid locator")
    return offset


def _most_records(request: Request, usual: int) -> int:
    wanted = request.query_params.get("maxRecords")
    if wanted is None:
        return usual
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) == 0:
        raise ApiError(400, "API_ERROR", "maxRecords must be a positive number")
    return int(wanted)
