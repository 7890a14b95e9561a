"""Train at a snapshot boundary: labelled examples → online model, model weights, risk rows → snapshot.

Examples are trained in a fixed order: by the time their label became known, then by transaction. The order in which
partitions were read does not matter. So a snapshot is a function of the labels known by its boundary, and a restarted
learner continues with the same bits.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.codec import msgpack_decoder
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.label_join_rows import Example
from fraud_service.domain.model_weighting import LabelledScore, ModelComparison
from fraud_service.domain.online_model import ModelInput
from fraud_service.domain.records import LabelledRecord
from fraud_service.domain.risk import NO_RISK, Risk, card_key, decode_risk, encode_risk, merchant_key, row_digest
from fraud_service.domain.scoring import clip_logit, score_with_fallback
from fraud_service.domain.snapshot import Snapshot
from fraud_service.domain.time import DAY, MAX_GAP_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.domain.label_join import KeyValueStore
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.time import LearningSchedule

SCHEMA: Final = 2
MAX_SILENCE_MS: Final = 31 * DAY  # without labelled examples; after that, boundaries publish no snapshot
ANOMALOUS_ZSCORE: Final = 2.0  # deviations; a fraud above is not a low-amount fraud
ALWAYS_TRAIN_SCORE: Final = 0.01  # legitimate transactions from this score on are always trained
AMOUNT_ZSCORE_COLUMN: Final = NAMES.index("amount_zscore")


class OnlineLearner(Protocol):
    """An online model in training. `models.river_learner` implements it."""

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Learn one example. An example that is not finite leaves the model unchanged."""

    def state(self) -> bytes:
        """Return the state from which training can continue."""

    def export(self) -> OnlineModel:
        """Return the model as scorers use it."""


class LearnerState(msgspec.Struct, array_like=True, frozen=True):
    """The learner's state. It is committed together with the offsets that it results from.

    Boundaries are numbers: epoch milliseconds divided by the interval.
    """

    schema: int = SCHEMA
    closed: int = -1  # last closed boundary; -1 before the first transaction
    start: int = -1  # boundary before the first transaction
    last_trained: int = -1  # last boundary with examples
    examples: int = 0
    label_horizon: int = 0
    comparison: ModelComparison = ModelComparison()  # with the model `pretrained`; a new model resets it
    risk_digest: str = f"{0:064x}"
    model: bytes | None = None
    pretrained: str = ""

    @classmethod
    def starting_at(cls, boundary: int) -> LearnerState:
        """Return the state at the very first transaction, which came after this boundary."""
        return cls(closed=boundary, start=boundary)

    def towards(self, newest: int, interval_ms: int) -> LearnerState:
        """Return the state from which to close boundaries up to `newest`.

        It starts again just before, if nothing was trained and the gap shows that the first transaction had a wrong
        time. Otherwise it is this state.
        """
        is_absurd = self.last_trained < 0 and (newest - self.closed) * interval_ms > MAX_GAP_MS
        return LearnerState.starting_at(newest - 1) if is_absurd else self

    def is_silent(self, interval_ms: int) -> bool:
        """Whether the last examples are so long ago that boundaries publish no snapshot."""
        return (self.closed - max(self.last_trained, self.start)) * interval_ms > MAX_SILENCE_MS


class BoundaryResult(msgspec.Struct, frozen=True):
    """The result of one boundary, whose event time is `as_of` (epoch milliseconds).

    `examples` come with their weights. `risk` holds the changed rows, None for a removed row.
    """

    as_of: int
    progress: LearnerState
    examples: list[tuple[Example, float]]
    risk: dict[str, bytes | None]
    snapshot: Snapshot | None

    def labelled(self) -> Iterator[LabelledRecord]:
        """Make the records for the labelled topic. Lazy, because this can take longer than the training."""
        return (_labelled_record(example, weight, self.as_of) for example, weight in self.examples)


class NegativeSampler(msgspec.Struct, frozen=True):
    """Selects the examples that the online model learns.

    It learns all frauds, all corrections, and legitimate transactions from the score `ALWAYS_TRAIN_SCORE` on. Of the
    other legitimate transactions, four in five of all examples, it learns the share `legitimate`. With 0 it learns only
    frauds and corrections.
    """

    legitimate: float = 1.0

    def weight(self, example: Example) -> float:
        """Return 0 to skip an example, otherwise its weight, which makes up for skipped ones. The same on every run."""
        if example.is_fraud or example.corrects or self.legitimate >= 1.0:
            return 1.0
        if self.legitimate > 0 and example.scored.score >= ALWAYS_TRAIN_SCORE:
            return 1.0
        drawn = blake2b(example.scored.transaction_id.encode(), digest_size=8, person=b"sample")
        chance = int.from_bytes(drawn.digest(), "big") / 2**64
        return 1.0 / self.legitimate if chance < self.legitimate else 0.0


class _Change(msgspec.Struct):
    """A risk row that changes at this boundary: as scorers have it (None: not at all), and as it is now."""

    published: bytes | None
    row: Risk


class OnlineTrainer:
    """Trains the online model and updates risk rows at each boundary. Risk rows are in a store.

    The current pretrained model encodes all features, also those that an earlier model scored. The online model of the
    last boundary scores each example before it learns it (prequential evaluation); that score weighs the models.

    Until the first transactions mature, nearly all labels are frauds. They count for risk, but a model trained on them
    alone would call everything fraud.
    """

    def __init__(
        self, store: KeyValueStore, schedule: LearningSchedule, sampling: NegativeSampler, pretrained: PretrainedModel
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._sampling = sampling
        self.pretrained = pretrained

    def promote(self, model: PretrainedModel) -> None:
        """Use another pretrained model from the next boundary on, whose snapshot is the first to name it."""
        self.pretrained = model

    def close(
        self, boundary: int, progress: LearnerState, examples: Iterable[Example], learner: OnlineLearner
    ) -> BoundaryResult:
        """Close the boundary after the last closed one.

        `progress` is the state after that one. The examples come in the order of `training_order`. `learner` is trained
        in place.
        """
        is_balanced = (boundary - progress.start) * self._schedule.interval_ms > self._schedule.label_maturity_ms
        changed: dict[str, _Change] = {}
        weighted: list[tuple[Example, float]] = []
        horizon = progress.label_horizon
        comparison = progress.comparison if progress.pretrained == self.pretrained.version else ModelComparison()
        for example in examples:
            weighted.append((example, self._sampling.weight(example)))
            self._update_risk(example, changed)
            horizon = max(horizon, example.known_at)
        training = [(example, weight) for example, weight in weighted if weight > 0]
        if is_balanced:
            comparison = comparison.with_scores(
                boundary * self._schedule.interval_ms // DAY, self._train(training, learner)
            )
        rows, digest = self._store_changes(changed, progress.risk_digest)
        has_changes = bool(weighted or rows)
        after = msgspec.structs.replace(
            progress,
            closed=boundary,
            last_trained=boundary if has_changes else progress.last_trained,
            examples=progress.examples + len(weighted),
            label_horizon=horizon,
            comparison=comparison,
            risk_digest=digest,
            model=learner.state() if training else progress.model,
            pretrained=self.pretrained.version,
        )
        return BoundaryResult(
            boundary * self._schedule.interval_ms, after, weighted, rows, self._snapshot(after, len(rows), learner)
        )

    def _train(self, training: list[tuple[Example, float]], learner: OnlineLearner) -> list[LabelledScore]:
        """Train examples, each with its weight; return the scores of both models before the training."""
        scores = []
        rows = score_with_fallback(self.pretrained, [example.scored.features for example, _ in training])
        pretrained = [clip_logit(logit) if math.isfinite(logit) else math.nan for logit in rows.logits]
        online = rows.online(learner.export(), pretrained)
        for number, (example, weight) in enumerate(training):
            if math.isfinite(pretrained[number]):
                score = LabelledScore(pretrained[number], online[number], example.is_fraud, weight)
                scores.append(score)
                if not score.is_uninformative():
                    row = rows[number]
                    encoded = ModelInput(pretrained[number], row.inputs, row.leaves)
                    learner.learn(encoded, is_fraud=example.is_fraud, weight=weight)
        return scores

    def _update_risk(self, example: Example, changed: dict[str, _Change]) -> None:
        """Update the rows of merchant and card; `changed` keeps each as of the last boundary."""
        scored = example.scored
        is_anomalous = scored.values[AMOUNT_ZSCORE_COLUMN] > ANOMALOUS_ZSCORE
        for key in (merchant_key(scored.merchant_id), card_key(scored.card_id)):
            change = changed.get(key)
            if change is None:
                before = self._store.get(key)
                if before is None and not example.is_fraud and key.startswith("card:"):
                    continue  # only a fraud creates a row of a card: most cards never get one
                row = NO_RISK if before is None else decode_risk(before)
                change = changed[key] = _Change(before if row.has_fraud_history() else None, row)
            row = change.row
            if example.corrects:
                row = row.without_label(example.corrected_at, was_fraud=not example.is_fraud)
            change.row = row.with_label(
                example.known_at, scored.timestamp, is_fraud=example.is_fraud, amount_is_anomalous=is_anomalous
            )

    def _store_changes(self, changed: dict[str, _Change], digest: str) -> tuple[dict[str, bytes | None], str]:
        """Store the changed rows; return those that scorers need, and the digest of their table afterwards."""
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
        if progress.is_silent(self._schedule.interval_ms):
            return None
        as_of = progress.closed * self._schedule.interval_ms
        return Snapshot(
            version="",
            as_of=as_of,
            effective_from=as_of + self._schedule.activation_delay_ms,
            interval_ms=self._schedule.interval_ms,
            model=self.pretrained.version,
            online=learner.export(),
            online_weight=progress.comparison.online_weight(),
            examples=progress.examples,
            label_horizon=progress.label_horizon,
            risk_rows=risk_rows,
            risk_digest=progress.risk_digest,
        ).with_digest()


encode_learner_state: Final[Callable[[LearnerState], bytes]] = msgspec.msgpack.Encoder().encode
_decode_learner_state: Final = msgpack_decoder(LearnerState, "the learner's state")


def decode_learner_state(data: bytes | None) -> LearnerState:
    """Decode the state; None gives that of a learner that never ran. Raises `InvalidRecord`."""
    if data is None:
        return LearnerState()
    progress = _decode_learner_state(data)
    if progress.schema != SCHEMA:
        raise InvalidRecord(f"the learner's state has schema {progress.schema}; this version reads {SCHEMA}")
    return progress


def _labelled_record(example: Example, weight: float, boundary_ms: int) -> LabelledRecord:
    fields = msgspec.structs.asdict(example.scored)
    del fields["values"]
    return LabelledRecord(
        **fields,
        features=example.scored.features,
        is_fraud=example.is_fraud,
        source=example.source,
        known_at=example.known_at,
        corrects=example.corrects,
        weight=weight,
        boundary_ms=boundary_ms,
    )
