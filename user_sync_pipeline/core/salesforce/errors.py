"""From what Salesforce answers to a sentence that says who must change what.

What belongs here: reading an error answer, and the table from error code or status to sentence and class.
What does not: whether to try again (`transport.py`). Salesforce's own message is used to choose a row, never
shown: it quotes queries and values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError, UserSyncError

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
_UNKNOWN_COLUMN = re.compile(r"No such column '([A-Za-z][A-Za-z0-9_.]{0,80})'")


class RefusedError(ConfigurationError):
    """Salesforce refused a request; `code` is its error code, if it gave one."""

    def __init__(self, sentence: str, code: str | None) -> None:
        super().__init__(sentence)
        self.code = code


class NotReadOnlyError(ConfigurationError):
    """A request that could do more than read users was stopped before it was sent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer: HTTP status, error code, and a message that is for decisions only."""

    status: int
    code: str | None = None
    message: str = field(default="", repr=False)


class _Explanation(NamedTuple):
    """A row applies to `code` (or to an HTTP status) when the message contains `said`."""

    code: str | int
    sentence: str
    said: str = ""
    kind: type[UserSyncError] = ConfigurationError


_APP = "the External Client App"
_SHORTER = "Salesforce cannot answer for so large a window; sync a shorter one, for example --mode recent --days 7"
_NO_ACCESS = (
    "The integration user may not read this in Salesforce; "
    "an administrator must grant it API Enabled and read access to users"
)
_BAD_TOKEN = (
    "Salesforce does not accept the access token, not even a new one; an administrator must grant "
    f"the integration user API Enabled and {_APP} the scope api"
)

# The first row that applies is taken.
_EXPLANATIONS = (
    # Sign-in
    _Explanation(
        "invalid_grant",
        "SALESFORCE_LOGIN_URL must be the organisation's own address for this sign-in; "
        "put its My Domain there, such as https://example.my.salesforce.com",
        said="not supported on this domain",
    ),
    _Explanation(
        "invalid_grant",
        f"No user is chosen for {_APP} to run as; an administrator must choose one "
        "in its policies for the client credentials flow",
        said="no client credentials user",
    ),
    _Explanation(
        "invalid_grant",
        f"Salesforce gives {_APP} no token; an administrator must look for the reason "
        "in the login history of the user it runs as",
    ),
    _Explanation(
        "invalid_client_id",
        f"SALESFORCE_CLIENT_ID is not known to Salesforce; copy the consumer key of {_APP} there "
        "(a new one works after some minutes)",
    ),
    _Explanation(
        "invalid_client",
        f"SALESFORCE_CLIENT_SECRET is not the secret of SALESFORCE_CLIENT_ID; copy both from {_APP}",
    ),
    _Explanation(
        "unsupported_grant_type",
        f"The client credentials flow is not enabled; an administrator must enable it for {_APP}",
    ),
    _Explanation(
        "invalid_request",
        "Salesforce does not understand the sign-in; check SALESFORCE_LOGIN_URL and SALESFORCE_CLIENT_ID",
    ),
    _Explanation(
        "inactive_user",
        f"The user that {_APP} runs as is inactive; an administrator must activate it or choose another",
    ),
    _Explanation(
        "inactive_org",
        "The Salesforce organisation is locked or closed; an administrator must reopen it, "
        "or set SALESFORCE_LOGIN_URL to another",
    ),
    _Explanation(
        "rate_limit_exceeded",
        "Salesforce takes no more sign-ins for now; run again in some minutes",
        kind=PausedError,
    ),
    # Quota
    _Explanation(
        "REQUEST_LIMIT_EXCEEDED",
        "Other programs keep all concurrent requests of the Salesforce organisation busy; "
        "what was stored is safe, run again when they are done",
        said="concurrent",
        kind=PausedError,
    ),
    _Explanation(
        "REQUEST_LIMIT_EXCEEDED",
        "The API requests of the Salesforce organisation for 24 hours are used up; "
        "what was stored is safe, run again when some are free",
        kind=PausedError,
    ),
    # Queries
    _Explanation(
        "INVALID_FIELD",
        "Salesforce does not show {column} to the integration user; "
        "an administrator must grant read access to it (field-level security)",
    ),
    _Explanation("INVALID_TYPE", _NO_ACCESS),
    _Explanation(
        "MALFORMED_QUERY",
        "Salesforce does not understand the query; set SALESFORCE_API_VERSION to a version that was tested, "
        "such as 66.0",
    ),
    _Explanation("QUERY_TIMEOUT", _SHORTER),
    _Explanation("QUERY_TOO_COMPLICATED", _SHORTER),
    _Explanation("OPERATION_TOO_LARGE", _SHORTER),
    _Explanation("EXCEEDED_ID_LIMIT", _SHORTER),
    _Explanation(
        "INVALID_REPLICATION_DATE",
        "Salesforce tells changes of the last 30 days only; use --mode full",
    ),
    _Explanation(
        "INVALID_QUERY_LOCATOR",
        "Salesforce closed the query before its last page was read; run again",
        kind=UnreachableError,
    ),
    _Explanation(
        "UNABLE_TO_LOCK_ROW",
        "Salesforce keeps the records locked; run again in some minutes",
        kind=UnreachableError,
    ),
    # Rights
    _Explanation(
        "TXN_SECURITY_METERING_ERROR",
        "Transaction security policies stopped the query; "
        "an administrator must grant the integration user Exempt from Transaction Security",
    ),
    _Explanation(
        "API_DISABLED_FOR_ORG",
        "The API is disabled for this Salesforce organisation; an administrator must have it enabled",
    ),
    _Explanation(
        "API_CURRENTLY_DISABLED",
        "The API is disabled for the integration user; an administrator must grant it API Enabled",
    ),
    # By status, where no code is known
    _Explanation(401, _BAD_TOKEN),
    _Explanation(403, _NO_ACCESS),
    _Explanation(
        404,
        "Salesforce does not know this address; check SALESFORCE_LOGIN_URL, SALESFORCE_INSTANCE_URL and "
        "that SALESFORCE_API_VERSION is one that the organisation offers",
    ),
    _Explanation(
        405,
        "What answers does not behave like Salesforce; check SALESFORCE_INSTANCE_URL and SALESFORCE_PROXY",
    ),
    _Explanation(
        410,
        "SALESFORCE_API_VERSION is a version that Salesforce has retired; set a newer one, such as 66.0",
    ),
    _Explanation(414, "The query is too long for Salesforce; name fewer fields in SALESFORCE_EXTRA_FIELDS"),
    _Explanation(431, "The query is too long for Salesforce; name fewer fields in SALESFORCE_EXTRA_FIELDS"),
)
_MOVED = (
    "Salesforce sends us to another address, which is not followed; put the organisation's present "
    "My Domain into SALESFORCE_LOGIN_URL or SALESFORCE_INSTANCE_URL"
)
_UNKNOWN = "Salesforce refused the request; look for this code in its documentation, or ask its administrator"


def read_refusal(status: int, body: bytes) -> Refusal:
    """Read an error answer of REST (a list) or of the token endpoint (an object); other bodies give no code."""
    try:
        answer = msgspec.json.decode(body)
    except ValueError:
        return Refusal(status)
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return Refusal(status)
    code = answer.get("errorCode", answer.get("error"))
    message = answer.get("message", answer.get("error_description"))
    return Refusal(
        status,
        code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        message if isinstance(message, str) else "",
    )


def explain(refusal: Refusal) -> UserSyncError:
    """Return the error to raise: one sentence, with Salesforce's code or the HTTP status at its end."""
    kind, sentence = _find(refusal)
    column = _UNKNOWN_COLUMN.search(refusal.message)
    sentence = sentence.replace("{column}", f"the field {column[1]}" if column else "a field that was asked for")
    text = f"{sentence} ({refusal.code or f'HTTP status {refusal.status}'})."
    return RefusedError(text, refusal.code) if kind is ConfigurationError else kind(text)


def _find(refusal: Refusal) -> tuple[type[UserSyncError], str]:
    message = refusal.message.lower()
    for key in (refusal.code, refusal.status):
        for row in _EXPLANATIONS:
            if row.code == key and row.said in message:
                return row.kind, row.sentence
    return ConfigurationError, _MOVED if 300 <= refusal.status < 400 else _UNKNOWN
