"""What goes out: the records on our own topics, as JSON. Their published schemas are generated from these classes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid5

import msgspec

from fraud_service.domain.codec import Count, ModelVersion, Moment, decode
from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource, Transaction, facts
from fraud_service.domain.features import Features
from fraud_service.domain.scoring import probability

if TYPE_CHECKING:
    from fraud_service.domain.decision import Decision
    from fraud_service.domain.detector import Assessment

# Names of alerts derive from it; a change would make every alert of the past look new.
ALERT_NAMESPACE = UUID("6f1c1f0e-5b1e-5d6c-9d59-0a4c8a1f3b77")

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ReasonRecord(msgspec.Struct, frozen=True):
    """One reason for an alert; `contribution` is in logits."""

    code: str
    text: str
    contribution: float


class ScoreRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision: the audit log, and what the learner learns from.

    The logits are exact, the probabilities are there for readers. `features` is null when
    `is_duplicate` is true: then the record carries the first decision again. `is_id_reused` is only there when it is
    true.
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

    def transaction(self) -> Transaction:
        """Return the transaction as far as the score records it, without its optional fields."""
        return Transaction(
            transaction_id=self.transaction_id,
            timestamp=self.timestamp,
            card_id=self.card_id,
            merchant_id=self.merchant_id,
            amount=self.amount,
            currency=self.currency,
        )


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A flagged transaction, for case management. `base` plus all `contributions` is the logit of `score`."""

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


class LabelledRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One labelled example: the features that were scored, and what became known.

    `known_at` is when it became known (epoch milliseconds), `source` who said so, null when maturity passed without a
    fraud label. `weight` is that of the online model's lesson, 0 where it was left out of the sample. `snapshot` names
    the boundary (epoch milliseconds) whose snapshot was the first to know. `corrects` says that the opposite was taught
    before. `currency` is missing where an older version had scored.
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
    """What a re-fit found, whether it promoted its challenger or not.

    `at` is the event time of the re-fit (epoch milliseconds). `champion` and `challenger` are average precisions on the
    last labelled days, null where there was too little to judge; the challenger must win by `margin`. `span_days` is
    what the better challenger was fitted on, `promoted` its version.
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
    """Whether the online model takes part in scores, and since when by the operator's clock (epoch milliseconds)."""

    online: bool
    at: Moment


_encoder = msgspec.json.Encoder()
_switch_decoder = msgspec.json.Decoder(SwitchRecord)
_score_decoder = msgspec.json.Decoder(ScoreRecord)
_labelled_decoder = msgspec.json.Decoder(LabelledRecord)
_refit_decoder = msgspec.json.Decoder(RefitRecord)


def score_record(verdict: Assessment) -> ScoreRecord:
    """Write down a verdict."""
    transaction, decision = verdict.transaction, verdict.decision
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
        is_duplicate=verdict.is_duplicate,
        reasons=_reasons(decision),
        features=verdict.features,
        is_id_reused=verdict.is_id_reused,
    )


def alert_record(verdict: Assessment) -> AlertRecord:
    """Write down a flagged verdict for the people who look at it."""
    decision, explanation = verdict.decision, verdict.contributions
    return AlertRecord(
        transaction=verdict.transaction,
        outcome=decision.outcome,
        score=decision.score,
        pretrained=_probability(decision.pretrained_logit),
        online=_probability(decision.online_logit),
        model=decision.model,
        snapshot=decision.snapshot,
        reasons=_reasons(decision),
        base=None if explanation is None else explanation.base,
        contributions={} if explanation is None else explanation.features,
    )


def alert_id(transaction: Transaction) -> str:
    """Name an alert: the same payment always gets the same name, so that consumers can drop what they have.

    Another payment under the same transaction id gets another name: its alert is not dropped.
    """
    card_id, transaction_id, timestamp, amount, currency, merchant_id = facts(transaction)
    bits = struct.pack(">d", amount).hex()  # written the same in every language
    texts = "".join(f"/{len(text.encode())}/{text}" for text in (card_id, transaction_id, merchant_id))
    return str(uuid5(ALERT_NAMESPACE, f"{timestamp}/{bits}/{currency}{texts}"))


def encode_record(record: ScoreRecord | AlertRecord | LabelledRecord | RefitRecord | SwitchRecord) -> bytes:
    """Write a record as JSON; floats keep every bit."""
    return _encoder.encode(record)


def decode_score(data: bytes | None) -> ScoreRecord:
    """Read a score record back. Raises `InvalidRecord` when it is none."""
    return decode(_score_decoder, data or b"", "a record on the scores topic")


def decode_labelled(data: bytes) -> LabelledRecord:
    """Read a labelled example back. Raises `InvalidRecord` when it is none."""
    return decode(_labelled_decoder, data, "a record on the labelled topic")


def decode_refit(data: bytes) -> RefitRecord:
    """Read back what a re-fit found. Raises `InvalidRecord` when it is none."""
    return decode(_refit_decoder, data, "a re-fit on the models topic")


def decode_switch(data: bytes) -> SwitchRecord:
    """Read back how the online model was switched. Raises `InvalidRecord` when it is none."""
    return decode(_switch_decoder, data, "a switch on the models topic")


def _probability(logit: float | None) -> float | None:
    return None if logit is None else probability(logit)


def _reasons(decision: Decision) -> list[ReasonRecord]:
    return [ReasonRecord(reason.code, reason.text, reason.contribution) for reason in decision.reasons]
