from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine

from user_sync_pipeline.core.salesforce.fields import USER_COLUMNS
from user_sync_pipeline.core.warehouse import ledger
from user_sync_pipeline.core.warehouse.merge import MergeCounts
from user_sync_pipeline.core.windows import SyncWindow
from user_sync_pipeline_tests.postgres.users import ORG, begin, day, days, land, merge, query, user


def landed_run(
    engine: Engine,
    window: SyncWindow,
    *,
    covered: datetime | None = None,
    held_reason: str | None = None,
    limit: int | None = None,
) -> UUID:
    """Put a run into the ledger that has landed everything of its window."""
    run_id = begin(engine, window, limit=limit)
    with engine.begin() as connection:
        ledger.record_landing(
            connection,
            run_id,
            read_until=window.until,
            covered_until=covered or window.until,
            held_reason=held_reason,
            fetched=7,
            rejected=0,
            api_calls=4,
        )
    return run_id


def advance(engine: Engine, run_id: UUID) -> datetime | None:
    with engine.begin() as connection:
        return ledger.advance_watermark(connection, run_id)


def watermark(engine: Engine) -> datetime | None:
    with engine.connect() as connection:
        return ledger.read_watermark(connection, ORG)


def run_of(engine: Engine, run_id: UUID) -> dict[str, object]:
    (run,) = query(engine, "SELECT * FROM user_sync.sync_runs WHERE run_id = :run_id", run_id=run_id)
    return run


def test_a_run_tells_what_it_was_asked_and_what_came_of_it(warehouse: Engine) -> None:
    run_id = begin(warehouse, days(1, 3), columns=("system_modstamp", "id"), limit=50)
    begun = run_of(warehouse, run_id)
    assert (begun["org_id"], begun["mode"], begun["since"], begun["until"]) == (ORG, "custom", day(1), day(3))
    assert (begun["row_limit"], begun["outcome"], begun["finished_at"]) == (50, "running", None)
    assert begun["fetched_columns"] == ["id", "system_modstamp"], "in the order of the catalogue"

    with warehouse.begin() as connection:
        ledger.record_landing(
            connection,
            run_id,
            read_until=day(2),
            covered_until=day(1.5),
            held_reason="open transactions",
            fetched=10,
            rejected=1,
            api_calls=4,
        )
    landed = run_of(warehouse, run_id)
    assert (landed["outcome"], landed["fetched"], landed["rejected"], landed["api_calls"]) == ("landed", 10, 1, 4)
    assert (landed["read_until"], landed["covered_until"]) == (day(2), day(1.5))
    assert landed["held_reason"] == "open transactions"

    with warehouse.begin() as connection:
        ledger.finish_run(connection, run_id, outcome="complete", counts=MergeCounts(5, 3, 1, 0))
    done = run_of(warehouse, run_id)
    assert (done["outcome"], done["inserted"], done["updated"], done["unchanged"]) == ("complete", 5, 3, 1)
    assert done["finished_at"] is not None


def test_a_run_that_fails_before_the_merge_has_an_end_but_no_counts(warehouse: Engine) -> None:
    run_id = begin(warehouse)
    with warehouse.begin() as connection:
        ledger.finish_run(connection, run_id, outcome="failed", counts=None)
    failed = run_of(warehouse, run_id)
    assert (failed["outcome"], failed["inserted"]) == ("failed", 0)
    assert failed["finished_at"] is not None


def test_rows_rejected_by_the_merge_are_counted_once_however_often_it_runs(warehouse: Engine) -> None:
    run_id = land(warehouse, user(1), user(2, username=None))
    for _ in range(2):
        counts = merge(warehouse, run_id)
        with warehouse.begin() as connection:
            ledger.finish_run(connection, run_id, outcome="complete", counts=counts)
    assert run_of(warehouse, run_id)["rejected"] == 1


def test_a_column_that_is_in_no_table_is_refused(warehouse: Engine) -> None:
    with pytest.raises(ValueError, match="password"):
        begin(warehouse, columns=(*USER_COLUMNS, "password"))


def test_the_newest_run_that_landed_within_the_window_is_found(warehouse: Engine) -> None:
    def newest(window: SyncWindow) -> UUID | None:
        with warehouse.connect() as connection:
            return ledger.newest_landed_run(connection, window)

    assert newest(days(None, 9)) is None
    begin(warehouse, days(2, 3))
    assert newest(days(None, 9)) is None, "it has not landed"
    landed_run(warehouse, days(2, 3))
    second = landed_run(warehouse, days(2, 3))
    open_to_the_past = landed_run(warehouse, days(None, 3))
    assert newest(days(None, 9)) == open_to_the_past
    assert newest(days(2, 3)) == second
    assert newest(days(2.5, 3)) is None, "it reaches beyond the window"
    assert newest(days(1, 2.5)) is None
    with warehouse.begin() as connection:
        ledger.finish_run(connection, second, outcome="failed", counts=None)
    assert newest(days(2, 3)) == second, "its rows are there, only the merge is to be repeated"


def test_before_the_first_full_run_there_is_no_watermark(warehouse: Engine) -> None:
    assert watermark(warehouse) is None
    assert advance(warehouse, landed_run(warehouse, days(1, 2))) is None
    assert watermark(warehouse) is None


def test_a_run_that_is_open_to_the_past_sets_the_watermark(warehouse: Engine) -> None:
    assert advance(warehouse, landed_run(warehouse, days(None, 5))) == day(5)
    assert watermark(warehouse) == day(5)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (days(4, 8), 8),  # overlaps
        (days(5, 8), 8),  # joins exactly
        (days(5.1, 8), 5),  # leaves a gap
        (days(3, 4), 5),  # lies behind
        (days(None, 4), 5),
        (days(None, 8), 8),
    ],
)
def test_the_watermark_moves_on_without_a_gap_and_never_back(
    warehouse: Engine, window: SyncWindow, expected: float
) -> None:
    advance(warehouse, landed_run(warehouse, days(None, 5)))
    assert advance(warehouse, landed_run(warehouse, window)) == day(expected)


def test_a_limited_run_leaves_the_watermark_where_it_is(warehouse: Engine) -> None:
    advance(warehouse, landed_run(warehouse, days(None, 5)))
    assert advance(warehouse, landed_run(warehouse, days(None, 8), limit=10)) == day(5)


def test_a_run_that_never_landed_leaves_the_watermark_where_it_is(warehouse: Engine) -> None:
    assert advance(warehouse, begin(warehouse, days(None, 5))) is None


def test_the_watermark_stops_where_salesforce_no_longer_vouches_and_says_why(warehouse: Engine) -> None:
    run_id = landed_run(warehouse, days(None, 5), covered=day(4), held_reason="open transactions")
    assert advance(warehouse, run_id) == day(4)
    stored = query(warehouse, "SELECT held_reason, run_id FROM user_sync.watermarks")
    assert stored == [{"held_reason": "open transactions", "run_id": run_id}]
    advance(warehouse, landed_run(warehouse, days(4, 6)))
    assert query(warehouse, "SELECT held_reason FROM user_sync.watermarks") == [{"held_reason": None}]


def test_the_watermark_never_passes_the_end_of_the_window(warehouse: Engine) -> None:
    assert advance(warehouse, landed_run(warehouse, days(None, 5), covered=day(7))) == day(5)


def test_each_organisation_has_its_own_watermark(warehouse: Engine) -> None:
    advance(warehouse, landed_run(warehouse, days(None, 5)))
    with warehouse.connect() as connection:
        assert ledger.read_watermark(connection, "00D000000000002EAA") is None
