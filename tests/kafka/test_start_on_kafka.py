"""Starts that are not in order."""

from __future__ import annotations

import pytest
from support.processes import Service, fresh_settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.mark.parametrize("verb", ["score", "learn"])
def test_a_process_that_starts_before_its_broker_waits_for_it(apache_kafka, tmp_path, verb):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path)
    process = Service(settings, verb, tmp_path / verb)
    apache_kafka.kill()
    try:
        with process:
            apache_kafka.start()  # the process asks from now on; the coordinator of its group loads a little later
            process.await_ready()
            assert process.stop() == 0
    finally:
        apache_kafka.start()
