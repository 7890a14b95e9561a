"""What a feed checks before it sends: refused rows, repeated histories, and payments that would be forgotten."""

from __future__ import annotations

import time
from types import SimpleNamespace

import msgspec
import pytest
from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.admin import feed_checks
from fraud_service.admin.feed_checks import (
    NotProcessed,
    RefusalCounter,
    ServiceTime,
    require_accepted,
    require_learnable,
    require_new,
)
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelledTransaction, facts
from fraud_service.domain.time import LearningSchedule
from fraud_service.kafka import waiting

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
    with pytest.raises(ConfigurationError, match="before: 1 are among the newest"):
        require_new(history(paid(0), paid(1)), service)
    require_new(history(paid(0), paid(1, amount=99.0)), service)


def test_payments_older_than_the_label_retention_are_refused_with_their_number_and_the_ways_out():
    closed = MONDAY + 60 * DAY + HOUR
    with pytest.raises(ConfigurationError) as raised:
        require_learnable(
            history(paid(0), paid(1), paid(2, closed)), ServiceTime(closed, frozenset()), SCHEDULE, "learners"
        )
    said = str(raised.value)
    assert said.startswith("2 of these payments happened before ")
    assert all(way in said for way in ("FRAUD_TOPICS__", "fraud-service train", "--from", "--unlearned"))
    assert "run `fraud-service reset learners --yes`, feed the file without --event-time" in said


@pytest.mark.parametrize("closed", [-1, MONDAY + 59 * DAY], ids=["nothing closed", "within the retention"])
def test_payments_that_the_learner_keeps_are_accepted(closed):
    require_learnable(history(paid(0), paid(1)), ServiceTime(closed, frozenset()), SCHEDULE, "learners")


class Cluster:
    """Consumer groups that commit by a script, on a clock that moves half a second with each sleep."""

    def __init__(self, monkeypatch, commits, members=("scorer-0",)):
        self.now, self.commits = 0.0, commits
        monkeypatch.setattr(feed_checks, "time", SimpleNamespace(sleep=self.sleep, time=time.time))
        monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(feed_checks.consumer_groups, "committed_offsets", lambda *_: {0: self.commits(self.now)})
        monkeypatch.setattr(feed_checks.consumer_groups, "members", lambda *_: list(members))
        monkeypatch.setattr(feed_checks.clients, "admin", lambda _: None)
        self.settings = Settings(instance_id="test")
        self.reader = SimpleNamespace(offset_ranges=lambda _: {}, read=lambda *_: [])
        self.sent = {(self.settings.topics.transactions, 0): (100, 199)}
        self.processed = 0

    def sleep(self, seconds):
        self.now += seconds

    def count(self):
        return RefusalCounter(self.settings, self.reader).count(self.sent, self.advance)

    def advance(self, number):
        self.processed += number


def test_a_feed_waits_for_a_slow_service_and_shows_its_progress(monkeypatch):
    cluster = Cluster(monkeypatch, lambda now: min(100 + int(now / 10), 200))  # a record in ten seconds
    assert not cluster.count()
    assert (cluster.processed, cluster.now) == (100, 1000.0)


def test_a_feed_names_the_group_that_processes_nothing_for_half_a_minute(monkeypatch):
    cluster = Cluster(monkeypatch, lambda now: 130 if now > 1 else None)
    with pytest.raises(NotProcessed) as raised:
        cluster.count()
    said = str(raised.value)
    assert "everything was sent, but the service has not processed it: it has processed nothing for 30 s" in said
    assert f"{cluster.settings.scorer_group} has processed 30 of 100 records on" in said
    assert 30 < cluster.now < 33


def test_a_feed_says_at_once_that_no_process_runs(monkeypatch):
    cluster = Cluster(monkeypatch, lambda _: None, members=())
    with pytest.raises(NotProcessed, match="no process runs in it, and group fraud-scorer has processed 0 of 100"):
        cluster.count()
    assert cluster.now == 0


def test_records_that_were_processed_count_although_the_process_has_ended_since(monkeypatch):
    assert not Cluster(monkeypatch, lambda _: 200, members=()).count()
