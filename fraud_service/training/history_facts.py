"""Figures of a history that show whether it was read as its owner meant it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.text import count_of
from fraud_service.domain.time import DAY, rfc3339
from fraud_service.training.history_arrow import pc

if TYPE_CHECKING:
    from fraud_service.training.history_arrow import pa

TRAINING_TENTHS: Final = 7  # of the time of a history
MAX_FRAUD_SHARE: Final = 0.2
MIN_FRAUDS: Final = 20
MIN_DAYS: Final = 14  # with fewer, too few days remain to test a model on
MIN_PAYMENTS_PER_CARD: Final = 3


class HistoryFacts(msgspec.Struct, frozen=True):
    """What the rows that were read have in common. Delays are in days."""

    begin: str
    end: str
    split: str  # the day after seven tenths of the time: to train before it, and to test from it on
    days: float
    cards: int
    merchants: int
    median_payments_per_card: float
    max_payments_per_card: int
    currencies: dict[str, int]
    median_amount: float
    max_amount: float
    labelled: int
    frauds: int
    fraud_share: float | None = None
    label_delay_days: tuple[float, float, float] | None = None  # minimum, median, maximum


def facts_of(table: pa.Table) -> HistoryFacts | None:
    """Count what a table of converted rows holds. Returns None if there are none."""
    if not table.num_rows:
        return None
    times = pc.min_max(table["timestamp"]).as_py()
    cards = pc.value_counts(table["card_id"].combine_chunks()).field("counts")
    currencies = pc.value_counts(table["currency"].combine_chunks())
    names = table.column_names
    labelled = table["label"].drop_null() if "label" in names else None
    frauds = 0 if labelled is None else int(pc.sum(labelled).as_py() or 0)
    return HistoryFacts(
        begin=rfc3339(times["min"]),
        end=rfc3339(times["max"]),
        split=rfc3339(times["min"] + TRAINING_TENTHS * (times["max"] - times["min"]) // 10 + DAY)[:10],
        days=round((times["max"] - times["min"]) / DAY, 1),
        cards=len(cards),
        merchants=pc.count_distinct(table["merchant_id"]).as_py(),
        median_payments_per_card=_quantile(cards, 0.5),
        max_payments_per_card=pc.max(cards).as_py(),
        currencies={one["values"]: one["counts"] for one in currencies.to_pylist()},
        median_amount=_quantile(table["amount"], 0.5),
        max_amount=pc.max(table["amount"]).as_py(),
        labelled=0 if labelled is None else len(labelled),
        frauds=frauds,
        fraud_share=frauds / len(labelled) if labelled is not None and len(labelled) else None,
        label_delay_days=_label_delays(table),
    )


def _label_delays(table: pa.Table) -> tuple[float, float, float] | None:
    if "labelled_at" not in table.column_names:
        return None
    delays = pc.subtract(table["labelled_at"], table["timestamp"]).drop_null()
    if not len(delays):
        return None
    shortest, median, longest = (_quantile(delays, share) / DAY for share in (0, 0.5, 1))
    return round(shortest, 2), round(median, 2), round(longest, 2)


def _quantile(values: pa.ChunkedArray | pa.Array, share: float) -> float:
    return float(pc.quantile(values, share)[0].as_py())


def doubts_about(facts: HistoryFacts, rows: int, *, is_whole_file: bool) -> list[str]:
    """Say which figures are hard to believe, and what their cause may be."""
    doubts = [*_doubts_about_labels(facts, rows)]
    if len(facts.currencies) > 1:
        several = ", ".join(
            f"{name} {count:,}" for name, count in sorted(facts.currencies.items(), key=lambda i: -i[1])
        )
        doubts.append(f"several currencies ({several}). The service compares amounts within one currency of a card")
    if is_whole_file and facts.days < MIN_DAYS:
        doubts.append(
            f"the payments cover {count_of(facts.days, 'day')}. To train on some and test on later ones takes weeks"
        )
    if is_whole_file and facts.median_payments_per_card < MIN_PAYMENTS_PER_CARD:
        doubts.append(
            f"half of the cards have at most {count_of(facts.median_payments_per_card, 'payment')}, so most profiles "
            "stay empty. Is `card_id` the right column?"
        )
    if facts.cards == 1 and rows > 1:
        doubts.append("all payments have the same card. Is `card_id` the right column?")
    return doubts


def _doubts_about_labels(facts: HistoryFacts, rows: int) -> list[str]:
    if not facts.labelled:
        return ["no row has a label. `feed` can send the file; `train` and `backtest` need labels"]
    doubts = []
    share = facts.fraud_share or 0.0
    if not facts.frauds:
        doubts.append("no payment is labelled as fraud. Is the label another column, or does another value mean fraud?")
    elif share > MAX_FRAUD_SHARE:
        doubts.append(
            f"{share:.1%} of the labels are fraud. Are 0 and 1 swapped, or were legitimate payments left out?"
        )
    elif facts.frauds < MIN_FRAUDS:
        doubts.append(f"{count_of(facts.frauds, 'fraud')}: too few to learn from, and figures would vary by chance")
    if facts.labelled < rows:
        doubts.append(f"{rows - facts.labelled:,} of {rows:,} rows have no label: `train` counts them as legitimate")
    if facts.label_delay_days is None:
        doubts.append("no column says when labels became known: --label-delay sets it, 7d by default")
    elif facts.label_delay_days[1] < 1 / 24:
        doubts.append("half of the labels are known within an hour. Chargebacks take days: figures would be too good")
    return doubts
