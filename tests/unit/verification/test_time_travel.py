"""Profiles and risk are those of their event time."""

from __future__ import annotations

import pytest

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.records import decode_score
from fraud_service.verification.time_travel import merchant_at, profile_at


def scores(log):
    return [decode_score(entry.value) for entry in log.on("scores")]


def test_profile_and_risk_are_those_of_the_event_time(log, monkeypatch):
    log.serve(monkeypatch)
    of_card = [one for one in scores(log) if one.card_id == "c-2" and not one.is_duplicate]
    for one in of_card[1::12]:
        then = profile_at(log.settings, "c-2", one.timestamp - 1)["profile"]
        assert then["payments"] == sum(other.timestamp < one.timestamp for other in of_card)
        assert then["payments_30d"] == one.features.count_30d
    last = of_card[-1]
    risk = merchant_at(log.settings, last.merchant_id, last.timestamp)["risk"]
    assert risk["labelled_30d"] == last.features.merchant_labelled_30d
    with pytest.raises(ConfigurationError, match=r"--card c-unknown: partition . has no transaction of it"):
        profile_at(log.settings, "c-unknown", last.timestamp)
