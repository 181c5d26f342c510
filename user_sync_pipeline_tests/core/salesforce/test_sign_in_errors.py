"""Each refused sign-in says, for the flow that was used, what an administrator must change."""

from __future__ import annotations

import pytest

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UserSyncError
from user_sync_pipeline.core.login_flows import ClientCredentials, JwtBearer
from user_sync_pipeline.core.salesforce.decisions import Refusal
from user_sync_pipeline.core.salesforce.sign_in_errors import EXPLANATIONS, Explanation, explain_sign_in

PRIVATE = "ann@example.com"
SECRET = ClientCredentials("app", "s3cret")
SIGNED = JwtBearer("app", PRIVATE, "key", "https://login.salesforce.com")
BOTH = (SECRET, SIGNED)

Flow = ClientCredentials | JwtBearer

# Flows, error, description, and what the sentence must say.
TEXTS: list[tuple[tuple[Flow, ...], str, str, str]] = [
    ((SECRET,), "invalid_grant", "no client credentials user enabled", "an administrator must choose one"),
    ((SECRET,), "invalid_grant", "request not supported on this domain", "SALESFORCE_LOGIN_URL"),
    ((SECRET,), "invalid_grant", "something new", "login history of the user it runs as"),
    ((SECRET,), "invalid_client", "invalid client credentials", "SALESFORCE_CLIENT_SECRET is not the secret"),
    ((SECRET,), "unsupported_grant_type", "grant type not supported", "client credentials flow"),
    ((SIGNED,), "invalid_grant", "user hasn't approved this consumer", "admin-approved users"),
    ((SIGNED,), "invalid_app_access", "user is not admin approved to access this app", "admin-approved users"),
    ((SIGNED,), "invalid_grant", "invalid assertion", "certificate"),
    ((SIGNED,), "invalid_grant", "audience is invalid", "SALESFORCE_AUDIENCE"),
    ((SIGNED,), "invalid_grant", "Audience validation failed", "SALESFORCE_AUDIENCE"),
    ((SIGNED,), "invalid_grant", "expired authorization code", "clock"),
    ((SIGNED,), "invalid_grant", "authentication failure", "SALESFORCE_USERNAME"),
    ((SIGNED,), "invalid_client", "invalid client credentials", "SALESFORCE_CLIENT_ID"),
    ((SIGNED,), "unsupported_grant_type", "grant type not supported", "JWT bearer flow"),
    (BOTH, "invalid_grant", "ip restricted or invalid login hours", "login IP ranges"),
    (BOTH, "invalid_grant", "inactive user", "activate"),
    (BOTH, "invalid_client_id", "client identifier invalid", "SALESFORCE_CLIENT_ID"),
    ((SECRET,), "invalid_app_access", "user is not admin approved to access this app", "permission set"),
    (BOTH, "invalid_request", "", "SALESFORCE_LOGIN_URL"),
    (BOTH, "invalid_scope", "", "scope api"),
    (BOTH, "inactive_user", "user is inactive", "activate"),
    (BOTH, "inactive_org", "organization is locked", "reopen"),
    (BOTH, "rate_limit_exceeded", "number of logins exceeded", "run again"),
    (BOTH, "something_else", "", "refused the sign-in"),
]


@pytest.mark.parametrize(("flows", "error", "description", "must_say"), TEXTS, ids=lambda value: str(value)[:40])
def test_a_refused_sign_in_says_what_must_be_changed(
    flows: tuple[Flow, ...], error: str, description: str, must_say: str
) -> None:
    for flow in flows:
        refused = explain_sign_in(Refusal(400, error, f"{description} {PRIVATE}"), flow=flow)
        kind: type[UserSyncError] = PausedError if error == "rate_limit_exceeded" else ConfigurationError
        assert isinstance(refused, kind)
        assert must_say in str(refused)
        assert str(refused).endswith(f"({error}).")
        assert PRIVATE not in str(refused)


def test_every_row_of_the_table_is_reached_by_one_of_these_texts() -> None:
    reached = {
        str(explain_sign_in(Refusal(400, error, description), flow=flow))
        for flows, error, description, _ in TEXTS
        for flow in flows
    }
    assert {f"{row.sentence} ({row.error})." for row in EXPLANATIONS} <= reached


@pytest.mark.parametrize("row", EXPLANATIONS, ids=lambda row: f"{row.error} {row.said}")
def test_nobody_is_told_to_log_in_again_or_to_change_what_the_flow_has_not(row: Explanation) -> None:
    flow, sentence = row.flow, row.sentence.lower()
    assert "log in" not in sentence
    assert "sign in again" not in sentence
    if flow is not ClientCredentials:
        assert "secret" not in sentence
    if flow is not JwtBearer:
        assert not any(word in sentence for word in ("audience", "private_key", "username"))


@pytest.mark.parametrize(
    ("status", "must_say"),
    [(302, "present My Domain"), (404, "not Salesforce's sign-in"), (400, "not Salesforce's sign-in")],
)
def test_an_answer_without_a_code_is_about_the_address(status: int, must_say: str) -> None:
    for flow in BOTH:
        refused = explain_sign_in(Refusal(status), flow=flow)
        assert must_say in str(refused)
        assert str(refused).endswith(f"(HTTP status {status}).")
