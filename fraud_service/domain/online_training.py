"""The learner's fold: labelled examples → online model, component weights, risk → the next snapshot.

At a boundary, the examples that became known since the last one are taught in an order of their own (when they became
known, then by transaction), whatever the order in which partitions were read. So a snapshot is a function of the labels
known by its boundary, and a learner that starts again continues to the same bit.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.codec import decode
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.label_join_rows import Example
from fraud_service.domain.model_weighting import LabelledScore, ModelComparison
from fraud_service.domain.online_model import ModelInput
from fraud_service.domain.records import LabelledRecord
from fraud_service.domain.risk import (
    NO_RISK,
    Risk,
    card_key,
    decode_risk,
    encode_risk,
    merchant_key,
    row_digest,
)
from fraud_service.domain.scoring import clip_logit, score_with_fallback
from fraud_service.domain.snapshot import Snapshot
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.domain.label_join import KeyValueStore
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.time import LearningSchedule

SCHEMA: Final = 2
MAX_SILENCE_MS: Final = 31 * DAY  # after so long without a labelled example, boundaries publish nothing
ANOMALOUS_ZSCORE: Final = 2.0  # deviations from which an amount explains a fraud
ALWAYS_TRAIN_SCORE: Final = 0.01  # score from which a transaction is worth a lesson even though it was legitimate
AMOUNT_ZSCORE: Final = NAMES.index("amount_zscore")


class OnlineLearner(Protocol):
    """An online model that learns; an adapter of river."""

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Learn one example. Leaves the model as it was when the example is not finite."""

    def state(self) -> bytes:
        """Return everything the model needs to go on, as data."""

    def export(self) -> OnlineModel:
        """Return the model as scorers use it."""


class LearnerState(msgspec.Struct, array_like=True, frozen=True):
    """Where the learner stands. All of it is committed together with the offsets it stems from.

    `closed` is the number of the last boundary that was closed (-1 before the first transaction), `began` where that
    count began, `taught_at` the last boundary at which something was taught. `pretrained` is the model beside which the
    components were weighed: beside another one, the contest begins anew.
    """

    schema: int = SCHEMA
    closed: int = -1
    began: int = -1
    taught_at: int = -1
    examples: int = 0
    label_horizon: int = 0
    contest: ModelComparison = ModelComparison()
    risk_digest: str = f"{0:064x}"
    model: bytes | None = None
    pretrained: str = ""

    @classmethod
    def beginning(cls, boundary: int) -> LearnerState:
        """Return where a learner stands at the first transaction ever, which came after this boundary."""
        return cls(closed=boundary, began=boundary)


class BoundaryResult(msgspec.Struct, frozen=True):
    """What one boundary brought: examples with their weights, changed risk rows (None: removed), the snapshot, if any.

    `as_of` is the event time of the boundary, epoch milliseconds.
    """

    as_of: int
    progress: LearnerState
    examples: list[tuple[Example, float]]
    risk: dict[str, bytes | None]
    snapshot: Snapshot | None

    def labelled(self) -> Iterator[LabelledRecord]:
        """Write the examples down; only where they go out, for it takes longer than many a lesson."""
        return (labelled_record(example, weight, self.as_of) for example, weight in self.examples)


class NegativeSampler(msgspec.Struct, frozen=True):
    """Which examples the online model learns: frauds, corrections and what was doubted, and a share of all others.

    `legitimate` is the share of the legitimate examples that is taught among those whose score lay below
    `ALWAYS_TRAIN_SCORE`.
    They are four in five, and hardly teach anything. With 0, frauds and corrections are all.
    """

    legitimate: float = 1.0

    def weight(self, example: Example) -> float:
        """Return 0 for an example left out, otherwise what makes up for those left out. The same on every run."""
        if example.is_fraud or example.corrects or self.legitimate >= 1.0:
            return 1.0
        if self.legitimate > 0 and example.scored.score >= ALWAYS_TRAIN_SCORE:
            return 1.0
        drawn = blake2b(example.scored.transaction_id.encode(), digest_size=8, person=b"sample")
        chance = int.from_bytes(drawn.digest(), "big") / 2**64
        return 1.0 / self.legitimate if chance < self.legitimate else 0.0


class _Change(msgspec.Struct):
    """A row that changes with this boundary: as scorers know it (None: not at all), and as it is now."""

    published: bytes | None
    row: Risk


class OnlineTrainer:
    """Teach what became known by a boundary. The rows of merchants and cards lie in a store, the rest in `Progress`.

    The features that were scored are encoded by the present pretrained model, even where another one had scored them.
    Before an example is learned, the online model of the last boundary is asked for its score: that weighs the
    components.
    Until the first transactions have matured, labels are nearly all frauds: they count for risk, but a model taught
    with them alone would learn that everything is fraud.
    """

    def __init__(
        self, store: KeyValueStore, calendar: LearningSchedule, sampling: NegativeSampler, pretrained: PretrainedModel
    ) -> None:
        self._store = store
        self._calendar = calendar
        self._sampling = sampling
        self._pretrained = pretrained

    @property
    def pretrained(self) -> PretrainedModel:
        """The pretrained model beside which is taught."""
        return self._pretrained

    def promote(self, model: PretrainedModel) -> None:
        """Teach beside another pretrained model from the next boundary on; that snapshot is the first to name it."""
        self._pretrained = model

    def close(
        self, boundary: int, progress: LearnerState, examples: Iterable[Example], learner: OnlineLearner
    ) -> BoundaryResult:
        """Close one boundary.

        Parameters
        ----------
        boundary
            Number of the boundary: one after the last that was closed.
        examples
            What became known since then, in the order in which it is taught.
        learner
            The online model as it stood at the last boundary; it learns in place.
        """
        is_balanced = (boundary - progress.began) * self._calendar.interval > self._calendar.maturity
        changed: dict[str, _Change] = {}
        weighed: list[tuple[Example, float]] = []
        horizon = progress.label_horizon
        contest = progress.contest if progress.pretrained == self._pretrained.version else ModelComparison()
        for example in examples:
            weighed.append((example, self._sampling.weight(example)))
            self._update_risk(example, changed)
            horizon = max(horizon, example.known_at)
        lessons = [(example, weight) for example, weight in weighed if weight > 0]
        if is_balanced:
            contest = contest.after(boundary * self._calendar.interval // DAY, self._train(lessons, learner))
        rows, digest = self._published(changed, progress.risk_digest)
        taught = bool(weighed or rows)
        after = msgspec.structs.replace(
            progress,
            closed=boundary,
            taught_at=boundary if taught else progress.taught_at,
            examples=progress.examples + len(weighed),
            label_horizon=horizon,
            contest=contest,
            risk_digest=digest,
            model=learner.state() if lessons else progress.model,
            pretrained=self._pretrained.version,
        )
        return BoundaryResult(
            boundary * self._calendar.interval, after, weighed, rows, self._snapshot(after, len(rows), learner)
        )

    def _train(self, lessons: list[tuple[Example, float]], learner: OnlineLearner) -> list[LabelledScore]:
        """Teach examples, each with its weight; returns what the components had said of them before."""
        judged = []
        rows = score_with_fallback(self._pretrained, [example.scored.features for example, _ in lessons])
        pretrained = [clip_logit(logit) if math.isfinite(logit) else math.nan for logit in rows.logits]
        online = rows.online(learner.export(), pretrained)
        for number, (example, weight) in enumerate(lessons):
            if math.isfinite(pretrained[number]):
                said = LabelledScore(pretrained[number], online[number], example.is_fraud, weight)
                judged.append(said)
                if not said.is_uninformative():
                    row = rows[number]
                    encoded = ModelInput(pretrained[number], row.inputs, row.leaves)
                    learner.learn(encoded, is_fraud=example.is_fraud, weight=weight)
        return judged

    def _update_risk(self, example: Example, changed: dict[str, _Change]) -> None:
        """Update the rows of merchant and card; `changed` remembers what each was at the last boundary."""
        scored = example.scored
        explained = scored.values[AMOUNT_ZSCORE] > ANOMALOUS_ZSCORE
        for key in (merchant_key(scored.merchant_id), card_key(scored.card_id)):
            change = changed.get(key)
            if change is None:
                before = self._store.get(key)
                if before is None and not example.is_fraud and key.startswith("card:"):
                    continue  # of a card only confirmed frauds matter: most cards never get a row
                row = NO_RISK if before is None else decode_risk(before)
                change = changed[key] = _Change(before if row.has_fraud_history() else None, row)
            row = change.row
            if example.corrects:
                row = row.without_label(example.corrected_at, was_fraud=not example.is_fraud)
            change.row = row.with_label(
                example.known_at, scored.timestamp, is_fraud=example.is_fraud, explained=explained
            )

    def _published(self, changed: dict[str, _Change], digest: str) -> tuple[dict[str, bytes | None], str]:
        """Keep the changed rows; returns what scorers must hear of, and the digest of the table they then have."""
        rows: dict[str, bytes | None] = {}
        total = int(digest, 16)
        for key in sorted(changed):
            before, row = changed[key].published, changed[key].row
            data = encode_risk(row)
            self._store.put(key, data)
            after = data if row.has_fraud_history() else None
            if before != after:
                rows[key] = after
                total += row_digest(key, after) - row_digest(key, before)
        return rows, f"{total % (1 << 256):064x}"

    def _snapshot(self, progress: LearnerState, risk_rows: int, learner: OnlineLearner) -> Snapshot | None:
        quiet = (progress.closed - max(progress.taught_at, progress.began)) * self._calendar.interval
        if quiet > MAX_SILENCE_MS:
            return None
        as_of = progress.closed * self._calendar.interval
        return Snapshot(
            version="",
            as_of=as_of,
            effective_from=as_of + self._calendar.activation_delay,
            interval=self._calendar.interval,
            model=self._pretrained.version,
            online=learner.export(),
            online_weight=progress.contest.online_weight(),
            examples=progress.examples,
            label_horizon=progress.label_horizon,
            risk_rows=risk_rows,
            risk_digest=progress.risk_digest,
        ).with_digest()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LearnerState)


def encode_learner_state(progress: LearnerState) -> bytes:
    """Write where the learner stands, as msgpack."""
    return _encoder.encode(progress)


def decode_learner_state(data: bytes | None) -> LearnerState:
    """Read it back; a learner that never ran stands at the beginning.

    Raises
    ------
    InvalidRecord
        When the bytes are of another schema version or no such record.
    """
    if data is None:
        return LearnerState()
    progress = decode(_decoder, data, "the learner's state")
    if progress.schema != SCHEMA:
        raise InvalidRecord(f"the learner's state has schema {progress.schema}; this version reads {SCHEMA}")
    return progress


def labelled_record(example: Example, weight: float, boundary: int) -> LabelledRecord:
    """Write down a labelled example together with the boundary at which it was taught."""
    scored = example.scored
    return LabelledRecord(
        transaction_id=scored.transaction_id,
        card_id=scored.card_id,
        merchant_id=scored.merchant_id,
        timestamp=scored.timestamp,
        amount=scored.amount,
        currency=scored.currency,
        is_fraud=example.is_fraud,
        source=example.source,
        known_at=example.known_at,
        corrects=example.corrects,
        weight=weight,
        boundary_ms=boundary,
        pretrained_logit=scored.pretrained_logit,
        online_logit=scored.online_logit,
        score=scored.score,
        outcome=scored.outcome,
        model=scored.model,
        features=scored.features,
    )
