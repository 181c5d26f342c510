"""Made-up projects that change while the Supabase door counts them: it never calls a wrong number exact.

Each seed is one project. What a report says is held against everything that was true while it was made: `exact` means
that all figures together were true at one moment, `bounded` that at one moment none was off by more than the margin.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from user_sync_pipeline.core.profiles import supabase_census
from user_sync_pipeline.core.profiles.report import ProfileStatus
from user_sync_pipeline.core.profiles.supabase_census import Reading, _Sightings, _Totals
from user_sync_pipeline.core.profiles.supabase_directory import SupabaseDirectory
from user_sync_pipeline_tests.core.profiles.changing_project import (
    KEY,
    URL,
    ChangingProject,
    Figures,
    Unrest,
    answered_by,
)

# The readings of the product, with pages so small that few users fill many.
READINGS = tuple(Reading(size, oldest_first) for size in (10, 8, 6) for oldest_first in (True, False))
UNRESTS = (
    Unrest(),
    Unrest(changes=1, chance=0.01),
    Unrest(changes=1, chance=0.05),
    Unrest(changes=2, chance=0.2),
    Unrest(changes=3, chance=0.7),
)
FEW, MANY = 10, 250


@pytest.fixture(scope="module")
def directory() -> Iterator[SupabaseDirectory]:
    with pytest.MonkeyPatch.context() as patched, SupabaseDirectory(URL, KEY) as directory:
        patched.setattr(supabase_census, "READINGS", READINGS)
        yield directory


def simulate(directory: SupabaseDirectory, seed: int) -> tuple[ProfileStatus, ChangingProject]:
    """Count the project of a seed while it changes."""
    randomness = random.Random(seed)  # noqa: S311
    project = ChangingProject(
        randomness,
        users=randomness.choice([0, 1, 5, 20, 40, 60]),
        unrest=randomness.choice(UNRESTS),
        ties=randomness.choice([0.0, 0.0, 0.5, 0.9]),
        unreadable=randomness.choice([0, 0, 0, 1, 3]),
        tells_totals=randomness.random() < 0.95,
    )
    with answered_by(project.answer):
        return directory.status(), project


def verdict(status: ProfileStatus, project: ChangingProject) -> str:
    """Hold a report against what was true; returns its word, marked where there was something to get wrong."""
    claimed = Figures.of(status)
    off_by = [max(abs(a - b) for a, b in zip(claimed, true, strict=True)) for true in project.history]
    if status.exactness == "exact":
        assert min(off_by) == 0, f"{claimed} was never true"
    if status.exactness == "bounded":
        assert status.margin is not None
        assert min(off_by) <= status.margin, f"{claimed} ± {status.margin} was never true"
    return f"{status.exactness}, {'while it changed' if len(project.history) > 1 else 'at rest'}"


def play(directory: SupabaseDirectory, seeds: range) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    for seed in seeds:
        try:
            verdicts[verdict(*simulate(directory, seed))] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return verdicts


@pytest.mark.slow
def test_a_few_simulated_projects_are_never_called_exact_wrongly(directory: SupabaseDirectory) -> None:
    play(directory, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 4 * MANY, MANY))
def test_a_thousand_simulated_projects_are_never_called_exact_wrongly(
    directory: SupabaseDirectory, first_seed: int
) -> None:
    verdicts = play(directory, range(first_seed, first_seed + MANY))

    # Nothing is proven by a door that never dares to say exact, or by projects that keep still.
    assert verdicts["exact, while it changed"] >= 20, verdicts
    assert verdicts["exact, at rest"] >= 15, verdicts
    assert verdicts["bounded, while it changed"] >= 25, verdicts
    assert verdicts["unknown, at rest"] + verdicts["unknown, while it changed"] >= 5, verdicts


# Doors that are wrong: the simulations notice it. --------------------------------------------------------------------


def trust_the_last_pass(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(_Sightings, "around", lambda self, moment: _marks(self, lambda seen: seen.last > moment))


def trust_the_first_pass(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(_Sightings, "around", lambda self, moment: _marks(self, lambda seen: seen.first <= moment))


def overlook_soft_deletions(patched: pytest.MonkeyPatch) -> None:
    add_pass = _Sightings.add_pass
    patched.setattr(
        _Sightings,
        "add_pass",
        lambda self, seen: add_pass(
            self, ((key, mark._replace(deleted_at=None) if isinstance(mark, tuple) else mark) for key, mark in seen)
        ),
    )


def overlook_the_totals_of_users(patched: pytest.MonkeyPatch) -> None:
    margin = _Totals.margin
    patched.setattr(
        _Totals, "margin", lambda self, users, profiles: margin(self._replace(users=users), users, profiles)
    )


def overlook_the_totals_of_profiles(patched: pytest.MonkeyPatch) -> None:
    margin = _Totals.margin
    patched.setattr(
        _Totals,
        "margin",
        lambda self, users, profiles: margin(
            self._replace(profiles_before=profiles, profiles_after=profiles), users, profiles
        ),
    )


def _marks(sightings: Any, is_trusted: Callable[[Any], bool]) -> dict[Any, Any]:
    return {key: seen.mark for key, seen in sightings._seen.items() if is_trusted(seen)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_the_door", "within"),
    [
        (trust_the_last_pass, 50),
        (trust_the_first_pass, 100),
        (overlook_soft_deletions, 50),
        (overlook_the_totals_of_users, 50),
        (overlook_the_totals_of_profiles, 200),
    ],
)
def test_the_simulations_find_a_door_that_is_wrong(
    directory: SupabaseDirectory,
    monkeypatch: pytest.MonkeyPatch,
    break_the_door: Callable[[pytest.MonkeyPatch], None],
    within: int,
) -> None:
    break_the_door(monkeypatch)

    with pytest.raises(AssertionError, match="was never true"):
        play(directory, range(within))


# Single situations ---------------------------------------------------------------------------------------------------


def test_a_user_who_was_deleted_and_created_again_with_the_same_id_is_not_taken_for_the_former_one() -> None:
    sightings: _Sightings[str] = _Sightings()
    user_id = UUID(int=1)
    sightings.add_pass([(user_id, "created on Monday")])
    sightings.add_pass([(user_id, "created on Tuesday")])
    sightings.add_pass([(user_id, "created on Tuesday")])

    assert sightings.around(1) == {}
    assert sightings.around(2) == {user_id: "created on Tuesday"}
