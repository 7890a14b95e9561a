"""The errors of brokers, and the exceptions that clients raise for them."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException


class BrokerError(Exception):
    """An error code in a response of the broker."""

    def __init__(self, code: int) -> None:
        super().__init__(KafkaError(code).name())
        self.code = code


class Crash(BaseException):
    """The process has crashed: none of its later calls reach the broker."""


def kafka_error(code: int, *, fatal: bool = False, retriable: bool = False, abortable: bool = False) -> KafkaException:
    """Create the exception that a client raises for an error code."""
    return KafkaException(
        KafkaError(code, KafkaError(code).name(), fatal=fatal, retriable=retriable, txn_requires_abort=abortable)
    )


def timed_out() -> KafkaException:
    """Create the retriable exception of a client that got no response in time."""
    return kafka_error(KafkaError._TIMED_OUT, retriable=True)


def undelivered() -> KafkaException:
    """Create the error of a delivery report when the message may or may not have arrived."""
    return kafka_error(KafkaError._MSG_TIMED_OUT)


def disconnected() -> KafkaException:
    """Create the error that a poll returns after a broken connection."""
    return kafka_error(KafkaError._TRANSPORT)
