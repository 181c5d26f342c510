"""Which keys the pipeline takes, decided before any request is made."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.supabase_client import check_service_key

URL = "https://abcdefgh.supabase.co"
NOW = 1_800_000_000.0


def token(**claims: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"])


@pytest.mark.parametrize(
    "key",
    [
        "sb_secret_A1b2C3d4-_",
        token(role="service_role", ref="abcdefgh", exp=NOW + 60),
        token(role="service_role"),
    ],
)
def test_a_secret_key_and_a_valid_service_token_are_taken(key: str) -> None:
    check_service_key(key, URL, now=NOW)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("sb_publishable_A1b2C3d4", "publishable key"),
        (token(role="anon", ref="abcdefgh"), "another role"),
        (token(role="service_role", exp=NOW - 1), "expired"),
        (token(role="service_role", ref="zyxwvuts"), "another project"),
        ("sb_secret_with space", "no key"),
        ("sb_secret_\u00e9\u00e8", "no key"),
        ("a.b.c", "no key"),
        (token() + "=", "no key"),
        (".".join(["e30", base64.urlsafe_b64encode(b"[1]").decode().rstrip("="), "e30"]), "no key"),
        ("letmein", "no key"),
    ],
)
def test_any_other_key_is_refused_without_being_repeated(key: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        check_service_key(key, URL, now=NOW)

    assert "SUPABASE_SERVICE_ROLE_KEY" in str(refused.value)
    assert key not in str(refused.value)


def test_a_custom_domain_may_serve_any_project() -> None:
    check_service_key(token(role="service_role", ref="abcdefgh"), "https://api.example.com", now=NOW)
