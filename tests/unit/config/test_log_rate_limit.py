"""A flood of bad records writes a handful of lines, and all of them are counted."""

from __future__ import annotations

import pytest

from fraud_service.config.log_rate_limit import PERIOD_S, RateLimitedLog

pytestmark = pytest.mark.attack


@pytest.fixture
def written() -> list[dict]:
    return []


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def limited(written, clock) -> RateLimitedLog:
    return RateLimitedLog(lambda event, **facts: written.append({"event": event, **facts}), "refused", lambda: clock[0])


def test_the_first_line_of_each_kind_is_written_at_once(limited, written):
    limited("unsigned", offset=1)
    limited("invalid", offset=2)
    assert written == [
        {"event": "refused", "kind": "unsigned", "offset": 1},
        {"event": "refused", "kind": "invalid", "offset": 2},
    ]


def test_many_records_of_one_kind_become_two_lines_with_the_count_and_the_last_record(limited, written, clock):
    for offset in range(100_000):
        limited("unsigned", offset=offset)
    clock[0] += PERIOD_S
    limited.flush()
    assert written == [
        {"event": "refused", "kind": "unsigned", "offset": 0},
        {"event": "refused", "kind": "unsigned", "offset": 99_999, "count": 99_999},
    ]


def test_a_continuous_stream_of_records_becomes_one_line_per_minute(limited, written, clock):
    for _ in range(601):
        limited("unsigned")
        clock[0] += PERIOD_S / 60
    assert len(written) == 11
    assert sum(line.get("count", 1) for line in written) == 601


def test_at_the_end_everything_is_written(limited, written):
    for _ in range(3):
        limited("unsigned")
    limited.flush(final=True)
    assert [line.get("count", 1) for line in written] == [1, 2]


def test_without_records_nothing_is_written(limited, written, clock):
    limited("unsigned")
    clock[0] += 10 * PERIOD_S
    limited.flush()
    assert len(written) == 1
