"""The Bulk query jobs of one process, as requests that a guarded session may send beside reading.

What belongs here: which requests create, watch, read, abort and delete a query job, and which jobs are our own.
What does not: running a job; without an `OwnJobs` in its list no session sends any of this.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from user_sync_pipeline.core.salesforce.read_only import API_PATH, AllowedRequest, Outgoing
from user_sync_pipeline.core.salesforce.soql import refuse_all_but_reading

_JOBS = rf"{API_PATH}/jobs/query"
_JOB = rf"{_JOBS}/(?P<id>750[A-Za-z0-9]{{12,15}})"
_ABORT = {"state": "Aborted"}
# What a new job may say beside its query; anything else stays Salesforce's default.
_CHOICES = {
    "operation": ("query",),
    "contentType": ("CSV",),
    "columnDelimiter": ("COMMA",),
    "lineEnding": ("LF", "CRLF"),
}
_LOCATOR = re.compile(r"[A-Za-z0-9+/=_-]{1,255}")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")


class _Created(msgspec.Struct):
    id: str


class OwnJobs:
    """An allow-list for the query jobs that are created through it, and for no other job.

    Use one for all sessions of a client: `ReadOnlyAdapter(origin, READING + jobs.allowed, usage)`.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self.allowed = (
            AllowedRequest("POST", re.compile(rf"{_JOBS}/?"), _is_query_job, self._note),
            AllowedRequest("GET", re.compile(_JOB), self._is_own),
            AllowedRequest("GET", re.compile(rf"{_JOB}/results/?"), self._are_own_results),
            AllowedRequest("GET", re.compile(rf"{_JOB}/resultPages/?"), self._are_own_results),
            AllowedRequest("PATCH", re.compile(_JOB), self._is_own_abort),
            AllowedRequest("DELETE", re.compile(_JOB), self._is_own),
        )

    @property
    def ids(self) -> frozenset[str]:
        """The jobs that were created so far."""
        return frozenset(self._ids)

    def _note(self, answer: bytes) -> None:
        """Remember the job of a successful answer; one that tells no id is nobody's."""
        try:
            job = msgspec.json.decode(answer, type=_Created).id
        except ValueError:
            return
        self._ids.add(job)

    def _is_own(self, request: Outgoing) -> bool:
        return request.names["id"] in self._ids and not request.parameters and not request.body

    def _are_own_results(self, request: Outgoing) -> bool:
        forms = {"locator": _LOCATOR, "maxRecords": _COUNT}
        names = [name for name, _ in request.parameters]
        return (
            request.names["id"] in self._ids
            and not request.body
            and len(names) == len(set(names))
            and all(name in forms and forms[name].fullmatch(value) for name, value in request.parameters)
        )

    def _is_own_abort(self, request: Outgoing) -> bool:
        return request.names["id"] in self._ids and not request.parameters and _plain_object(request.body) == _ABORT


def _is_query_job(request: Outgoing) -> bool:
    job = _plain_object(request.body)
    query = job.pop("query", None)
    if request.parameters or job.get("operation") != "query" or not isinstance(query, str):
        return False
    if not all(value in _CHOICES.get(name, ()) for name, value in job.items()):
        return False
    refuse_all_but_reading(query)
    return True


def _plain_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in which no name comes twice, since two readers could take two different ones."""
    try:
        pairs = json.loads(body.decode(), object_pairs_hook=tuple)
    except ValueError:
        return {}
    if not isinstance(pairs, tuple) or len({name for name, _ in pairs}) != len(pairs):
        return {}
    return dict(pairs)
