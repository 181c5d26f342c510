"""The people of the sandbox: the same every time, in the promised proportions, plausible one by one."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from user_sync_pipeline.sandbox import sample_people
from user_sync_pipeline.sandbox.sample_people import Person, people

UNTIL = datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=UTC)
COUNT = 5000


@pytest.fixture(scope="module")
def crowd() -> list[Person]:
    return people(COUNT, seed=7, until=UNTIL)


def share(crowd: list[Person]) -> float:
    return len(crowd) / COUNT


def test_the_same_seed_and_moment_tell_the_same_story_and_more_people_begin_with_the_same(crowd: list[Person]) -> None:
    assert people(600, seed=7, until=UNTIL) == crowd[:600]
    assert people(600, seed=8, until=UNTIL) != crowd[:600]
    assert people(0, seed=7, until=UNTIL) == []


def test_people_are_numbered_and_can_be_told_apart_by_username(crowd: list[Person]) -> None:
    assert [person.number for person in crowd] == list(range(1, COUNT + 1))
    assert len({person.username for person in crowd}) == COUNT
    assert all(len(person.username) <= 80 and person.username.isascii() for person in crowd)


def test_every_address_ends_in_a_domain_that_belongs_to_nobody(crowd: list[Person]) -> None:
    assert {person.email.rpartition("@")[2] for person in crowd} == {"example.com", "example.org"}
    assert all(person.email == person.email.lower() for person in crowd)
    assert all(person.username.endswith("@users.example.com") for person in crowd)


def test_a_handful_share_an_email_and_only_one_of_each_pair_can_sign_in(crowd: list[Person]) -> None:
    shared = [email for email, count in Counter(person.email for person in crowd).items() if count > 1]
    assert len(shared) == COUNT // sample_people.SHARED_EMAIL_EVERY
    sign_ins = Counter(person.email for person in crowd if person.auth_user_id)
    assert max(sign_ins.values()) == 1


def test_the_proportions_are_the_documented_ones(crowd: list[Person]) -> None:
    active = [person for person in crowd if person.is_active]
    inactive = [person for person in crowd if not person.is_active]
    signing_in = [person for person in crowd if person.auth_user_id]
    assert share(inactive) == pytest.approx(sample_people.INACTIVE_SHARE, abs=0.02)
    active_share = sum(person.auth_user_id is not None for person in active) / len(active)
    assert active_share == pytest.approx(sample_people.ACTIVE_WITH_SIGN_IN_SHARE, abs=0.01)
    assert 1 <= sum(person.auth_user_id is not None for person in inactive) <= 40
    with_external_id = sum(person.has_external_id for person in signing_in) / len(signing_in)
    assert with_external_id == pytest.approx(sample_people.EXTERNAL_ID_SHARE, abs=0.02)
    without_address = [person for person in crowd if person.address is None]
    assert share(without_address) == pytest.approx(sample_people.WITHOUT_ADDRESS_SHARE, abs=0.02)
    assert set(sample_people.USER_TYPES) == {person.user_type for person in crowd}


def test_the_external_id_is_the_id_of_the_auth_user_or_nothing(crowd: list[Person]) -> None:
    assert all(person.external_id in (None, str(person.auth_user_id)) for person in crowd)
    assert all(person.external_id is None for person in crowd if person.auth_user_id is None)
    ids = [person.auth_user_id for person in crowd if person.auth_user_id]
    assert len(set(ids)) == len(ids)
    assert {auth_user_id.version for auth_user_id in ids} == {4}


def test_history_is_in_order_and_older_than_a_day(crowd: list[Person]) -> None:
    quiet_since = UNTIL - timedelta(days=1)
    for person in crowd:
        assert person.created <= person.last_modified <= person.system_modstamp <= quiet_since
        assert person.created <= (person.last_login or UNTIL) <= UNTIL
        assert person.system_modstamp.microsecond == 0
    oldest = min(person.created for person in crowd)
    assert timedelta(days=3 * 365 - 30) < UNTIL - oldest < timedelta(days=3 * 365 + 2)
    recent = [person for person in crowd if person.system_modstamp > UNTIL - timedelta(days=90)]
    assert share(recent) > 0.4


def test_many_share_the_moment_of_a_data_load(crowd: list[Person]) -> None:
    [(_, times)] = Counter(person.system_modstamp for person in crowd).most_common(1)
    assert times / COUNT == pytest.approx(sample_people.DATA_LOAD_SHARE, abs=0.01)


def test_managers_are_earlier_people(crowd: list[Person]) -> None:
    assert crowd[0].manager is None
    managers = [(person.number, person.manager) for person in crowd if person.manager is not None]
    assert all(1 <= manager < number for number, manager in managers)
    assert share([person for person in crowd if person.manager]) > 0.9


def test_names_and_addresses_hold_what_breaks_careless_code(crowd: list[Person]) -> None:
    assert any(not person.name.isascii() for person in crowd)
    streets = [person.address.street or "" for person in crowd if person.address]
    assert any("\r\n" in street for street in streets)
    assert any(street == "" for street in streets)
    assert any('"' in person.company and "," not in person.company for person in crowd)


def test_locale_time_zone_and_country_agree(crowd: list[Person]) -> None:
    zones = {"US": "America/", "GB": "Europe/London", "FR": "Europe/Paris", "DE": "Europe/Berlin"}
    for person in crowd:
        if person.address and person.address.country_code:
            assert person.locale.endswith(person.address.country_code)
            assert person.time_zone.startswith(zones[person.address.country_code])
