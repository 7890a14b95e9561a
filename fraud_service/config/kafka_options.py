"""Which librdkafka options a user may set in FRAUD_KAFKA_CONFIG.

An option of the user replaces our default. Our guarantees depend on some options: another value of these stops the
start. So no option is accepted and then ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


# Names of options whose values are secret. librdkafka reads the OAUTHBEARER options of users from one text.
_SECRET: Final = re.compile(r"password|passphrase|secret|key\.pem|oauthbearer\.config|token$|jaas|kinit", re.IGNORECASE)


class Reserved(NamedTuple):
    """An option that the service sets itself: what to do instead, and the values that equal ours."""

    advice: str
    values: tuple[str, ...] = ()


_BROKERS: Final = Reserved("set FRAUD_BOOTSTRAP_SERVERS instead")
_TIMEOUT: Final = Reserved("the service derives it from FRAUD_SESSION_TIMEOUT, which you can set")
_NAME: Final = Reserved("set FRAUD_INSTANCE_ID instead")
_OFFSETS: Final = Reserved("the service commits offsets together with its results", ("false", "f", "0"))
_ACKS: Final = Reserved("all replicas in sync must have each record", ("all", "-1"))

RESERVED: Final[Mapping[str, Reserved]] = {
    "bootstrap.servers": _BROKERS,
    "metadata.broker.list": _BROKERS,
    "group.id": Reserved("set FRAUD_SCORER_GROUP, FRAUD_LEARNER_GROUP or FRAUD_TOKENIZER_GROUP instead"),
    "group.instance.id": _NAME,
    "transactional.id": _NAME,
    "session.timeout.ms": Reserved("set FRAUD_SESSION_TIMEOUT instead"),
    "transaction.timeout.ms": _TIMEOUT,
    "message.timeout.ms": _TIMEOUT,
    "delivery.timeout.ms": _TIMEOUT,
    "group.protocol": Reserved("the service needs static members and the range assignor", ("classic",)),
    "partition.assignment.strategy": Reserved("a scorer needs the same partitions of all its topics", ("range",)),
    "partitioner": Reserved("all records of a card must be in its partition", ("murmur2",)),
    "enable.idempotence": Reserved("a retry must not repeat or reorder records", ("true", "t", "1")),
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "isolation.level": Reserved("aborted records must not be read", ("read_committed",)),
    "enable.auto.commit": _OFFSETS,
    "auto.commit.enable": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "auto.offset.reset": Reserved(
        "a new group must read its inputs from the beginning", ("earliest", "smallest", "beginning")
    ),
    "enable.partition.eof": Reserved("the service finds ends by offset", ("false", "f", "0")),
    "delivery.report.only.error": Reserved("the service waits for every report", ("false", "f", "0")),
    "statistics.interval.ms": Reserved("the health check needs statistics every five seconds", ("5000",)),
}


def require_allowed(options: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for an option that the service sets to another value."""
    for name, value in options.items():
        reserved = RESERVED.get(name)
        if reserved is None or value.strip().lower() in reserved.values:
            continue
        ours = f" The service sets it to {reserved.values[0]}." if reserved.values else ""
        raise ConfigurationError(f"FRAUD_KAFKA_CONFIG has {name}={value}: {reserved.advice}.{ours} Remove the option")


def without_secrets(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options with `***` in place of passwords, keys and tokens.

    >>> without_secrets({"sasl.username": "scorer", "sasl.password": "x", "ssl.key.location": "/keys/a.pem"})
    {'sasl.username': 'scorer', 'sasl.password': '***', 'ssl.key.location': '/keys/a.pem'}
    """
    return {name: "***" if _SECRET.search(name) else value for name, value in options.items()}
