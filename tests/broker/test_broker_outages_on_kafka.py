"""Run processes while the broker is down: at their start, and later."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from datetime import timedelta

import pytest
from support.processes import READY_TIMEOUT, Service, fresh_settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

STARTED = "Initializing state directory"  # what Quix logs before it asks for partitions


@pytest.mark.parametrize("verb", ["score", "learn"])
def test_a_process_that_starts_before_its_broker_waits_for_it(own_kafka, tmp_path, verb):
    settings = fresh_settings(own_kafka.bootstrap, tmp_path)
    process = Service(settings, verb, tmp_path / verb)
    own_kafka.kill()
    try:
        with process:
            own_kafka.start()  # the process asks from now on; the coordinator of its group loads a little later
            process.await_ready()
            assert process.stop() == 0
    finally:
        own_kafka.start()


def test_a_scorer_stays_alive_and_is_not_ready_during_an_outage_shorter_than_its_session(own_kafka, tmp_path):
    settings = fresh_settings(own_kafka.bootstrap, tmp_path).model_copy(
        update={"session_timeout": timedelta(minutes=1)}
    )
    scorer = Service(settings, "score", tmp_path / "scorer")
    with scorer:
        scorer.await_ready()
        own_kafka.kill()
        try:
            scorer.wait_until(lambda: scorer.status("/readyz") == 503, 30)
            assert scorer.status("/livez") == 200
        finally:
            own_kafka.start()
        scorer.await_ready()
        assert scorer.stop() == 0


@pytest.mark.parametrize("verb", ["score", "learn"])
def test_a_process_survives_an_outage_longer_than_its_session(own_kafka, tmp_path, verb):
    settings = fresh_settings(own_kafka.bootstrap, tmp_path)
    assert settings.session_timeout == timedelta(seconds=6)
    process = Service(settings, verb, tmp_path / verb)
    with process:
        process.await_ready()
        own_kafka.kill()
        try:
            process.wait_until(lambda: "stream_interrupted" in process.log(), 60)
            assert process.status("/readyz") == 503
            assert process.status("/livez") == 200
        finally:
            own_kafka.start()
        process.await_ready()
        assert process.stop() == 0


@pytest.mark.parametrize("verb", ["score", "learn"])
def test_a_process_stopped_before_its_group_answers_ends_with_0(own_kafka, tmp_path, verb):
    process = Service(fresh_settings(own_kafka.bootstrap, tmp_path), verb, tmp_path / verb, is_forked=False)
    with process:
        process.await_ready()
    for moment in (0.0, 0.1, 0.2):  # within the half second in which the group answers
        before = process.log().count(STARTED)
        with process:
            process.wait_until(lambda before=before: process.log().count(STARTED) > before, READY_TIMEOUT)
            with suppress(subprocess.TimeoutExpired):
                process.process.wait(moment)
            assert process.stop() == 0, process.log()[-6000:]
