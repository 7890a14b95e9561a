"""Every error the service raises on purpose.

::

    FraudServiceError
    ├── InvalidEvent         a message that cannot be read: it becomes a dead letter, the stream goes on
    ├── InvalidRecord        a record of our own (state, snapshot, score) that cannot be trusted
    │   └── RefusedRecord    one that is not signed as it must be, or was seen before
    ├── ConfigurationError   a setting that cannot work: the start stops, naming setting, value and fix
    ├── ModelError           an artifact that is missing, altered or made for other features
    ├── PreflightError       topics, offsets or state that would make the result wrong
    ├── ArchiveError         a topic that cannot be read back: verification, replay or explanation stops
    ├── ClusterUnavailable   brokers went away: what was not committed is dropped, and done again later
    │   └── PartitionsLost   the group gave our partitions away: the same, unless another process runs under our name
    └── FatalStreamError     the process must end and start again: going on could lose or double work
"""

from __future__ import annotations


class FraudServiceError(Exception):
    """Base of all errors below. The message says what was wrong, where, and what to do."""


class InvalidEvent(FraudServiceError):  # noqa: N818 - it is a verdict on the event, not a failure of the service
    """A message that cannot be read as the event it should be.

    Parameters
    ----------
    reason
        One of the closed set in `fraud_service.domain.events.Reason`: safe as a metric label.
    detail
        What was wrong, for a person. Never contains the offending value: it may be card data.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidRecord(FraudServiceError):  # noqa: N818 - as above
    """A record that the service itself wrote cannot be read, or does not match its digest."""

    reason = "invalid"  # of `fraud_service.security.signatures.RejectReason`


class RefusedRecord(InvalidRecord):
    """A record that is not signed as it must be, or was sent a second time.

    Parameters
    ----------
    reason
        One of the closed set in `fraud_service.security.signatures.RejectReason`: safe as a metric label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ConfigurationError(FraudServiceError):
    """A setting that cannot work. Names the setting, its value and the fix."""


class ModelError(FraudServiceError):
    """A model artifact that is missing, altered, or made for other features or another version."""


class PreflightError(FraudServiceError):
    """Topics, offsets or state on which starting would give wrong results. Names the repair command."""


class ArchiveError(FraudServiceError):
    """What lies on a topic cannot be read back. Says which topic, and what the cluster answered."""


class ClusterUnavailable(FraudServiceError):  # noqa: N818 - as above: nothing of ours has failed
    """The cluster does not answer, or has given the partitions away. Nothing stored is wrong: to try again is safe."""


class PartitionsLost(ClusterUnavailable):
    """The group gave our partitions away while we were working on them."""


class FatalStreamError(FraudServiceError):
    """Processing must stop now: the broker or the group took away what correctness rests on."""
