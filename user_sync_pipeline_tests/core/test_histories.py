"""Whatever happens to an organisation and to the runs that follow it, no committed change below the watermark is lost.

Histories are made up by hypothesis (`histories.py`) and played with the real service and a real database
(`history_player.py`). A few of them, and those told below that read in slices, go over TLS; the others are answered by
the same simulator without a socket.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine

from user_sync_pipeline.sandbox.certificates import CertificateAuthority
from user_sync_pipeline.sandbox.salesforce.cursors import Consistency
from user_sync_pipeline_tests.core.histories import (
    HISTORIES,
    Break,
    Changes,
    End,
    History,
    Hours,
    LoseCursors,
    Meanwhile,
    MergeLanded,
    Run,
    Wait,
    Write,
)
from user_sync_pipeline_tests.core.history_player import play

A_FEW, MANY = 8, 700
A_WIDE_TIE: Changes = [("insert", 0)] * 5

# One database for all examples of a test: each history empties it first.
_settings = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)


@pytest.mark.slow
@settings(_settings, max_examples=A_FEW, derandomize=True)
@given(history=HISTORIES)
def test_nothing_is_lost_over_tls(history: History, engine: Engine, authority: CertificateAuthority) -> None:
    play(history, engine, authority, consistency=Consistency.IDS_FIXED, over_tls=True)


@pytest.mark.slow
@pytest.mark.timeout(1_200)  # a failure takes its time to become small
@pytest.mark.parametrize("consistency", Consistency)
@settings(_settings, max_examples=MANY, derandomize=True)
@given(history=HISTORIES)
def test_nothing_is_lost_in_thousands_of_histories(
    consistency: Consistency, history: History, engine: Engine, authority: CertificateAuthority
) -> None:
    play(history, engine, authority, consistency=consistency, over_tls=False)


TOLD = {
    "a change is committed behind the watermark": [
        Write([("edit", 0)], "leave open"),
        Wait(1_800),
        Run("full"),
        Wait(3_600),
        End(0),
        Run(),
    ],
    "a change is committed while the run reads": [
        Write([("edit", 0)], "leave open"),
        Wait(300),
        Run("full", meanwhile=[Meanwhile(7, End(0))]),
        Run(),
    ],
    "Salesforce does not vouch, and a transaction is open": [
        Write([("insert", 0)], "leave open"),
        Wait(7_000),
        Run("full", vouched=False),
        End(0),
        Run(),
    ],
    "many share a stamp, and the cursor is lost among them": [
        Write(A_WIDE_TIE),
        Wait(61),
        Run("full", meanwhile=[Meanwhile(8, LoseCursors())]),
    ],
    "a limited run ends among those that share a stamp": [Write(A_WIDE_TIE), Wait(61), Run(limit=4), Run(limit=6)],
    "a limited run is held by an open transaction as well": [
        Write([("edit", 5)], "leave open"),
        Wait(600),
        Run(limit=2),
        Wait(3_600),
        End(0),
        Run(),
    ],
    "users who were read already change while the rest is read": [
        Write(A_WIDE_TIE),
        Wait(61),
        Run(
            "full",
            meanwhile=[Meanwhile(6, Write([("rename", 0), ("swap user names", 2)])), Meanwhile(8, LoseCursors())],
        ),
        Run(),
    ],
    "a run is killed, and a transaction is committed before the next": [
        Write([("deactivate", 0)], "leave open"),
        Wait(600),
        Write([("insert", 0)]),
        Wait(600),
        Run("full", broken=Break("killed at request", 8)),
        End(0),
        Run("full"),
        Run(),
    ],
    "a run goes on after another one has replaced some of its rows": [
        Run("full", broken=Break("killed at request", 10)),
        Run(Hours(-1, 1)),
        Run("full"),
    ],
    "an old landing is merged after a newer one": [
        Run(Hours(-1, 1), merges=False),
        Wait(3_600),
        Write([("edit", 0)]),
        Wait(61),
        Run(Hours(1, 4)),
        MergeLanded(Hours(-1, 1)),
    ],
    "an old landing is merged after a run for everything": [
        Run(Hours(-1, 1), merges=False),
        Wait(3_600),
        Run("full"),
        MergeLanded(Hours(-1, 1)),
    ],
    "the first run leaves a gap": [Run(Hours(1, 4)), Run()],
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("slices", [1, 2])
def test_nothing_is_lost_when(
    steps: list[Wait | Write | Run | End | MergeLanded], slices: int, engine: Engine, authority: CertificateAuthority
) -> None:
    history = History(6, steps, page=2, slices=slices)
    play(history, engine, authority, consistency=Consistency.IDS_FIXED, over_tls=slices > 1)
