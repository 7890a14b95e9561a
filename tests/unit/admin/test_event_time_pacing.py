"""The pacer gives up when the service makes no progress, and waits as long as snapshots arrive."""

from __future__ import annotations

import pytest

from fraud_service.admin import event_time_pacing
from fraud_service.domain.errors import FatalStreamError
from fraud_service.domain.time import HOUR

SNAPSHOTS = 5


@pytest.fixture
def pacer(monkeypatch):
    """Give a pacer without connections, whose time-out is short."""
    monkeypatch.setattr(event_time_pacing, "WAIT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(event_time_pacing.EventTimePacer, "_cause", lambda _: "Nothing runs")
    found = object.__new__(event_time_pacing.EventTimePacer)
    found._newest = 0
    return found


def test_a_long_gap_is_waited_for_while_snapshots_arrive(pacer, monkeypatch):
    waits = []

    def time_out(condition, timeout_s, poll_s):
        waits.append(timeout_s)
        pacer._newest += HOUR
        return len(waits) == SNAPSHOTS

    monkeypatch.setattr(event_time_pacing, "wait_until", time_out)
    pacer._await(lambda: False, "the learner has not published the next snapshot")
    assert len(waits) == SNAPSHOTS


def test_without_a_new_snapshot_the_pacer_gives_up_and_names_the_cause(pacer):
    with pytest.raises(FatalStreamError, match=r"no next snapshot for 0 s\. Nothing runs"):
        pacer._await(lambda: False, "no next snapshot")
