"""What each endpoint answers, well and sick, over a real database."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from starlette.types import ASGIApp

from user_sync_pipeline.core.settings import SupabaseSettings
from user_sync_pipeline.health.dagster import ASSETS
from user_sync_pipeline.health.shared_answer import Times
from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.postgres import PostgresServer
from user_sync_pipeline_tests.conftest import role_url, supabase_on
from user_sync_pipeline_tests.health.conftest import ask, ask_at_once
from user_sync_pipeline_tests.health.scripted_webserver import ScriptedWebserver, healthy_answer
from user_sync_pipeline_tests.postgres.accounts import add_user, execute

NOBODY_LISTENS = "postgresql://somebody:secret@127.0.0.1:1/postgres"
USERS = "/admin/users/health-check"
DASHBOARD = "/dashboard/health-check"

Endpoints = Callable[..., ASGIApp]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    else:
        yield value


def test_health_is_one_word_when_all_is_well(endpoints: Endpoints, database: str) -> None:
    answer = ask(endpoints(database), "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy"})
    assert answer.headers["cache-control"] == "no-store"


def test_health_names_the_cause_of_a_database_that_does_not_answer(endpoints: Endpoints) -> None:
    answer = ask(endpoints(NOBODY_LISTENS), "/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unhealthy", "cause": "database_unreachable"}


def test_health_names_the_cause_of_a_refused_sign_in(endpoints: Endpoints, database: str) -> None:
    answer = ask(endpoints(re.sub(r":[^:@/]+@", ":wrong@", database)), "/health")
    assert (answer.status_code, answer.json()["cause"]) == (503, "database_refused")


def test_health_names_the_cause_of_a_database_without_the_tables(endpoints: Endpoints, empty_database: str) -> None:
    answer = ask(endpoints(empty_database), "/health")
    assert (answer.status_code, answer.json()["cause"]) == (503, "tables_missing")


def test_users_are_told_in_numbers_and_booleans_alone(endpoints: Endpoints, database: str, one_engine: Engine) -> None:
    for number in range(3):
        add_user(one_engine, f"ann{number}@example.com", profile=True)
    answer = ask(endpoints(database), USERS)
    told = answer.json()
    assert (answer.status_code, told["status"]) == (200, "healthy")
    assert told["profiles"] == {
        "total_auth_users": 3,
        "total_user_profiles": 3,
        "missing_profiles": 0,
        "sync_percentage": 100.0,
        "orphan_profiles": 0,
        "soft_deleted_users": 0,
        "exact": True,
    }
    assert told["trigger"] == {"present": True, "enabled": True, "unchanged": True}
    assert told["last_syncs"] == {
        "salesforce": dict.fromkeys(("complete_age_seconds", "failed", "watermark_age_seconds")),
        "profiles": dict.fromkeys(("complete_age_seconds", "failed")),
    }
    del told["status"]
    assert all(value is None or isinstance(value, int | float) for value in leaves(told))
    assert "example.com" not in answer.text


def test_the_last_sync_is_told_by_its_age(endpoints: Endpoints, database: str, one_engine: Engine) -> None:
    for minutes, outcome in ((90, "complete"), (30, "failed")):
        execute(
            one_engine,
            """
            INSERT INTO user_sync.sync_runs (run_id, org_id, mode, until, selected_fields, fetched_columns,
                                             started_by, outcome, started_at, finished_at)
            SELECT gen_random_uuid(), 'org', 'full', now(), '{}', '{}', 'test', :outcome, moment, moment
            FROM (SELECT now() - make_interval(mins => :minutes) AS moment) AS past
            """,
            outcome=outcome,
            minutes=minutes,
        )
    app = endpoints(database)
    told = ask(app, USERS).json()["last_syncs"]["salesforce"]
    assert 5400 <= told["complete_age_seconds"] < 5700
    assert told["failed"] is True
    assert 'user_sync_last_run_failed{side="salesforce"} 1.0' in ask(app, "/metrics").text


def test_too_many_missing_profiles_are_a_fault(endpoints: Endpoints, database: str, one_engine: Engine) -> None:
    add_user(one_engine, "ann@example.com")
    answer = ask(endpoints(database), USERS)
    assert (answer.status_code, answer.json()["cause"]) == (503, "profiles_missing")
    assert answer.json()["profiles"]["missing_profiles"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("DROP TRIGGER on_auth_user_created ON auth.users", "trigger_missing"),
        ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", "trigger_disabled"),
        ("ALTER FUNCTION app_private.handle_new_auth_user() RESET lock_timeout", "trigger_changed"),
    ],
)
def test_a_trigger_that_makes_no_profiles_any_more_is_a_fault(
    endpoints: Endpoints, postgres_server: PostgresServer, migrated_database: str, statement: str, cause: str
) -> None:
    with psycopg.connect(postgres_server.url(make_url(migrated_database).database)) as connection:
        connection.execute(statement.encode())
    answer = ask(endpoints(migrated_database), USERS)
    assert (answer.status_code, answer.json()["cause"]) == (503, cause)


@pytest.mark.slow
def test_users_cannot_be_told_of_where_nothing_of_supabase_is(endpoints: Endpoints, empty_database: str) -> None:
    told = ask(endpoints(empty_database), USERS).json()
    assert (told["status"], told["profiles"], told["trigger"]) == ("unhealthy", None, None)
    settings = SupabaseSettings(database_url=empty_database)
    assert ask(endpoints(empty_database, supabase=settings), USERS).status_code == 503


def test_a_side_that_fails_does_not_hide_the_other(endpoints: Endpoints, database: str, one_engine: Engine) -> None:
    add_user(one_engine, "ann@example.com", profile=True)
    app = endpoints(NOBODY_LISTENS, supabase=SupabaseSettings(database_url=database))
    answer = ask(app, USERS)
    assert (answer.status_code, answer.json()["cause"]) == (503, "database_unreachable")
    assert answer.json()["profiles"]["total_auth_users"] == 1
    other = ask(endpoints(database, supabase=SupabaseSettings(database_url=NOBODY_LISTENS)), USERS).json()
    assert other["cause"] == "profiles_unreachable"
    assert other["last_syncs"]["salesforce"]["failed"] is None


@pytest.mark.slow
def test_a_statement_that_waits_too_long_is_given_up(
    endpoints: Endpoints, database: str, one_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_sync_pipeline.health.answers._COUNT_SECONDS", 1)
    app = endpoints(database)
    with one_engine.begin() as connection:
        connection.execute(text("LOCK TABLE user_profiles"))
        told = ask(app, USERS).json()
    assert told["cause"] == "profiles_slow"


def test_a_server_that_takes_a_connection_and_says_nothing_holds_nobody_up(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_sync_pipeline.health.answers.DATABASE_TIMES", Times(fresh=60, patience=0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = endpoints(f"postgresql://somebody:secret@127.0.0.1:{silent.getsockname()[1]}/postgres")
        answers = ask_at_once(app, "/health", 20)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["cause"] for answer in answers} == {"database_slow"}


def test_through_the_api_of_a_project_the_same_is_told_as_far_as_it_can_be_seen(
    endpoints: Endpoints,
    postgres_server: PostgresServer,
    authority: CertificateAuthority,
    database: str,
    one_engine: Engine,
) -> None:
    add_user(one_engine, "ann@example.com", profile=True)
    with supabase_on(postgres_server, make_url(database).database or "", authority) as project:
        settings = SupabaseSettings(project.url, project.keys.secret_key, None, str(authority.ca_file))
        told = ask(endpoints(database, supabase=settings), USERS).json()
        refused = ask(endpoints(database, supabase=replace(settings, service_role_key="sb_secret_x")), USERS).json()
    assert (told["status"], told["profiles"]["total_auth_users"], told["profiles"]["exact"]) == ("healthy", 1, True)
    assert told["trigger"] == {"present": True, "enabled": True, "unchanged": None}
    assert (refused["cause"], refused["profiles"]) == ("profiles_refused", None)


def test_the_token_opens_the_figures_about_users_and_nothing_else_does(endpoints: Endpoints, database: str) -> None:
    app = endpoints(database, token="right")
    for authorization in ("", "Bearer", "Bearer ", "Bearer wrong", "Bearer righ", "Basic right", "right"):
        answer = ask(app, USERS, authorization=authorization)
        assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert ask(app, USERS, authorization="Bearer right").status_code == 200
    assert ask(app, USERS, authorization="bearer  right").status_code == 200
    assert ask(app, "/health").status_code == ask(app, DASHBOARD).status_code == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via"])
def test_without_a_token_a_proxy_brings_nobody_to_the_figures(endpoints: Endpoints, database: str, header: str) -> None:
    app = endpoints(database)
    assert ask(app, USERS).status_code == 200
    assert ask(app, USERS, **{header: "203.0.113.7"}).status_code == 401
    assert "user_sync_auth_users" not in ask(app, "/metrics", **{header: "203.0.113.7"}).text


def test_the_dashboard_is_well_and_tells_how_old_the_assets_are(endpoints: Endpoints, database: str) -> None:
    answer = ask(endpoints(database), DASHBOARD)
    told = answer.json()
    ages = told.pop("asset_age_seconds")
    assert told.pop("age_seconds") >= 0
    assert (answer.status_code, told) == (
        200,
        {"status": "healthy", "webserver": True, "daemons": True, "code_location": True},
    )
    assert set(ages) == set(ASSETS)
    assert all(60 <= age < 360 for age in ages.values())


def without_daemon(answer: dict[str, Any]) -> None:
    answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"][0]["healthy"] = False


def without_an_asset(answer: dict[str, Any]) -> None:
    answer["data"]["assetNodes"].pop()


@pytest.mark.parametrize(
    ("break_it", "cause"), [(without_daemon, "daemon_unhealthy"), (without_an_asset, "code_location_unhealthy")]
)
def test_the_dashboard_names_what_is_not_well(
    endpoints: Endpoints,
    webserver: ScriptedWebserver,
    database: str,
    break_it: Callable[[dict[str, Any]], None],
    cause: str,
) -> None:
    break_it(webserver.answer)
    answer = ask(endpoints(database), DASHBOARD)
    assert (answer.status_code, answer.json()["cause"]) == (503, cause)
    assert answer.json()["webserver"] is True


@pytest.mark.parametrize(
    ("status", "content"), [(200, {"errors": ["ann@example.com"]}), (200, []), (500, {}), (302, {}), (404, {})]
)
def test_a_webserver_that_is_none_of_dagster_is_told_apart_without_its_words(
    endpoints: Endpoints, webserver: ScriptedWebserver, database: str, status: int, content: Any
) -> None:
    webserver.status, webserver.answer = status, content
    answer = ask(endpoints(database), DASHBOARD)
    assert (answer.status_code, answer.json()["cause"]) == (503, "webserver_refused")
    assert "example.com" not in answer.text


def test_a_webserver_that_is_not_there_is_a_cause(endpoints: Endpoints, database: str) -> None:
    answer = ask(endpoints(database, dagster_url="http://127.0.0.1:1"), DASHBOARD)
    assert (answer.status_code, answer.json()["cause"]) == (503, "webserver_unreachable")
    assert answer.json()["daemons"] is None


@pytest.mark.slow
def test_a_hundred_at_once_and_more_afterwards_cost_one_question(
    endpoints: Endpoints, webserver: ScriptedWebserver, database: str
) -> None:
    app = endpoints(database)
    answers = ask_at_once(app, DASHBOARD, 100) + ask_at_once(app, "/metrics", 20)
    assert {answer.status_code for answer in answers} == {200}
    assert webserver.asked == 1


def test_metrics_have_a_unit_and_a_meaning_each(
    endpoints: Endpoints, webserver: ScriptedWebserver, database: str, one_engine: Engine
) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    add_user(one_engine, "ann@example.com", profile=True)
    webserver.answer = healthy_answer(0)
    answer = ask(endpoints(database), "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert all(name.startswith("user_sync_") and family.documentation for name, family in families.items())
    assert families["user_sync_database_up"].samples[0].value == 1
    assert families["user_sync_auth_users"].samples[0].value == 1
    assert families["user_sync_sync_percentage"].samples[0].value == 100
    assert {sample.labels["asset"] for sample in families["user_sync_asset_age_seconds"].samples} == set(ASSETS)
    assert families["user_sync_last_complete_age_seconds"].samples == []
    assert "python_info" not in families


def test_metrics_answer_also_when_everything_is_sick_and_keep_users_for_the_token(endpoints: Endpoints) -> None:
    app = endpoints(NOBODY_LISTENS, token="right", dagster_url="http://127.0.0.1:1")
    answer = ask(app, "/metrics")
    assert answer.status_code == 200
    assert "user_sync_database_up 0.0" in answer.text
    assert "user_sync_dagster_webserver_up 0.0" in answer.text
    assert "user_sync_users_healthy" not in answer.text
    assert "user_sync_users_healthy 0.0" in ask(app, "/metrics", authorization="Bearer right").text


def test_metrics_speak_open_metrics_to_those_who_do(endpoints: Endpoints, database: str) -> None:
    answer = ask(endpoints(database), "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/health", USERS, DASHBOARD, "/metrics"])
def test_every_path_takes_head_and_refuses_the_rest_in_json(endpoints: Endpoints, database: str, path: str) -> None:
    app = endpoints(database)
    assert ask(app, path, "HEAD").status_code == 200
    refused = ask(app, path, "POST")
    assert (refused.status_code, refused.json()) == (405, {"error": "method_not_allowed"})
    assert "GET" in refused.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/health/", "/nowhere", "/admin/users"])
def test_what_is_nowhere_is_said_in_json(endpoints: Endpoints, database: str, path: str) -> None:
    answer = ask(endpoints(database), path)
    assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})


def test_nothing_that_is_wrong_anywhere_shows_a_host_a_name_or_a_password(
    endpoints: Endpoints, postgres_server: PostgresServer
) -> None:
    app = endpoints(role_url(postgres_server, "no_such_database"), dagster_url="http://127.0.0.1:1")
    said = "".join(ask(app, path).text for path in ("/health", USERS, DASHBOARD, "/metrics"))
    for secret in ("127.0.0.1", "localhost", "no_such_database", "password-of", "postgres:", "postgresql"):
        assert secret not in said
    assert json.loads(ask(app, "/health").text)["cause"] == "database_refused"
