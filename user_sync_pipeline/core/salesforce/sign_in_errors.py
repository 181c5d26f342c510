"""From a refused sign-in to a sentence that says what an administrator must change.

What belongs here: the table from login flow, OAuth error and description to sentence and class.
What does not: errors of requests after the sign-in (`errors.py`). Salesforce's description is used to choose a row,
never shown.
"""

from __future__ import annotations

from typing import NamedTuple

from user_sync_pipeline.core.login_flows import ClientCredentials, JwtBearer
from user_sync_pipeline.core.salesforce.decisions import Refusal
from user_sync_pipeline.core.salesforce.errors import APP, RefusedError, RefusedQuotaError, RefusedSetupError, refused

_Flow = ClientCredentials | JwtBearer


class Explanation(NamedTuple):
    """A row applies to an OAuth `error` whose description contains `said`, in one login flow or (None) in both."""

    error: str
    said: str
    flow: type[_Flow] | None
    sentence: str
    kind: type[RefusedError] = RefusedSetupError


_NOT_APPROVED = (
    f"{APP} is not allowed for the user of SALESFORCE_USERNAME; an administrator must set it to admin-approved users "
    "and add the user's profile or permission set to it"
)

# The first row that applies is taken.
EXPLANATIONS = (
    # Client credentials
    Explanation(
        "invalid_grant",
        "not supported on this domain",
        ClientCredentials,
        "SALESFORCE_LOGIN_URL must be the organisation's own address for this sign-in; "
        "put its My Domain there, such as https://example.my.salesforce.com",
    ),
    Explanation(
        "invalid_grant",
        "no client credentials user",
        ClientCredentials,
        f"No user is chosen for {APP} to run as; an administrator must choose one "
        "in its policies for the client credentials flow",
    ),
    Explanation(
        "invalid_client",
        "",
        ClientCredentials,
        f"SALESFORCE_CLIENT_SECRET is not the secret of SALESFORCE_CLIENT_ID; copy both from {APP}",
    ),
    Explanation(
        "unsupported_grant_type",
        "",
        ClientCredentials,
        f"The client credentials flow is not enabled; an administrator must enable it for {APP}",
    ),
    # JWT bearer
    Explanation("invalid_grant", "approved", JwtBearer, _NOT_APPROVED),
    Explanation("invalid_app_access", "", JwtBearer, _NOT_APPROVED),
    Explanation(
        "invalid_grant",
        "audience",
        JwtBearer,
        "SALESFORCE_AUDIENCE is not whom Salesforce expects; set it to https://login.salesforce.com, "
        "for a sandbox to https://test.salesforce.com, for a site to the site's address",
    ),
    Explanation(
        "invalid_grant",
        "expired",
        JwtBearer,
        "What was signed counts as expired, since the clock of this machine is minutes behind Salesforce's; "
        "have its administrator set it right",
    ),
    Explanation(
        "invalid_grant",
        "assertion",
        JwtBearer,
        f"The private key is not the one whose certificate {APP} holds; an administrator must upload the certificate "
        "of SALESFORCE_PRIVATE_KEY_FILE there (and set this machine's clock right, should it be minutes off)",
    ),
    Explanation(
        "invalid_client",
        "",
        JwtBearer,
        f"SALESFORCE_CLIENT_ID is not that of an app for signed sign-in; copy the consumer key of {APP} there, "
        "and have an administrator enable the JWT bearer flow for it",
    ),
    Explanation(
        "unsupported_grant_type",
        "",
        JwtBearer,
        f"The JWT bearer flow is not enabled; an administrator must enable it for {APP}",
    ),
    # Both
    Explanation(
        "invalid_grant",
        "ip restricted",
        None,
        "The integration user may not sign in from this machine or at this hour; an administrator must extend "
        "the login IP ranges and login hours of its profile",
    ),
    Explanation(
        "invalid_grant",
        "inactive",
        None,
        "The integration user is inactive or frozen; an administrator must activate it or choose another",
    ),
    Explanation(
        "invalid_grant",
        "",
        ClientCredentials,
        f"Salesforce gives {APP} no token; an administrator must look for the reason "
        "in the login history of the user it runs as",
    ),
    Explanation(
        "invalid_grant",
        "",
        JwtBearer,
        "Salesforce does not let the user of SALESFORCE_USERNAME in; an administrator must check that this user exists "
        "behind SALESFORCE_LOGIN_URL, and look for the reason in its login history",
    ),
    Explanation(
        "invalid_client_id",
        "",
        None,
        f"SALESFORCE_CLIENT_ID is not known to Salesforce; copy the consumer key of {APP} there "
        "(a new one works after some minutes)",
    ),
    Explanation(
        "invalid_app_access",
        "",
        None,
        f"The user that {APP} runs as may not use it; an administrator must add the user's profile "
        "or permission set to it",
    ),
    Explanation(
        "invalid_request",
        "",
        None,
        "Salesforce does not understand the sign-in; check SALESFORCE_LOGIN_URL and SALESFORCE_CLIENT_ID",
    ),
    Explanation(
        "invalid_scope",
        "",
        None,
        f"{APP} may not use the API; an administrator must give it the scope api",
    ),
    Explanation(
        "inactive_user",
        "",
        None,
        "The integration user is inactive or frozen; an administrator must activate it or choose another",
    ),
    Explanation(
        "inactive_org",
        "",
        None,
        "The Salesforce organisation is locked or closed; an administrator must reopen it, "
        "or set SALESFORCE_LOGIN_URL to another",
    ),
    Explanation(
        "rate_limit_exceeded",
        "",
        None,
        "Salesforce takes no more sign-ins for now; run again in some minutes",
        RefusedQuotaError,
    ),
)
_MOVED = (
    "SALESFORCE_LOGIN_URL is an address that Salesforce has left; "
    "put the organisation's present My Domain there, such as https://example.my.salesforce.com"
)
_NOT_SALESFORCE = (
    "What answers at SALESFORCE_LOGIN_URL is not Salesforce's sign-in; put https://login.salesforce.com there "
    "or the organisation's My Domain, and check SALESFORCE_PROXY"
)
_UNKNOWN = "Salesforce refused the sign-in; look for this code in its documentation, or ask its administrator"


def explain_sign_in(refusal: Refusal, *, flow: _Flow) -> RefusedError:
    """Return the error to raise for a refused sign-in: one sentence, the code or HTTP status at its end."""
    description = refusal.message.lower()
    for row in EXPLANATIONS:
        if row.error == refusal.code and row.flow in (None, type(flow)) and row.said in description:
            return refused(row.kind, row.sentence, refusal)
    if refusal.code is not None:
        return refused(RefusedSetupError, _UNKNOWN, refusal)
    return refused(RefusedSetupError, _MOVED if 300 <= refusal.status < 400 else _NOT_SALESFORCE, refusal)
