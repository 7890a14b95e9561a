"""Send one transaction and wait for its score: what `helm test` runs inside the image.

It is a payment of a card and a merchant of its own, of the least amount, and kept in the scores topic. Its currency is
that for tests: the learner ignores it, so a history can follow.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

from confluent_kafka import TopicPartition

from fraud_service.config import settings
from fraud_service.kafka import clients

PATIENCE = 120.0  # seconds
CARD = "helm-test"


def main() -> int:
    """Return 0 when the score came."""
    chosen = settings.load()
    consumer = clients.reader(chosen, "fraud-helm-test")
    topic = chosen.topics.scores
    numbers = consumer.list_topics(topic, timeout=clients.REQUEST_TIMEOUT_S).topics[topic].partitions
    places = [TopicPartition(topic, number) for number in numbers]
    for place in places:  # from the present end, fixed before the transaction is sent
        place.offset = consumer.get_watermark_offsets(place, timeout=clients.REQUEST_TIMEOUT_S)[1]
    consumer.assign(places)
    wanted = f"helm-test-{uuid4()}"
    payment = {
        "transaction_id": wanted,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "card_id": CARD,
        "merchant_id": "helm-test",
        "amount": "0.01",
        "currency": "XTS",  # ISO 4217's code for tests
    }
    producer = clients.producer(chosen)
    producer.produce(chosen.topics.transactions, json.dumps(payment).encode(), CARD.encode())
    if producer.flush(clients.REQUEST_TIMEOUT_S):
        sys.stderr.write("the transaction could not be sent\n")
        return 1
    start = time.monotonic()
    while time.monotonic() < start + PATIENCE:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        try:
            score = json.loads(message.value() or b"")
        except ValueError:
            continue  # a foreign record
        if isinstance(score, dict) and score.get("transaction_id") == wanted:
            took = time.monotonic() - start
            # Escaped: whoever writes to the topic must not reach a terminal.
            sys.stdout.write(f"scored after {took:.2f} s: {score.get('outcome')!a}, {score.get('score')!a}\n")
            return 0
    sys.stderr.write(f"no score of {wanted} within {PATIENCE:.0f} s: see the logs of the scorers\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
