from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import chart
from support.processes import Service, environment, fresh_settings, read_all

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.demo.broker import EmbeddedBroker

SCRIPT = chart.container(chart.pods(chart.render())["test"])["command"]


def run(env: dict[str, str], script: str = SCRIPT[2]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.embedded
def test_the_test_of_a_release_scores_one_transaction(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    assert SCRIPT[:2] == ["python", "-c"]
    settings = fresh_settings(embedded_broker.bootstrap, tmp_path)
    with Service(settings, "score", tmp_path / "scorer") as scorer:
        scorer.await_ready()
        done = run(environment(settings))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("scored after ")
        again = run(environment(settings))
        assert again.returncode == 0, again.stderr
    assert len(read_all(settings, settings.topics.scores)) == 2
    assert read_all(settings, settings.topics.dead_letters) == []


@pytest.mark.embedded
def test_the_test_of_a_release_fails_without_a_scorer(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    settings = fresh_settings(embedded_broker.bootstrap, tmp_path)
    impatient = SCRIPT[2].replace("PATIENCE = 120.0", "PATIENCE = 3.0")
    assert impatient != SCRIPT[2]
    done = run(environment(settings), impatient)
    assert done.returncode == 1
    assert "within 3 s" in done.stderr
