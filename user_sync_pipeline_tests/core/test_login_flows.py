"""One way of signing in is set, whole and alone; anything else is refused by the name of the setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.login_flows import ClientCredentials, GivenToken, JwtBearer
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline_tests.core.private_keys import elliptic_key, encrypted_key, private_key, public_key

SECRET = {"SALESFORCE_CLIENT_ID": "app", "SALESFORCE_CLIENT_SECRET": "s3cret"}
TOKEN = {"SALESFORCE_ACCESS_TOKEN": "t0ken", "SALESFORCE_INSTANCE_URL": "https://example.my.salesforce.com/"}
USERNAME = "robot@example.com"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_text(private_key())
    return file


@pytest.fixture
def signed(key_file: Path) -> dict[str, str]:
    """The settings of the JWT bearer flow."""
    return {
        "SALESFORCE_CLIENT_ID": "app",
        "SALESFORCE_USERNAME": USERNAME,
        "SALESFORCE_PRIVATE_KEY_FILE": str(key_file),
    }


def login(environment: dict[str, str]) -> object:
    return SalesforceSettings.from_environment(environment).login


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        login(environment)
    sentence = str(caught.value)
    for secret in ("s3cret", "t0ken", USERNAME, "pa55word", "PRIVATE KEY-----\n", "open-sesame"):
        assert secret not in sentence
    assert sentence.endswith(".")
    return sentence


# Each flow --------------------------------------------------------------------------------------------------------


def test_an_id_and_a_secret_are_client_credentials() -> None:
    assert login(SECRET) == ClientCredentials("app", "s3cret")


def test_a_token_and_its_organisation_are_a_sign_in() -> None:
    assert login(TOKEN) == GivenToken("t0ken", "https://example.my.salesforce.com")


def test_a_user_name_and_a_key_file_are_a_signed_sign_in(signed: dict[str, str]) -> None:
    assert login(signed) == JwtBearer("app", USERNAME, private_key(), "https://login.salesforce.com")


@pytest.mark.parametrize("line_end", ["\n", "\\n", "\r\n"])
def test_a_key_may_stand_in_one_line_of_text(signed: dict[str, str], line_end: str) -> None:
    del signed["SALESFORCE_PRIVATE_KEY_FILE"]
    flow = login(signed | {"SALESFORCE_PRIVATE_KEY": private_key().replace("\n", line_end)})
    assert isinstance(flow, JwtBearer)
    assert flow.private_key.split() == private_key().split()


@pytest.mark.parametrize(
    ("login_url", "audience"),
    [
        ("https://login.salesforce.com", "https://login.salesforce.com"),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        ("https://example.my.salesforce.com", "https://login.salesforce.com"),
        ("https://example--dev.sandbox.my.salesforce.com", "https://test.salesforce.com"),
        ("https://example--dev.my.salesforce.com", "https://test.salesforce.com"),
        ("https://example.scratch.my.salesforce.com", "https://test.salesforce.com"),
        ("https://login.example.mil", "https://login.example.mil"),
        ("https://localhost:8443", "https://localhost:8443"),
    ],
)
def test_the_audience_follows_the_login_host(signed: dict[str, str], login_url: str, audience: str) -> None:
    flow = login(signed | {"SALESFORCE_LOGIN_URL": login_url})
    assert isinstance(flow, JwtBearer)
    assert flow.audience == audience


def test_the_audience_may_be_set_also_to_a_site(signed: dict[str, str]) -> None:
    flow = login(signed | {"SALESFORCE_AUDIENCE": "https://example.my.site.com/customers/"})
    assert isinstance(flow, JwtBearer)
    assert flow.audience == "https://example.my.site.com/customers"
    assert "SALESFORCE_AUDIENCE" in refusal(signed | {"SALESFORCE_AUDIENCE": "login.salesforce.com"})


def test_no_flow_shows_its_secrets(signed: dict[str, str]) -> None:
    shown = repr([SalesforceSettings.from_environment(environment) for environment in (SECRET, TOKEN, signed)])
    for secret in ("s3cret", "t0ken", USERNAME, "PRIVATE KEY"):
        assert secret not in shown


# Nothing, half, two -----------------------------------------------------------------------------------------------


def test_no_sign_in_at_all_names_the_first_setting() -> None:
    assert refusal({}).startswith("SALESFORCE_CLIENT_ID is not set")


@pytest.mark.parametrize("missing", ["SALESFORCE_CLIENT_ID", "SALESFORCE_USERNAME", "SALESFORCE_PRIVATE_KEY_FILE"])
def test_half_a_signed_sign_in_names_the_other_half(signed: dict[str, str], missing: str) -> None:
    assert refusal({**signed, missing: ""}).startswith(f"{missing} is not set")


@pytest.mark.parametrize("missing", SECRET)
def test_half_of_client_credentials_names_the_other_half(missing: str) -> None:
    assert refusal({**SECRET, missing: " "}).startswith(f"{missing} is not set")


@pytest.mark.parametrize("missing", TOKEN)
def test_half_of_a_given_token_names_the_other_half(missing: str) -> None:
    assert refusal({**TOKEN, missing: ""}).startswith(f"{missing} is not set")


@pytest.mark.parametrize(
    "more",
    [
        TOKEN,
        {"SALESFORCE_INSTANCE_URL": "https://example.my.salesforce.com"},
        {"SALESFORCE_USERNAME": USERNAME},
        {"SALESFORCE_PRIVATE_KEY": "…"},
        {"SALESFORCE_AUDIENCE": "https://test.salesforce.com"},
    ],
    ids=lambda more: "+".join(more),
)
def test_two_ways_of_signing_in_are_one_too_many(more: dict[str, str]) -> None:
    sentence = refusal(SECRET | more)
    assert "SALESFORCE_CLIENT_SECRET" in sentence
    assert any(name in sentence for name in more)
    assert "keep one" in sentence


@pytest.mark.parametrize("name", ["SALESFORCE_PASSWORD", "SALESFORCE_SECURITY_TOKEN"])
@pytest.mark.parametrize("beside", [{}, SECRET, TOKEN], ids=["alone", "beside a secret", "beside a token"])
def test_a_password_is_refused_with_the_day_of_its_end_and_the_way_out(name: str, beside: dict[str, str]) -> None:
    sentence = refusal({**beside, "SALESFORCE_USERNAME": USERNAME, name: "pa55word"})
    for said in (name, "65.0", "Summer '27", "External Client Apps", "SALESFORCE_CLIENT_SECRET", "PRIVATE_KEY_FILE"):
        assert said in sentence


# Keys -------------------------------------------------------------------------------------------------------------

NOT_KEYS = {
    "encrypted": (encrypted_key, "without its password"),
    "a public key": (public_key, "no private key"),
    "an elliptic key": (elliptic_key, "not RSA"),
    "too short": (lambda: private_key(1024), "2048"),
    "half a key": (lambda: private_key()[:300], "no private key"),
    "something else": (lambda: "s3cret", "no private key"),
}


@pytest.mark.parametrize(("make", "must_say"), NOT_KEYS.values(), ids=NOT_KEYS)
def test_what_is_no_usable_key_is_refused_and_not_shown(
    signed: dict[str, str], key_file: Path, make: Callable[[], str], must_say: str
) -> None:
    text = make()
    key_file.write_text(text)
    assert must_say in refusal(signed)
    del signed["SALESFORCE_PRIVATE_KEY_FILE"]
    sentence = refusal(signed | {"SALESFORCE_PRIVATE_KEY": text})
    assert must_say in sentence
    assert "SALESFORCE_PRIVATE_KEY holds" in sentence


def test_a_key_file_that_cannot_be_read_is_named(signed: dict[str, str], tmp_path: Path) -> None:
    binary = tmp_path / "key.der"
    binary.write_bytes(b"0\x82\x04\xbd\xff")
    for file, must_say in (
        (tmp_path / "none.pem", "cannot be read"),
        (tmp_path, "cannot be read"),
        (binary, "no priv"),
    ):
        sentence = refusal(signed | {"SALESFORCE_PRIVATE_KEY_FILE": str(file)})
        assert sentence.startswith("SALESFORCE_PRIVATE_KEY_FILE")
        assert must_say in sentence


def test_a_key_is_given_as_text_or_as_a_file_not_both(signed: dict[str, str]) -> None:
    assert "both set" in refusal(signed | {"SALESFORCE_PRIVATE_KEY": private_key()})
