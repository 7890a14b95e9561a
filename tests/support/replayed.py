"""Logs to replay, written by a loop: payments with late labels, duplicates, dead letters and a promotion."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from support.archived import Log
from support.loop import looped

from fraud_service.domain.events import Label, LabelSource, Transaction
from fraud_service.domain.time import DAY, HOUR
from fraud_service.models import artifact
from fraud_service.verification import replay
from fraud_service.verification.decisions import TimeRange

if TYPE_CHECKING:
    from pathlib import Path

START = 1_700_000_000_000 - 1_700_000_000_000 % DAY
QUICK = {
    "label_maturity": timedelta(days=1),
    "label_retention": timedelta(days=20),
    "snapshot_interval": timedelta(hours=3),
}


def payment(number: int, card: int, merchant: int, amount: float, hour: int) -> Transaction:
    return Transaction(
        transaction_id=f"t-{number}",
        timestamp=START + hour * HOUR + number,
        card_id=f"c-{card}",
        merchant_id=f"m-{merchant}",
        amount=amount,
        currency="EUR",
        country="DE" if merchant else "FR",
        entry_mode="ecommerce",
    )


def other_model() -> artifact.Artifact:
    """Return the shipped model under another name."""
    shipped = artifact.read(artifact.shipped_folder())
    return msgspec.structs.replace(
        shipped, manifest=msgspec.structs.replace(shipped.manifest, version="forest-promoted")
    )


def played(folder: Path, events, promoted_at: int | None = None, **settings: object) -> Log:
    """Run payments and labels through a loop: (card, merchant, amount, gap, label delay, is fraud)."""
    with looped(folder, **(QUICK | settings)) as loop:
        hour, waiting = 0, []
        for number, (card, merchant, amount, gap, delay, fraud) in enumerate(events):
            hour += gap
            one = payment(number, card, merchant, amount, hour)
            for due, label in list(waiting):
                if due <= hour:
                    loop.label(label)
                    waiting.remove((due, label))
            loop.transaction(one)
            if number % 9 == 8:
                loop.transaction(one)  # a duplicate
            if number % 11 == 10:
                loop.raw(b"{", b"c-0")
            if delay is not None:
                label = Label(
                    transaction_id=one.transaction_id,
                    card_id=one.card_id,
                    is_fraud=fraud,
                    labelled_at=START + (hour + delay) * HOUR,
                    source=LabelSource.CHARGEBACK,
                )
                waiting.append((hour + delay, label))
            if number == promoted_at:
                loop.promote(other_model())
            if number % 5 == 4:
                loop.tick()
        loop.tick()
        return Log.of(loop)


WHOLE = TimeRange()


def verified(log: Log, time_range: TimeRange = WHOLE) -> replay.ReplayResult:
    with pytest.MonkeyPatch.context() as patch:
        log.serve(patch)
        return replay.verify(log.settings, replay.plan(log.settings, time_range))


def copy(log: Log) -> Log:
    fresh = Log(log.settings, log.partitions)
    fresh.entries.update({place: list(entries) for place, entries in log.entries.items()})
    return fresh
