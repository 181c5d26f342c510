"""The table from answer to decision, row by row."""

from __future__ import annotations

import pytest

from user_sync_pipeline.core.salesforce import decisions
from user_sync_pipeline.core.salesforce.decisions import Decision, Refusal, decide
from user_sync_pipeline.core.salesforce.errors import RefusedError, explain

TABLE = {
    "any 401 brings a new token": (
        Decision.NEW_TOKEN,
        [Refusal(401), Refusal(401, "INVALID_SESSION_ID"), Refusal(401, "INVALID_AUTH_HEADER"), Refusal(401, "ODD")],
    ),
    "the daily limit pauses": (
        Decision.PAUSE,
        [
            Refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
            Refusal(403, "REQUEST_LIMIT_EXCEEDED"),
        ],
    ),
    "the concurrent limit is backed off from": (
        Decision.BACK_OFF,
        [Refusal(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.")],
    ),
    "a locked row is backed off from": (Decision.BACK_OFF, [Refusal(400, "UNABLE_TO_LOCK_ROW")]),
    "too many sign-ins are backed off from": (Decision.BACK_OFF, [Refusal(400, "rate_limit_exceeded")]),
    "a query that timed out is halved": (Decision.HALVE, [Refusal(400, "QUERY_TIMEOUT", "running for too long.")]),
    "too many ids are halved": (Decision.HALVE, [Refusal(400, "EXCEEDED_ID_LIMIT")]),
    "a query that is too complicated is halved": (Decision.HALVE, [Refusal(400, "QUERY_TOO_COMPLICATED")]),
    "an operation that is too large is halved": (Decision.HALVE, [Refusal(400, "OPERATION_TOO_LARGE")]),
    "a closed cursor is followed by keyset": (Decision.KEYSET, [Refusal(400, "INVALID_QUERY_LOCATOR")]),
    "a field that is gone is described anew": (Decision.REDESCRIBE, [Refusal(400, "INVALID_FIELD")]),
    "a malformed query stops": (Decision.STOP, [Refusal(400, "MALFORMED_QUERY")]),
    "an unknown object stops": (Decision.STOP, [Refusal(400, "INVALID_TYPE")]),
    "an overloaded edge is tried again": (Decision.RETRY, [Refusal(406), Refusal(420), Refusal(429)]),
    "a failing server is tried again": (
        Decision.RETRY,
        [
            *map(Refusal, (500, 502, 503, 504, 599)),
            Refusal(500, "UNKNOWN_EXCEPTION"),
            Refusal(503, "SERVER_UNAVAILABLE"),
        ],
    ),
    "a redirect stops": (Decision.STOP, [*map(Refusal, (300, 301, 302, 303, 304, 307, 308))]),
    "any other 403 stops": (
        Decision.STOP,
        [Refusal(403), Refusal(403, "INSUFFICIENT_ACCESS"), Refusal(403, "API_DISABLED_FOR_ORG")],
    ),
    "404 stops": (Decision.STOP, [Refusal(404), Refusal(404, "NOT_FOUND")]),
    "405 stops": (Decision.STOP, [Refusal(405), Refusal(405, "METHOD_NOT_ALLOWED")]),
    "a retired version stops": (Decision.STOP, [Refusal(410), Refusal(410, "GONE")]),
    "a query that is too long stops": (Decision.STOP, [Refusal(414), Refusal(431)]),
    "what nobody has heard of stops": (Decision.STOP, [Refusal(400), Refusal(400, "ODD"), Refusal(418), Refusal(199)]),
}


@pytest.mark.parametrize(("decision", "answers"), TABLE.values(), ids=TABLE)
def test_the_table(decision: Decision, answers: list[Refusal]) -> None:
    for answer in answers:
        assert decide(answer) is decision
        error = explain(answer)
        assert isinstance(error, RefusedError)
        assert (error.decision, error.code) == (decision, answer.code)


def test_every_row_of_the_code_decides_something_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one of its rows the table would be another, unless the row only says aloud what is so anyway."""
    answers = [answer for _, row in TABLE.values() for answer in row]
    whole = [decide(answer) for answer in answers]
    rows = decisions.DECISIONS
    for row in rows:
        monkeypatch.setattr(decisions, "DECISIONS", tuple(other for other in rows if other is not row))
        assert ([decide(answer) for answer in answers] == whole) is (row.decision is Decision.STOP)


def test_a_message_decides_only_together_with_its_code() -> None:
    assert decide(Refusal(403, "INSUFFICIENT_ACCESS", "concurrent QUERY_TIMEOUT")) is Decision.STOP
