"""Counting over HTTP where the server's answers are odd: totals that do not fit, users that it cannot show."""

from __future__ import annotations

import random
from collections.abc import Iterator

import httpx
import pytest

from user_sync_pipeline.core.errors import ConfigurationError, UnreachableError
from user_sync_pipeline.core.profiles import supabase_census
from user_sync_pipeline.core.profiles.report import format_status
from user_sync_pipeline.core.profiles.supabase_census import READINGS, every_user
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline_tests.core.profiles.changing_project import (
    KEY,
    URL,
    ChangingProject,
    Figures,
    Unrest,
    answered_by,
)

# Requests that a page with one unreadable user on it costs at most.
PARTS_OF_A_PAGE = 25


@pytest.fixture(scope="module")
def directory() -> Iterator[SupabaseDirectory]:
    with SupabaseDirectory(URL, KEY) as directory:
        yield directory


def project_of(users: int, *, tells_totals: bool = True, total_is_off_by: int = 0) -> ChangingProject:
    return ChangingProject(
        random.Random(1),  # noqa: S311
        users=users,
        unrest=Unrest(),
        tells_totals=tells_totals,
        total_is_off_by=total_is_off_by,
        max_rows=1000,
    )


def turn_odd(project: ChangingProject, *positions: int) -> None:
    """Make the users at these positions, the oldest first, unreadable."""
    by_creation = sorted(project.users.values(), key=lambda user: user.created_at)
    for position in positions:
        by_creation[position - 1].is_unreadable = True


@pytest.mark.parametrize(
    ("tells_totals", "off_by", "exactness", "margin"),
    [(True, 0, "exact", 0), (True, 2, "bounded", 2), (True, -2, "unknown", None), (False, 0, "unknown", None)],
)
def test_a_count_is_called_exact_only_when_the_server_s_total_agrees(
    directory: SupabaseDirectory, tells_totals: bool, off_by: int, exactness: str, margin: int | None
) -> None:
    project = project_of(30, tells_totals=tells_totals, total_is_off_by=off_by)
    with answered_by(project.answer):
        status = directory.status()

    assert Figures.of(status) == project.figures()
    assert (status.method, status.exactness, status.margin) == ("api", exactness, margin)


def test_users_who_cannot_be_shown_cost_only_themselves_and_are_named_by_their_position(
    directory: SupabaseDirectory,
) -> None:
    project = project_of(1500)
    turn_odd(project, 17, 1200)
    with answered_by(project.answer):
        status = directory.status()

    assert (status.exactness, status.margin, status.unreadable_positions) == ("bounded", 2, (17, 1200))
    assert status.total_auth_users + status.soft_deleted_users == 1498
    lines = format_status(status, verbose=True).splitlines()
    assert "Exactness:            bounded (± 2)" in lines
    assert "Unreadable Users:     2 (by creation, number 17, 1200)" in lines
    passes = 2
    assert project.requests <= 10 + passes * (3 + 2 * PARTS_OF_A_PAGE + 3)


def test_the_only_user_cannot_be_shown(directory: SupabaseDirectory) -> None:
    project = project_of(1)
    turn_odd(project, 1)
    with answered_by(project.answer):
        status = directory.status()

    assert (status.total_auth_users, status.exactness, status.margin) == (0, "bounded", 1)


@pytest.mark.slow
def test_an_import_of_users_whom_nobody_can_read_is_not_taken_apart_for_ever(
    directory: SupabaseDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supabase_census, "MAX_BROKEN_PAGES", 20)
    project = project_of(1400)
    turn_odd(project, *range(1, 901))
    with answered_by(project.answer):
        status = directory.status()

    assert status.exactness == "bounded"
    assert status.margin is not None
    assert status.margin >= 900
    assert project.requests <= len(READINGS) * 5 * 20


def test_a_list_without_a_single_readable_user_names_the_way_out(
    directory: SupabaseDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supabase_census, "MAX_BROKEN_PAGES", 20)
    project = project_of(1400)
    turn_odd(project, *range(1, 1401))
    with answered_by(project.answer), pytest.raises(ConfigurationError, match="set SUPABASE_DB_URL"):
        directory.status()


def test_a_server_that_breaks_down_is_not_taken_for_odd_users(directory: SupabaseDirectory) -> None:
    def break_down(request: httpx.Request) -> httpx.Response:
        if "/rpc/" in request.url.path:
            return httpx.Response(404, json={"code": "PGRST202", "message": "", "details": None, "hint": None})
        return httpx.Response(500, json={"code": 500, "msg": "Unexpected failure"})

    with answered_by(break_down), pytest.raises(UnreachableError, match="HTTP 500"):
        directory.status()


def test_a_sync_creates_also_for_those_whom_the_first_pass_skipped(directory: SupabaseDirectory) -> None:
    """Users made at the same moment come in another order each time, so that a single pass skips some of them."""
    project = ChangingProject(random.Random(1), users=1500, unrest=Unrest(), ties=0.999)  # noqa: S311
    with answered_by(project.answer):
        users = [user.id for user in every_user(directory._client)]

    assert len(users) == len(set(users))
    assert set(users) == project.users.keys()
