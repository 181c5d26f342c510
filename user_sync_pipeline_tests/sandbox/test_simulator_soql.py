"""SOQL in the simulator: what queries find, compared with plain Python, and how bad ones are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_sync_pipeline.sandbox.salesforce.clock import VirtualClock, wire_time
from user_sync_pipeline.sandbox.salesforce.errors import ApiError
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline.sandbox.salesforce.org import Org
from user_sync_pipeline.sandbox.salesforce.soql import parse
from user_sync_pipeline.sandbox.sample_people import Person, people

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
PEOPLE = people(80, seed=11, until=UNTIL)
ORG = Org(PEOPLE, seed=11, clock=VirtualClock())
STAMPS = sorted({person.system_modstamp for person in PEOPLE})

Predicate = Callable[[Person], bool]
Condition = tuple[str, Predicate]


def found(soql: str, org: Org = ORG) -> list[int]:
    """Return the numbers of the people that a query finds, in its order."""
    return [user.person.number for user in org.find(parse(soql))]


def expected(predicate: Predicate) -> list[int]:
    """Return the numbers of those people, in sync order."""
    in_order = sorted(PEOPLE, key=lambda person: (person.system_modstamp, id_of(person)))
    return [person.number for person in in_order if predicate(person)]


def id_of(person: Person) -> str:
    return salesforce_id("005", person.number)


def literal(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# -- Conditions and what they mean, side by side ----------------------------------------------------------------

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    **ORDERINGS,
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<>": lambda left, right: left != right,
}
TITLES = sorted({person.title for person in PEOPLE})
operators = st.sampled_from(sorted(COMPARISONS))
numbers = st.integers(1, len(PEOPLE))


def _stamp(operator: str, number: int, seconds: int) -> Condition:
    """Compare with the stamp of somebody, or with the second before or after it."""
    compare = COMPARISONS[operator]
    moment = PEOPLE[number - 1].system_modstamp + timedelta(seconds=seconds)
    return f"SystemModstamp {operator} {literal(moment)}", lambda person: compare(person.system_modstamp, moment)


def _created(operator: str, number: int) -> Condition:
    compare, moment = COMPARISONS[operator], PEOPLE[number - 1].created
    return f"createddate {operator} {literal(moment)}", lambda other: compare(other.created, moment)


def _id(operator: str, number: int) -> Condition:
    compare, user_id = COMPARISONS[operator], id_of(PEOPLE[number - 1])
    return f"Id {operator} '{user_id[:15]}'", lambda other: compare(id_of(other), user_id)


def _title(operator: str, title: str, shout: bool) -> Condition:
    compare = COMPARISONS[operator]
    text = quoted(title.upper() if shout else title)
    return f"Title {operator} {text}", lambda person: compare(person.title.lower(), title.lower())


def _titles(titles: list[str], negated: bool) -> Condition:
    text = f"Title {'NOT IN' if negated else 'IN'} ({', '.join(map(quoted, titles))})"
    return text, lambda person: (person.title in titles) != negated


def _like(prefix: str) -> Condition:
    return f"LastName LIKE '{prefix}%'", lambda person: person.last_name.lower().startswith(prefix)


def _mobile(operator: str, value: str | None) -> Condition:
    compare = COMPARISONS[operator]
    text = "null" if value is None else quoted(value)
    return f"MobilePhone {operator} {text}", lambda person: compare(person.mobile_phone, value)


def _mobile_order(operator: str, value: str) -> Condition:
    compare = ORDERINGS[operator]
    return (
        f"MobilePhone {operator} {quoted(value)}",
        lambda person: person.mobile_phone is not None and compare(person.mobile_phone, value),
    )


mobiles = st.sampled_from([person.mobile_phone for person in PEOPLE if person.mobile_phone])
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(_stamp, operators, numbers, st.integers(-1, 1)),
    st.builds(_created, operators, numbers),
    st.builds(_id, operators, numbers),
    st.builds(_title, operators, st.sampled_from(TITLES), st.booleans()),
    st.builds(_titles, st.lists(st.sampled_from(TITLES), min_size=1, max_size=4), st.booleans()),
    st.builds(_like, st.sampled_from("abdlmrs")),
    st.builds(_mobile, st.sampled_from(["=", "!="]), st.none() | mobiles),
    st.builds(_mobile_order, st.sampled_from(sorted(ORDERINGS)), mobiles),
    st.sampled_from([("IsActive = TRUE", lambda person: person.is_active)]),
    st.sampled_from([("IsActive != true", lambda person: not person.is_active)]),
)


def _negation(part: Condition) -> Condition:
    text, holds = part
    return f"NOT ({text})", lambda person: not holds(person)


def _group(parts: list[Condition], word: str) -> Condition:
    together = all if word == "AND" else any
    return (
        f" {word} ".join(f"({text})" for text, _ in parts),
        lambda person: together(holds(person) for _, holds in parts),
    )


conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(_negation, inner),
        st.builds(_group, st.lists(inner, min_size=2, max_size=3), st.sampled_from(["AND", "OR"])),
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(deadline=None)
@given(conditions)
def test_where_means_what_python_means(condition: Condition) -> None:
    text, holds = condition
    soql = f"SELECT Id FROM User WHERE {text} ORDER BY SystemModstamp, Id"
    assert found(soql) == expected(holds)
    assert ORG.count(parse(f"SELECT COUNT() FROM User WHERE {text}")) == len(expected(holds))


@pytest.mark.slow
@settings(deadline=None)
@given(conditions, st.integers(0, 90), st.integers(0, 90))
def test_limit_and_offset_cut_a_piece_out_of_the_ordered_result(condition: Condition, limit: int, offset: int) -> None:
    text, holds = condition
    soql = f"FROM User WHERE {text} ORDER BY SystemModstamp ASC, Id ASC LIMIT {limit} OFFSET {offset}"
    piece = expected(holds)[offset : offset + limit]
    assert found(f"SELECT Id {soql}") == piece
    assert ORG.count(parse(f"SELECT COUNT() {soql}")) == len(piece)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 30), st.sampled_from(STAMPS))
def test_paging_by_the_last_key_reads_every_user_once(page: int, since: datetime) -> None:
    read: list[int] = []
    condition = f"SystemModstamp >= {literal(since)}"
    while keys := ORG.find(parse(f"SELECT Id FROM User WHERE {condition} ORDER BY SystemModstamp, Id LIMIT {page}")):
        read += [user.person.number for user in keys]
        stamp, last = keys[-1].stamp.replace("+0000", "Z"), keys[-1].id
        condition = f"(SystemModstamp = {stamp} AND Id > '{last}') OR SystemModstamp > {stamp}"
    assert read == expected(lambda person: person.system_modstamp >= since)


# -- Order ------------------------------------------------------------------------------------------------------


def test_without_order_users_come_by_id_not_in_the_order_that_a_sync_needs() -> None:
    assert found("SELECT Id FROM User") == [person.number for person in PEOPLE]
    assert expected(lambda _: True) != [person.number for person in PEOPLE]


@pytest.mark.parametrize(
    ("suffix", "nulls", "backwards"),
    [
        ("", "first", False),
        (" DESC", "first", True),
        (" NULLS LAST", "last", False),
        (" desc nulls last", "last", True),
    ],
)
def test_null_comes_first_unless_the_query_says_otherwise(suffix: str, nulls: str, backwards: bool) -> None:
    by_number = {person.number: person.mobile_phone for person in PEOPLE}
    phones = [by_number[number] for number in found(f"SELECT Id FROM User ORDER BY MobilePhone{suffix}, Id")]
    without = sum(phone is None for phone in phones)
    ends = phones[:without] if nulls == "first" else phones[-without:]
    assert ends == [None] * without
    present = [phone for phone in phones if phone]
    assert present == sorted(present, reverse=backwards)


def test_several_keys_order_one_within_the_other() -> None:
    keyed = sorted(PEOPLE, key=lambda person: person.created, reverse=True)
    keyed.sort(key=lambda person: person.title.lower())
    assert found("SELECT Id FROM User ORDER BY Title, CreatedDate DESC") == [person.number for person in keyed]


# -- Names, literals, parents -----------------------------------------------------------------------------------


def test_names_and_keywords_are_understood_in_any_case_and_layout() -> None:
    assert found(
        "select ID,\n\tuser.username from USER where ISACTIVE=true order   by systemmodstamp , iD"
    ) == expected(lambda person: person.is_active)


def test_moments_are_compared_as_moments_whatever_their_zone() -> None:
    moment = STAMPS[40]
    for text in (
        literal(moment),
        moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        (moment + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00"),
        (moment - timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S-0530"),
    ):
        assert found(f"SELECT Id FROM User WHERE SystemModstamp = {text} ORDER BY SystemModstamp, Id") == expected(
            lambda person: person.system_modstamp == moment
        )


def test_dates_numbers_and_codes_have_literals_of_their_own() -> None:
    day = PEOPLE[9].created.date()
    by_id = [person.number for person in PEOPLE if person.created.date() < day]
    assert found(f"SELECT Id FROM User WHERE Start_Date__c < {day}") == by_id
    assert found("SELECT Id FROM User WHERE Grade__c >= 4.5") == [
        person.number for person in PEOPLE if 1 + (person.number % 9) / 2 >= 4.5
    ]


def test_conditions_reach_through_to_parents() -> None:
    managers = {person.number: person for person in PEOPLE}
    lead = managers[1]
    assert found(f"SELECT Id FROM User WHERE Manager.Username = {quoted(lead.username)}") == [
        person.number for person in PEOPLE if person.manager == 1
    ]
    assert found("SELECT Id FROM User WHERE Manager.Name = null") == [
        person.number for person in PEOPLE if person.manager is None
    ]


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("O'Neill \\ 50%_x", r"O\'Neill%", True),
        ("O'Neill \\ 50%_x", r"%50\%\_x", True),
        ("O'Neill \\ 50%_x", r"%\\ 50%", True),
        ("O'Neill 50 percent", r"%50\%%", False),
        ("Åse", "_se", True),
        ("Åse", "åSE", True),
        ("Ase.", "Ase_", True),
        ("Asex", "Ase.", False),
        ("two\nlines", "two%lines", True),
    ],
)
def test_like_knows_its_wildcards_and_escapes(name: str, pattern: str, matches: bool) -> None:
    org = Org((), seed=1, clock=VirtualClock())
    org.add_user(LastName=name)
    assert bool(org.find(parse(f"SELECT Id FROM User WHERE LastName LIKE '{pattern}'"))) is matches


@pytest.mark.parametrize("text", ["it's", 'say "hi"', "back\\slash", "for view", "line\nbreak", "é\u2028ø", "( , )"])
def test_strings_hold_anything_that_is_escaped(text: str) -> None:
    org = Org((), seed=1, clock=VirtualClock())
    org.add_user(LastName=text)
    assert org.find(parse(f"SELECT Id FROM User WHERE LastName = {quoted(text)}"))
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    assert org.find(parse(f"SELECT Id FROM User WHERE LastName = '{escaped}'"))


def test_ids_are_compared_in_both_lengths_and_with_regard_to_case() -> None:
    user_id = id_of(PEOPLE[40])
    assert found(f"SELECT Id FROM User WHERE Id IN ('{user_id}', '{user_id[:15]}')") == [41]
    assert found(f"SELECT Id FROM User WHERE Id = '{user_id[:15].swapcase()}'") == []


def test_a_changed_value_is_the_one_that_is_found() -> None:
    clock = VirtualClock()
    clock.set(UNTIL)
    org = Org(PEOPLE, seed=11, clock=clock)
    org.update_user(id_of(PEOPLE[4]), Title="Lighthouse Keeper", MobilePhone=None)
    assert found("SELECT Id FROM User WHERE Title = 'lighthouse keeper' AND MobilePhone = null", org) == [5]
    assert found(f"SELECT Id FROM User WHERE SystemModstamp >= {literal(UNTIL)}", org) == [5]
    assert found("SELECT Id FROM User ORDER BY SystemModstamp, Id", org)[-1] == 5
    assert org.users.ordered[-1].stamp == wire_time(UNTIL)


# -- Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FORM User", "MALFORMED_QUERY", "Column:11\nunexpected token: 'FORM'"),
        ("SELECT Id, FROM User", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("SELECT * FROM User", "MALFORMED_QUERY", "Column:8\nunexpected character '*'"),
        ("SELECT Id FROM User WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM User WHERE Name = 'x", "MALFORMED_QUERY", "unexpected character"),
        ("SELECT Id FROM User WHERE Name = 'a\\qb'", "MALFORMED_QUERY", "Illegal string literal"),
        ("SELECT Id FROM User WHERE Name ~ 'x'", "MALFORMED_QUERY", "unexpected character '~'"),
        ("SELECT Id FROM User WHERE CreatedDate > 2026-02-30T00:00:00Z", "MALFORMED_QUERY", "day"),
        ("SELECT Id FROM User WHERE Id = '1' AND Name = 'x' OR Name = 'y'", "MALFORMED_QUERY", "'OR'"),
        ("SELECT Id FROM User LIMIT -1", "MALFORMED_QUERY", "unexpected token: '-1'"),
        ("SELECT Id, id FROM User", "MALFORMED_QUERY", "duplicate field selected: id"),
        ("SELECT Id FROM User FOR VIEW", "MALFORMED_QUERY", "unexpected token: 'FOR'"),
        ("SELECT Id FROM User FOR UPDATE", "MALFORMED_QUERY", "unexpected token: 'FOR'"),
        ("SELECT Id FROM User UPDATE TRACKING", "MALFORMED_QUERY", "unexpected token: 'UPDATE'"),
        ("SELECT (SELECT Id FROM Contacts) FROM User", "MALFORMED_QUERY", "unexpected token: '('"),
        ("SELECT Id FROM User OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "offset allowed is 2000"),
        ("SELECT Id FROM User WHERE Name = '" + "x" * 4001 + "'", "MALFORMED_QUERY", "4000 characters"),
        ("SELECT Shoe__c FROM User", "INVALID_FIELD", "No such column 'Shoe__c' on entity 'User'"),
        ("SELECT Id FROM User WHERE IsDeleted = false", "INVALID_FIELD", "Column:27\nNo such column 'IsDeleted'"),
        ("SELECT Id FROM User ORDER BY Shoe__c", "INVALID_FIELD", "No such column 'Shoe__c'"),
        ("SELECT Boss.Name FROM User", "INVALID_FIELD", "Didn't understand relationship 'Boss'"),
        ("SELECT Profile.Email FROM User", "INVALID_FIELD", "No such column 'Email' on entity 'Profile'"),
        ("SELECT Id FROM User WHERE Address = 'x'", "INVALID_FIELD", "can not be filtered"),
        ("SELECT Id FROM User WHERE CreatedDate > '2026-01-01T00:00:00Z'", "INVALID_FIELD", "must be of type dateTime"),
        ("SELECT Id FROM User WHERE SystemModstamp > 2026-01-01", "INVALID_FIELD", "must be of type dateTime"),
        ("SELECT Id FROM User WHERE IsActive = 'true'", "INVALID_FIELD", "must be of type boolean"),
        ("SELECT Id FROM User WHERE Name = 5", "INVALID_FIELD", "should be enclosed in quotes"),
        ("SELECT Id FROM User WHERE Id LIKE '005%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator on id field"),
        ("SELECT Id FROM User WHERE ManagerId = 'nobody'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: nobody"),
    ],
)
def test_a_bad_query_is_refused_with_code_place_and_reason(soql: str, code: str, message: str) -> None:
    def ask() -> None:
        query = parse(soql)
        ORG.find(query)
        ORG.writer("66.0", query)

    with pytest.raises(ApiError) as caught:
        ask()
    assert (caught.value.status, caught.value.code) == (400, code)
    assert message in caught.value.message


def test_a_statement_has_a_longest_length() -> None:
    with pytest.raises(ApiError, match=re.escape("100000")):
        parse("SELECT Id FROM User".ljust(100_001))


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["", "SELECT Id FROM User WHERE Name = '", "SELECT Id FROM User "]))
def test_no_text_whatever_breaks_the_parser(text: str, beginning: str) -> None:
    with suppress(ApiError):
        parse(beginning + text)
