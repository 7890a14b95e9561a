"""Names of topics, groups and stores are the identity of the state: whoever changes one must write a migration."""

from __future__ import annotations

from support.loop import looped

from fraud_service.config.settings import Settings
from fraud_service.domain import label_join_rows, model_weighting, online_training, profile
from fraud_service.kafka import topics
from fraud_service.processors import learner, scorer


def test_the_names_in_the_state_format_have_not_changed(monkeypatch):
    monkeypatch.delenv("FRAUD_TOPICS__SCORES", raising=False)
    assert {spec.role: spec.name for spec in topics.topic_specs(Settings())} == {
        "transactions": "payments.transactions.v1",
        "labels": "payments.fraud-labels.v1",
        "scores": "fraud.scores.v1",
        "alerts": "fraud.alerts.v1",
        "labelled": "fraud.labelled.v1",
        "snapshots": "fraud.snapshots.v1",
        "models": "fraud.models.v1",
        "risk": "fraud.risk.v1",
        "dead_letters": "fraud.dead-letters.v1",
        "scorer_state": "changelog__fraud-scorer--payments.transactions.v1--default",
        "learner_state": "changelog__fraud-learner--fraud.scores.v1--default",
    }
    assert (scorer.PROFILE, learner.STATE_KEY, learner.WATERMARK_KEY, learner.JOIN_KEY, learner.EXAMPLES_KEY) == (
        "profile",
        "state",
        "watermark",
        b"join",
        b"examples",
    )


def test_the_layout_of_the_state_has_not_changed_without_its_version():
    assert profile.Days.__struct_fields__ == (
        "numbers",
        "counts",
        "totals",
        "largest",
        "outliers",
        "amounts",
        "others",
    )
    assert profile.RECENT.format == "<8sqdQ3s"
    assert (profile.SCHEMA, profile.Profile.__struct_fields__) == (
        6,
        (
            "schema",
            "count",
            "first_seen",
            "last_seen",
            "usual_log_amount",
            "deviation",
            "hours",
            "days",
            "recent",
            "decisions",
            "merchants",
            "countries",
            "devices",
            "place",
            "has_crcs",
            "currency",
            "amounts",
        ),
    )
    assert (online_training.SCHEMA, online_training.LearnerState.__struct_fields__) == (
        2,
        (
            "schema",
            "closed",
            "start",
            "last_trained",
            "examples",
            "label_horizon",
            "comparison",
            "risk_digest",
            "model",
            "pretrained",
        ),
    )
    assert model_weighting.DailyHistogram.__struct_fields__ == (
        "day",
        "pretrained_frauds",
        "pretrained_legitimate",
        "online_frauds",
        "online_legitimate",
    )
    assert label_join_rows.PendingTransaction.__struct_fields__ == (
        "packed",
        "waiting",
        "trained_label",
        "trained_known_at",
        "labelled_at",
        "labelled_by",
        "others",
    )


def test_quix_registers_one_store_for_each_application(tmp_path):
    with looped(tmp_path) as loop:
        names = loop.settings.topics
        for driver, source in ((loop.scorer, names.transactions), (loop.learner, names.scores)):
            stores = driver.app._state_manager.stores
            assert {stream: list(named) for stream, named in stores.items()} == {source: [topics.STORE]}


def test_no_message_waits_for_one_of_another_topic(tmp_path):
    """Joined or put together, topics are read in the order of their times, and an idle one holds up the others."""
    with looped(tmp_path) as loop:
        for driver in (loop.scorer, loop.learner):
            assert not driver.app._dataframe_registry.requires_time_alignment
