"""Work in several processes: results in order, progress, and a clear error from a failing or killed worker."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fraud_service.domain.errors import FraudServiceError, TopicReadError
from fraud_service.verification.worker_pool import run_in_processes


def count_to(number: int, count) -> int:
    for _ in range(number):
        count()
    return number


def fail_or_wait(reason: str | None, count) -> None:
    count()
    if reason == "fail":
        raise TopicReadError("topic x cannot be read")
    if reason == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.parametrize("shares", [[(2500,)], [(2500,), (10,)]])
def test_results_are_in_order_and_progress_adds_up(shares):
    progress = []
    assert run_in_processes(count_to, shares, progress.append) == [number for (number,) in shares]
    assert sum(progress) == sum(number for (number,) in shares)


@pytest.mark.parametrize(
    ("reason", "error", "text"),
    [("fail", TopicReadError, "topic x cannot be read"), ("die", FraudServiceError, "a worker process was killed")],
)
def test_the_error_of_one_worker_ends_the_others(reason, error, text):
    started = time.monotonic()
    with pytest.raises(error, match=text):
        run_in_processes(fail_or_wait, [(None,), (reason,)], lambda _: None)
    assert time.monotonic() - started < 45
