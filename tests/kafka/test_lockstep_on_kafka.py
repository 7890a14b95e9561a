"""History through Apache Kafka as fast as it goes, in step: the scores are those of the backtest, in every bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.processes import Service, environment, fresh_settings, read_all

from fraud_service import service
from fraud_service.domain.detector import Detector
from fraud_service.domain.profile import DAY
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.teaching import Sampling
from fraud_service.history import History
from fraud_service.offline import Rehearsal
from fraud_service.simulator import World, write

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

# An hour of lead: at night no quarter of an hour is sure to have a payment, without which no boundary is closed.
OPTIONS = {"FRAUD_SNAPSHOT_INTERVAL": "120", "FRAUD_SNAPSHOT_LEAD": "60", "FRAUD_MATURITY": "1"}


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lockstep")
    file = folder / "history.parquet"
    write(World(seed=3, cards=700, merchants=120, days=4), file)
    settings = fresh_settings(apache_kafka.bootstrap, folder).model_copy(
        update={"snapshot_interval": 120.0, "snapshot_lead": 60.0, "maturity": 1.0}
    )
    second = settings.model_copy(update={"instance": "test-1"})
    scorers = [Service(one, "score", folder / one.instance, OPTIONS) for one in (settings, second)]
    learner = Service(settings, "learn", folder / "learner", OPTIONS)
    with scorers[0], scorers[1], learner:
        for process in (*scorers, learner):
            process.await_ready()
        command = [sys.executable, "-m", "fraud_service.cli", "feed", str(file), "--event-time", "--label-delay=1d"]
        fed = subprocess.run(
            command, env={**os.environ, **environment(settings)}, check=True, timeout=200, stdout=subprocess.PIPE
        )
        count = len(History.open(file))
        scorers[0].wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= count, 60)
    assert json.loads(fed.stdout)["transactions"] == count
    return settings, list(History.open(file))


def test_a_fast_replay_in_step_gives_the_scores_of_the_backtest(outcome):
    settings, history = outcome
    model = service.pretrained(settings)
    rehearsal = Rehearsal(
        Detector(model, service.policy(settings)),
        service.first_snapshot(model),
        service.restore(model),
        service.calendar(settings),
        Sampling(settings.legitimate_share),
        DAY,
    )
    expected = {v.transaction.transaction_id: encode_record(score_record(v)) for v in rehearsal.play(history)}
    scores = {decode_score(m.value()).transaction_id: m.value() for m in read_all(settings, settings.topics.scores)}
    snapshots = {decode_score(value).snapshot for value in scores.values()}
    assert len(snapshots) > 30
    assert any(decode_score(value).online_logit != decode_score(value).pretrained_logit for value in scores.values())
    assert {name: scores.get(name) for name in expected} == expected


def test_in_step_no_score_is_stale(outcome):
    settings, _ = outcome
    assert not any(decode_score(m.value()).is_stale for m in read_all(settings, settings.topics.scores))
