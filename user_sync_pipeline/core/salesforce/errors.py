"""From what Salesforce answers to a sentence that says who must change what.

What belongs here: the exceptions of this folder, and the table from error code or status to sentence and class.
What does not: what the program does about it (`decisions.py`), and sign-in (`sign_in_errors.py`). Salesforce's own
message is used to choose a row, never shown: it quotes queries and values.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError, UserSyncError
from user_sync_pipeline.core.salesforce.decisions import Decision, Refusal, decide

_UNKNOWN_COLUMN = re.compile(r"No such column '([A-Za-z][A-Za-z0-9_.]{0,80})'")


class RefusedError(UserSyncError):
    """Salesforce refused a request, for its error `code` if it gave one; `decision` is what to do about that."""

    def __init__(self, sentence: str, code: str | None, decision: Decision) -> None:
        super().__init__(sentence)
        self.code = code
        self.decision = decision


class RefusedSetupError(RefusedError, ConfigurationError):
    """Refused until somebody changes a setting, a permission or the request."""


class RefusedForNowError(RefusedError, UnreachableError):
    """Refused for a reason that passes by itself."""


class RefusedQuotaError(RefusedError, PausedError):
    """Refused because a quota is used up."""


class BulkRefusedError(UserSyncError):
    """Bulk 2.0 does not give the users, for the reason in the text, a clause to go on a sentence with; REST may."""


class NotReadOnlyError(ConfigurationError):
    """A request that could do more than read users was stopped before it was sent."""


class _Explanation(NamedTuple):
    """A row applies to `code` (or to an HTTP status) when the message contains `said`."""

    code: str | int
    sentence: str
    said: str = ""
    kind: type[RefusedError] = RefusedSetupError


APP = "the External Client App"
_SHORTER = "Salesforce cannot answer for so large a window; sync a shorter one, for example --mode recent --days 7"
_NO_ACCESS = (
    "The integration user may not read this in Salesforce; "
    "an administrator must grant it API Enabled and read access to users"
)
_BAD_TOKEN = (
    "Salesforce does not accept the access token, not even a new one; an administrator must grant "
    f"the integration user API Enabled and {APP} the scope api"
)

# The first row that applies is taken.
_EXPLANATIONS = (
    # Quota
    _Explanation(
        "REQUEST_LIMIT_EXCEEDED",
        "Other programs keep all concurrent requests of the Salesforce organisation busy; "
        "what was stored is safe, run again to go on from there when they are done",
        said="concurrent",
        kind=RefusedQuotaError,
    ),
    _Explanation(
        "REQUEST_LIMIT_EXCEEDED",
        "The API requests of the Salesforce organisation for 24 hours are used up; "
        "what was stored is safe, run again to go on from there when some are free",
        kind=RefusedQuotaError,
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
        kind=RefusedForNowError,
    ),
    _Explanation(
        "UNABLE_TO_LOCK_ROW",
        "Salesforce keeps the records locked; run again in some minutes",
        kind=RefusedForNowError,
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


def explain(refusal: Refusal) -> RefusedError:
    """Return the error to raise: one sentence, with Salesforce's code or the HTTP status at its end."""
    kind, sentence = _find(refusal)
    column = _UNKNOWN_COLUMN.search(refusal.message)
    sentence = sentence.replace("{column}", f"the field {column[1]}" if column else "a field that was asked for")
    return refused(kind, sentence, refusal)


def refused(kind: type[RefusedError], sentence: str, refusal: Refusal) -> RefusedError:
    """Return an error of `kind` with a sentence that still lacks its end."""
    reason = refusal.code or f"HTTP status {refusal.status}"
    return kind(f"{sentence} ({reason}).", refusal.code, decide(refusal))


def _find(refusal: Refusal) -> tuple[type[RefusedError], str]:
    message = refusal.message.lower()
    for key in (refusal.code, refusal.status):
        for row in _EXPLANATIONS:
            if row.code == key and row.said in message:
                return row.kind, row.sentence
    return RefusedSetupError, _MOVED if 300 <= refusal.status < 400 else _UNKNOWN
