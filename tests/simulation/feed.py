"""The input of a simulation: payments of few cards, some duplicates, reused ids, malformed and aborted messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from simulation.broker import START
from simulation.host import here
from simulation.producer import Producer
from support.malformed import MALFORMED
from support.worlds import transaction

from fraud_service.domain.events import decode_transaction, encode

if TYPE_CHECKING:
    import random

    from fraud_service.config.settings import Settings

CARDS = 6
MINUTE = 60_000


def feed(settings: Settings, luck: random.Random) -> None:
    """Send 20 to 60 messages over about half a minute, a few at a time."""
    producer = Producer({"transactional.id": "upstream"})
    producer.init_transactions()
    sent: list[tuple[bytes, bytes | None]] = []
    left = luck.randint(20, 60)
    while left > 0:
        producer.begin_transaction()
        size = min(left, luck.choice([1, 1, 2, 3, 8]))
        for _ in range(size):
            value, key = message(luck, sent)
            producer.produce(settings.topics.transactions, value, key)
        if luck.random() < 0.1:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            left -= size
        here.get().pause(luck.choice([0.01, 0.3, 1, 3]))


def message(luck: random.Random, sent: list[tuple[bytes, bytes | None]]) -> tuple[bytes | None, bytes | None]:
    """Return value and key of the next message."""
    what = luck.random()
    if what < 0.1:
        value, key, _ = luck.choice(MALFORMED)
        return value, key
    if what < 0.25 and sent:
        return luck.choice(sent)
    if what < 0.33 and sent:
        used = decode_transaction(luck.choice(sent)[0])
        other = luck.choice([{"amount": 9999.0}, {"merchant_id": "merchant-9"}, {"timestamp": used.timestamp + 1}])
        sent.append((encode(msgspec.structs.replace(used, **other)), used.card_id.encode()))
        return sent[-1]
    card = f"card-{luck.randrange(CARDS)}"
    payment = transaction(
        f"t-{len(sent)}",
        int(START * 1000) - luck.randrange(30 * 24 * 60) * MINUTE,
        card_id=card,
        merchant_id=f"merchant-{luck.randrange(4)}",
        amount=luck.choice([5.0, 25.0, 99.9, 400.0]),
    )
    sent.append((encode(payment), card.encode()))
    return sent[-1]
