"""What labels have taught, as of an event-time boundary; how it is written, checked, and chosen for a transaction."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final

import msgspec

from fraud_service.domain.codec import Count, ModelVersion, Moment, decode
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.risk import RiskTable

UNTRAINED: Final = "untaught"
SWITCHED_OFF: Final = "+online-off"  # ends the version of a snapshot that is used without its online model
VERSION: Final = re.compile(r"\d{8,9}T\d{4}-[0-9a-f]{8}", re.ASCII)  # as `Snapshot.sealed` makes it
MAX_BYTES: Final = 1 << 20  # bytes of a snapshot: one of all leaves there can be has 50 KB


class Snapshot(msgspec.Struct, frozen=True):
    """Everything labels had taught as of `as_of`, for transactions from `effective_from` on (epoch milliseconds).

    `examples` counts the labelled examples so far; those before the first maturity count for risk only. `label_horizon`
    is when the newest of their labels became known. `risk_rows` is the number of risk rows that changed with this
    snapshot, `risk_digest` that of the whole table. `digest` covers all of it, so that two equal versions are equal in
    every bit. `model` is the pretrained model beside which the online model was taught.
    """

    version: str
    as_of: Moment
    effective_from: Moment
    interval: Count
    model: ModelVersion
    online: OnlineModel
    online_weight: Annotated[float, msgspec.Meta(ge=0, le=1)]
    examples: Count
    label_horizon: Moment
    risk_rows: Count
    risk_digest: str
    digest: str = ""

    def with_digest(self) -> Snapshot:
        """Return the snapshot with its digest, and a version that contains the beginning of it."""
        digest = self._content_digest()
        moment = datetime.fromtimestamp(self.as_of / 1000, UTC)
        return msgspec.structs.replace(self, digest=digest, version=f"{moment:%Y%m%dT%H%M}-{digest[:8]}")

    def verify_digest(self) -> None:
        """Raise `InvalidRecord` unless the digest fits the content."""
        try:
            sealed = self.with_digest()
        except (OverflowError, ValueError, OSError) as error:  # as platforms and years have it
            raise InvalidRecord(f"the boundary of a snapshot is no time: {error}") from error
        if self != sealed:
            raise InvalidRecord(f"snapshot {self.version} does not match its digest: it was altered or cut off")
        self.online.require_consistent()

    def _content_digest(self) -> str:
        content = msgspec.structs.replace(self, version="", digest="")
        return sha256(msgspec.json.encode(content)).hexdigest()

    def is_stale_at(self, timestamp: int) -> bool:
        """Whether a newer snapshot should be in force at this event time."""
        return not self.is_untrained and timestamp >= self.effective_from + self.interval

    @property
    def is_untrained(self) -> bool:
        """Whether it is what is in force before any label."""
        return self.version.startswith(UNTRAINED)

    def without_online_model(self) -> Snapshot:
        """Return the snapshot without a say of its online model, under a version that tells so.

        So a score says by the snapshot it names whether the online model was switched off, and can be computed again.
        """
        return msgspec.structs.replace(self, version=self.version + SWITCHED_OFF, online_weight=0.0)


def untrained(model: str, online: OnlineModel) -> Snapshot:
    """Return the snapshot in force before any label: the online score equals the pretrained one."""
    return Snapshot(UNTRAINED, 0, 0, 0, model, online, 0.5, 0, 0, 0, RiskTable().digest())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Write a snapshot as JSON; floats keep every bit."""
    return _encoder.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a snapshot back and check its digest.

    Raises
    ------
    InvalidRecord
        When it cannot be read, is too large, or was altered.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRecord(f"a snapshot has {len(data)} bytes, allowed are {MAX_BYTES}")
    snapshot = decode(_decoder, data, "a snapshot record")
    snapshot.verify_digest()
    return snapshot
