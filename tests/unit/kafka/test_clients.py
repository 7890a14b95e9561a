"""Clients are made from the settings."""

from __future__ import annotations

from fraud_service.config.settings import Settings
from fraud_service.kafka.clients import connection


def test_kafka_options_never_override_the_bootstrap_servers():
    settings = Settings(
        bootstrap_servers="right:9092", kafka_config={"bootstrap.servers": "wrong:9092", "client.id": "x"}
    )
    assert connection(settings) == {"bootstrap.servers": "right:9092", "client.id": "x"}
