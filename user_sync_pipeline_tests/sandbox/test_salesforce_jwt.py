"""Sign-in to the Salesforce simulator with a signed assertion, over TLS."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import msgspec
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from user_sync_pipeline.sandbox.salesforce import SalesforceSimulator
from user_sync_pipeline.sandbox.salesforce.oauth import JWT_BEARER
from user_sync_pipeline_tests.sandbox.salesforce_client import DATA, NOW, Client

Assert = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def private_key() -> RSAPrivateKey:
    return generate_private_key(65_537, 2_048)


@pytest.fixture
def sign_in(simulator: SalesforceSimulator, client: Client, private_key: RSAPrivateKey) -> Assert:
    """Signs in with the claims of the integration user, any of which can be another; None leaves one out."""
    public = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    simulator.connected_app.certificate = public.decode()

    def ask(*, key: Any = private_key, algorithm: str = "RS256", **changes: Any) -> requests.Response:
        claims = {
            "iss": client.settings["SALESFORCE_CLIENT_ID"],
            "sub": simulator.org.api_username,
            "aud": "https://login.salesforce.com",
            "exp": int((NOW + timedelta(minutes=3)).timestamp()),
        } | changes
        kept = {name: value for name, value in claims.items() if value is not None}
        assertion = jwt.api_jws.encode(msgspec.json.encode(kept), key, algorithm=algorithm)
        form = {"grant_type": JWT_BEARER, "assertion": assertion}
        return client.session.post(f"{simulator.url}/services/oauth2/token", data=form, timeout=60)

    return ask


def test_an_assertion_is_answered_with_a_token_that_opens_the_data(
    simulator: SalesforceSimulator, client: Client, sign_in: Assert
) -> None:
    for audience in ("https://login.salesforce.com", "https://test.salesforce.com", simulator.url):
        answer = sign_in(aud=audience).json()
        assert set(answer) == {"access_token", "scope", "instance_url", "id", "token_type"}
        client.session.headers["Authorization"] = f"Bearer {answer['access_token']}"
        assert client.get(f"{DATA}/limits/").status_code == 200


def test_the_expiry_may_be_a_text_and_is_read_by_the_clock_of_the_organisation(sign_in: Assert) -> None:
    assert sign_in(exp=str(int(NOW.timestamp()) + 180)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "description"),
    [
        ({"iss": "somebody-else"}, "invalid_client_id", "client identifier invalid"),
        ({"sub": "ann@example.com"}, "invalid_grant", "user hasn't approved this consumer"),
        ({"aud": "https://example.com"}, "invalid_grant", "audience is invalid"),
        ({"exp": int(NOW.timestamp()) - 600}, "invalid_grant", "expired authorization code"),
        ({"exp": int(NOW.timestamp()) + 3_600}, "invalid_grant", "invalid assertion"),
        ({"exp": None}, "invalid_grant", "invalid assertion"),
        ({"key": "x" * 64, "algorithm": "HS256"}, "invalid_grant", "invalid assertion"),
    ],
)
def test_an_assertion_that_is_not_as_agreed_is_refused(
    sign_in: Assert, changes: dict[str, Any], error: str, description: str
) -> None:
    response = sign_in(**changes)
    assert response.status_code == 400
    assert response.json() == {"error": error, "error_description": description}


def test_only_the_key_of_the_registered_certificate_opens(simulator: SalesforceSimulator, sign_in: Assert) -> None:
    assert sign_in(key=generate_private_key(65_537, 2_048)).json()["error_description"] == "invalid assertion"
    simulator.connected_app.certificate = None
    assert sign_in().json()["error_description"] == "invalid assertion"


def test_a_certificate_can_be_registered_in_place_of_a_bare_key(
    simulator: SalesforceSimulator, sign_in: Assert
) -> None:
    issued = trustme.CA().issue_cert("integration.example.com", key_type=trustme.KeyType.RSA)
    simulator.connected_app.certificate = issued.cert_chain_pems[0].bytes().decode()
    assert sign_in(key=issued.private_key_pem.bytes()).status_code == 200
    assert sign_in().status_code == 400


def test_what_is_no_assertion_is_refused(simulator: SalesforceSimulator, client: Client) -> None:
    refused = client.sign_in(grant_type=JWT_BEARER, assertion="nonsense")
    assert refused.json() == {"error": "invalid_grant", "error_description": "invalid assertion"}


def test_a_user_whom_the_application_is_not_approved_for_is_refused(
    simulator: SalesforceSimulator, sign_in: Assert
) -> None:
    simulator.connected_app.approved = False
    assert sign_in().json()["error_description"] == "user hasn't approved this consumer"
    simulator.connected_app.approved = True
    simulator.org.permissions.active = False
    assert sign_in().json() == {"error": "inactive_user", "error_description": "user is inactive"}
