"""Which keys the pipeline takes, decided before any request is made."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from user_sync_pipeline.core.errors import ConfigurationError
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline.core.profiles.supabase_keys import check_service_key, classify_key
from user_sync_pipeline_tests.core.profiles.changing_project import answered_by

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
        (token(role="anon", ref="abcdefgh"), "anon key"),
        (token(role="authenticated", sub="somebody"), "somebody who is signed in"),
        (token(role="auditor"), "another role"),
        ("sbp_0123456789abcdef", "personal access token"),
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


def test_a_legacy_key_tells_its_age_and_its_project() -> None:
    key = classify_key(token(role="service_role", ref="abcdefgh", iat=NOW - 60, exp=NOW))
    assert key.is_legacy
    assert key.project == "abcdefgh"
    assert (key.issued_at, key.expires_at) == (datetime.fromtimestamp(NOW - 60, UTC), datetime.fromtimestamp(NOW, UTC))
    assert not classify_key("sb_secret_A1b2C3d4").is_legacy


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sb_secret_A1b2C3d4-_", "is refused; put the secret key of the project"),
        (
            token(role="service_role"),
            "legacy service_role key, which the project at SUPABASE_URL may have switched off",
        ),
    ],
)
@pytest.mark.parametrize("body", [b"", b'{"message": "Legacy API keys are disabled", "hint": "Use the new ones."}'])
def test_a_key_that_looks_right_and_is_refused_is_explained_and_never_shown(
    key: str, says: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the message, nor in what a traceback or any library's log prints, however much is logged."""
    caplog.set_level(logging.DEBUG)
    with (
        answered_by(lambda _: httpx.Response(401, content=body)),
        SupabaseDirectory(URL, key) as directory,
        pytest.raises(ConfigurationError, match=says) as refused,
    ):
        directory.status()

    printed = "".join(traceback.format_exception(refused.value)) + caplog.text + repr(directory)
    assert key not in printed
    assert key.rsplit(".", 1)[-1] not in printed
