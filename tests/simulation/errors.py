"""What a broker answers when it refuses, and what a client makes of it."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException


class BrokerError(Exception):
    """An error code in an answer of the broker."""

    def __init__(self, code: int) -> None:
        super().__init__(KafkaError(code).name())
        self.code = code


class Crash(BaseException):
    """The process is gone: nothing it still does reaches the broker."""


def refused(code: int, *, fatal: bool = False, retriable: bool = False, abortable: bool = False) -> KafkaException:
    """Make the exception that a client raises."""
    return KafkaException(
        KafkaError(code, KafkaError(code).name(), fatal=fatal, retriable=retriable, txn_requires_abort=abortable)
    )


def timed_out() -> KafkaException:
    """Make what a client raises when no answer came in time; it may ask again."""
    return refused(KafkaError._TIMED_OUT, retriable=True)


def undelivered() -> KafkaException:
    """Make what a delivery report says of a message that may or may not have arrived."""
    return refused(KafkaError._MSG_TIMED_OUT)


def disconnected() -> KafkaException:
    """Make what a poll says of a connection that broke."""
    return refused(KafkaError._TRANSPORT)
