"""Brokers for the whole test session, each started by the first test that asks for it; which tests run first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support import apache_kafka as kafka
from support.shared_broker import SharedBroker, shared_broker

from fraud_service.demo.broker import EmbeddedBroker, EmbeddedBrokerError, find_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["support.scheduling", "support.daily_seeds"]

os.environ["FRAUD_ALLOW_UNSIGNED"] = "true"  # what is signed is tested by itself


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """Give the running embedded broker; skip where it is not installed."""
    try:
        find_binary()
    except EmbeddedBrokerError as error:
        pytest.skip(str(error))
    # A broker that is installed and does not start is a failure.
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_can_run() -> None:
    """Skip where Apache Kafka cannot run, or fail if FRAUD_TEST_REQUIRE_KAFKA is 1."""
    kafka.ensure_java()
    reason = kafka.why_unavailable()
    if reason is not None and kafka.required():
        pytest.fail(f"FRAUD_TEST_REQUIRE_KAFKA is 1, and {reason}")
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def apache_kafka(kafka_can_run, tmp_path_factory) -> Iterator[SharedBroker]:
    """Give a running Apache Kafka that all workers share: no test may stop it."""
    folder = tmp_path_factory.getbasetemp()
    with shared_broker(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder, started_kafka) as broker:
        yield broker


def started_kafka() -> kafka.ApacheKafka:
    return kafka.ApacheKafka().__enter__()


@pytest.fixture(scope="module")
def own_kafka(kafka_can_run) -> Iterator[kafka.ApacheKafka]:
    """Give a module an Apache Kafka of its own, which it may kill and start again."""
    with kafka.ApacheKafka() as broker:
        yield broker


@pytest.fixture
def clean_environment(monkeypatch) -> None:
    """Remove every setting from the environment."""
    for name in list(os.environ):
        if name.upper().startswith("FRAUD_"):
            monkeypatch.delenv(name)
