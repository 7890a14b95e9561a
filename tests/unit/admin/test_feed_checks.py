"""What a feed checks before it sends: refused rows, repeated histories, and payments that would be forgotten."""

from __future__ import annotations

import time

import msgspec
import pytest
from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.admin.feed_checks import ServiceTime, require_accepted, require_learnable, require_new
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelledTransaction, facts
from fraud_service.domain.time import LearningSchedule

SCHEDULE = LearningSchedule()


def history(*transactions):
    return [LabelledTransaction(one, None, None) for one in transactions]


def paid(number: int, at: int = MONDAY, **changes):
    return msgspec.structs.replace(transaction(f"t-{number}", at + number), **changes)


def test_a_clean_history_is_accepted():
    require_accepted(history(*(paid(number) for number in range(1200))), Settings(instance_id="test"))


def test_rows_that_would_become_dead_letters_are_counted_by_reason_before_anything_is_sent():
    tomorrow = int(time.time() * 1000) + DAY
    rows = [paid(0), paid(1, tomorrow), paid(2, tomorrow), paid(3, device_id="4242 4242 4242 4242")]
    with pytest.raises(ConfigurationError) as raised:
        require_accepted(history(*rows), Settings(instance_id="test"))
    said = str(raised.value)
    assert "3 of 4 payments (75.0%) would become dead letters: 2 future_timestamp" in said
    assert "1 card_number" in said
    assert "FRAUD_REJECT_PAN is true" in said
    assert "4242" not in said


def test_long_numbers_are_accepted_if_the_setting_allows_them():
    rows = history(paid(0, merchant_id="4000000000000000014"))
    with pytest.raises(ConfigurationError, match="1 card_number"):
        require_accepted(rows, Settings(instance_id="test"))
    require_accepted(rows, Settings(instance_id="test", reject_pan=False))


def test_a_history_with_payments_that_the_service_has_just_scored_is_refused():
    service = ServiceTime(-1, frozenset({facts(paid(1))}))
    with pytest.raises(ConfigurationError, match="1 of these payments are among the newest"):
        require_new(history(paid(0), paid(1)), service)
    require_new(history(paid(0), paid(1, amount=99.0)), service)


def test_payments_older_than_the_label_retention_are_refused_with_their_number_and_the_ways_out():
    closed = MONDAY + 60 * DAY + HOUR
    with pytest.raises(ConfigurationError) as raised:
        require_learnable(history(paid(0), paid(1), paid(2, closed)), ServiceTime(closed, frozenset()), SCHEDULE)
    said = str(raised.value)
    assert said.startswith("2 of these payments happened before ")
    assert all(way in said for way in ("FRAUD_TOPICS__", "fraud-service train", "--from", "--unlearned"))


@pytest.mark.parametrize("closed", [-1, MONDAY + 59 * DAY], ids=["nothing closed", "within the retention"])
def test_payments_that_the_learner_keeps_are_accepted(closed):
    require_learnable(history(paid(0), paid(1)), ServiceTime(closed, frozenset()), SCHEDULE)
