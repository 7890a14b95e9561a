"""Measure how long each role takes for 256 messages of 64 KiB with the worst known content.

    PYTHONPATH=tests python benchmarks/worst_messages.py

Prints the processor time (s) for the bare content and for the content within a JSON object.
"""

from __future__ import annotations

import json
import random
import time
from typing import Final

from support.hostile import WORST, worst
from support.malformed import BROKER_TIME, GOOD
from support.steps import NAMES, Steps

from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.kafka.messages import Received

MESSAGES: Final = 256
ROUNDS: Final = 3
ROLES: Final = {
    "scorer": NAMES.transactions,
    "learner": NAMES.labels,
    "tokenizer": NAMES.raw_transactions,
    "tokenizer, labels": NAMES.raw_labels,
}


def within_json(content: bytes) -> bytes:
    """Return a payment of the maximum size with the content in one of its text fields."""
    head = json.dumps(GOOD)[:-1].encode() + b', "note": "'
    return head + content[: MAX_EVENT_BYTES - len(head) - 2].translate(None, b'"\\') + b'"}'


def contents() -> dict[str, bytes]:
    """Return the contents by name: the worst ones of the tests, and random ones."""
    chance = random.Random(1)  # noqa: S311 - no secrets
    alphabets = {
        "random bytes": bytes(range(256)),
        "random digits": b"0123456789",
        "random digits and separators": b"0123456789 -.,",
        "random escapes": b"\\u0034%&#;^=:{[",
    }
    made = {name: bytes(chance.choices(alphabet, k=MAX_EVENT_BYTES)) for name, alphabet in alphabets.items()}
    return {name: worst(name) for name in WORST} | made


def seconds(steps: Steps, topic: str, value: bytes) -> float:
    """Return the processor time (s) of all messages."""
    message = Received(topic, 0, 0, b"c-1", value, BROKER_TIME)
    began = time.process_time()
    for _ in range(ROUNDS):
        steps.take(message)
    return (time.process_time() - began) / ROUNDS * MESSAGES


def main() -> None:
    """Print the table."""
    steps = Steps()
    print(f"| content | {' | '.join(ROLES)} |\n|---|{'---|' * len(ROLES)}")  # noqa: T201 - what it is for
    for name, content in contents().items():
        cells = [
            f"{seconds(steps, topic, content):.1f} / {seconds(steps, topic, within_json(content)):.1f}"
            for topic in ROLES.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
