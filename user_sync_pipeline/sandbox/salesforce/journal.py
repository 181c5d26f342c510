"""What was asked of the simulator, so that tests can prove what a client sends.

What belongs here: one entry a request, and a warning in the log for each that goes beyond reading.
What does not: bodies, tokens and credentials, which are never kept.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

# How the log begins to tell of a violation.
BEYOND_READING = "A request to Salesforce goes beyond reading"

_KEPT_HEADERS = ("accept-encoding", "content-type", "sforce-query-options", "user-agent", "x-prettyprint")
_LONGEST = 100_000
# Clauses of SOQL that leave a trace in what they read, outside of strings.
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_SIDE_EFFECT = re.compile(
    r"\bFOR\s+(?:VIEW|REFERENCE|UPDATE)\b|\bUPDATE\s+(?:TRACKING|VIEWSTAT)\b", re.IGNORECASE
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and the status of its answer. `query` is decoded; `headers` have names in lower case.

    `status` is 0 where the connection was dropped instead. `violation` is true for a path that Salesforce does not
    have or that nobody who only reads needs, for a method that the path does not allow, and for a query with a clause
    that leaves a trace in what it reads.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    status: int
    violation: bool


class Journal:
    """The requests so far, oldest first; of a very long run the last 100,000."""

    def __init__(self) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=_LONGEST)

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests."""
        return list(self._exchanges)

    @property
    def violations(self) -> list[Exchange]:
        """The requests that a client which only reads has no reason to send."""
        return [exchange for exchange in self._exchanges if exchange.violation]

    def note(
        self, method: str, path: str, query: str, headers: Mapping[str, str], status: int, *, violation: bool
    ) -> None:
        """Write down one request; of `headers` only the harmless ones are kept."""
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        if violation := violation or bool(_SIDE_EFFECT.search(_STRING.sub("''", query))):
            _log.warning("%s: %s %s", BEYOND_READING, method, path)
        self._exchanges.append(Exchange(method, path, query, kept, status, violation))

    def clear(self) -> None:
        """Forget the requests so far."""
        self._exchanges.clear()
