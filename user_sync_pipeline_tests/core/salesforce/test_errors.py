"""What Salesforce answers becomes one sentence that says what to change, and never repeats data."""

from __future__ import annotations

import json

import pytest

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError, UserSyncError
from user_sync_pipeline.core.salesforce.decisions import Refusal, read_refusal
from user_sync_pipeline.core.salesforce.errors import RefusedError, explain

PRIVATE = "ann@example.com"


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "must_say"),
    [
        (400, "MALFORMED_QUERY", "unexpected token", ConfigurationError, "SALESFORCE_API_VERSION"),
        (400, "INVALID_TYPE", "sObject type 'X' is not supported", ConfigurationError, "read access"),
        (400, "INVALID_QUERY_LOCATOR", "invalid query locator", UnreachableError, "run again"),
        (400, "QUERY_TIMEOUT", "running for too long", ConfigurationError, "shorter"),
        (400, "QUERY_TOO_COMPLICATED", "", ConfigurationError, "shorter"),
        (400, "EXCEEDED_ID_LIMIT", "", ConfigurationError, "shorter"),
        (400, "INVALID_REPLICATION_DATE", "", ConfigurationError, "30 days"),
        (400, "UNABLE_TO_LOCK_ROW", "", UnreachableError, "run again"),
        (400, "TXN_SECURITY_METERING_ERROR", "", ConfigurationError, "Exempt from Transaction Security"),
        (401, "INVALID_SESSION_ID", "Session expired or invalid", ConfigurationError, "API Enabled"),
        (401, "INVALID_AUTH_HEADER", "INVALID_JWT_FORMAT", ConfigurationError, "API Enabled"),
        (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", PausedError, "24 hours"),
        (
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
            PausedError,
            "concurrent",
        ),
        (403, "API_DISABLED_FOR_ORG", "", ConfigurationError, "disabled"),
        (403, "API_CURRENTLY_DISABLED", "", ConfigurationError, "API Enabled"),
        (403, "INSUFFICIENT_ACCESS", "", ConfigurationError, "read access"),
        (302, None, "", ConfigurationError, "SALESFORCE_INSTANCE_URL"),
        (404, "NOT_FOUND", "", ConfigurationError, "SALESFORCE_API_VERSION"),
        (405, "METHOD_NOT_ALLOWED", "", ConfigurationError, "SALESFORCE_PROXY"),
        (410, "GONE", "", ConfigurationError, "SALESFORCE_API_VERSION"),
        (414, None, "", ConfigurationError, "SALESFORCE_EXTRA_FIELDS"),
        (431, None, "", ConfigurationError, "SALESFORCE_EXTRA_FIELDS"),
        (418, None, "", ConfigurationError, "HTTP status 418"),
    ],
)
def test_an_error_answer_says_what_must_be_changed(
    status: int, code: str | None, message: str, kind: type[UserSyncError], must_say: str
) -> None:
    error = explain(Refusal(status, code, f"{message} {PRIVATE}"))
    assert isinstance(error, kind)
    assert must_say in str(error)
    assert PRIVATE not in str(error)
    assert str(error).endswith(f"({code or f'HTTP status {status}'}).")


def test_a_hidden_field_is_named() -> None:
    message = (
        f"SELECT Id, Fax FROM User WHERE Username = '{PRIVATE}'\n           ^\nERROR at Row:1:Column:12\n"
        "No such column 'Fax' on entity 'User'."
    )
    error = explain(Refusal(400, "INVALID_FIELD", message))
    assert "the field Fax " in str(error)
    assert PRIVATE not in str(error)


def test_the_code_travels_with_the_error() -> None:
    error = explain(Refusal(400, "QUERY_TIMEOUT"))
    assert isinstance(error, RefusedError)
    assert error.code == "QUERY_TIMEOUT"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}], "INVALID_SESSION_ID", "Sess"),
        ({"error": "invalid_grant", "error_description": "no user"}, "invalid_grant", "no user"),
        ([], None, ""),
        ([7], None, ""),
        ([{"errorCode": f"{PRIVATE} <script>", "message": None}], None, ""),
    ],
)
def test_both_forms_of_error_bodies_are_read(body: object, code: str | None, message: str) -> None:
    refusal = read_refusal(400, json.dumps(body).encode())
    assert refusal.code == code
    assert refusal.message.startswith(message)


@pytest.mark.parametrize("body", [b"", b"<html>Sorry</html>", b"\xff\xfe"])
def test_an_error_without_json_has_its_status(body: bytes) -> None:
    assert read_refusal(503, body) == Refusal(503)


def test_the_message_of_salesforce_is_not_even_in_the_repr() -> None:
    assert PRIVATE not in repr(Refusal(400, "INVALID_FIELD", PRIVATE))
