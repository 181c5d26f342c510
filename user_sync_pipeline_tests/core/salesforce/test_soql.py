"""Queries say exactly the window, and nothing but a plain SELECT leaves the house."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

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


@given(
    since=moments,
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=9000)),
    names=st.lists(st.sampled_from(NAMES), min_size=1),
    limit=st.none() | st.integers(1, 10**9),
)
def test_all_our_own_queries_pass(since: datetime, length: timedelta, names: list[str], limit: int | None) -> None:
    window = SyncWindow(since, since + length)
    assert is_sent(soql.select_users(names, window, limit=limit))
    assert is_sent(soql.count_users(window, created_before=since))
    assert is_sent(soql.SELECT_ORGANIZATION_ID)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT Id FROM User WHERE Name = '… for view'",
        "SELECT Id FROM User WHERE Name = 'x FOR UPDATE' LIMIT 1",
        r"SELECT Id FROM User WHERE Name = 'it\'s UPDATE VIEWSTAT'",
        "SELECT Id FROM User WHERE Title = ''",
        "select id from User where (IsActive = true or not Division = null) and NumberOfLogins >= -1.5",
        "SELECT Id FROM User ORDER BY Name ASC, Id DESC LIMIT 5 OFFSET 10",
        "SELECT COUNT() FROM User",
    ],
)
def test_plain_reading_passes(query: str) -> None:
    assert is_sent(query)


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
def test_clauses_with_side_effects_are_refused(query: str, clause: str) -> None:
    for spelling in (clause, clause.lower(), clause.title(), clause.replace(" ", "   ")):
        assert not is_sent(query.format(spelling))


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "SELECT",
        "SELECT Id FROM",
        "SELECT Id FROM Account",
        "SELECT Id FROM user",
        "SELECT Id FROM UserLogin",
        "SELECT Id FROM User, Account",
        "SELECT Id FROM User u",
        "SELECT Id FROM User USING SCOPE mine",
        "SELECT Id FROM User WITH SECURITY_ENFORCED",
        "SELECT Id FROM User GROUP BY Id",
        "SELECT (SELECT Id FROM Contacts) FROM User",
        "SELECT Id FROM User WHERE Id IN (SELECT OwnerId FROM Account)",
        "SELECT TYPEOF Manager WHEN User THEN Id END FROM User",
        "SELECT FIELDS(ALL) FROM User",
        "SELECT Profile.Name FROM User",
        "SELECT MAX(Id) FROM User",
        "SELECT COUNT(Id) FROM User",
        "SELECT *, FROM User",
        "FIND {ann} IN ALL FIELDS RETURNING User",
        "DELETE FROM User",
        "UPDATE User SET Name = 'x'",
        "SELECT Id FROM User; DELETE FROM User",
        "SELECT Id FROM User -- FOR VIEW",
        "SELECT Id FROM User // FOR VIEW",
        "SELECT Id FROM User /* FOR VIEW */",
        "SELECT Id FROM User/**/FOR/**/VIEW",
        "SELECT Id FROM User\nFOR VIEW",
        "SELECT Id FROM User\tFOR VIEW",
        "SELECT Id FROM User\u00a0FOR\u00a0VIEW",
        "SELECT Id FROM User \uff26\uff2f\uff32 \uff36\uff29\uff25\uff37",
        "SELECT Id FROM User F\u200bOR VIEW",
        "SELECT Id FROM User FOR VI\u0415W",
        "SELECT Id FROM User WHERE Name = 'a\u202eWEIV ROF'",
        "SELECT Id FROM User WHERE Name = 'a' FOR VIEW'",
        "SELECT Id FROM User WHERE Name = \u2018a\u2019",
        r"SELECT Id FROM User WHERE Name = 'a\\' FOR VIEW",
        r"SELECT Id FROM User WHERE Name = 'a\u0027 FOR VIEW'",
        "SELECT Id FROM User WHERE Name = 'a",
        'SELECT Id FROM User WHERE Name = "a"',
        "SELECT Id FROM User WHERE Name = Title",
        "SELECT Id FROM User WHERE FOR = 1",
        "SELECT VIEW FROM User",
        "SELECT Id FROM User ORDER BY UPDATE",
        "SELECT Id FROM User LIMIT -1",
        "SELECT Id FROM User LIMIT :n",
        "SELECT Id FROM User LIMIT \u0661",
        "SELECT Id FROM User OFFSET 1 LIMIT 1",
        f"SELECT Id FROM User WHERE {'(' * 5000}Id = '0'{')' * 5000}",
    ],
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
        bare = re.sub(r"'(?:[^'\\]|\\.)*'", "''", query)
        assert not re.search(r"\b(for|update|view\w*|reference|tracking|typeof|rows|account)\b", bare, re.IGNORECASE)
        assert bare.isascii()
        assert bare.upper().count("SELECT") == 1


@given(st.data())
def test_a_clause_put_anywhere_into_a_good_query_is_refused(data: st.DataObject) -> None:
    words = soql.select_users(["Id", "Name"], SyncWindow(SINCE, UNTIL), limit=5).split(" ")
    place = data.draw(st.integers(0, len(words)))
    words.insert(place, data.draw(st.sampled_from(SIDE_EFFECTS)))
    assert not is_sent(" ".join(words))
