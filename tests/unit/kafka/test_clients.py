"""Clients are made from the settings."""

from __future__ import annotations

import pytest

from fraud_service.config.kafka_options import RESERVED
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka import clients
from fraud_service.kafka.clients import connection
from fraud_service.runtime.client_options import consumer_options, producer_options


def test_kafka_options_never_override_the_bootstrap_servers():
    settings = Settings(
        bootstrap_servers="right:9092", kafka_config={"bootstrap.servers": "wrong:9092", "client.id": "x"}
    )
    options = {"bootstrap.servers": "right:9092", "client.id": "x", "logger": clients.CLIENT_LOG}
    assert connection(settings) == options


def all_options(monkeypatch, **chosen: str) -> list[dict]:
    """Return the options of every kind of client."""
    settings = Settings(instance_id="pod-0", kafka_config=chosen)
    made: list[dict] = []
    monkeypatch.setattr(clients, "_create", lambda _, options: made.append(options))
    clients.producer(settings)
    clients.producer(settings, {"message.max.bytes": 1 << 25})
    made.append(clients.reader_options(settings, "name"))
    made.append(consumer_options(settings, "group", print))
    made += [
        producer_options(settings, "group", exactly_once=exactly_once, transaction_timeout_ms=None)
        for exactly_once in (True, False)
    ]
    return made


def test_outputs_have_a_compression_that_every_client_reads(monkeypatch):
    found = [options["compression.type"] for options in all_options(monkeypatch) if "partitioner" in options]
    assert found == ["gzip"] * 4


def test_an_option_of_the_user_replaces_our_default_in_every_client(monkeypatch):
    ours = {name for options in all_options(monkeypatch) for name in options} - RESERVED.keys() - {"stats_cb", "logger"}
    assert ours >= {"compression.type", "linger.ms", "fetch.wait.max.ms", "message.max.bytes"}
    for name in ours:
        assert all(options[name] == "7" for options in all_options(monkeypatch, **{name: "7"}))


@pytest.mark.parametrize("name", ["compression.type", "compression.codec"])
def test_a_codec_of_the_user_does_not_get_the_level_of_ours(monkeypatch, name):
    for options in all_options(monkeypatch, **{name: "zstd"}):
        assert options[name] == "zstd"
        assert "compression.level" not in options
        assert options.get("compression.type", "zstd") == "zstd"


@pytest.mark.parametrize("name", ["error_cb", "no.such.option"])
def test_an_option_that_the_client_does_not_take_is_a_configuration_error(name):
    with pytest.raises(ConfigurationError, match="FRAUD_KAFKA_CONFIG has an invalid option"):
        clients.producer(Settings(kafka_config={name: "x"}))
