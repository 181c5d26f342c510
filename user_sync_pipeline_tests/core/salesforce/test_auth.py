"""Signing in: by client credentials, a signature or a given token, once, and again only when Salesforce says so."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest

from user_sync_pipeline.core.errors import ConfigurationError, PausedError, UnreachableError
from user_sync_pipeline.core.login_flows import ClientCredentials, GivenToken, JwtBearer
from user_sync_pipeline.core.salesforce.auth import Authenticator
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.transport import RetryPolicy
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline_tests.core.private_keys import private_key, public_key
from user_sync_pipeline_tests.core.salesforce.scripted_server import Answer, Asked, ScriptedServer, answered, refused

WITHOUT_WAITING = RetryPolicy(tries=3, sleep=lambda _: None)


def test_client_credentials_travel_in_a_basic_header(server: ScriptedServer) -> None:
    server.script = [server.token()]
    authenticator = Authenticator(server.settings(login=ClientCredentials("client", "pä55:wörd")))
    sign_in = authenticator.sign_in()
    assert (sign_in.access_token, sign_in.instance_url, sign_in.org_id) == (
        "token-1",
        server.url,
        "00D5g0000SimOrgEQE",
    )
    (request,) = server.asked
    assert (request.method, request.path) == ("POST", "/services/oauth2/token")
    assert parse_qs(request.body.decode()) == {"grant_type": ["client_credentials"]}
    scheme, _, credentials = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credentials).decode() == "client:pä55:wörd"


def test_a_token_is_asked_for_once_and_replaced_when_rejected(server: ScriptedServer) -> None:
    server.script = [server.token(1), server.token(2)]
    authenticator = Authenticator(server.settings())
    assert [authenticator.access_token() for _ in range(3)] == ["token-1"] * 3
    authenticator.renew("token-1")
    assert authenticator.access_token() == "token-2"
    authenticator.renew("token-1")  # a request that was on its way with the old one
    assert authenticator.access_token() == "token-2"
    assert len(server.asked) == 2


def test_threads_share_one_new_token(server: ScriptedServer) -> None:
    server.script = [server.token(number) for number in range(1, 9)]
    authenticator = Authenticator(server.settings())
    authenticator.access_token()
    threads = [threading.Thread(target=authenticator.renew, args=("token-1",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert authenticator.access_token() == "token-2"


def test_a_sign_in_is_tried_again_when_the_server_stumbles(server: ScriptedServer) -> None:
    server.script = [Answer(503), Answer(broken="reset"), server.token()]
    assert Authenticator(server.settings(), WITHOUT_WAITING).access_token() == "token-1"


def jwt_flow(server: ScriptedServer) -> JwtBearer:
    return JwtBearer("client", "robot@example.com", private_key(), server.url)


def claims(request: Asked) -> dict[str, Any]:
    """What a request for a token says, once its signature has been checked as Salesforce does it."""
    form = parse_qs(request.body.decode(), strict_parsing=True)
    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    (assertion,) = form["assertion"]
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT"}
    verified: dict[str, Any] = jwt.decode(
        assertion, public_key(), algorithms=["RS256"], options={"verify_aud": False, "verify_exp": False}
    )
    return verified


def test_a_signed_assertion_says_who_signs_in_where_for_three_minutes(server: ScriptedServer) -> None:
    server.script = [server.token()]
    before = int(time.time())
    assert Authenticator(server.settings(login=jwt_flow(server))).access_token() == "token-1"
    (request,) = server.asked
    assert (request.method, request.path) == ("POST", "/services/oauth2/token")
    assert "Authorization" not in request.headers
    said = claims(request)
    assert 175 <= said.pop("exp") - before <= 185
    assert said == {"iss": "client", "sub": "robot@example.com", "aud": server.url}


def test_each_try_of_a_signed_sign_in_is_signed_anew(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = itertools.count(1_800_000_000, 100)
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    server.script = [Answer(503), server.token(1), server.token(2)]
    authenticator = Authenticator(server.settings(login=jwt_flow(server)), WITHOUT_WAITING)
    assert authenticator.access_token() == "token-1"
    authenticator.renew("token-1")
    assert authenticator.access_token() == "token-2"
    ends = [claims(request)["exp"] for request in server.asked]
    assert len(set(ends)) == 3
    assert ends == sorted(ends)


def test_a_refused_sign_in_is_explained_once_and_for_its_flow(server: ScriptedServer) -> None:
    body = {"error": "invalid_client", "error_description": "invalid client credentials"}
    for login, must_say in (
        (ClientCredentials("client", "s3cret"), "SALESFORCE_CLIENT_SECRET is not"),
        (jwt_flow(server), "SALESFORCE_CLIENT_ID is not"),
    ):
        server.forget()
        server.script = [Answer(401, answered(body).body)]
        with pytest.raises(ConfigurationError, match=must_say) as caught:
            Authenticator(server.settings(login=login)).sign_in()
        for secret in ("s3cret", "robot@example.com"):
            assert secret not in str(caught.value)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_login_host_that_is_not_salesforce_is_named(server: ScriptedServer, status: int) -> None:
    server.script = [Answer(status, b"<html>Nothing here</html>")]
    with pytest.raises(ConfigurationError, match="SALESFORCE_LOGIN_URL is not Salesforce's sign-in"):
        Authenticator(server.settings()).sign_in()


def test_a_login_host_that_moved_is_named(server: ScriptedServer) -> None:
    server.script = [Answer(302, b"", {"Location": "https://elsewhere.example/"})]
    with pytest.raises(ConfigurationError, match="present My Domain"):
        Authenticator(server.settings()).sign_in()
    assert len(server.asked) == 1


def test_a_page_in_place_of_a_token_is_unreachable(server: ScriptedServer) -> None:
    server.script = [Answer(body=b"<html>Welcome</html>")] * 3
    with pytest.raises(UnreachableError, match="SALESFORCE_LOGIN_URL"):
        Authenticator(server.settings(), WITHOUT_WAITING).sign_in()


def test_too_many_sign_ins_are_waited_for_and_then_pause_the_run(server: ScriptedServer) -> None:
    too_many = Answer(400, answered({"error": "rate_limit_exceeded", "error_description": "number of logins"}).body)
    server.script = [too_many, server.token()]
    assert Authenticator(server.settings(), WITHOUT_WAITING).access_token() == "token-1"
    server.script = [too_many] * 3
    with pytest.raises(PausedError, match="run again"):
        Authenticator(server.settings(), WITHOUT_WAITING).sign_in()


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_url": None},
        {"instance_url": "http://example.my.salesforce.com"},
        {"access_token": ""},
        {"access_token": "a\nb"},
        {"access_token": None},
    ],
)
def test_an_answer_that_is_no_sign_in_is_explained(server: ScriptedServer, changes: dict[str, Any]) -> None:
    server.script = [server.token(**changes)]
    with pytest.raises(ConfigurationError, match="SALESFORCE_LOGIN_URL"):
        Authenticator(server.settings()).sign_in()


def test_a_new_token_for_another_organisation_is_refused(server: ScriptedServer) -> None:
    other = "https://login.salesforce.com/id/00D000000000001AAA/005000000000001AAA"
    server.script = [server.token(1), server.token(2, id=other)]
    authenticator = Authenticator(server.settings())
    authenticator.sign_in()
    with pytest.raises(ConfigurationError, match="organisation changed"):
        authenticator.renew("token-1")


def test_a_given_token_is_used_as_it_is(server: ScriptedServer) -> None:
    settings = server.settings(login=GivenToken("given", server.url + "/"))
    assert Authenticator(settings).access_token() == "given"
    assert server.asked == []


def test_a_given_token_that_expired_is_explained_and_not_shown(server: ScriptedServer) -> None:
    settings = server.settings(login=GivenToken("given", server.url))
    server.script = [refused(401, "INVALID_SESSION_ID")]
    with (
        RestUserService(settings) as rest,
        pytest.raises(ConfigurationError, match="SALESFORCE_ACCESS_TOKEN") as caught,
    ):
        rest.count_users()
    assert "given" not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\nend", "schlüssel"])
def test_a_given_token_that_was_copied_wrongly_is_explained_and_not_shown(server: ScriptedServer, token: str) -> None:
    settings = server.settings(login=GivenToken(token, server.url))
    with pytest.raises(ConfigurationError, match="copy it again") as caught:
        Authenticator(settings).sign_in()
    assert token not in str(caught.value)


def test_a_login_host_that_does_not_answer_is_unreachable(authority: CertificateAuthority) -> None:
    with ScriptedServer(authority) as gone:
        settings = gone.settings()
    with pytest.raises(UnreachableError, match="SALESFORCE_LOGIN_URL"):
        Authenticator(settings, WITHOUT_WAITING).sign_in()


def test_secrets_are_not_in_a_repr(server: ScriptedServer) -> None:
    server.script = [server.token(1)]
    authenticator = Authenticator(server.settings())
    assert "token-1" not in repr(authenticator.sign_in())
    assert "s3cret" not in repr(server.settings())


# Against the simulator --------------------------------------------------------------------------------------------


def test_a_session_that_ended_is_renewed_in_mid_run(salesforce: SalesforceSimulator) -> None:
    with RestUserService(SalesforceSettings.from_environment(salesforce.environment())) as rest:
        before = rest.count_users()
        salesforce.tokens.revoke_tokens()
        assert rest.count_users() == before
    sign_ins = [request for request in salesforce.journal.exchanges if request.method == "POST"]
    assert len(sign_ins) == 2


def test_the_organisation_is_that_of_the_sign_in(salesforce: SalesforceSimulator) -> None:
    with RestUserService(SalesforceSettings.from_environment(salesforce.environment())) as rest:
        assert rest.org_id == salesforce.org.id


def test_a_wrong_secret_is_explained(salesforce: SalesforceSimulator) -> None:
    environment = salesforce.environment() | {"SALESFORCE_CLIENT_SECRET": "wrong"}
    with (
        RestUserService(SalesforceSettings.from_environment(environment)) as rest,
        pytest.raises(ConfigurationError, match="SALESFORCE_CLIENT_SECRET is not the secret"),
    ):
        _ = rest.org_id


def test_an_app_without_a_user_to_run_as_is_explained(salesforce: SalesforceSimulator) -> None:
    salesforce.tokens.has_run_as_user = False
    with (
        RestUserService(SalesforceSettings.from_environment(salesforce.environment())) as rest,
        pytest.raises(ConfigurationError, match="an administrator must choose one"),
    ):
        rest.server_time()
