"""Brokers for the whole test session, each started by the first test that asks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support import apache_kafka as kafka

from fraud_service.demo.broker import EmbeddedBroker, EmbeddedBrokerError, find_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def apache_kafka() -> Iterator[kafka.ApacheKafka]:
    """Give a running Apache Kafka; where it cannot run, skip, or fail if FRAUD_TEST_REQUIRE_KAFKA is 1."""
    kafka.ensure_java()
    reason = kafka.why_unavailable()
    if reason is not None and kafka.required():
        pytest.fail(f"FRAUD_TEST_REQUIRE_KAFKA is 1, and {reason}")
    if reason is not None:
        pytest.skip(reason)
    with kafka.ApacheKafka() as broker:
        yield broker
