"""Every error the service raises on purpose.

::

    FraudServiceError
    ├── InvalidEvent         a message that cannot be read: it becomes a dead letter, and the stream goes on
    ├── InvalidRecord        a record of the service (state, snapshot, score) that cannot be trusted
    │   └── RefusedRecord    the same, because its signature is missing, wrong or replayed
    ├── ConfigurationError   a setting that cannot work: the start fails and names setting, value and fix
    ├── ModelError           a model artifact that is missing, altered or made for other features
    ├── PreflightError       topics, offsets or state that would cause wrong results
    ├── ArchiveError         a topic that cannot be read back: verify, replay or explain stops
    ├── ClusterUnavailable   brokers do not answer: uncommitted work is dropped, and repeated later
    │   └── PartitionsLost   the group reassigned our partitions: the same, unless another process has our instance id
    └── FatalStreamError     the process must restart: going on could lose or duplicate work
"""

from __future__ import annotations


class FraudServiceError(Exception):
    """Base of all errors below. The message says what was wrong, where, and what to do."""


class InvalidEvent(FraudServiceError):  # noqa: N818 - it describes the event, not a failure of the service
    """A message that cannot be read as the event it should be.

    Parameters
    ----------
    reason
        One of the closed set in `fraud_service.domain.events.Reason`: safe as a metric label.
    detail
        What was wrong. It never contains the offending value, which may be card data.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidRecord(FraudServiceError):  # noqa: N818 - as above
    """A record that the service itself wrote cannot be read, or does not match its digest."""

    reason = "invalid"  # of `fraud_service.security.signatures.RejectReason`


class RefusedRecord(InvalidRecord):
    """A record whose signature is missing, wrong or replayed.

    Parameters
    ----------
    reason
        One of the closed set in `fraud_service.security.signatures.RejectReason`: safe as a metric label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ConfigurationError(FraudServiceError):
    """A setting that cannot work. The message names the setting, its value and the fix."""


class ModelError(FraudServiceError):
    """A model artifact that is missing, altered, or made for other features or another version."""


class PreflightError(FraudServiceError):
    """Topics, offsets or state that would cause wrong results. The message names the repair command."""


class ArchiveError(FraudServiceError):
    """A topic that cannot be read back. The message names the topic and the answer of the cluster."""


class ClusterUnavailable(FraudServiceError):  # noqa: N818 - as above
    """The cluster does not answer, or reassigned the partitions. The stored state is right, so a retry is safe."""


class PartitionsLost(ClusterUnavailable):
    """The group reassigned the partitions while the process was working on them."""


class FatalStreamError(FraudServiceError):
    """Processing must stop now, because a guarantee that correctness needs is gone."""
