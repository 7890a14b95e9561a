"""Every error that the service raises on purpose, and the reasons of dead letters."""

from __future__ import annotations

from enum import StrEnum


class FraudServiceError(Exception):
    """Base of all errors below. The message says what was wrong, where, and what to do."""


class DeadLetterReason(StrEnum):
    """Why a message became a dead letter. A closed set, because it is a metric label."""

    EMPTY = "empty"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    INVALID_TIMESTAMP = "invalid_timestamp"
    INVALID_AMOUNT = "invalid_amount"
    FUTURE_TIMESTAMP = "future_timestamp"
    MISSING_KEY = "missing_key"
    KEY_MISMATCH = "key_mismatch"
    WRONG_PARTITION = "wrong_partition"
    INVALID_RECORD = "invalid_record"
    CARD_NUMBER = "card_number"
    SENSITIVE_DATA = "sensitive_data"
    LABEL_FLOOD = "label_flood"
    LABEL_TOO_OLD = "label_too_old"


class InvalidEvent(FraudServiceError):  # noqa: N818 - it describes the event, not a failure of the service
    """A message that cannot be read as the event it should be. It becomes a dead letter, and the stream goes on.

    `reason` is a `DeadLetterReason`, safe as a metric label. `detail` never contains the offending value, which may be
    card data.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidRecord(FraudServiceError):  # noqa: N818 - as above
    """A record of the service (state, snapshot, score) that cannot be read, or does not match its digest."""

    reason = "invalid"  # of `fraud_service.security.signatures.RejectReason`


class RejectedRecord(InvalidRecord):
    """A record whose signature is missing, wrong or replayed. `reason` is a `RejectReason`, safe as a metric label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ConfigurationError(FraudServiceError):
    """A setting that cannot work. The message names the setting, its value and the fix."""


class InvalidFile(FraudServiceError):  # noqa: N818 - as above
    """A file most of whose rows cannot become transactions."""


class ModelError(FraudServiceError):
    """A model artifact that is missing, altered, or made for other features or another version."""


class PreflightError(FraudServiceError):
    """Topics, offsets or state that would cause wrong results. The message names the repair command."""


class TopicReadError(FraudServiceError):
    """A topic that cannot be read back. The message names the topic and the answer of the cluster."""


class ClusterUnavailable(FraudServiceError):  # noqa: N818 - as above
    """The brokers do not answer. Uncommitted work is dropped and repeated later, so a retry is safe."""


class PartitionsLost(ClusterUnavailable):
    """The group reassigned the partitions during the work. A retry is safe, unless the instance id is used twice."""


class FatalStreamError(FraudServiceError):
    """The process must restart: going on could lose or duplicate work."""
