"""No client writes lines of its own to stderr: a service logs JSON alone, a command says one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from support.processes import Service, environment, fresh_settings

from fraud_service.demo.broker import EmbeddedBroker, EmbeddedBrokerError, find_binary

pytestmark = pytest.mark.timeout(240)
OUTAGE_S = 6.0


@pytest.fixture
def broker():
    try:
        find_binary()
    except EmbeddedBrokerError as error:
        pytest.skip(str(error))
    with EmbeddedBroker() as running:
        yield running


def entries(service: Service) -> list[dict[str, object]]:
    complete, _, _ = service.log().rpartition("\n")  # a killed process may leave a part of a line
    return [json.loads(line) for line in complete.splitlines()]


def test_every_line_is_json_when_the_broker_dies_under_running_processes(broker, tmp_path):
    settings = fresh_settings(broker.bootstrap, tmp_path)
    services = [Service(settings, verb, tmp_path / verb, is_forked=False) for verb in ("score", "learn")]
    command = [sys.executable, "-m", "fraud_service", "verify"]
    with services[0] as scorer, services[1] as learner:
        for service in (scorer, learner):
            service.await_ready()
        broker.__exit__()
        time.sleep(OUTAGE_S)
        done = subprocess.run(
            command, env=environment(settings), capture_output=True, text=True, timeout=60, check=False
        )
        for service in (scorer, learner):
            service.kill()  # without brokers, a clean stop may wait for their time-outs
        logs = {service.verb: entries(service) for service in (scorer, learner)}
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"no Kafka broker answers at {broker.bootstrap}")
    assert len(done.stderr.splitlines()) == 1
    for found in logs.values():
        assert any("FAIL" in str(entry["message"]) for entry in found)  # the client has said so, as JSON
        assert all({"level", "message", "timestamp"} <= entry.keys() for entry in found)


def test_every_line_of_a_service_that_cannot_start_is_json(broker, tmp_path):
    settings = fresh_settings(broker.bootstrap, tmp_path)
    missing = settings.model_copy(update={"topics": settings.topics.model_copy(update={"risk": "not.there"})})
    nobody = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    for chosen, reason in ((missing, "topic not.there is missing"), (nobody, "no broker listed its topics")):
        service = Service(chosen, "score", tmp_path / chosen.bootstrap_servers, is_forked=False)
        with service:
            assert service.process.wait(90) == 1
            found = entries(service)
        assert (found[-1]["message"], found[-1]["level"]) == ("service_ended", "error")
        assert reason in str(found[-1]["reason"])
    waiting = next(entry for entry in found if entry["message"] == "waiting_for_the_cluster")
    assert str(waiting["what"]).startswith("no Kafka broker answers at 127.0.0.1:1")
