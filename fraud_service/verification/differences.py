"""What is wrong with a logged decision: kinds of differences, and how one is told."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.records import decode_score

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.domain.features import Features
    from fraud_service.domain.records import ScoreRecord

NUMBERS: Final = ("score", "pretrained_logit", "online_logit", "online_weight", "pretrained", "online")


class Kind(StrEnum):
    """What a replay found out about one record. A closed set, from the cause to its effects."""

    UNREADABLE = "unreadable"  # the transaction's score cannot be read, or a transaction without a dead letter
    SCORE_UNREADABLE = "score_unreadable"  # and it is that of no transaction
    SCORE_MISSING = "score_missing"
    INPUT_MISSING = "input_missing"  # a score whose transaction is not in the log
    SNAPSHOT_UNKNOWN = "snapshot_unknown"
    MODEL_UNKNOWN = "model_unknown"
    REPETITION = "repetition"
    FEATURES = "features"
    SCORE = "score"
    OUTCOME = "outcome"
    REASONS = "reasons"
    FACTS = "facts"  # the transaction's own fields, or whether the snapshot was stale
    ENCODING = "encoding"  # equal values in other bytes


class Finding(msgspec.Struct, frozen=True):
    """One difference. `offset` is that of the transaction, or of the score where the transaction is not there."""

    kind: Kind
    partition: int
    offset: int
    transaction_id: str | None
    card_id: str | None
    timestamp: int | None
    detail: str


def difference(expected: ScoreRecord, logged: bytes) -> tuple[Kind, str]:
    """Name the first cause for which a logged record is not the expected one, byte for byte."""
    try:
        found = decode_score(logged)
    except InvalidRecord as error:
        return Kind.UNREADABLE, str(error)
    if found.is_duplicate != expected.is_duplicate:
        return Kind.REPETITION, _told(found, expected, ["is_duplicate"])
    if found.features is not None and expected.features is not None and found.features != expected.features:
        return Kind.FEATURES, _features(found.features, expected.features)
    changed = [name for name in found.__struct_fields__ if getattr(found, name) != getattr(expected, name)]
    for kind, names in (
        (Kind.SCORE, NUMBERS),
        (Kind.OUTCOME, ("outcome",)),
        (Kind.REASONS, ("reasons",)),
        (Kind.FACTS, changed),
    ):
        of_kind = [name for name in names if name in changed]
        if of_kind:
            return kind, _told(found, expected, of_kind)
    return Kind.ENCODING, "equal values, written otherwise"


def _features(found: Features, expected: Features) -> str:
    return _told(found, expected, [name for name in NAMES if getattr(found, name) != getattr(expected, name)])


def _told(found: Any, expected: Any, names: Iterable[str]) -> str:
    return "; ".join(
        f"{name}: logged {_shown(getattr(found, name))}, computed {_shown(getattr(expected, name))}" for name in names
    )


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
