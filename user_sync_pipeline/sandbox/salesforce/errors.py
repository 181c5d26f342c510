"""What the simulator refuses, in the form in which Salesforce says so."""

from __future__ import annotations

from typing import NamedTuple

from user_sync_pipeline.sandbox.salesforce.quirks import Wording

# Codes that go with texts which are known from hearsay only.
_UNSURE = frozenset({"INVALID_FIELD", "INVALID_TYPE", "MALFORMED_QUERY", "NOT_FOUND", "invalid_client"})


class ApiError(Exception):
    """An answer of the REST interface that is a failure: HTTP status, error code and text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message

    def body(self, wording: Wording = Wording.USUAL) -> list[dict[str, str]]:
        """Return the JSON body, a list with one entry."""
        return [{"message": worded(self.code, self.message, wording), "errorCode": self.code}]


class QueryError(ApiError):
    """A refusal of a SOQL statement, which shows the place: `column` counts from 1."""

    def __init__(self, code: str, message: str, statement: str, column: int) -> None:
        pointer = f"\n{statement}\n{' ' * (column - 1)}^\nERROR at Row:1:Column:{column}\n"
        super().__init__(400, code, pointer + message)


def worded(code: str, message: str, wording: Wording) -> str:
    """Return a text as it stands, or another one if nobody can be sure of it."""
    if wording is Wording.USUAL or code not in _UNSURE:
        return message
    return "" if wording is Wording.EMPTY else "Salesforce has found other words for this."


class Usual(NamedTuple):
    """Status and text that go with an error code."""

    status: int
    message: str


USUAL = {
    "API_CURRENTLY_DISABLED": Usual(403, "API is currently disabled for this User"),
    "API_DISABLED_FOR_ORG": Usual(403, "API is not enabled for this Organization or Partner"),
    "EXCEEDED_ID_LIMIT": Usual(400, "the result holds too many ids"),
    "GONE": Usual(410, "The requested resource is no longer available"),
    "INSUFFICIENT_ACCESS": Usual(403, "insufficient access rights on the requested resource"),
    "INVALID_AUTH_HEADER": Usual(401, "INVALID_JWT_FORMAT"),
    "INVALID_QUERY_LOCATOR": Usual(400, "invalid query locator"),
    "INVALID_SESSION_ID": Usual(401, "Session expired or invalid"),
    "METHOD_NOT_ALLOWED": Usual(405, "HTTP Method not allowed"),
    "NOT_FOUND": Usual(404, "The requested resource does not exist"),
    "OPERATION_TOO_LARGE": Usual(400, "exceeded the number of records that one operation may touch"),
    "QUERY_TIMEOUT": Usual(400, "Your query request was running for too long."),
    "QUERY_TOO_COMPLICATED": Usual(400, "Query is either selecting too many fields or its filter is too complicated."),
    "REQUEST_LIMIT_EXCEEDED": Usual(403, "TotalRequests Limit exceeded."),
    "SERVER_UNAVAILABLE": Usual(503, "Server too busy"),
    "TXN_SECURITY_METERING_ERROR": Usual(
        400,
        "We can't complete the action because enabled transaction security policies took too long to complete.",
    ),
    "UNABLE_TO_LOCK_ROW": Usual(400, "unable to obtain exclusive access to this record"),
    "UNKNOWN_EXCEPTION": Usual(
        500, "An unexpected error occurred. Please include this ErrorId if you contact support: 0-0 (0)"
    ),
}


def usual_error(code: str) -> ApiError:
    """Return the failure for an error code, with the status and the text that go with it."""
    return ApiError(USUAL[code].status, code, USUAL[code].message)
