"""Health checks and metrics, as probes and Prometheus see them."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPConnection
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.worlds import DAY, HOUR, MONDAY, BrokenModel, LinearModel, online_model, snapshot, transaction

from fraud_service.domain.decision import Outcome, Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelSource
from fraud_service.domain.label_join_rows import Example, ScoredTransaction
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.runtime.health import MAX_SILENCE_S, Health, HttpEndpoint
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ALL_CODES, MAX_CURRENCIES, ScorerMetrics
from fraud_service.runtime.metrics.stream import LagTracker, Metrics

READY = {"connected": True, "assigned": True, "recovered": True, "models_loaded": True}
LOOPBACK = "127.0.0.1"
SUSPICIOUS = {"amount": 500.0}


@pytest.fixture
def health():
    return Health()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def endpoint(metrics, health):
    with HttpEndpoint(LOOPBACK, 0, metrics, health) as running:
        yield running


@pytest.fixture
def get(endpoint):
    """Ask the endpoint: gives status, content type and body."""

    def ask(path, method="GET"):
        with closing(HTTPConnection(LOOPBACK, endpoint.port, timeout=5)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type"), answer.read()

    return ask


@pytest.fixture
def clock(monkeypatch):
    """Give health a clock that stands still."""
    hand = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("fraud_service.runtime.health.time", SimpleNamespace(monotonic=lambda: hand.seconds))
    return hand


def verdicts(*payments, model=None, policy=None, knowledge=None):
    detector = Detector(model or LinearModel(base=-3.0), policy or Policy())
    return detector.assess(payments, {}, knowledge or SnapshotStore(untrained("model-1", online_model())))


def samples(metrics):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_a_process_is_live_at_once_but_neither_ready_nor_started(get):
    assert [get(path)[0] for path in ("/livez", "/readyz", "/startupz")] == [200, 503, 503]


def test_readiness_needs_every_condition_and_says_which_is_missing(get, health):
    health.update(assigned=True)
    health.update(models_loaded=True)
    status, kind, body = get("/readyz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body) == {
        "connected": True,
        "assigned": True,
        "recovered": False,
        "models_loaded": True,
    }
    health.update(recovered=True)
    status, _, body = get("/readyz")
    assert (status, json.loads(body)) == (200, READY)


def test_readiness_can_end_but_a_started_process_stays_started(get, health):
    health.update(**READY)
    assert [get("/readyz")[0], get("/startupz")[0]] == [200, 200]
    health.update(assigned=False, recovered=False)
    assert [get("/readyz")[0], get("/startupz")[0]] == [503, 200]
    health.update(assigned=True, recovered=True)
    assert get("/readyz")[0] == 200


def test_a_blocked_poll_loop_is_not_live_until_its_next_tick(clock):
    health = Health()
    clock.seconds += MAX_SILENCE_S - 0.001
    assert health.is_live
    clock.seconds += 0.001
    assert not health.is_live
    health.heartbeat()
    assert health.is_live


def test_liveness_does_not_ask_whether_the_process_is_ready(clock, metrics):
    health = Health()
    health.update(**READY)
    clock.seconds += MAX_SILENCE_S
    assert health.is_ready
    assert not health.is_live


def test_a_dead_poll_loop_fails_the_liveness_probe(clock, metrics):
    health = Health()
    clock.seconds += 2 * MAX_SILENCE_S
    with (
        HttpEndpoint(LOOPBACK, 0, metrics, health) as endpoint,
        closing(HTTPConnection(LOOPBACK, endpoint.port, timeout=5)) as connection,
    ):
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 503


def test_metrics_are_served_as_prometheus_text(get, metrics):
    metrics.counter("fraud_things", "Things.").inc(3)
    status, kind, body = get("/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"fraud_things_total 3.0\n" in body
    assert b"process_resident_memory_bytes" in body


@pytest.mark.parametrize("path", ["/", "/health", "/metrics/", "/livez/deep", "//"])
def test_an_unknown_path_returns_404_with_the_known_paths(get, path):
    status, _, body = get(path)
    assert status == 404
    assert b"readyz" in body


def test_a_query_does_not_hide_a_path(get):
    assert get("/livez?verbose=1")[0] == 200
    assert get("/metrics?name[]=fraud_score")[0] == 200


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed_from_outside(get, method, path):
    assert get(path, method)[0] == 405


def test_probes_leave_no_trace_in_the_logs(get, capfd):
    get("/livez")
    get("/nothing")
    assert capfd.readouterr() == ("", "")


def test_a_client_that_says_nothing_does_not_keep_others_waiting(endpoint, get):
    with socket.create_connection((LOOPBACK, endpoint.port), timeout=5):
        assert get("/livez")[0] == 200


def test_a_port_in_use_is_a_setting_that_cannot_work(endpoint, metrics, health):
    with pytest.raises(ConfigurationError) as caught:
        HttpEndpoint(LOOPBACK, endpoint.port, metrics, health)
    assert f"FRAUD_HTTP_PORT={endpoint.port} cannot be bound" in str(caught.value)
    assert "a free port" in str(caught.value)


def test_an_address_that_is_not_ours_is_a_setting_that_cannot_work(metrics, health):
    with pytest.raises(ConfigurationError, match=r"FRAUD_HTTP_HOST=192\.0\.2\.1 .*cannot be bound"):
        HttpEndpoint("192.0.2.1", 0, metrics, health)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "addresses"), [("::", ("::1", LOOPBACK)), ("::1", ("::1",))])
def test_the_health_server_also_listens_on_ipv6(host, addresses, metrics, health):
    with HttpEndpoint(host, 0, metrics, health) as endpoint:
        for address in addresses:
            with closing(HTTPConnection(address, endpoint.port, timeout=5)) as connection:
                connection.request("GET", "/livez")
                assert connection.getresponse().status == 200


def test_the_port_is_free_again_afterwards(metrics, health):
    with HttpEndpoint(LOOPBACK, 0, metrics, health) as first:
        port = first.port
    with HttpEndpoint(LOOPBACK, port, metrics, health) as second:
        assert second.port == port


def test_every_histogram_of_processing_begins_at_a_hundred_microseconds(metrics):
    scorer = ScorerMetrics(metrics)
    scorer.processing.observe(0.00009)
    scorer.processing.observe(0.0002)
    seen = samples(metrics)
    assert seen["fraud_processing_seconds_bucket", "0.0001"] == 1
    assert seen["fraud_processing_seconds_bucket", "0.00025"] == 2
    assert seen["fraud_processing_seconds_count",] == 2


def test_observations_of_a_batch_are_counted_as_one_by_one(metrics):
    values = [0.0, 0.001, 0.0010001, 0.2, 0.2, 0.999, 1.0, 7.0]
    singly, together = Metrics(), metrics
    single, batch = ScorerMetrics(singly).scores, ScorerMetrics(together).scores
    for value in values:
        single.observe(value)
    batch.observe_all(values[:3])
    batch.observe_all([])
    batch.observe_all(values[3:])
    one, other = (
        {name: value for name, value in samples(made).items() if name[0].startswith("fraud_score")}
        for made in (singly, together)
    )
    assert one["fraud_score_count",] == len(values)
    assert one == pytest.approx(other)
    assert one.keys() == other.keys()


def test_scores_have_buckets_from_a_thousandth_to_one(metrics):
    ScorerMetrics(metrics)
    bounds = [name[1] for name in samples(metrics) if name[0] == "fraud_score_bucket"]
    assert (bounds[0], bounds[-2:]) == ("0.001", ["1.0", "+Inf"])


@pytest.mark.parametrize("kind", [ScorerMetrics, LearnerMetrics])
def test_no_series_says_when_it_was_created(metrics, kind):
    kind(metrics)
    ScorerMetrics(Metrics())
    assert b"_created" not in metrics.render()


def test_two_processes_in_one_have_metrics_of_their_own(metrics):
    first, second = ScorerMetrics(metrics), ScorerMetrics(Metrics())
    first.stale.inc()
    assert second.stale._value.get() == 0


def test_an_assessment_is_counted_by_its_outcome_and_score(metrics):
    scorer = ScorerMetrics(metrics)
    scorer.observe(verdicts(transaction("t1"), transaction("t2", MONDAY + 1), transaction("t1")))
    seen = samples(metrics)
    assert seen["fraud_transactions_total", "approve"] == 3
    assert seen["fraud_duplicate_transactions_total",] == 1
    assert seen["fraud_score_count",] == 2
    assert seen["fraud_score_bucket", "0.03"] == 0
    assert seen["fraud_score_bucket", "0.1"] == 2


def test_a_flagged_assessment_counts_its_amount_and_each_reason(metrics):
    scorer = ScorerMetrics(metrics)
    usual = transaction("t0", MONDAY - 1)
    _, verdict = verdicts(usual, transaction(**SUSPICIOUS), model=LinearModel(base=0.0, amount=4.0))
    assert verdict.decision.outcome is Outcome.DECLINE
    scorer.observe([verdict])
    seen = samples(metrics)
    assert seen["fraud_transactions_total", "decline"] == 1
    assert seen["fraud_flagged_amount_total", "EUR"] == 500.0
    given = {name[1]: value for name, value in seen.items() if name[0] == "fraud_reasons_total"}
    assert given == {**dict.fromkeys(ALL_CODES, 0.0), "UNUSUAL_AMOUNT": 1.0}


def test_a_reused_transaction_id_is_counted_once_however_often_its_payment_comes(metrics):
    scorer = ScorerMetrics(metrics)
    assert samples(metrics)["fraud_reused_transaction_ids_total",] == 0
    other = transaction("t1", amount=9999.0)
    scorer.observe(verdicts(transaction("t1"), other, other))
    seen = samples(metrics)
    assert seen["fraud_reused_transaction_ids_total",] == 1
    assert seen["fraud_duplicate_transactions_total",] == 1
    assert seen["fraud_reasons_total", "TRANSACTION_ID_REUSED"] == 1


def test_a_component_that_failed_is_counted(metrics):
    scorer = ScorerMetrics(metrics)
    (verdict,) = verdicts(transaction(), model=BrokenModel())
    scorer.observe([verdict])
    seen = samples(metrics)
    assert seen["fraud_component_failures_total", "pretrained"] == 1
    assert seen["fraud_component_failures_total", "online"] == 1
    assert seen["fraud_transactions_total", "review"] == 1


class SilentModel(LinearModel):
    """A pretrained model that scores and cannot say why."""

    def logits(self, rows):
        return [self.base] * len(rows)

    def contributions(self, row):
        raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("model", "unexplained"), [(SilentModel(2.0), 1), (LinearModel(2.0), 0), (SilentModel(-3.0), 0), (BrokenModel(), 0)]
)
def test_a_flagged_transaction_that_a_model_scored_is_counted_where_it_has_no_reasons(metrics, model, unexplained):
    scorer = ScorerMetrics(metrics)
    scorer.observe(verdicts(transaction(), model=model))
    assert samples(metrics)["fraud_unexplained_alerts_total",] == unexplained


def test_a_decision_on_an_old_snapshot_is_counted_as_stale(metrics):
    scorer, knowledge = ScorerMetrics(metrics), SnapshotStore(untrained("model-1", online_model()))
    old = snapshot(MONDAY - DAY, {}, {})
    knowledge.receive_snapshot(old)
    knowledge.apply_received()
    for at in (MONDAY, old.effective_from + HOUR - 1):
        (verdict,) = verdicts(transaction(f"at-{at}", at), knowledge=knowledge)
        scorer.observe([verdict])
    assert samples(metrics)["fraud_stale_decisions_total",] == 1


def test_the_currency_label_stays_bounded_whatever_messages_claim(metrics):
    scorer = ScorerMetrics(metrics)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    payments = [transaction(f"t-{a}{b}", currency=f"{a}{b}X", **SUSPICIOUS) for a in letters[:4] for b in letters]
    scorer.observe(verdicts(*payments, policy=Policy(review=0.0)))
    series = {name[1]: value for name, value in samples(metrics).items() if name[0] == "fraud_flagged_amount_total"}
    assert len(series) == MAX_CURRENCIES + 1
    assert series["AAX"] == 500.0
    assert series["other"] == 500.0 * (len(payments) - MAX_CURRENCIES)


def test_no_label_carries_a_card_a_merchant_or_a_transaction(metrics):
    scorer = ScorerMetrics(metrics)
    payment = transaction("tx-secret", card_id="card-secret", merchant_id="shop-secret", device_id="dev-secret")
    scorer.observe(verdicts(payment, payment, policy=Policy(review=0.0)))
    assert b"secret" not in metrics.render()


def test_the_newest_snapshot_is_shown(metrics):
    shown = snapshot(MONDAY, {}, {}, examples=17, online_weight=0.25)
    ScorerMetrics(metrics).show_snapshot(shown)
    seen = samples(metrics)
    assert seen["fraud_snapshot_examples",] == 17
    assert seen["fraud_snapshot_as_of_seconds",] == MONDAY / 1000
    assert seen["fraud_online_weight",] == 0.25
    assert seen["fraud_model_info", "model-1"] == 1


def example(*, outcome=Outcome.APPROVE, is_fraud=True, known_at=MONDAY + DAY, corrects=False):
    (verdict,) = verdicts(transaction())
    values = verdict.features.vector()
    scored = ScoredTransaction("t1", "card-1", "merchant-1", MONDAY, 25.0, -3.0, -3.0, 0.05, outcome, values, "model-1")
    return Example(scored, is_fraud, LabelSource.ANALYST, known_at, corrects)


def test_labelled_examples_are_counted_by_decision_and_label(metrics):
    learner = LearnerMetrics(metrics)
    learner.observe(example())
    learner.observe(example(is_fraud=False, outcome=Outcome.REVIEW))
    learner.observe(example(is_fraud=False, outcome=Outcome.REVIEW, corrects=True))
    seen = samples(metrics)
    assert seen["fraud_labelled_examples_total", "true"] == 1
    assert seen["fraud_labelled_examples_total", "false"] == 2
    assert seen["fraud_labelled_decisions_total", "true", "approve"] == 1
    assert seen["fraud_labelled_decisions_total", "false", "review"] == 2
    assert seen["fraud_labelled_fraud_amount_total", "approve"] == 25.0
    assert seen["fraud_corrections_total",] == 1
    assert seen["fraud_label_delay_seconds_sum",] == 3 * 86_400


def test_a_label_from_before_its_transaction_counts_as_no_delay(metrics):
    learner = LearnerMetrics(metrics)
    learner.observe(example(known_at=MONDAY - DAY))
    assert samples(metrics)["fraud_label_delay_seconds_sum",] == 0


@pytest.mark.parametrize("kind", [ScorerMetrics, LearnerMetrics])
def test_every_counter_but_that_of_currencies_is_there_from_the_start(metrics, kind):
    kind(metrics)
    counters = {family.name for family in metrics.registry.collect() if family.type == "counter"}
    shown = {name[0].removesuffix("_total") for name in samples(metrics)}
    assert {name for name in counters if name.startswith("fraud_")} - shown <= {"fraud_flagged_amount"}


@pytest.mark.parametrize(("kind", "role"), [(ScorerMetrics, "scorer"), (LearnerMetrics, "learner")])
def test_a_process_names_its_role_in_its_metrics(metrics, kind, role):
    kind(metrics)
    assert samples(metrics)["fraud_ready", role] == 0


@pytest.fixture
def hand(monkeypatch):
    """Give metrics a clock that stands still."""
    hand = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("fraud_service.runtime.metrics.stream.time", SimpleNamespace(time=lambda: hand.seconds))
    return hand


def test_lag_is_the_age_of_the_message_in_work_and_grows_while_the_loop_is_blocked(hand):
    pace = LagTracker()
    pace.record_idle(is_connected=True)
    pace.record_received(990.0)
    assert pace.lag_s() == 10
    hand.seconds += 5
    assert pace.lag_s() == 15


def test_a_tick_without_messages_means_no_lag_unless_the_brokers_are_unreachable(hand):
    pace = LagTracker()
    pace.record_received(990.0)
    pace.record_idle(is_connected=True)  # the turn before took a message: there may be more
    assert pace.lag_s() == 10
    pace.record_idle(is_connected=False)
    assert pace.lag_s() == 10
    pace.record_idle(is_connected=True)
    assert pace.lag_s() == 0


def test_a_broker_whose_clock_is_ahead_makes_no_negative_lag(hand):
    pace = LagTracker()
    pace.record_received(1001.0)
    assert pace.lag_s() == 0


def test_a_recovery_lasts_from_the_assignment_to_the_first_tick_and_is_visible_meanwhile(hand):
    pace = LagTracker()
    assert pace.recovery_s() == 0
    pace.record_assigned()
    hand.seconds += 30
    assert pace.recovery_s() == 30
    pace.record_idle(is_connected=True)
    hand.seconds += 30
    pace.record_idle(is_connected=True)
    assert pace.recovery_s() == 30
    pace.record_assigned()
    assert pace.recovery_s() == 0
