"""The records on the output topics, as JSON. The published schemas are generated from these classes."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID, uuid5

import msgspec

from fraud_service.domain.codec import Count, ModelVersion, Moment, json_decoder
from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.events import LabelSource, Transaction, facts
from fraud_service.domain.features import Features
from fraud_service.domain.reasons import rest
from fraud_service.domain.scoring import probability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.domain.decision import Decision
    from fraud_service.domain.detector import Assessment

# The ids of alerts derive from it. A change would give every past alert a new id.
ALERT_NAMESPACE = UUID("6f1c1f0e-5b1e-5d6c-9d59-0a4c8a1f3b77")

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ReasonRecord(msgspec.Struct, frozen=True):
    """One reason for an alert; `contribution` is in logits."""

    code: str
    text: str
    contribution: float


class ScoreRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision: the audit log, and the input of the learner.

    The logits are exact; the probabilities are for readers. A duplicate carries the first decision again, and its
    `features` is null. `is_id_reused` is present only when it is true. `utc_offset_min` are the minutes by which the
    local time in the features was ahead of UTC; absent when that was UTC.
    """

    transaction_id: str
    timestamp: Moment
    card_id: str
    merchant_id: str
    amount: float
    currency: str
    outcome: Outcome
    score: Probability
    pretrained: Probability | None
    online: Probability | None
    pretrained_logit: float | None
    online_logit: float | None
    online_weight: Probability
    model: str
    snapshot: str
    is_stale: bool
    is_duplicate: bool
    reasons: list[ReasonRecord]
    features: Features | None
    is_id_reused: bool = False
    utc_offset_min: int = 0

    def transaction(self) -> Transaction:
        """Return the transaction as far as the score records it: of its optional fields, with the local time."""
        return Transaction(
            transaction_id=self.transaction_id,
            timestamp=self.timestamp,
            card_id=self.card_id,
            merchant_id=self.merchant_id,
            amount=self.amount,
            currency=self.currency,
            utc_offset_min=self.utc_offset_min,
        )


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A flagged transaction, for case management.

    The logit of `score` is `base` plus all `contributions`, or `base` plus the contributions of the `reasons` plus
    `rest`. An older version wrote no `rest`.
    """

    transaction: Transaction
    outcome: Outcome
    score: Probability
    pretrained: Probability | None
    online: Probability | None
    model: str
    snapshot: str
    reasons: list[ReasonRecord]
    base: float | None
    contributions: dict[str, float]
    rest: float | None = None


class LabelledRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One labelled example: the features that were scored, and the label.

    `known_at` is when the label became known (epoch milliseconds). `source` is who reported it, null if label maturity
    passed without a label. `weight` is the weight in the online model's training, 0 if the sampler skipped it.
    `boundary_ms` is the boundary (epoch milliseconds) of the first snapshot that contains the label. `corrects`: the
    opposite was trained before. `currency` is missing in scores of an older version.
    """

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: Moment
    amount: float
    currency: str = ""
    is_fraud: bool
    source: LabelSource | None
    known_at: Moment
    corrects: bool
    weight: float
    boundary_ms: Moment
    pretrained_logit: float | None
    online_logit: float | None
    score: Probability
    outcome: Outcome
    model: str
    features: Features


class RefitRecord(msgspec.Struct, frozen=True):
    """The result of a re-fit, with or without a promotion.

    `at` is its event time (epoch milliseconds). `champion` and `challenger` are average precisions on the last labelled
    days, null if there were too few frauds. The challenger must win by `margin`. The better challenger was fitted on
    `span_days`. `promoted` is its version, null if the champion stays.
    """

    at: Moment
    champion_model: ModelVersion
    champion: float | None
    challenger: float | None
    margin: float
    span_days: float
    rows: Count
    frauds: Count
    promoted: ModelVersion | None


class SwitchRecord(msgspec.Struct, frozen=True):
    """Switches the online model on or off. `at` is the operator's clock (epoch milliseconds)."""

    online: bool
    at: Moment


encode_record: Final[Callable[[ScoreRecord | AlertRecord | LabelledRecord | RefitRecord | SwitchRecord], bytes]] = (
    msgspec.json.Encoder().encode  # floats keep every bit
)
decode_score: Final = json_decoder(ScoreRecord, "a record on the scores topic")
decode_labelled: Final = json_decoder(LabelledRecord, "a record on the labelled topic")
decode_refit: Final = json_decoder(RefitRecord, "a re-fit on the models topic")
decode_switch: Final = json_decoder(SwitchRecord, "a switch on the models topic")


def score_record(assessment: Assessment) -> ScoreRecord:
    """Make the score record of an assessment."""
    transaction, decision = assessment.transaction, assessment.decision
    return ScoreRecord(
        transaction_id=transaction.transaction_id,
        timestamp=transaction.timestamp,
        card_id=transaction.card_id,
        merchant_id=transaction.merchant_id,
        amount=transaction.amount,
        currency=transaction.currency,
        outcome=decision.outcome,
        score=decision.score,
        pretrained=_probability(decision.pretrained_logit),
        online=_probability(decision.online_logit),
        pretrained_logit=decision.pretrained_logit,
        online_logit=decision.online_logit,
        online_weight=decision.online_weight,
        model=decision.model,
        snapshot=decision.snapshot,
        is_stale=decision.is_stale,
        is_duplicate=assessment.is_duplicate,
        reasons=_reasons(decision),
        features=assessment.features,
        is_id_reused=decision.is_id_reused,
        utc_offset_min=transaction.utc_offset_min or 0,
    )


def alert_record(assessment: Assessment) -> AlertRecord:
    """Make the alert record of a flagged assessment."""
    decision, explanation = assessment.decision, assessment.contributions
    return AlertRecord(
        transaction=assessment.transaction,
        outcome=decision.outcome,
        score=decision.score,
        pretrained=_probability(decision.pretrained_logit),
        online=_probability(decision.online_logit),
        model=decision.model,
        snapshot=decision.snapshot,
        reasons=_reasons(decision),
        base=None if explanation is None else explanation.base,
        contributions={} if explanation is None else explanation.features,
        rest=None
        if explanation is None
        else rest(explanation.features.values(), (one.contribution for one in decision.reasons)),
    )


def alert_id(transaction: Transaction) -> str:
    """Return the id of a payment's alert: equal for duplicates, so that consumers can drop them.

    Another payment under the same transaction id gets another id.

    >>> payment = Transaction(
    ...     transaction_id="t-1", timestamp=0, card_id="c-1", merchant_id="m-1", amount=25.0, currency="EUR"
    ... )
    >>> alert_id(payment) == alert_id(msgspec.structs.replace(payment, device_id="d-1"))
    True
    >>> alert_id(payment) == alert_id(msgspec.structs.replace(payment, amount=26.0))
    False
    """
    card_id, transaction_id, timestamp, amount, currency, merchant_id = facts(transaction)
    bits = struct.pack(">d", amount).hex()  # the same in every language
    texts = "".join(f"/{len(text.encode())}/{text}" for text in (card_id, transaction_id, merchant_id))
    return str(uuid5(ALERT_NAMESPACE, f"{timestamp}/{bits}/{currency}{texts}"))


def readable_examples(values: Iterable[bytes]) -> Iterator[LabelledRecord]:
    """Decode labelled records, and skip records of another format, because one of them would stop every reader."""
    for value in values:
        with suppress(InvalidRecord):
            yield decode_labelled(value)


def _probability(logit: float | None) -> float | None:
    return None if logit is None else probability(logit)


def _reasons(decision: Decision) -> list[ReasonRecord]:
    return [ReasonRecord(reason.code, reason.text, reason.contribution) for reason in decision.reasons]
