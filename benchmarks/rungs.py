"""The rungs below the scorer: a bare client, plain Quix, and a stateful Quix step with output.

`python benchmarks/rungs.py RUNG BOOTSTRAP SOURCE OUTPUT GROUP FOLDER GUARANTEE` runs until a signal ends it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from confluent_kafka import Consumer
from quixstreams import Application

from fraud_service.domain.events import decode_transaction

COMMIT = 1.0  # seconds


def raw(bootstrap: str, source: str, _output: str, group: str, _folder: str, _guarantee: str) -> None:
    """Only consume and decode."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([source])
    due = 0.0
    while True:
        messages = consumer.consume(256, timeout=0.1)
        for message in messages:
            decode_transaction(message.value())
        if messages and time.monotonic() > due:
            due = time.monotonic() + COMMIT / 10  # ten times as often, since this rung is soon done
            consumer.commit(asynchronous=False)


def _application(bootstrap: str, group: str, folder: str, guarantee: str) -> Application:
    return Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        commit_interval=COMMIT,
        processing_guarantee=guarantee,
        loglevel=None,
    )


def passthrough(bootstrap: str, source: str, output: str, group: str, folder: str, guarantee: str) -> None:
    """Copy each message to the output as bytes."""
    app = _application(bootstrap, group, folder, guarantee)
    frame = app.dataframe(app.topic(source, value_deserializer="bytes"))
    frame.to_topic(app.topic(output, value_serializer="bytes"))
    app.run()


def stateful(bootstrap: str, source: str, output: str, group: str, folder: str, guarantee: str) -> None:
    """Count each card's messages in the state and copy the bytes: the minimum of a stateful step with output."""
    app = _application(bootstrap, group, folder, guarantee)

    def count(value: bytes, state: Any) -> bytes:
        state.set("count", state.get("count", 0) + 1)
        return value

    frame = app.dataframe(app.topic(source, value_deserializer="bytes"))
    frame.apply(count, stateful=True).to_topic(app.topic(output, value_serializer="bytes"))
    app.run()


def parsed(bootstrap: str, source: str, output: str, group: str, folder: str, guarantee: str) -> None:
    """Count in the same way with JSON in and out, Quix's default: the minimum of a step that reads its payments."""
    app = _application(bootstrap, group, folder, guarantee)

    def count(payment: dict[str, Any], state: Any) -> dict[str, Any]:
        number = state.get("count", 0) + 1
        state.set("count", number)
        return {**payment, "number": number}

    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    frame.apply(count, stateful=True).to_topic(app.topic(output, value_serializer="json"))
    app.run()


if __name__ == "__main__":
    {"raw": raw, "passthrough": passthrough, "stateful": stateful, "parsed": parsed}[sys.argv[1]](*sys.argv[2:])
