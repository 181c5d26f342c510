"""What can befall a request, and the script that says which requests it befalls.

What belongs here: one class for a fault, the script, and reading it from a file. What does not: doing the damage
(`damage.py`), and states of the organisation such as hidden fields or open transactions (`org.py`).

A script is a JSON list of faults; in Python it is a `FaultScript` of `Fault` objects with the same fields:

    [
      {"on": "page", "first": 3, "times": 1, "error": "SERVER_UNAVAILABLE"},
      {"on": "page", "every": 2, "first": 2, "delay": 0.5},
      {"on": "token", "times": 2, "status": 503, "body": "html"},
      {"on": "query", "rows_above": 10000, "error": "QUERY_TIMEOUT"},
      {"error": "REQUEST_LIMIT_EXCEEDED", "seconds": 30,
       "message": "ConcurrentRequests (Concurrent API Requests) Limit exceeded."}
    ]

Which requests: `on` is a kind of request (`any`, `token`, `versions`, `describe`, `updated`, `deleted`, `limits`,
`count` for COUNT(), `query` for the first page of a query, `next_page` for the others, `page` for both, `job`,
`result`, `other`); `method`; `path` and `query` (the decoded part after `?`), in which `*` stands for anything;
`rows_above` and `days_above`, for queries that match more users or whose window of SystemModstamp is longer.

Which of those: from the `first`th on (1), `every` so many (1), `times` in all (without end), until `seconds` after the
first strike, by the organisation's clock. They are counted as they arrive; of several faults whose turn it is, the
one that is written first strikes. A request without a valid token, or over the quota, is refused as ever.

What befalls them: instead of the answer, an `error` with its `message` and `status` (the usual ones unless given), a
bare `status`, a `text`, a `redirect` to an address, or a `body` that is `html` or `empty`. With the answer as it is:
a `body` that is `cut` or `cut_gzip`. With either: another `content_type`; `headers`, where null takes one away;
a `delay`, the seconds from the request to the answer; a `drip`, those that the body takes; a `connection` that is
lost, `drop_before` the request is looked at, `drop_after` it was done, `drop_during` the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import translate
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.sandbox.salesforce.errors import USUAL, Usual

Kind = Literal[
    "token", "versions", "describe", "updated", "deleted", "limits", "count", "query", "next_page", "job", "result",
    "other",
]  # fmt: skip
# Where msgspec found what it does not expect: `$[0].on`.
_PLACE = re.compile(r"\$\[(\d+)\](?:\.(\w+))?")
_KINDS = {"any": get_args(Kind), "page": ("query", "next_page")}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of mishap; the fields are explained at the top of this module."""

    on: Literal["any", "page"] | Kind = "any"
    method: str | None = None
    path: str = "*"
    query: str = "*"
    rows_above: int | None = None
    days_above: float | None = None

    first: int = 1
    every: int = 1
    times: int | None = None
    seconds: float | None = None

    error: str | None = None
    message: str | None = None
    status: int | None = None
    text: str | None = None
    redirect: str | None = None
    body: Literal["html", "empty", "cut", "cut_gzip"] | None = None
    content_type: str | None = None
    headers: dict[str, str | None] = msgspec.field(default_factory=dict)
    delay: float = 0
    drip: float = 0
    connection: Literal["drop_before", "drop_after", "drop_during"] | None = None

    def __post_init__(self) -> None:
        for name in ("first", "every", "times"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"`{name}` must be 1 or more")
        for name in ("delay", "drip", "seconds", "rows_above", "days_above"):
            if (number := getattr(self, name)) is not None and number < 0:
                raise ValueError(f"`{name}` must not be negative")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("`status` must be from 200 to 599")
        if sum((self.error is not None, self.text is not None, self.body in ("html", "empty"))) > 1:
            raise ValueError("`error`, `text` and a `body` of html or empty exclude each other")
        does = (self.content_type, self.headers, self.delay, self.drip, self.connection, self.body)
        if not (self.replaces or any(does)):
            raise ValueError("the fault does nothing")

    @property
    def replaces(self) -> bool:
        """Whether the request is answered with something else than its true answer."""
        given = (self.error, self.status, self.text, self.redirect)
        return any(each is not None for each in given) or self.body in ("html", "empty")

    @property
    def leaves_no_answer(self) -> bool:
        """Whether not even a status reaches the client."""
        return self.connection in ("drop_before", "drop_after")

    @property
    def usual(self) -> Usual:
        """Status and text that go with the error code."""
        return USUAL.get(self.error or "", Usual(400, ""))


class QuerySize(NamedTuple):
    """How many users a query matches, and how long its window of SystemModstamp is."""

    rows: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Sighting:
    """A request as a script sees it; `size` is None for what is no query."""

    kind: Kind
    method: str
    path: str
    query: str
    size: Callable[[], QuerySize | None]


class _Entry:
    """A fault and how often its turn has come."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._kinds = _KINDS.get(fault.on, (fault.on,))
        self._path, self._query = (re.compile(translate(pattern)).match for pattern in (fault.path, fault.query))
        self._seen = 0
        self._struck = 0
        self._first_struck: datetime | None = None

    def is_due(self, sighting: Sighting, now: datetime) -> bool:
        """Count a request that matches; returns whether the fault's turn has come."""
        if not self._matches(sighting):
            return False
        fault = self.fault
        self._seen += 1
        since_first = self._seen - fault.first
        if since_first < 0 or since_first % fault.every:
            return False
        if fault.times is not None and self._struck >= fault.times:
            return False
        if fault.seconds is None or self._first_struck is None:
            return True
        return now - self._first_struck < timedelta(seconds=fault.seconds)

    def strike(self, now: datetime) -> Fault:
        """Write down that the fault strikes."""
        self._struck += 1
        self._first_struck = self._first_struck or now
        return self.fault

    def _matches(self, sighting: Sighting) -> bool:
        fault = self.fault
        return (
            sighting.kind in self._kinds
            and fault.method in (None, sighting.method)
            and bool(self._path(sighting.path))
            and bool(self._query(sighting.query))
            and self._is_large_enough(sighting)
        )

    def _is_large_enough(self, sighting: Sighting) -> bool:
        rows, days = self.fault.rows_above, self.fault.days_above
        if rows is None and days is None:
            return True
        size = sighting.size()
        return size is not None and (
            (rows is not None and size.rows > rows) or (days is not None and size.window > timedelta(days=days))
        )


def _explain(error: Exception) -> str:
    """Return where in the script it is wrong, and what to write there."""
    what, _, place = str(error).partition(" - at ")
    found = _PLACE.search(place)
    if found is None:
        return f'{what}; write a JSON list of faults, such as [{{"on": "page", "first": 3, "times": 1, "status": 503}}]'
    fault = f"fault {int(found[1]) + 1}"
    if found[2] and "enum" in what:
        hint = get_type_hints(Fault)[found[2]]
        literals = [hint] if get_origin(hint) is Literal else get_args(hint)
        choices = ", ".join(value for literal in literals for value in get_args(literal))
        return f"{what} for `{found[2]}` of {fault}; give one of {choices}"
    return f"{what}, in {f'`{found[2]}` of ' if found[2] else ''}{fault}; correct it there"


class FaultScript:
    """The faults of a simulator, in their order; the same requests in the same order meet the same faults."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._entries = [_Entry(fault) for fault in faults]

    @classmethod
    def from_file(cls, path: Path) -> FaultScript:
        """Read a script; raises `ConfigurationError` when there is none or it is none."""
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=list[Fault]))
        except OSError as error:
            raise ConfigurationError(
                f"The fault script {path} cannot be read ({error.strerror}); give the path of a JSON file."
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The fault script {path} is not valid: {_explain(error)}.") from error

    @property
    def faults(self) -> list[Fault]:
        """The faults, as they were written."""
        return [entry.fault for entry in self._entries]

    def add(self, *faults: Fault) -> None:
        """Append faults; their requests are counted from now on."""
        self._entries += [_Entry(fault) for fault in faults]

    def clear(self) -> None:
        """Let everything be well again."""
        self._entries.clear()

    def strike(self, sighting: Sighting, now: datetime) -> Fault | None:
        """Return what befalls a request, if anything, and count it."""
        due = [entry for entry in self._entries if entry.is_due(sighting, now)]
        return due[0].strike(now) if due else None
