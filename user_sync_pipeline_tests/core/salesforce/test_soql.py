"""Queries say exactly the window, and nothing but a plain SELECT leaves the house."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_sync_pipeline.core.errors import UsageError
from user_sync_pipeline.core.salesforce import soql
from user_sync_pipeline.core.salesforce.errors import NotReadOnlyError
from user_sync_pipeline.core.salesforce.fields import USER_FIELDS
from user_sync_pipeline.core.windows import SyncWindow

NAMES = [field.name for field in USER_FIELDS]
SINCE, UNTIL = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)

zones = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(timezone)
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=zones)


def is_sent(query: str) -> bool:
    try:
        soql.refuse_all_but_reading(query)
    except NotReadOnlyError:
        return False
    return True


def test_a_window_is_half_open_and_ordered() -> None:
    assert soql.select_users(["Id", "Name"], SyncWindow(SINCE, UNTIL)) == (
        "SELECT Id, Name FROM User WHERE SystemModstamp >= 2024-01-01T00:00:00.000Z "
        "AND SystemModstamp < 2024-02-01T00:00:00.000Z ORDER BY SystemModstamp, Id"
    )


def test_a_window_open_to_the_past_has_no_lower_bound() -> None:
    assert ">=" not in soql.select_users(["Id"], SyncWindow(None, UNTIL))


def test_a_limit_stands_at_the_end() -> None:
    assert soql.select_users(["Id"], SyncWindow(None, UNTIL), limit=7).endswith("ORDER BY SystemModstamp, Id LIMIT 7")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match="--limit"):
        soql.select_users(["Id"], SyncWindow(None, UNTIL), limit=limit)


def test_a_query_goes_on_behind_a_record_also_among_equal_moments() -> None:
    after = soql.Cursor(datetime(2024, 1, 7, 9, 30, 0, 123000, tzinfo=UTC), "0055g000001AbCdAAK")
    assert soql.select_users(["Id"], SyncWindow(SINCE, UNTIL), after=after) == (
        "SELECT Id FROM User WHERE SystemModstamp >= 2024-01-01T00:00:00.000Z "
        "AND SystemModstamp < 2024-02-01T00:00:00.000Z "
        "AND ((SystemModstamp = 2024-01-07T09:30:00.123Z AND Id > '0055g000001AbCdAAK') "
        "OR SystemModstamp > 2024-01-07T09:30:00.123Z) ORDER BY SystemModstamp, Id"
    )


def test_counts_take_a_window_a_date_of_creation_both_or_none() -> None:
    assert soql.count_users() == "SELECT COUNT() FROM User"
    assert soql.count_users(SyncWindow(None, UNTIL), created_before=SINCE) == (
        "SELECT COUNT() FROM User WHERE SystemModstamp < 2024-02-01T00:00:00.000Z "
        "AND CreatedDate < 2024-01-01T00:00:00.000Z"
    )


@given(moment=moments, milliseconds=st.integers(-3, 3))
def test_a_bound_means_the_same_in_soql(moment: datetime, milliseconds: int) -> None:
    """Salesforce keeps whole milliseconds; a stamp lies on the same side of the bound before and after rounding."""
    bound = datetime.fromisoformat(soql.moment_literal(moment))
    stamp = bound + timedelta(milliseconds=milliseconds)
    assert (stamp >= bound) == (stamp >= moment)


@pytest.mark.slow
@given(
    since=moments,
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=9000)),
    names=st.lists(st.sampled_from(NAMES), min_size=1),
    limit=st.none() | st.integers(1, 10**9),
)
def test_all_our_own_queries_pass(since: datetime, length: timedelta, names: list[str], limit: int | None) -> None:
    window = SyncWindow(since, since + length)
    for after in (None, soql.Cursor(since, "0055g000001AbCdAAK")):
        assert is_sent(soql.select_users(names, window, limit=limit, after=after))
    assert is_sent(soql.count_users(window, created_before=since))
    assert is_sent(soql.SELECT_ORGANIZATION_ID)


def corpus(name: str) -> list[str]:
    """Read one statement a line; `<U+000A>` stands for that character."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").split("\n")
    statements = [line for line in lines if line and not line.startswith("# ")]
    return [re.sub(r"<U\+([0-9A-F]{4,6})>", lambda found: chr(int(found[1], 16)), line) for line in statements]


HOSTILE, PLAIN = corpus("soql_corpus.txt"), corpus("soql_corpus_plain.txt")


@pytest.mark.parametrize("query", PLAIN)
def test_plain_reading_passes(query: str) -> None:
    assert is_sent(query)


SIDE_EFFECT = r"\b(for|update|view|viewstat|reference|tracking|rows|account)\b"
SIDE_EFFECTS = ["FOR VIEW", "FOR REFERENCE", "FOR UPDATE", "UPDATE TRACKING", "UPDATE VIEWSTAT", "ALL ROWS"]


@pytest.mark.parametrize("clause", SIDE_EFFECTS)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT Id FROM User {}",
        "SELECT Id FROM User WHERE Id = '0' {}",
        "SELECT Id FROM User WHERE (Id = '0' {})",
        "SELECT Id FROM User WHERE Id = 'a' {} AND Name = 'b'",
        "SELECT Id FROM User ORDER BY Id {}",
        "SELECT Id FROM User ORDER BY Id {} LIMIT 1",
        "SELECT Id FROM User LIMIT 1 {}",
        "SELECT Id FROM User LIMIT 1{}",
        "SELECT Id FROM User LIMIT 1 OFFSET 0 {}",
        "SELECT COUNT() FROM User {}",
        "{} SELECT Id FROM User",
        "SELECT Id {} FROM User",
    ],
)
def test_gotcha_38_clauses_with_side_effects_are_refused(query: str, clause: str) -> None:
    for spelling in (clause, clause.lower(), clause.title(), clause.replace(" ", "   ")):
        assert not is_sent(query.format(spelling))


@pytest.mark.parametrize("query", HOSTILE)
def test_every_hostile_statement_is_refused(query: str) -> None:
    assert not is_sent(query)


@pytest.mark.parametrize(
    "query", ["", " ", f"SELECT Id FROM User WHERE {'(' * 5000}Id = '0'{')' * 5000}", "SELECT Id FROM User" * 5000]
)
def test_everything_else_is_refused(query: str) -> None:
    assert not is_sent(query)


def test_a_refusal_does_not_repeat_the_query() -> None:
    with pytest.raises(NotReadOnlyError) as caught:
        soql.refuse_all_but_reading("SELECT Id FROM User WHERE Username = 'ann@example.com' FOR VIEW")
    assert "ann@example.com" not in str(caught.value)
    assert "character 56" in str(caught.value)


FRAGMENTS = st.sampled_from(
    [
        *("SELECT", "Id", "COUNT()", "FROM", "User", "Account", "WHERE", "Name", "=", "'a'", "'for view'", "NOT"),
        *("(", ")", "AND", "OR", "ORDER BY", "LIMIT", "OFFSET", "1", ",", "TYPEOF", "\u00a0", "/*", "\n", "'", "\\"),
        *SIDE_EFFECTS,
    ]
)


@given(st.lists(FRAGMENTS, max_size=14).map(" ".join) | st.text(max_size=60))
def test_what_passes_holds_no_clause_with_side_effects(query: str) -> None:
    if is_sent(query):
        bare = outside_strings(query)
        assert not re.search(r"\b(for|update|view\w*|reference|tracking|typeof|rows|account)\b", bare, re.IGNORECASE)
        assert bare.isascii()
        assert bare.upper().count("SELECT") == 1


def outside_strings(query: str) -> str:
    """What of a query is not inside a string, read by another rule than the parser's."""
    return re.sub(r"'(?:[^'\\]|\\.)*'", "''", query)


SEPARATORS = st.sampled_from(
    [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u200b", "\u3000", "/**/", "--\n", "+", "%20", ""]
)


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A clause with side effects in any case and spacing, now and then in wide letters."""
    words = draw(st.sampled_from(SIDE_EFFECTS)).split()
    text = draw(SEPARATORS).join(words)
    text = "".join(letter.lower() if draw(st.booleans()) else letter for letter in text)
    if draw(st.integers(0, 4)) == 0:
        text = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in text)
    return draw(SEPARATORS) + text + draw(SEPARATORS)


@pytest.mark.slow
@given(data=st.data(), clause=disguised(), query=st.sampled_from(PLAIN))
def test_no_plain_statement_passes_with_a_clause_put_into_it(data: st.DataObject, clause: str, query: str) -> None:
    place = data.draw(st.integers(0, len(query)))
    mutated = query[:place] + clause + query[place:]
    if outside_strings(mutated) != outside_strings(query) and is_sent(mutated):
        # Glued to a name it is part of that name, and read as one: `Id` and `IdFORVIEW`.
        assert re.fullmatch(r"\w+", clause.strip(" "), re.ASCII)
        assert not re.search(SIDE_EFFECT, outside_strings(mutated), re.IGNORECASE)


@given(data=st.data(), query=st.sampled_from(PLAIN), hostile=st.sampled_from(HOSTILE))
def test_no_splice_of_a_plain_and_a_hostile_statement_has_side_effects(
    data: st.DataObject, query: str, hostile: str
) -> None:
    head = query[: data.draw(st.integers(0, len(query)))]
    tail = hostile[data.draw(st.integers(0, len(hostile))) :]
    if is_sent(head + tail):
        assert not re.search(SIDE_EFFECT, outside_strings(head + tail), re.IGNORECASE)
        assert outside_strings(head + tail).isascii()
