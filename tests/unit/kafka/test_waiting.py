"""Waiting with a deadline."""

from __future__ import annotations

import time

import pytest

from fraud_service.kafka.waiting import Deadline, wait_until


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_the_result_of_the_condition_is_returned_as_soon_as_it_is_true(clock: list[float]) -> None:
    assert wait_until(lambda: clock[0] >= 103.0 and "ready", timeout_s=10.0, poll_s=1.0) == "ready"
    assert clock == [103.0]


def test_a_false_result_is_returned_when_the_time_is_over(clock: list[float]) -> None:
    assert wait_until(lambda: "", timeout_s=2.0, poll_s=0.5) == ""
    assert clock == [102.0]


def test_the_condition_is_called_once_without_any_time(clock: list[float]) -> None:
    assert wait_until(lambda: True, timeout_s=0.0)
    assert not wait_until(lambda: False, timeout_s=0.0)
    assert clock == [100.0]


def test_a_pause_of_the_caller_replaces_sleep(clock: list[float]) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += 1.0

    assert not wait_until(lambda: False, timeout_s=2.0, poll_s=0.3, pause=pause)
    assert pauses == [0.3, 0.3]


def test_progress_moves_a_deadline(clock: list[float]) -> None:
    deadline = Deadline(5.0)
    clock[0] += 4.0
    assert not deadline.has_passed()
    deadline.restart()
    clock[0] += 4.0
    assert not deadline.has_passed()
    clock[0] += 1.0
    assert deadline.has_passed()
