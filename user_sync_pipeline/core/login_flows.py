"""The ways to sign in to Salesforce, one small class each, and how the one in use is found among the settings.

What belongs here: which `SALESFORCE_*` variables make up a login flow, and the refusal of half a flow, of two flows
and of a password. What does not: signing in (`salesforce/auth.py`), all other variables (`settings.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from user_sync_pipeline.core.errors import ConfigurationError

SMALLEST_KEY = 2048


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The client credentials flow: the app signs in as the user whom an administrator chose for it."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class JwtBearer:
    """The JWT bearer flow: the app signs in as `username` by what it signs with its private key (PEM, RSA)."""

    client_id: str
    username: str = field(repr=False)
    private_key: str = field(repr=False)
    audience: str


@dataclass(frozen=True, slots=True)
class GivenToken:
    """An access token that somebody else got; it ends with its session and cannot be renewed here."""

    access_token: str = field(repr=False)
    instance_url: str


LoginFlow = ClientCredentials | JwtBearer | GivenToken


class Variables(Protocol):
    """The settings as they were given."""

    def text(self, name: str) -> str | None:
        """Return a variable, None when it is empty or not set."""
        ...

    def url(self, name: str, *, with_path: bool = False) -> str | None:
        """Return an https address without trailing slash; raises `ConfigurationError`."""
        ...


# A variable stands for its flow: one of two flows at once would be ignored in silence.
_FLOW_OF = {
    "SALESFORCE_CLIENT_SECRET": ClientCredentials,
    "SALESFORCE_USERNAME": JwtBearer,
    "SALESFORCE_PRIVATE_KEY": JwtBearer,
    "SALESFORCE_PRIVATE_KEY_FILE": JwtBearer,
    "SALESFORCE_AUDIENCE": JwtBearer,
    "SALESFORCE_ACCESS_TOKEN": GivenToken,
    "SALESFORCE_INSTANCE_URL": GivenToken,
}
# Whoever sets one of these means to sign in.
SIGN_IN_VARIABLES = ("SALESFORCE_CLIENT_ID", *_FLOW_OF)
_PASSWORDS = ("SALESFORCE_PASSWORD", "SALESFORCE_SECURITY_TOKEN")


def read_login_flow(read: Variables, login_url: str) -> LoginFlow:
    """Return the one login flow that is set; raises `ConfigurationError` for none, half of one, or two."""
    _refuse_passwords(read)
    given = {name: flow for name, flow in _FLOW_OF.items() if read.text(name)}
    first, flow = next(iter(given.items()), ("", ClientCredentials))
    for name, other in given.items():
        if other is not flow:
            raise ConfigurationError(
                f"{first} and {name} belong to two ways of signing in to Salesforce; keep one and remove the other."
            )
    if flow is GivenToken:
        instance_url = read.url("SALESFORCE_INSTANCE_URL")
        return GivenToken(
            _needed(read, "SALESFORCE_ACCESS_TOKEN", "put a token of that organisation there"),
            instance_url or _needed(read, "SALESFORCE_INSTANCE_URL", "the token needs the address of its organisation"),
        )
    client_id = _needed(read, "SALESFORCE_CLIENT_ID", "put the consumer key of your External Client App there")
    if flow is JwtBearer:
        return JwtBearer(
            client_id,
            _needed(read, "SALESFORCE_USERNAME", "put the user name there as which to sign in with the private key"),
            _private_key(read),
            read.url("SALESFORCE_AUDIENCE", with_path=True) or default_audience(login_url),
        )
    return ClientCredentials(
        client_id,
        _needed(
            read,
            "SALESFORCE_CLIENT_SECRET",
            "put the consumer secret of your External Client App there (or sign in with SALESFORCE_USERNAME and "
            "SALESFORCE_PRIVATE_KEY_FILE, or with SALESFORCE_ACCESS_TOKEN and SALESFORCE_INSTANCE_URL)",
        ),
    )


def default_audience(login_url: str) -> str:
    """Return who a signed assertion is for: Salesforce's login host, or that of its sandboxes.

    An organisation's own address (My Domain) stands for one of the two; any other address is its own audience.
    """
    host = urlsplit(login_url).hostname or ""
    if not host.endswith(".my.salesforce.com"):
        return login_url
    for_tests = "--" in host or host.endswith((".sandbox.my.salesforce.com", ".scratch.my.salesforce.com"))
    return f"https://{'test' if for_tests else 'login'}.salesforce.com"


def _refuse_passwords(read: Variables) -> None:
    for name in _PASSWORDS:
        if read.text(name):
            raise ConfigurationError(
                f"{name} is set, but nobody signs in with it here: Salesforce has no password login from API version "
                "65.0 on, ends it for all versions in Summer '27, and External Client Apps take no passwords; remove "
                "it and set SALESFORCE_CLIENT_ID with SALESFORCE_CLIENT_SECRET, or with SALESFORCE_USERNAME and "
                "SALESFORCE_PRIVATE_KEY_FILE."
            )


def _needed(read: Variables, name: str, what_to_do: str) -> str:
    value = read.text(name)
    if value is None:
        raise ConfigurationError(f"{name} is not set; {what_to_do}.")
    return value


def _private_key(read: Variables) -> str:
    """Return the private key as PEM, from the one of its two variables that is set."""
    text, file = read.text("SALESFORCE_PRIVATE_KEY"), read.text("SALESFORCE_PRIVATE_KEY_FILE")
    if text and file:
        raise ConfigurationError(
            "SALESFORCE_PRIVATE_KEY and SALESFORCE_PRIVATE_KEY_FILE are both set; keep one and remove the other."
        )
    if text:
        return _checked_key(text.replace("\\n", "\n"), "SALESFORCE_PRIVATE_KEY")
    if file is None:
        raise ConfigurationError(
            "SALESFORCE_PRIVATE_KEY_FILE is not set; SALESFORCE_USERNAME needs it: "
            "put the path of the private key there whose certificate your External Client App holds."
        )
    try:
        return _checked_key(Path(file).read_text("ascii"), "SALESFORCE_PRIVATE_KEY_FILE")
    except OSError:
        raise ConfigurationError(
            "SALESFORCE_PRIVATE_KEY_FILE names a file that cannot be read; "
            "give the path of a PEM file that this program may read."
        ) from None
    except UnicodeDecodeError:
        raise _not_a_key("SALESFORCE_PRIVATE_KEY_FILE") from None


def _checked_key(pem: str, setting: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ConfigurationError(
            f"{setting} holds a private key that is encrypted; give it without its password "
            "(openssl pkey -in key.pem -out plain.pem)."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _not_a_key(setting) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < SMALLEST_KEY:
        raise ConfigurationError(
            f"{setting} holds a key that is not RSA of {SMALLEST_KEY} bits or more; make a new one."
        )
    return pem


def _not_a_key(setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting} holds no private key in PEM form; it begins with -----BEGIN PRIVATE KEY----- "
        "(a certificate or a public key does not)."
    )
